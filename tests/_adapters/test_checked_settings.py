"""A setting is checked and converted in one way, whether a constructor, an assignment, a copy or a call gives it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioToolkit
from lmstudio_integrations.llama_index import LMStudio, LMStudioToolSpec
from tests._adapters.test_numbers import assigned
from tests.support.adapters import ADAPTERS, LANGUAGE_MODELS, Adapter
from tests.support.leaks import error_of

NOWHERE = "127.0.0.1:9"
OWNERS = {
    **{name: (each.make, {"model": "m", "host": NOWHERE}) for name, each in ADAPTERS.items()},
    **{make.__name__: (make, {"plugin": "mcp/sums", "host": NOWHERE}) for make in (LMStudioToolkit, LMStudioToolSpec)},
}
VALUES: list[Any] = ["no", "maybe", 3, 2.5, True, [], {"a": 5}, 10**400, float("inf"), None]
HIDDEN = {"api_token", "headers", "plugin_config"}
"""Settings whose values may be secrets."""

Way = Callable[[Any, str, Any], Any]
WAYS: dict[str, Way] = {
    "assignment": lambda model, name, value: getattr(assigned(model, {name: value}), name),
    "copy": lambda model, name, value: getattr(model.model_copy(update={name: value}), name),
}
CALLS: dict[str, Callable[[Any, Any, dict[str, Any]], Any]] = {
    "call": lambda adapter, model, given: adapter.call(model, "Hello", **given),
    "async call": lambda adapter, model, given: asyncio.run(adapter.acall(model, "Hello", **given)),
    "stream": lambda adapter, model, given: list(streams(adapter, model)(*adapter.arguments("Hello"), **given)),
}
BOUND = {"bind": lambda adapter, model, given: model.bind(**given).invoke("Hello")}


def streams(adapter: Adapter, model: Any) -> Any:
    return model.stream if adapter.framework == "LangChain" else model.stream_complete


def settings_of(make: Any) -> list[str]:
    """Return the fields of a class that are not the framework's. `model_name` is another name of `model`."""
    return [name for name in make.model_fields if name not in {*make._framework_descriptions, "model_name"}]


def constructed(name: str, setting: str, value: object) -> Any:
    """Return the value that the constructor holds; its error if it rejects the value."""
    make, others = OWNERS[name]
    try:
        return getattr(make(**{**others, setting: value}), setting)
    except LMStudioValueError as error:
        return error


def check_error(error: Exception, setting: str, value: object) -> None:
    assert isinstance(error, LMStudioValueError)
    assert setting in str(error)
    if setting not in HIDDEN and isinstance(value, str | bool):
        assert repr(value) in str(error)


shown = pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:9])


@pytest.mark.sampled(8)
@shown
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OWNERS)
def test_a_field_that_is_changed_holds_what_the_constructor_holds(name: str, way: str, value: Any) -> None:
    make, others = OWNERS[name]
    for setting in settings_of(make):
        expected, changed = constructed(name, setting, value), partial(WAYS[way], make(**others), setting, value)
        if isinstance(expected, Exception):
            check_error(error_of(changed), setting, value)
        else:
            assert repr(changed()) == repr(expected)


@pytest.mark.sampled(8)
@shown
@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name, each in LANGUAGE_MODELS.items()
        for way in (CALLS | (BOUND if each.framework == "LangChain" else {})).items()
    ],
    ids=lambda each: each if isinstance(each, str) else each[0],
)
def test_a_call_rejects_what_the_constructor_rejects(name: str, way: tuple[str, Any], value: Any) -> None:
    """Nothing listens at the host, so what is not rejected at once fails with another error."""
    (make, others), (_, call) = OWNERS[name], way
    model = make(**others)
    for setting in model._call_names().keys() & settings_of(make):
        if setting not in HIDDEN and isinstance(constructed(name, setting, value), Exception):
            check_error(error_of(partial(call, LANGUAGE_MODELS[name], model, {setting: value})), setting, value)


def nested() -> Any:
    value: Any = "x"
    for _ in range(100_000):
        value = [value]
    return value


DEEP: dict[str, Any] = {
    "prediction_config": {"raw": {"llm.prediction.x": nested()}},
    "load_config": {"raw": {"x": nested()}},
    "stop": nested(),
}
Given = dict[str, Any]


def called(call: Callable[[Any, Any, Given], Any], adapter: Adapter, others: Given, given: Given) -> object:
    return call(adapter, adapter.make(**others), given)


ALL_WAYS: dict[str, Callable[[Adapter, Given, Given], object]] = {
    "constructor": lambda adapter, others, given: adapter.make(**{**others, **given}),
    "assignment": lambda adapter, others, given: assigned(adapter.make(**others), given),
    "copy": lambda adapter, others, given: adapter.make(**others).model_copy(update=given),
    **{name: partial(called, call) for name, call in CALLS.items()},
}


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_value_that_is_nested_too_deeply_is_rejected_by_name(name: str, way: str) -> None:
    for setting, value in DEEP.items():
        with pytest.raises(LMStudioValueError, match=f"{setting} is nested more than 200 levels"):
            ALL_WAYS[way](LANGUAGE_MODELS[name], OWNERS[name][1], {setting: value})


SWITCHES = [("ChatLMStudio", "stream", ("call", "async call"))] + [
    (name, setting, tuple(CALLS))
    for name in ("ChatLMStudio", "LMStudio")
    for setting in ("include_confidence", "parallel_tool_calls")
]


@pytest.mark.parametrize(("name", "setting", "ways"), SWITCHES)
def test_a_switch_of_calls_alone_is_a_boolean(name: str, setting: str, ways: tuple[str, ...]) -> None:
    make, others = OWNERS[name]
    for way in ways:
        call = partial(CALLS[way], LANGUAGE_MODELS[name], make(**others), {setting: "maybe"})
        check_error(error_of(call), setting, "maybe")


@pytest.mark.parametrize("kind", ["json_object", "objekt"])
@pytest.mark.parametrize("name", ["ChatLMStudio", "LMStudio"])
def test_a_schema_of_a_type_that_does_not_exist_is_rejected_with_what_to_write(name: str, kind: str) -> None:
    """LangChain's `create_agent` sends any dict as a JSON schema."""
    make, others = OWNERS[name]
    given = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": kind}}}}
    error = error_of(partial(CALLS["call"], LANGUAGE_MODELS[name], make(**others), given))
    assert f"type '{kind}'" in str(error)
    assert "{'type': 'object'}" in str(error)


def test_other_switches_of_methods_are_booleans() -> None:
    tool: Any = {"name": "add", "parameters": {"type": "object"}}
    langchain, llama_index = ChatLMStudio(model="m"), LMStudio(model="m")
    methods: dict[str, Callable[[Any], object]] = {
        "include_raw": lambda value: langchain.with_structured_output(tool, include_raw=value),
        "keep_warm": lambda value: langchain.load(keep_warm=value),
        "tool_required": lambda value: llama_index.chat_with_tools([], tool_required=value),
        "allow_parallel_tool_calls": lambda value: llama_index.chat_with_tools(
            [], "Hi", allow_parallel_tool_calls=value
        ),
    }
    for setting, method in methods.items():
        check_error(error_of(partial(method, "no")), setting, "no")
