"""Gathers what `doctor` checks: addresses, installed packages, the server, its models, and one use of a model each.

`__init__.py` calls it; the verdicts are in `checks.py`. Nothing is loaded, unless that was requested.
"""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Any, TypeAlias, TypeVar

from packaging.requirements import Requirement
from pydantic import BaseModel

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations._support.installation import NAME, install_command
from lmstudio_integrations._support.secrets import holds_credentials
from lmstudio_integrations.cli._common import progress_bar
from lmstudio_integrations.cli._doctor.checks import LOAD, TRIALS, UNTRAINED, Attempt, Extra, TokenUse, Trial
from lmstudio_integrations.cli._formatting import instance_name
from lmstudio_integrations.cli._model_choice import choose_for_trial
from lmstudio_integrations.cli._tokens import token_variable
from lmstudio_integrations.client.api.sync import LLM, Client, EmbeddingModel, EmbeddingNamespace, LlmNamespace
from lmstudio_integrations.client.transport.connect.addresses import (
    DISCOVERY_PORTS,
    PLACEHOLDER_TOKEN,
    Address,
    Target,
    hosts_of,
    local_candidates,
)
from lmstudio_integrations.client.transport.connect.find import explain, search
from lmstudio_integrations.client.transport.connect.suggestions import unencrypted
from lmstudio_integrations.client.transport.flows import run
from lmstudio_integrations.client.transport.mailboxes import ThreadMailbox
from lmstudio_integrations.errors import (
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioTimeoutError,
    LMStudioToolCallError,
    LMStudioValueError,
)
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.models import LlmInfo, ModelInfo, ModelInstanceInfo
from lmstudio_integrations.types.reasoning import ReasoningReplay
from lmstudio_integrations.types.tools import Tool, ToolFunction

Models: TypeAlias = LlmNamespace | EmbeddingNamespace
HandleT = TypeVar("HandleT", LLM, EmbeddingModel)

TTL = 60
"""Idle seconds after which a model that a trial loaded is unloaded, if the trial could not do it itself."""

MAIN_PACKAGES = {
    "langchain": "langchain-core",
    "llama-index": "llama-index-core",
    "emulator": "xllamacpp",
    "cli": "typer",
    "mcp": "mcp",
    "otel": "opentelemetry-api",
    "ray": "ray",
}
"""The package for which people install an extra. The others come with it, and may be there for another reason."""

TEXT = "The ferry to the island takes twenty minutes."
QUESTION = "What is the weather in Oslo?"
MAX_TOKENS = 4000
"""Includes reasoning."""

WEATHER = Tool(
    function=ToolFunction(
        name="get_weather",
        description="Return the weather in a city.",
        parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    )
)


class City(BaseModel):
    """The structured output that is requested."""

    city: str


# The addresses -------------------------------------------------------------------------------------------------------


def find_servers(host: str | None) -> dict[str | None, list[Attempt]]:
    """Try each given address, else those of the environment, else those of a local LM Studio.

    Returns:
        The attempts, by the host that a client takes: one for each of several, all for one.
    """
    names = _several(host)
    if not names:
        return {host: _find_server(host)}
    return {name: [_probe(name, "--host" if host else HOST_VARIABLE)] for name in names}


def _several(host: str | None) -> list[str]:
    """Return the hosts if there are several; the attempt at an invalid list has its error."""
    with suppress(LMStudioValueError):
        names = [name for name in hosts_of(host) if name]
        return names if len(names) > 1 else []
    return []


def _find_server(host: str | None) -> list[Attempt]:
    variable = os.environ.get(HOST_VARIABLE) or None
    if host is None and variable is None:
        return _search()
    if host is None:
        return [_probe(variable or "", HOST_VARIABLE)]
    attempts = [_probe(host, "--host")]
    if variable is not None:
        attempts.append(
            Attempt(_hide_credentials(variable), HOST_VARIABLE, "not tried, as --host takes precedence", tried=False)
        )
    return attempts


