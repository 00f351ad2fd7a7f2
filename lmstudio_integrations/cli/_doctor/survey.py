"""Gathers what `doctor` checks: addresses, installed packages, the server, its models, and one use of a model each.

`__init__.py` calls it; the verdicts are in `checks.py`. Nothing is loaded, unless that was requested.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import TypeVar

from packaging.requirements import Requirement

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations._support.installation import NAME, install_command
from lmstudio_integrations._support.secrets import TOKEN_PREFIX, holds_credentials
from lmstudio_integrations.cli._common import progress_bar, token_variable
from lmstudio_integrations.cli._doctor.checks import (
    TRIALS,
    Check,
    Extra,
    TokenUse,
    failed_check,
    is_reranker,
    trial_check,
    untried_check,
)
from lmstudio_integrations.cli._formatting import instance_name
from lmstudio_integrations.cli._ls import choose_for_trial
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.client.transport.connect.addresses import Address, Target, hosts_of
from lmstudio_integrations.client.transport.connect.discovery import Attempt, examine, search
from lmstudio_integrations.client.transport.connect.suggestions import unencrypted
from lmstudio_integrations.client.transport.flows import run
from lmstudio_integrations.client.transport.mailboxes import ThreadMailbox
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioValueError,
)
from lmstudio_integrations.types.cards import CardRow, RowName
from lmstudio_integrations.types.models import LlmInfo, ModelInfo, ModelInstanceInfo
from lmstudio_integrations.types.reasoning import ReasoningReplay

MAIN_PACKAGES = {
    "langchain": "langchain-core",
    "llama-index": "llama-index-core",
    "emulator": "xllamacpp",
    "cli": "typer",
    "otel": "opentelemetry-api",
    "ray": "ray",
}
"""The package for which people install an extra. The others come with it, and may be there for another reason."""


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
    return run(examine(address, source, ThreadMailbox))


def _hide_credentials(text: str) -> str:
    return "an address with credentials" if holds_credentials(text) else text


def _search() -> list[Attempt]:
    _, attempts = run(search(ThreadMailbox))
    return list(attempts)


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
    if token is not None and TOKEN_PREFIX not in token:
        token = None
    source = "--token" if token else token_variable()
    with suppress(LMStudioValueError):  # the attempt at the invalid address has reported it
        target = Target.of(host, token)
        return TokenUse(source if target.token else None, unencrypted(target))
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
    client: Client, loaded: Iterable[ModelInstanceInfo], downloaded: Iterable[ModelInfo]
) -> Iterator[Check]:
    """Measure quick rows of the card of an embedding model and of a language model, as far as there are such.

    A model of a kind of which none is loaded is loaded for it. It evicts no other, and is unloaded again. Models of
    linked devices and of clouds are not tried.

    Args:
        client: The client.
        loaded: The loaded models.
        downloaded: The models on the server's disk.
    """
    loaded = [each for each in loaded if each.device_identifier is None and not is_reranker(each)]
    downloaded = [each for each in downloaded if each.device_identifier is None and not is_reranker(each)]
    for kind, names in TRIALS.items():
        model = choose_for_trial(_of_kind(loaded, kind), _of_kind(downloaded, kind))
        if model is not None:
            yield from _measure(client, model, names)
            continue
        noun = "language" if kind == "llm" else "embedding"
        yield from (untried_check(name, f"no {noun} model is downloaded") for name in names)


InfoT = TypeVar("InfoT", bound=ModelInfo)


def _of_kind(models: Iterable[InfoT], kind: str) -> list[InfoT]:
    return [model for model in models if model.type == kind]


def _measure(client: Client, model: ModelInfo, names: Sequence[RowName]) -> Iterator[Check]:
    """Measure rows of a model; after an error that concerns them all, the others are not tried."""
    trained = not isinstance(model, LlmInfo) or model.trained_for_tool_use
    name = model.identifier if isinstance(model, ModelInstanceInfo) else model.model_key
    rows: list[CardRow] = []
    failure: LMStudioError | None = None
    try:
        with progress_bar(f"Trying {model.model_key}") as show:
            client.certify(
                name,
                rows=names,
                quick=True,
                on_row=lambda card: rows.append(card.rows[-1]),
                on_progress=lambda _row, share: show(share),
            )
    except LMStudioValueError as error:  # all instances of the model are in use
        yield from (untried_check(each, str(error)) for each in names)
        return
    except LMStudioError as error:
        failure = error
        del rows[-1:]  # it was interrupted
    yield from (trial_check(row, model.model_key, trained=trained) for row in rows)
    if failure is not None:
        failed, *others = names[len(rows) :]
        yield failed_check(failed, model.model_key, failure)
        yield from (untried_check(each, f"{model.model_key} failed before") for each in others)
