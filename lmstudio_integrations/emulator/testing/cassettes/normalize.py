"""Normalizes requests, so that two of them can be compared although different clients wrote them.

Left aside are the order of settings and the layers that they are in, settings that only repeat a default, the form in
which a model is named, whether the files of a message are before its texts, empty texts, the names of tools in their
results, how a whole number is written, TTLs, generated identifiers, times of day, and paths of temporary files.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.testing.cassettes.cassette import ABSENT, Request
from lmstudio_integrations.protocol import defaults
from lmstudio_integrations.protocol.kv_config import KvConfigStack
from lmstudio_integrations.protocol.legacy_completion import completion_prompt, is_completion, without_completion
from lmstudio_integrations.types.chat import ChatHistory

_INCIDENTAL = {"loadTtlMs", "ttlMs", "deviceIdentifier", "ignoreServerSessionConfig"}
"""Members of requests that do not change what the server responds."""

_STATE = _INCIDENTAL | {"lastUsedTime"}
"""Members of responses that differ from run to run."""

_ANNOTATIONS = {"$schema", "title", "additionalProperties"}
"""Members that some clients add to a JSON schema and others do not."""

_NEUTRAL = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?(?!\d)"), "<time>"),
    (re.compile(r"(?:/private)?(?:/tmp|/var/folders|/var/tmp)/[^\s\"'<>|:*?,;)\]}]+"), "<path>"),
    (re.compile(r"(?:~|[A-Za-z]:)?[\\/]\S{0,120}?[\\/]Temp[\\/][^\s\"'<>|:*?,;)\]}]+", re.IGNORECASE), "<path>"),
)
"""What differs from run to run in texts, and what stands for it."""

_LOAD_DEFAULTS: Mapping[str, Any] = {
    "load.gpuSplitConfig": {"strategy": "evenly", "disabledGpus": [], "priority": [], "customRatio": []},
    **{f"llm.load.{engine}.autoFit": False for engine in ("llama", "mlx", "yuzu")},
}
"""Settings that some SDKs add to those of a GPU, and others do not."""

References = Mapping[str, str]
"""What does not change, by what is new in each run: see `RecordedInstances.references`."""


def normalize(request: Request, references: References) -> dict[str, Any]:
    """Return a request in one form for all clients, as plain data with names for people."""
    normalized: dict[str, Any] = {"request": str(request)}
    if not is_object(request.parameter):
        return normalized | ({} if request.parameter is ABSENT else {"parameter": request.parameter})
    members = {name: value for name, value in request.parameter.items() if name not in _INCIDENTAL}
    for name in ("modelSpecifier", "specifier"):
        if name in members:
            normalized["model"] = model_of(members.pop(name), references)
    stack = _pop_stack(members, "predictionConfigStack")
    history = members.pop("history", None)
    if stack is not None and request.endpoint == "predict" and is_completion(stack):
        # Older clients complete texts in this way (docs/protocol.md#legacy-completion).
        normalized |= {"request": f"{request.namespace}.completeRawText", "rawPrompt": _prompt(history)}
        stack = without_completion(stack)
    elif history is not None:
        normalized["messages"] = _messages(history)
    if stack is not None:
        normalized["settings"] = _settings(stack, defaults.PREDICTION)
    load = _pop_stack(members, "loadConfigStack")
    if load is not None:
        unset = defaults.LOAD["embedding" if request.namespace == "embedding" else "llm"]
        normalized["settings"] = _settings(load, {**unset, **_LOAD_DEFAULTS})
    neutral: dict[str, Any] = _neutral(normalized | members, references)
    return neutral


def normalize_response(response: dict[str, Any], references: References) -> dict[str, Any]:
    """Return a response without what is new in each run."""
    neutral: dict[str, Any] = _neutral(response, references, without=_STATE)
    return neutral


def key_of(value: Any) -> str:
    """Return a text that is the same for equal JSON values, whatever the order of their members."""
    return json.dumps(value, sort_keys=True)


def model_of(specifier: Any, references: References) -> Any:
    """Return the identifier of a model, where it is known."""
    if is_object(specifier):
        if specifier.get("type") == "instanceReference":
            return references.get(str(specifier.get("instanceReference")), specifier)
        query = specifier.get("query")
        if is_object(query) and query.keys() == {"identifier"}:
            return query["identifier"]
    return specifier


def _pop_stack(members: dict[str, Any], name: str) -> KvConfigStack | None:
    """Take the settings out of a request; those of a form that is not known stay, and are compared as they are."""
    try:
        stack = KvConfigStack.model_validate(members.get(name))
    except ValidationError:
        return None
    del members[name]
    return stack


def _prompt(history: Any) -> Any:
    try:
        return completion_prompt(ChatHistory.model_validate(history))
    except ValidationError:
        return history


def _settings(stack: KvConfigStack, unset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from what they are without the request."""
    effective = defaults.effective(unset, stack.collapse())
    changed = {key: value for key, value in effective.items() if key not in unset or _on(value) != _on(unset[key])}
    return {key.removeprefix("llm.prediction."): _schema(_on(changed[key])) for key in sorted(changed)}


def _on(value: Any) -> Any:
    """Return the value of a setting that can be off, without its switch."""
    if is_object(value) and value.keys() <= {"checked", "value"} and "checked" in value:
        return value.get("value") if value["checked"] else "off"
    return value


def _schema(value: Any, *, names_parameters: bool = False) -> Any:
    """Return a setting without what only annotates the JSON schemas in it."""
    if is_list(value):
        return [_schema(each) for each in value]
    if not is_object(value):
        return value
    return {
        name: _schema(each, names_parameters=name == "properties")
        for name, each in value.items()
        if names_parameters or not _is_annotation(name, each)
    }


def _is_annotation(name: str, value: Any) -> bool:
    return value == {} if name == "$defs" else name in _ANNOTATIONS and not is_object(value)


def _messages(history: Any) -> Any:
    """Return messages whose tool calls are numbered, because their identifiers are generated."""
    numbers: dict[Any, str] = {}

    def number(value: Any, name: str = "") -> Any:
        if is_list(value):
            return [number(each) for each in value]
        if is_object(value):
            is_call = "arguments" in value or value.get("type") == "function"
            return {
                member: number(each, "id" if member == "toolCallId" or (member == "id" and is_call) else "")
                for member, each in value.items()
            }
        return numbers.setdefault(value, f"call {len(numbers) + 1}") if name == "id" and value is not None else value

    messages = history.get("messages") if is_object(history) else None
    return number([_message(each) for each in messages] if is_list(messages) else history)


def _message(message: Any) -> Any:
    """Return a message without what some clients write and others do not."""
    content = message.get("content") if is_object(message) else None
    if not is_list(content) or not all(is_object(part) for part in content):
        return message
    parts = [part for part in content if part.get("type") != "text" or part.get("text")]
    # Whoever adds images to a text: some SDKs put them before it, and others after it.
    parts.sort(key=lambda part: part.get("type") != "file")
    return {**message, "content": [_without_name(part) for part in parts]}


def _without_name(part: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a tool without the name of the tool, which its call has."""
    is_result = part.get("type") == "toolCallResult"
    return {name: value for name, value in part.items() if not (is_result and name == "name")}


def _neutral(value: Any, references: References, *, without: Collection[str] = ()) -> Any:
    if is_list(value):
        return [_neutral(each, references, without=without) for each in value]
    if is_object(value):
        return {
            name: _neutral(each, references, without=without) for name, each in value.items() if name not in without
        }
    if isinstance(value, str):
        value = references.get(value, value)
        for pattern, name in _NEUTRAL:
            value = pattern.sub(name, value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