def _probe(text: str, source: str) -> Attempt:
    try:
        hosts_of(text)  # raises an error if one of several is no address, or is named twice
        address = Address.parse(text)
    except LMStudioValueError as error:
        return Attempt(_hide_credentials(text), source, str(error))
    return Attempt(str(address), source, run(explain(address, ThreadMailbox)))


def _hide_credentials(text: str) -> str:
    return "an address with credentials" if holds_credentials(text) else text


def _search() -> list[Attempt]:
    candidates = local_candidates()
    _, failures = run(search(candidates, ThreadMailbox))
    reasons = {address: reason for address, _, reason in (text.partition(": ") for text in failures)}
    return [Attempt(str(address), _source(address), reasons.get(str(address))) for address in candidates]


def _source(address: Address) -> str:
    return "discovery port" if address.port in DISCOVERY_PORTS else "default port"


# This side -----------------------------------------------------------------------------------------------------------


def find_extras() -> list[Extra]:
    """Return the extras of this package with their installed packages; none if the package itself is not installed."""
    try:
        installed = distribution(NAME)
    except PackageNotFoundError:
        return []
    extras: list[Extra] = []
    declared = [Requirement(each) for each in installed.requires or ()]
    for name in installed.metadata.get_all("Provides-Extra") or ():
        needed = [each for each in declared if each.marker and each.marker.evaluate({"extra": name})]
        requirements = {each.name: each.specifier for each in needed}
        if name in MAIN_PACKAGES:
            versions = {package: installed_version(package) for package in requirements}
            outdated = {
                package: str(needed)
                for package, needed in requirements.items()
                if (found := versions[package]) and not needed.contains(found, prereleases=True)
            }
            extras.append(Extra(name, MAIN_PACKAGES[name], versions, outdated, install_command(name)))
    return extras


