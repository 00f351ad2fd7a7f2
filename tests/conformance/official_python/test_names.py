"""What the official SDK offers, ours offers under the same name: to move over is to change an import."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import lmstudio as official
import pytest

import lmstudio_integrations as ours
from lmstudio_integrations.client.api import asynchronous, sync
from lmstudio_integrations.client.downloads import asynchronous as async_downloads
from lmstudio_integrations.client.downloads import sync as downloads

pytestmark = pytest.mark.broad

NOT_OURS = {
    "AnyLMStudioStruct": "the base of the SDK's own structs",
    "ModelLoadResult": "the struct of a packet, which no public call returns",
    "SerializedLMSExtendedError": "the struct of an error; its members are attributes of LMStudioServerError",
    "ValidationError": "the exception of the SDK's decoder; ours raises LMStudioValueError or LMStudioProtocolError",
    **dict.fromkeys(("async_api", "history", "json_api", "schemas", "sdk_api", "sync_api"), "a module"),
}
"""Public names that ours does without, and why."""

MEMBERS_NOT_OURS = {
    "get_info": "the handles of each kind have their own",
    "get_load_config": "the handles of each kind have their own",
    "start": "a stream begins with the first read",
    "from_details": "a constructor from the SDK's own structs",
    "from_result": "a constructor from the SDK's own structs; of() takes the place of it",
    "server_error": "the struct of an error; its members are attributes of the exception",
    "API_NAMESPACE": "part of the SDK's sessions",
    "client": "part of the SDK's sessions",
    "connect": "ours connects with the first call",
    "connected": "ours connects with the first call",
    "disconnect": "ours lets go of a connection with the last client",
    "close": "part of the SDK's sessions",
    "aclose": "part of the SDK's sessions",
    "remote_call": "part of the SDK's sessions",
    "from_dict": "events come once per token, and are plain classes",
    "to_dict": "events come once per token, and are plain classes",
}
"""Members that ours does without where the SDK has them, and why; looked at only where ours lacks them."""

SESSIONS = {
    "_{}SessionLlm": "{}LlmNamespace",
    "_{}SessionEmbedding": "{}EmbeddingNamespace",
    "_{}SessionSystem": "{}SystemNamespace",
    "_{}SessionFiles": "{}FilesNamespace",
    "_{}SessionRepository": "{}RepositoryNamespace",
    "{}AvailableModel": "{}AvailableModel",
    "{}ModelDownloadOption": "{}DownloadOption",
}
"""Classes that users reach without importing them, and what ours are called."""


def public(holder: Any) -> list[str]:
    return [name for name in dir(holder) if not name.startswith("_")]


def our_class(name: str) -> Any:
    """Return our class of a name, from the module that defines it."""
    modules = (sync, asynchronous, downloads, async_downloads)
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def pairs() -> Iterator[tuple[str, Any, Any]]:
    """Yield each class of the SDK with ours."""
    for name in public(official):
        if inspect.isclass(getattr(official, name)) and inspect.isclass(getattr(ours, name, None)):
            yield name, getattr(official, name), getattr(ours, name)
    for theirs, mine in SESSIONS.items():
        is_session = theirs.startswith("_")
        yield (
            mine.format(""),
            getattr(official.sync_api, theirs.format("Sync" if is_session else "")),
            our_class(mine.format("")),
        )
        yield (
            mine.format("Async"),
            getattr(official.async_api, theirs.format("Async")),
            our_class(mine.format("Async")),
        )


PAIRS = {name: (theirs, mine) for name, theirs, mine in pairs()}


def members(kind: type) -> set[str]:
    """Return what an object of a class has, as far as the class declares."""
    annotated = {name for each in kind.__mro__ for name in vars(each).get("__annotations__", {})}
    return {name for name in {*dir(kind), *annotated} if not name.startswith("_")}


def test_every_public_name_is_here() -> None:
    missing = {name for name in public(official) if not hasattr(ours, name)}
    assert missing == set(NOT_OURS)


@pytest.mark.parametrize("name", PAIRS)
def test_every_public_member_is_here(name: str) -> None:
    theirs, mine = PAIRS[name]
    expected = {member for member in members(theirs) if not hasattr(BaseException, member)}
    assert expected - members(mine) <= set(MEMBERS_NOT_OURS)


def named_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in {"self", "cls", "f"}
        and not name.startswith("_")
        and parameter.kind
        not in {
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        }
    }


def accepted(function: Callable[..., Any]) -> set[str]:
    """Return the names of arguments that one of our functions takes; typed dicts of options are spread out."""
    names = set(named_parameters(function))
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            names |= set(parameter.annotation.__args__[0].__annotations__)
    return names


def callables() -> Iterator[tuple[str, Callable[..., Any], Callable[..., Any]]]:
    """Yield each function and method of the SDK with ours."""
    for name in public(official):
        theirs: Any = getattr(official, name)
        mine: Any = getattr(ours, name, None)
        if inspect.isfunction(theirs):
            yield name, theirs, mine
    for name, (theirs, mine) in PAIRS.items():
        for member in public(theirs):
            function = getattr(theirs, member)
            if (inspect.isfunction(function) or inspect.ismethod(function)) and hasattr(mine, member):
                yield f"{name}.{member}", function, getattr(mine, member)


CALLABLES = {name: (theirs, mine) for name, theirs, mine in callables()}


@pytest.mark.parametrize("name", CALLABLES)
def test_every_argument_is_taken_by_its_name(name: str) -> None:
    theirs, mine = CALLABLES[name]
    assert set(named_parameters(theirs)) <= accepted(mine)


@pytest.mark.parametrize("name", CALLABLES)
def test_arguments_without_names_keep_their_order(name: str) -> None:
    theirs, mine = CALLABLES[name]
    by_place = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    expected = [each for each, parameter in named_parameters(theirs).items() if parameter.kind in by_place]
    found = [each for each, parameter in named_parameters(mine).items() if parameter.kind in by_place]
    assert found[: len(expected)] == expected


@pytest.mark.parametrize("name", [name for name in public(official) if name.startswith("LMStudio")])
def test_errors_keep_their_places(name: str) -> None:
    theirs = {base.__name__ for base in getattr(official, name).__mro__}
    assert theirs <= {base.__name__ for base in getattr(ours, name).__mro__}


def test_the_settings_are_the_same_and_more() -> None:
    for name in ("LlmLoadModelConfig", "EmbeddingLoadModelConfig", "LlmPredictionConfig"):
        theirs = set(getattr(official, name).__struct_fields__)
        assert theirs - set(getattr(ours, name).model_fields) <= {"raw_tools"}
