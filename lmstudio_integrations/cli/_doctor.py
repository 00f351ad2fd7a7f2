"""`doctor`: checks the way to a server and its models, and prints what to fix. It loads and runs nothing."""

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, Literal, NamedTuple, TypeAlias

import typer

from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES, __version__
from lmstudio_integrations._support.installation import NAME
from lmstudio_integrations._support.secrets import holds_credentials
from lmstudio_integrations._support.suggestions import no_server
from lmstudio_integrations._support.text import beginning, counted, one_line
from lmstudio_integrations.cli._common import (
    AsJson,
    Host,
    TextConsole,
    Token,
    downloaded_models,
    loaded_models,
    print_json,
    results,
)
from lmstudio_integrations.cli._formatting import for_commands, model_size, split_remedy
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.concurrency.mailboxes import ThreadMailbox
from lmstudio_integrations.client.transport.connect.addresses import DEFAULT_PORT, Target, source_of, unencrypted
from lmstudio_integrations.client.transport.connect.discovery import NOT_FOUND, Attempt, chosen, examine, search
from lmstudio_integrations.client.transport.connect.probe import ServerStatus
from lmstudio_integrations.errors import LMStudioAuthenticationError, LMStudioError, LMStudioServerError
from lmstudio_integrations.types.embedding_prefixes import prefixes_of_family
from lmstudio_integrations.types.models import (
    EMULATOR_SUFFIX,
    LlmInfo,
    ModelInfo,
    ModelInstanceInfo,
    ServerVersion,
)

Verdict: TypeAlias = Literal["problem", "warning", "ok", "skipped"]

_STYLES: dict[Verdict, str] = {"problem": "bold red", "warning": "yellow", "ok": "green", "skipped": "dim"}
_WIDTH = max(map(len, _STYLES))

_TIMEOUT = 4.0
"""Seconds for each answer of the server: a report takes 10 seconds at most."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a check has found.

    Attributes:
        verdict: `problem` if something cannot work, `warning` if it may surprise.
        found: What was found, in one line.
        fix: What to do about it.
        details: Further lines.
        data: What was found, for programs.
    """

    verdict: Verdict
    found: str
    fix: str | None = None
    details: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Subject(NamedTuple):
    """What is checked: a client, and the server and token that it has."""

    client: Client
    target: Target


def doctor(host: Host = None, token: Token = None, as_json: AsJson = False) -> None:  # noqa: FBT002 - a flag
    """Check the connection to LM Studio, and its models.

    Nothing is loaded, run or unloaded.
    """
    console, report = results(), dict[str, Check]()
    with Client(host, token, connect_timeout=_TIMEOUT, idle_timeout=_TIMEOUT) as client:
        for name, check in make_checks(Subject(client, Target.of(host, token))):
            report[name] = check
            if not as_json:
                show(console, name, check)
    counts = Counter(check.verdict for check in report.values())
    if as_json:
        print_json(
            {
                "ok": not counts["problem"],
                "summary": {verdict: counts[verdict] for verdict in _STYLES},
                "checks": [
                    {
                        "name": name,
                        "verdict": check.verdict,
                        "found": check.found,
                        "fix": check.fix,
                        "details": check.details,
                        **check.data,
                    }
                    for name, check in report.items()
                ],
            }
        )
    else:
        console.line()
        console.write_line(summary(report))
    raise typer.Exit(int(bool(counts["problem"])))


def make_checks(subject: Subject) -> Iterator[tuple[str, Check]]:
    """Yield each check with its name, as soon as it was made. After a problem, the others would report it again."""
    problem: str | None = None
    for name, make_check in CHECKS.items():
        if problem is not None:
            yield name, Check("skipped", f"fix {problem!r} first")
            continue
        try:
            check = make_check(subject)
        except LMStudioError as error:
            check = Check("problem", *explain(error))
        yield name, check
        if check.verdict == "problem":
            problem = name


def explain(error: LMStudioError) -> tuple[str, str | None]:
    """Return what an error says has happened, and its remedy."""
    text = str(error)
    if isinstance(error, LMStudioServerError) and error.suggestion:
        return one_line(text.partition("\n  suggestion: ")[0]), one_line(for_commands(error.suggestion))
    return split_remedy(text)


# The way to the server ------------------------------------------------------------------------------------------------


def check_package(_subject: Subject) -> Check:
    """Name the versions on this side."""
    try:
        distribution(NAME)
        version = __version__
    except PackageNotFoundError:
        version = f"{__version__} (not installed)"
    python, system = platform.python_version(), f"{platform.system()} {platform.machine()}".strip()
    data = {"version": version, "python": python, "system": system}
    return Check("ok", f"{NAME} {version}, Python {python}, {system}", data=data)