def installed_version(package: str) -> str | None:
    """Return the version of an installed package; `None` if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def find_token(host: str | None, token: str | None) -> TokenUse:
    """Return where the API token comes from, and whether it crosses the network in plain text."""
    if token == PLACEHOLDER_TOKEN:
        token = None
    source = "--token" if token else token_variable()
    with suppress(LMStudioValueError):  # the attempt at the invalid address has reported it
        return TokenUse(source, unencrypted(Target.of(host, token)))
    return TokenUse(source)


# The chat templates --------------------------------------------------------------------------------------------------


def find_replays(client: Client, loaded: Iterable[ModelInstanceInfo]) -> dict[str, ReasoningReplay]:
    """Return what the chat templates of the loaded language models do with earlier thoughts, by the models' names.

    Raises:
        LMStudioError: If the server does not say.
    """
    replays: dict[str, ReasoningReplay] = {}
    for model in _of_kind(loaded, "llm"):
        with suppress(LMStudioModelNotFoundError):  # it was unloaded meanwhile
            handle = client.llm.model(model.identifier, load_policy="require_loaded")
            replays[instance_name(model)] = handle.get_reasoning_replay()
    return replays


# Trials --------------------------------------------------------------------------------------------------------------


def attempt_trials(
    client: Client, loaded: Iterable[ModelInstanceInfo], downloaded: Iterable[ModelInfo], *, load: bool
) -> Iterator[Trial]:
    """Embed a text, call a tool and request structured output, as far as there is a model for it.

    Args:
        client: The client.
        loaded: The loaded models.
        downloaded: The models on the server's disk.
        load: Whether a model may be loaded for it. It is loaded explicitly, which evicts no other, and unloaded again.
    """
    loaded, available = list(loaded), list(downloaded) if load else []
    embedder, llm = (
        choose_for_trial(_of_kind(loaded, kind), _of_kind(available, kind)) for kind in ("embedding", "llm")
    )
    first, *others = TRIALS
    trials = [*_trials(client.embedding, embedder, {first: _embed}, load=load)]
    yield from trials
    uses: dict[str, Callable[[Any], str]] = dict(zip(others, (_call_tool, _structure), strict=True))
    if any(isinstance(each.failure, LMStudioTimeoutError | LMStudioConnectionLostError) for each in trials):
        yield from (Trial(name, missing="the server has stopped responding") for name in uses)
        return
    yield from _trials(client.llm, llm, uses, load=load)


InfoT = TypeVar("InfoT", bound=ModelInfo)


def _of_kind(models: Iterable[InfoT], kind: str) -> list[InfoT]:
    return [model for model in models if model.type == kind]


def _trials(
    models: Models, model: ModelInfo | None, uses: dict[str, Callable[[Any], str]], *, load: bool
) -> Iterator[Trial]:
    """Use a model in several ways; after a failure that concerns them all, the others are not tried."""
    if model is None:
        kind = "language" if models.kind == "llm" else "embedding"
        missing = f"no {kind} model is downloaded" if load else f"no {kind} model is loaded; {LOAD}"
        yield from (Trial(name, missing=missing) for name in uses)
        return
    trained = not isinstance(model, LlmInfo) or model.trained_for_tool_use
    names = iter(uses)
    try:
        with _load(models, model) as handle:
            for name in names:
                trial = _attempt(name, model, uses[name], handle, trained=trained)
                yield trial
                if isinstance(trial.failure, LMStudioTimeoutError | LMStudioConnectionLostError):
                    break
    except LMStudioError as error:
        yield Trial(next(names), model.model_key, trained, failure=error)
    yield from (Trial(name, missing=f"{model.model_key} failed before") for name in names)


def _attempt(name: str, model: ModelInfo, use: Callable[[Any], str], handle: object, *, trained: bool) -> Trial:
    started = time.perf_counter()
    try:
        outcome = use(handle)
    except LMStudioError as error:
        return Trial(name, model.model_key, trained, seconds=time.perf_counter() - started, failure=error)
    return Trial(name, model.model_key, trained, outcome=outcome, seconds=time.perf_counter() - started)


@contextmanager
def _load(models: Models, model: ModelInfo) -> Generator[LLM | EmbeddingModel]:
    """Provide a handle to a loaded model; another one is loaded meanwhile.

    Not with the policy `explicit`, which loads just in time if the memory is short, and so may evict a model.
    """
    if isinstance(model, ModelInstanceInfo):
        yield models.model(model.identifier, load_policy="require_loaded")
        return
    with progress_bar(f"Loading {model.model_key}") as show:
        handle = models.load_new_instance(model.model_key, ttl=TTL, on_load_progress=show)
    try:
        yield handle
    finally:
        handle.unload_if_loaded_here()


def _embed(model: EmbeddingModel) -> str:
    return f"a vector of {len(model.embed(TEXT))} numbers"


def _call_tool(model: LLM) -> str:
    config = LlmPredictionConfig(
        temperature=0,
        max_tokens=MAX_TOKENS,
        raw_tools={"type": "toolArray", "tools": [WEATHER.to_dict()]},
        tool_choice={"type": "generic", "mode": "required"},
    )
    result = model.respond(QUESTION, config=config, check_response=False)
    names = {call.name: call for call in result.tool_call_requests}
    if WEATHER.function.name not in names:
        reason = result.stats.stop_reason
        raise LMStudioToolCallError(
            f"a tool call was required, and the model made none (stop reason {reason}); {UNTRAINED}"
        )
    return f"a call of {WEATHER.function.name}({names[WEATHER.function.name].arguments or ''})"


def _structure(model: LLM) -> str:
    config = LlmPredictionConfig(temperature=0, max_tokens=MAX_TOKENS)
    city = model.respond("Name a city.", response_format=City, config=config).parsed_as(City)
    return f"valid output ({city.model_dump_json()})"
