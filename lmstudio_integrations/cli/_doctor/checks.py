"""The verdicts of `doctor`: pure functions from what was gathered to checks.

`survey.py` gathers, `__init__.py` prints. What to fix is taken from the errors of the client, which name it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from lmstudio_integrations._support.text import beginning, counted, one_line
from lmstudio_integrations.cli._formatting import duration, for_commands, instance_name, model_size, split_remedy
from lmstudio_integrations.client.predictions.decisions.reranking import family_of
from lmstudio_integrations.client.transport.connect.discovery import NOT_FOUND, Attempt, chosen
from lmstudio_integrations.client.transport.connect.probe import ServerStatus
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioServerError,
    LMStudioUnreachableError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.types.cards import CardRow, Observation, RowName
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.embedding_prefixes import NO_PREFIXES, prefixes_of_family
from lmstudio_integrations.types.hosts import SAME_FILE, HostStatus, describe_values, differences_of
from lmstudio_integrations.types.models import (
    EMULATOR_SUFFIX,
    LlmInfo,
    ModelInfo,
    ModelInstanceInfo,
    ServerVersion,
)
from lmstudio_integrations.types.reasoning import ReasoningReplay, Treatment

Verdict: TypeAlias = Literal["ok", "warning", "problem", "skipped"]

TRIALS: Mapping[ModelKind, Sequence[RowName]] = {"embedding": ("embedding",), "llm": ("tools", "structure")}
"""The rows of the card that are measured, by the kind of the model."""

OF_MODELS: Sequence[RowName] = [row for rows in TRIALS.values() for row in rows]
NO_SERVER = "needs a server that accepts this client"
UNTRAINED = "use a model that was trained for tool use"
READ_FROM_TEXT = (
    "the client sends none where they would be in the wrong place; keep_reasoning=True may put them where the chat "
    "template reads them; else only a template that reads them from the text, or a server that separates them from it, "
    "can show them"
)

Replays: TypeAlias = Mapping[str, ReasoningReplay]
Instances: TypeAlias = Sequence[ModelInstanceInfo]

_NO_DATA: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: Its name.
        verdict: `problem` if something cannot work, `warning` if it may surprise.
        found: What was found, in one line.
        fix: What to do about it.
        details: Further lines.
        data: What was found, for programs.
        host: The host that was checked, if it is one of several.
    """

    name: str
    verdict: Verdict
    found: str
    fix: str | None = None
    details: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=lambda: _NO_DATA)
    host: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        host = {} if self.host is None else {"host": self.host}
        members = {"name": self.name, **host, "verdict": self.verdict, "found": self.found, "fix": self.fix}
        return {**members, "details": list(self.details), **self.data}

    @property
    def title(self) -> str:
        """What was checked, for people."""
        return " ".join(filter(None, (self.host, self.name.replace("_", " "))))


@dataclass(frozen=True, slots=True)
class Extra:
    """An extra of this package.

    Attributes:
        name: Its name.
        main_package: The package for which people install it.
        versions: The installed version of each package that it needs; `None` if it is missing.
        outdated: What a package must be, for those that are installed in another version.
        command: Installs it.
    """

    name: str
    main_package: str
    versions: Mapping[str, str | None]
    outdated: Mapping[str, str]
    command: str

    @property
    def is_absent(self) -> bool:
        """Whether its main package is missing: it was not requested."""
        return self.versions[self.main_package] is None


@dataclass(frozen=True, slots=True)
class TokenUse:
    """Where the API token comes from, `None` without one. `exposed` is a warning that it is sent in plain text."""

    source: str | None
    exposed: str | None = None


def explain(error: LMStudioError) -> tuple[str, str | None]:
    """Return what an error says has happened, and its remedy."""
    text = str(error)
    if isinstance(error, LMStudioServerError) and error.suggestion:
        has_plan = isinstance(error, LMStudioInsufficientResourcesError) and error.plan is not None
        text = error.title or "" if has_plan else text.partition("\n  suggestion: ")[0]  # a plan is a table
        return one_line(text), one_line(for_commands(error.suggestion))
    return split_remedy(text)