def check_server(subject: Subject) -> Check:
    """Check whether a server is there, and name its application and version; a rejected token is not its problem."""
    attempts = _find(subject.target)
    tried, used = [each for each in attempts if each.tried], chosen(attempts)
    # What happened at the only address is in `found`.
    details = tuple(
        f"{each.address} ({each.source}): {split_remedy(each.problem or 'a server responds')[0]}"
        for each in attempts
        if not each.tried or len(tried) > 1
    )
    data: dict[str, Any] = {
        "addresses": [{"address": each.address, "source": each.source, "error": each.problem} for each in attempts],
        "application": None if used is None or used.status is None else used.status._asdict(),
    }
    if used is None and len(tried) > 1:
        return Check(
            "problem", NOT_FOUND, for_commands("; ".join(no_server(DEFAULT_PORT).split("\n  "))), details, data
        )
    if used is None:
        problem, fix = split_remedy(tried[0].problem or "")
        return Check("problem", f"{tried[0].address} ({tried[0].source}): {problem}", fix, details, data)
    version: ServerVersion | None = None
    try:
        version = subject.client.system.get_version()
        data |= {"version": version.version, "build": version.build}
    except LMStudioAuthenticationError:  # `check_token` reports it
        pass
    except LMStudioError as error:
        return Check("problem", *explain(error), details, data)
    found = f"{used.address} ({used.source}): {_application(used.status, version)}"
    return Check("ok", found, None, details, data)


def _find(target: Target) -> Sequence[Attempt]:
    """Try the address of `--host` or of the environment, else those of this machine."""
    if target.address is None:
        return run(search(ThreadMailbox))[1]
    from_environment = bool(source_of(target.address))
    attempt = run(examine(target.address, HOST_VARIABLE if from_environment else "--host", ThreadMailbox))
    other = os.environ.get(HOST_VARIABLE)
    if from_environment or not other:
        return [attempt]
    shown = "an address with credentials" if holds_credentials(other) else other
    return [attempt, Attempt(shown, HOST_VARIABLE, "not tried, as --host takes precedence", tried=False)]


def _application(status: ServerStatus | None, version: ServerVersion | None) -> str:
    """Return which application a server is, from its status, if it has one, and from what it says to a client."""
    if version is None:
        return "a server" if status is None else f"{status.application} {status.version}"
    number = version.version.removesuffix(EMULATOR_SUFFIX)
    if version.is_emulator:
        return f"emulator {number}" + (f", which plays {status.application}" if status else "")
    if status is not None and status.version != number:  # llmster has a version of its own
        return f"{status.application} {status.version}, which serves as version {number}, build {version.build}"
    return f"{status.application if status else 'LM Studio'} {number}, build {version.build}"


def check_token(subject: Subject) -> Check:
    """Check whether the server accepts the token, or its absence."""
    given = subject.target.token
    source = given and next((name for name in TOKEN_VARIABLES if os.environ.get(name) == given), "--token")
    token, data = f"the API token of {source}" if source else "no API token", {"source": source}
    try:
        subject.client.system.get_version()
    except LMStudioAuthenticationError as error:
        text, fix = explain(error)
        return Check("problem", f"{text} ({token})", fix, data=data)
    if exposed := unencrypted(subject.target):
        return Check("warning", *split_remedy(exposed), data=data)
    text = f"the server accepts {token}" if source else "none is set, and the server requires none"
    return Check("ok", text, data=data)


# Models ---------------------------------------------------------------------------------------------------------------

_USES = {"llm": "chat", "embedding": "embeddings", "decision": "decisions"}
"""What a model is for, by its kind."""

_NOUNS = {"llm": "language model", "embedding": "embedding model", "decision": "decision model"}


def check_models(subject: Subject) -> Check:
    """Check what is on the server's disk, and whether that can chat and embed."""
    models = downloaded_models(subject.client)
    counts = Counter(model.type for model in models)
    needed = ("llm", "embedding")
    *others, last = [counted(counts[kind], noun) for kind, noun in _NOUNS.items() if counts[kind] or kind in needed]
    text = f"{', '.join(others)} and {last} downloaded"
    details = tuple(map(_describe_model, models))
    data = {"models": list(map(_model_data, models))}
    missing = [f"a model for {_USES[kind]}" for kind in needed if not counts[kind]]
    if not missing:
        return Check("ok", text, None, details, data)
    fix = f"download {' and '.join(missing)} with `lms get`"
    return Check("warning" if models else "problem", text, fix, details, data)


