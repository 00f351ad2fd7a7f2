"""What a recorded server said, as rows of the corpus: see `tests/real/README.md`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.cassettes.cassette import Interaction, read
from tools.evidence.rows import Row, write

THIS_MACHINE = "this machine"
"""The source of what was recorded, unless the user names another."""

_ERRORS = {
    "predict": "error-predict",
    "loadModel": "error-load",
    "getOrLoad": "error-load",
    "embedString": "error-embed",
    "startToolUseSession": "error-plugin",
}
"""The kind of an error by the endpoint that fails; those of all others are alike."""

_COUNTED = {"stats", "instance"}
"""Kinds of which a recording has hundreds, alike but for their numbers and names."""


def write_observations(cassette: Path, status: Mapping[str, Any] | None, date: str, source: str = THIS_MACHINE) -> Path:
    """Write the rows of a cassette beside it, and return where.

    Args:
        cassette: The recording.
        status: What the server says of itself: its package and its version.
        date: When it was recorded.
        source: The machine.
    """
    path = cassette.with_suffix(".observations.jsonl")
    write(path, observations_of(read(cassette), version=_version(status or {}), date=date, source=source))
    return path


def observations_of(interactions: Iterable[Interaction], *, version: str, date: str, source: str) -> Iterator[Row]:
    """Yield a row for each thing that the server said; of those that differ by their numbers only, for the first.

    Args:
        interactions: The recording.
        version: The version of the application.
        date: When it was recorded.
        source: The machine.
    """
    said = dict[tuple[str, str], Any]()
    for each in interactions:
        for kind, payload in _said(each):
            said.setdefault((kind, _form(kind, payload)), payload)
    for number, ((kind, _), payload) in enumerate(said.items(), 1):
        name = f"{kind}-{date}-{number}"
        yield Row(id=name, source=source, date=date, version=version, channel="SDK", kind=kind, payload=payload)


def _form(kind: str, payload: Any) -> str:
    """Return in what a payload differs from others of its kind."""
    if kind not in _COUNTED:
        return dumps(payload)
    return dumps({name: value if name == "stopReason" else None for name, value in sorted(payload.items())})


def _version(status: Mapping[str, Any]) -> str:
    version = str(status.get("version") or "")
    return f"Bionic {version}" if status.get("package") == "bionic" else version


def _said(interaction: Interaction) -> Iterator[tuple[str, Any]]:
    """Yield what the server said in an interaction: its kind and the payload."""
    end = interaction.end
    if end is not None and end.kind == "error":
        yield _ERRORS.get(interaction.endpoint, "error-rpc"), end.body
    if end is not None and end.kind == "warning":
        yield "warning", {"type": "communicationWarning", **end.body}
    for packet in interaction.packets():
        if packet.get("type") == "success" and is_object(packet.get("stats")):
            yield "stats", packet["stats"]
    if interaction.endpoint in _RESULTS and (is_list(interaction.result) or is_object(interaction.result)):
        kind, payloads_in = _RESULTS[interaction.endpoint]
        yield from ((kind, payload) for payload in payloads_in(interaction.result))


def _whole(result: Any) -> list[Any]:
    return [result]


def _fields(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{field["key"]: field.get("value") for field in config.get("fields", ())}]


def _surveys(survey: Mapping[str, Any]) -> list[dict[str, Any]]:
    with_memory = [engine for engine in survey.get("engines", ()) if engine.get("memoryInfo")]
    return [{**engine.get("hardwareSurvey", {}), "memoryInfo": engine["memoryInfo"]} for engine in with_memory]


def _tokens(result: Mapping[str, Any]) -> list[list[Any]]:
    return [[result["tokens"]]]


_RESULTS: Mapping[str, tuple[str, Callable[[Any], Iterable[Any]]]] = {
    "listDownloadedModels": ("list", _whole),
    "listLoaded": ("instance", list),
    "getModelInfo": ("instance", _whole),
    "getLoadConfig": ("load-config", _fields),
    "getBasePredictionConfig": ("prediction-config", _fields),
    "surveyHardware": ("hardware-survey", _surveys),
    "lmLinkStatus": ("link", _whole),
    "tokenize": ("tokens", _tokens),
}
"""Of the result of an endpoint, the kind of the observations in it, and which they are."""