def server_check(
    attempts: Sequence[Attempt], failure: LMStudioError | None, remedy: str, version: ServerVersion | None = None
) -> Check:
    """Check whether an LM Studio was found.

    Args:
        attempts: All addresses.
        failure: Why the client could not use the server.
        remedy: What helps if it was found nowhere on this machine.
        version: Its version, if it responded to the client.
    """
    tried, used = [each for each in attempts if each.tried], chosen(attempts)
    status = used.status if used else None
    name = "the emulator" if version and version.is_emulator else _application(status)
    name = "a server" if status is None and version is None else name
    data = {
        "addresses": [{"address": each.address, "source": each.source, "error": each.problem} for each in attempts],
        "application": None if status is None else {"package": status.package, "version": status.version},
    }
    # What happened at the only address is in `found`.
    details = tuple(_describe_attempt(each) for each in attempts if not each.tried or len(tried) > 1)
    if used is None and len(tried) > 1:
        return Check("server", "problem", NOT_FOUND, for_commands("; ".join(remedy.split("\n  "))), details, data)
    if used is None:
        problem, fix = split_remedy(tried[0].problem or "")
        return Check("server", "problem", f"{tried[0].address} ({tried[0].source}): {problem}", fix, details, data)
    if isinstance(failure, LMStudioUnreachableError):
        return Check("server", "problem", *explain(failure), details, data)
    return Check("server", "ok", f"{name} responds at {used.address} ({used.source})", None, details, data)


def _describe_attempt(attempt: Attempt) -> str:
    return f"{attempt.address} ({attempt.source}): {split_remedy(attempt.problem or 'a server responds')[0]}"


def version_check(
    version: ServerVersion | None, failure: LMStudioError | None, status: ServerStatus | None = None
) -> Check:
    """Check which version the server has; another error than those of address and token is a problem of its own.

    Args:
        version: Its version, if it responded to the client.
        failure: Why the client could not use the server.
        status: Its application, if it says so.
    """
    if version is not None:
        data = {"version": version.version, "build": version.build}
        number = version.version.removesuffix(EMULATOR_SUFFIX)
        text = f"{_application(status)} {number}, build {version.build}"
        if version.is_emulator:
            plays = f", which plays {status.application}" if status and status.package != "lmstudio" else ""
            text = f"emulator {number}{plays}"
        elif status is not None and status.version != number:  # llmster has a version of its own
            text = f"{_application(status)} {status.version}, which serves as version {number}, build {version.build}"
        return Check("version", "ok", text, data=data)
    if failure is None or isinstance(failure, LMStudioUnreachableError | LMStudioAuthenticationError):
        return Check("version", "skipped", NO_SERVER)
    return Check("version", "problem", *explain(failure))


def _application(status: ServerStatus | None) -> str:
    return "LM Studio" if status is None else status.application


def package_check(version: str, python: str, system: str) -> Check:
    """Name the versions on this side."""
    data = {"version": version, "python": python, "system": system}
    return Check("package", "ok", f"lmstudio-integrations {version}, Python {python}, {system}", data=data)


def extras_check(extras: Sequence[Extra]) -> Check:
    """Check whether the extras are complete; one that is absent as a whole is not needed."""
    if not extras:
        return Check("extras", "skipped", "this package is not installed, so its extras are not known")
    broken = [extra for extra in extras if not extra.is_absent and (extra.outdated or None in extra.versions.values())]
    present = [extra.name for extra in extras if not extra.is_absent]
    absent = [extra.name for extra in extras if extra.is_absent]
    text = f"installed: {', '.join(present) or 'none'}; not installed: {', '.join(absent) or 'none'}"
    details = tuple(f"to install {extra.name}: {extra.command}" for extra in extras if extra.is_absent)
    data = {"extras": {extra.name: dict(extra.versions) for extra in extras}}
    if not broken:
        return Check("extras", "ok", text, None, details, data)
    text = "; ".join(f"{extra.name}: {_faults(extra)}" for extra in broken)
    return Check("extras", "warning", text, f"run: {broken[0].command}", details, data)


def _faults(extra: Extra) -> str:
    missing = [f"{name} is missing" for name, version in extra.versions.items() if version is None]
    other = [f"{name} {extra.versions[name]} is not {needed}" for name, needed in extra.outdated.items()]
    return ", ".join(missing + other)