def check_loaded(subject: Subject) -> Check:
    """Check what is loaded, with which context window, and until when."""
    instances = loaded_models(subject.client)
    if not instances:
        return Check("ok", "no model is loaded; a call that names one loads it", data={"instances": []})
    data = {"instances": list(map(_instance_data, instances))}
    return Check(
        "ok", f"{counted(len(instances), 'model')} loaded", None, tuple(map(_describe_loaded, instances)), data
    )


def _abilities(model: ModelInfo) -> str:
    abilities = [_USES[model.type]]
    if isinstance(model, LlmInfo):
        abilities += ["tool use"] * model.trained_for_tool_use + ["vision"] * model.vision
    return ", ".join(abilities)


def _describe_model(model: ModelInfo) -> str:
    size = f"{model_size(model.size_bytes)}, " if model.size_bytes else ""
    text = f"{model.model_key}: {_abilities(model)}; {size}context window up to {model.max_context_length:,} tokens"
    if model.type != "embedding":
        return text
    prefixes = prefixes_of_family(model.model_key)
    named = {"queries": prefixes.query, "documents": prefixes.document}
    shown = " and ".join(f"{beginning(prefix)} before {texts}" for texts, prefix in named.items() if prefix)
    return f"{text}; {shown}" if shown else text


def _describe_loaded(instance: ModelInstanceInfo) -> str:
    name = instance.identifier
    if name != instance.model_key:
        name = f"{name} ({instance.model_key})"
    tokens = f"context window {instance.context_length:,} of {instance.max_context_length:,} tokens"
    stay = "stays loaded"
    if instance.ttl_ms is not None:
        stay = f"unloaded after {duration(instance.ttl_ms / 1000)} without use"
    return f"{name}: {_abilities(instance)}; {tokens}; {stay}"


def duration(seconds: float) -> str:
    """Return a time in its two largest units, for example `1h 5m`."""
    whole, parts = max(0, round(seconds)), list[str]()
    for unit, factor in (("h", 3600), ("m", 60), ("s", 1)):
        number, whole = divmod(whole, factor)
        if number:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"


def _model_data(model: ModelInfo) -> dict[str, Any]:
    data: dict[str, Any] = {
        "key": model.model_key,
        "kind": model.type,
        "size_bytes": model.size_bytes,
        "max_context_length": model.max_context_length,
    }
    if isinstance(model, LlmInfo):
        data |= {"tool_use": model.trained_for_tool_use, "vision": model.vision}
    if model.type == "embedding":
        query, document = prefixes_of_family(model.model_key)
        data |= {"query_prefix": query, "document_prefix": document}
    return data


def _instance_data(instance: ModelInstanceInfo) -> dict[str, Any]:
    return {
        "identifier": instance.identifier,
        **_model_data(instance),
        "context_length": instance.context_length,
        "ttl_seconds": None if instance.ttl_ms is None else instance.ttl_ms / 1000,
    }


CHECKS: Mapping[str, Callable[[Subject], Check]] = {
    "package": check_package,
    "server": check_server,
    "token": check_token,
    "models": check_models,
    "loaded": check_loaded,
}
"""In the order in which one needs the other."""


# The report -----------------------------------------------------------------------------------------------------------


def show(console: TextConsole, name: str, check: Check) -> None:
    verdict, indent = f"{check.verdict:<{_WIDTH}}", " " * (_WIDTH + 2)
    console.write(verdict, _STYLES[check.verdict])
    console.write_wrapped(f"{verdict}  {name}: {check.found}", _WIDTH + 4, written=len(verdict))
    for detail in check.details:
        console.write_wrapped(f"{indent}- {detail}", _WIDTH + 4, style="dim")
    if check.fix:
        console.write_wrapped(f"{indent}to fix: {check.fix}", _WIDTH + 4)


def summary(report: Mapping[str, Check]) -> str:
    """Return the last line of the report: how many checks have each verdict, and which have problems and warnings."""
    names = {verdict: [name for name, check in report.items() if check.verdict == verdict] for verdict in _STYLES}
    problems, warnings = (_counted(names[verdict], verdict) for verdict in ("problem", "warning"))
    return f"{problems}, {warnings}; {len(names['ok'])} ok, {len(names['skipped'])} skipped."


def _counted(names: Sequence[str], noun: str) -> str:
    return counted(len(names), noun) + (f" ({', '.join(names)})" if names else "")