def token_check(use: TokenUse, version: ServerVersion | None, failure: LMStudioError | None) -> Check:
    """Check whether the server accepts the token, or its absence."""
    data = {"source": use.source}
    token = f"the API token of {use.source}" if use.source else "no API token"
    if isinstance(failure, LMStudioAuthenticationError):
        text, fix = explain(failure)
        return Check("token", "problem", f"{text} ({token})", fix, data=data)
    if version is None:
        return Check("token", "skipped", f"{token}; {NO_SERVER}", data=data)
    if use.exposed:
        return Check("token", "warning", *split_remedy(use.exposed), data=data)
    text = f"the server accepts {token}" if use.source else "none is set, and the server requires none"
    return Check("token", "ok", text, data=data)


def models_check(models: Sequence[ModelInfo] | None, failure: LMStudioError | None = None) -> Check:
    """Check what is on the server's disk, and whether that can chat and embed; without a list, `failure` is why."""
    if models is None:
        return _unknown("models", failure)
    uses = Counter(map(_use, models))
    *others, last = [counted(uses[use], noun) for use, noun in _NOUNS.items() if uses[use] or use in _NEEDED]
    text = f"{', '.join(others)} and {last} downloaded"
    details = tuple(_describe_model(model) for model in models)
    data = {"models": [_model_data(model) for model in models]}
    missing = [f"a model for {use}" for use in _NEEDED if not uses[use]]
    if not missing:
        return Check("models", "ok", text, None, details, data)
    fix = f"download {' and '.join(missing)} with `lms get`"
    return Check("models", "warning" if models else "problem", text, fix, details, data)


_NEEDED = ("chat", "embeddings")
_NOUNS = {
    "chat": "language model",
    "embeddings": "embedding model",
    "reranking": "reranker",
    "decisions": "decision model",
}
"""What a model is called, by its use."""


def _use(model: ModelInfo) -> str:
    if model.type == "llm":
        return "reranking" if is_reranker(model) else "chat"
    return "decisions" if model.type == "decision" else "embeddings"


def is_reranker(model: ModelInfo) -> bool:
    """Whether a language model was trained to score texts instead of to chat."""
    with suppress(LMStudioUnsupportedError):  # a cross-encoder, which LM Studio takes for another kind
        return model.type == "llm" and family_of(model.model_key, model.path) is not None
    return False


def _unknown(name: str, failure: LMStudioError | None) -> Check:
    return Check(name, "problem", *explain(failure)) if failure else Check(name, "skipped", NO_SERVER)


def loaded_check(instances: Sequence[ModelInstanceInfo] | None, failure: LMStudioError | None = None) -> Check:
    """Check what is loaded, with which context window, and until when; without a list, `failure` is why."""
    if instances is None:
        return _unknown("loaded", failure)
    if not instances:
        return Check("loaded", "ok", "no model is loaded; a call that names one loads it", data={"instances": []})
    details = tuple(_describe_instance(instance) for instance in instances)
    data = {"instances": [_instance_data(instance) for instance in instances]}
    return Check("loaded", "ok", f"{counted(len(instances), 'model')} loaded", None, details, data)


def _abilities(model: ModelInfo) -> str:
    use = _use(model)
    if use != "chat" or not isinstance(model, LlmInfo):
        return use
    abilities = {"tool use": model.trained_for_tool_use, "vision": model.vision}
    return ", ".join([use, *(name for name, has_it in abilities.items() if has_it)])


def _describe_model(model: ModelInfo) -> str:
    size = f"{model_size(model.size_bytes)}, " if model.size_bytes else ""
    text = f"{model.model_key}: {_abilities(model)}; {size}context window up to {model.max_context_length:,} tokens"
    prefixes = prefixes_of_family(model.model_key) if model.type == "embedding" else NO_PREFIXES
    named = {"queries": prefixes.query, "documents": prefixes.document}
    shown = " and ".join(f"{beginning(prefix)} before {texts}" for texts, prefix in named.items() if prefix)
    return f"{text}; {shown}" if shown else text


def _describe_instance(instance: ModelInstanceInfo) -> str:
    tokens = f"context window {instance.context_length:,} of {instance.max_context_length:,} tokens"
    stay = (
        "stays loaded" if instance.ttl_ms is None else f"unloaded after {duration(instance.ttl_ms / 1000)} without use"
    )
    return f"{instance_name(instance)}: {_abilities(instance)}; {tokens}; {stay}"


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
    ttl = None if instance.ttl_ms is None else instance.ttl_ms / 1000
    return {
        "identifier": instance.identifier,
        **_model_data(instance),
        "context_length": instance.context_length,
        "ttl_seconds": ttl,
    }


def reasoning_check(replays: Replays | None, failure: LMStudioError | None = None) -> Check:
    """Check what chat templates do with earlier thoughts; without any result, `failure` is why.

    Args:
        replays: What was found out, by the names of the loaded language models.
        failure: Why it could not be found out.
    """
    if replays is None:
        return _unknown("reasoning", failure)
    if not replays:
        return Check("reasoning", "skipped", "no language model is loaded", data={"models": []})
    details = tuple(f"{name}: {_describe_replay(replay)}" for name, replay in replays.items())
    data = {
        "models": [
            {"model": name, "reasoning_replay": replay.by_place, "sent": replay.sent_by_place}
            for name, replay in replays.items()
        ]
    }
    misplacing = [name for name, replay in replays.items() if "misplaced" in replay.by_place.values()]
    if not misplacing:
        return Check("reasoning", "ok", f"{counted(len(replays), 'chat template')} examined", None, details, data)
    text = f"{len(misplacing)} of {counted(len(replays), 'chat template')} cannot be given earlier thoughts"
    fix = f"{READ_FROM_TEXT} ({', '.join(misplacing)})"
    return Check("reasoning", "warning", text, fix, details, data)


_PLACES = {
    "current_call": "before calls of the current turn",
    "earlier_call": "before earlier calls",
    "answer": "before answers",
}

_TREATMENTS: Mapping[Treatment, str] = {
    "kept": "shows {}",
    "stripped": "omits {}",
    "copied": "copies {} like any text",
    "misplaced": "shows {} in the wrong place",
    "rejected": "rejects conversations with {}",
}


def _describe_replay(replay: ReasoningReplay) -> str:
    """Return what a template does with thoughts, and which of them the setting `auto` sends."""
    treatments = replay.by_place
    clauses = [
        text.format(_thoughts([place for place in treatments if treatments[place] == treatment]))
        for treatment, text in _TREATMENTS.items()
        if treatment in treatments.values()
    ]
    sent_places = [place for place, is_sent in replay.sent_by_place.items() if is_sent]
    tags = " without tags" if replay.is_bare else ""
    return f"{', '.join(clauses)}; auto sends {_thoughts(sent_places) if sent_places else 'none'}{tags}"


def _thoughts(places: Sequence[str]) -> str:
    if len(places) == len(_PLACES):
        return "all thoughts"
    return f"thoughts {' and '.join(_PLACES[place] for place in places)}"


def untried_check(name: RowName, reason: str) -> Check:
    text, fix = split_remedy(reason)
    return Check(name, "skipped", text, fix)


def failed_check(name: RowName, model: str, failure: LMStudioError) -> Check:
    """Report an error that ended a row of the card."""
    text, fix = explain(failure)
    return Check(name, "problem", f"{model}: {text}", fix, data={"model": model})


def trial_check(row: CardRow, model: str, *, trained: bool) -> Check:
    """Check how a model does in a row of the card: a problem if it does nothing right of what it was trained for.

    Args:
        row: What was measured.
        model: The model.
        trained: Whether the model was trained for tool use.
    """
    if not row.verdicts:
        return untried_check(row.name, row.missing or "nothing was measured")
    data = {"model": model, "share": round(row.share, 3), "seconds": round(row.seconds, 3)}
    text = f"{model}: {row.summary} in {row.seconds:.2f} s"
    if not row.failures:
        return Check(row.name, "ok", text, data=data)
    is_untrained = row.name == "tools" and not trained
    details = tuple(f"{_describe_case(each, row.name)}: {_describe_failure(each)}" for each in row.failures)
    verdict: Verdict = "warning" if row.share > 0 or is_untrained else "problem"
    return Check(row.name, verdict, text, UNTRAINED if is_untrained else row.advice, details, data)


_CASES: Mapping[RowName, Mapping[str, str]] = {
    "tools": {
        "one": "a request for one call",
        "several": "a request for several calls",
        "none": "a question that needs no tool",
        "nested": "a call with nested arguments",
        "enum": "a call with an argument from a list",
        "required": "a call that is required",
        "named": "a call of the only tool",
        "result": "an answer from the result of a tool",
        "end": "an end after the work is done",
    },
    "structure": {
        "flat": "JSON with a few members",
        "nested": "nested JSON",
        "union": "JSON of one form or another",
        "optional": "JSON with optional members",
        "recursive": "JSON that contains itself",
        "array": "JSON with a list",
        "enum": "JSON with a value from a list",
        "number": "JSON with a number in bounds",
        "text": "JSON with a date or a code",
        "reasoning": "JSON after reasoning",
        "streamed": "JSON as a stream",
    },
    "embedding": {
        "steady": "the same text twice",
        "similar": "similar texts",
        "dimensions": "the length of vectors",
        "norm": "the norm of vectors",
        "too long": "a text that is too long",
    },
}
"""What the cases of the rows are, by the part before the slash in their names."""


def _describe_case(observation: Observation, row: RowName) -> str:
    return _CASES[row].get(observation.part, observation.case)


def _describe_failure(observation: Observation) -> str:
    """Return what came of a question; of one that the server rejected, with its reason."""
    return f"rejected: {observation.detail}" if observation.outcome == "rejected" else observation.outcome


# Several hosts --------------------------------------------------------------------------------------------------------


def comparison_check(loaded: Mapping[str, Instances | None]) -> Check:
    """Check whether the models that several hosts have loaded are the same.

    Args:
        loaded: The loaded instances by host; `None` for a host that cannot be used.
    """
    listed = {host: instances for host, instances in loaded.items() if instances is not None}
    text = f"{len(listed)} of {len(loaded)} hosts can be used"
    if len(listed) < 2:
        return Check("hosts", "skipped", text, data={"compared": [], "differences": []})
    models = _loaded_on_several(listed)
    differences = {model: attributes for model, statuses in models.items() if (attributes := differences_of(statuses))}
    data = {
        "compared": list(listed),
        "differences": [{"model": name, **attributes} for (_, name), attributes in differences.items()],
    }
    if not differences:
        common = counted(len(models), "model") if models else "no model"
        return Check("hosts", "ok", f"{text}; {common} loaded on more than one", data=data)
    details = tuple(f"{name}: {_describe_differences(attributes)}" for (_, name), attributes in differences.items())
    fix = SAME_FILE["embedding" if any(kind == "embedding" for kind, _ in differences) else "llm"]
    return Check("hosts", "warning", f"{counted(len(differences), 'model')} loaded differently", fix, details, data)


def _loaded_on_several(listed: Mapping[str, Instances]) -> dict[tuple[str, str], list[HostStatus]]:
    """Return by kind and name the models that calls find on several hosts. Further names of the same are left out."""
    names = {
        (info.type, name) for each in listed.values() for info in each for name in (info.model_key, info.identifier)
    }
    statuses_by_model: dict[tuple[str, str], list[HostStatus]] = {}
    for kind, name in sorted(names):
        statuses = [_status(host, info) for host, each in listed.items() if (info := _find_instance(kind, name, each))]
        if len(statuses) > 1 and statuses not in statuses_by_model.values():
            statuses_by_model[kind, name] = statuses
    return statuses_by_model


def _find_instance(kind: str, name: str, instances: Instances) -> ModelInstanceInfo | None:
    """Return the instance that calls with a name use: one with that identifier comes before others of that key."""
    matching = [info for info in instances if info.type == kind and name in {info.model_key, info.identifier}]
    return min(matching, key=lambda info: info.identifier != name, default=None)


def _status(host: str, info: ModelInstanceInfo) -> HostStatus:
    quantization = info.quantization.name if info.quantization else None
    return HostStatus(host=host, path=info.path, quantization=quantization, context_length=info.context_length)


def _describe_differences(attributes: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(f"{name} ({describe_values(by_host)})" for name, by_host in attributes.items())


# The report -----------------------------------------------------------------------------------------------------------


def count_verdicts(checks: Iterable[Check]) -> dict[Verdict, int]:
    counts = Counter(check.verdict for check in checks)
    return {
        "problem": counts["problem"],
        "warning": counts["warning"],
        "ok": counts["ok"],
        "skipped": counts["skipped"],
    }


def summary(checks: Sequence[Check]) -> str:
    """Return the last line of the report: how many checks have each verdict, and which have problems and warnings."""
    counts = count_verdicts(checks)
    problems, warnings = _count_titles(checks, "problem"), _count_titles(checks, "warning")
    return f"{problems}, {warnings}; {counts['ok']} ok, {counts['skipped']} skipped."


def _count_titles(checks: Iterable[Check], verdict: Verdict) -> str:
    titles = [check.title for check in checks if check.verdict == verdict]
    return counted(len(titles), verdict) + (f" ({', '.join(titles)})" if titles else "")
