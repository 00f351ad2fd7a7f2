"""Requests and results as attributes of OpenTelemetry's GenAI conventions; pure. `spans.py` sets them on spans.

Messages are content. They have the form of the conventions' JSON schemas, written as a JSON string.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from lmstudio_integrations.protocol.envelope import without_surrogates
from lmstudio_integrations.protocol.kv_config import collapse
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import PredictionResult, finish_reason

Attributes = dict[str, Any]

_SETTINGS = {name: row.attribute for name, row in wire_keys(LlmPredictionConfig).items() if row.attribute}
"""The attributes of prediction settings and their types, by the setting's name."""

_STATS = {
    "promptTokensCount": "gen_ai.usage.input_tokens",
    "predictedTokensCount": "gen_ai.usage.output_tokens",
    "timeToFirstTokenSec": "lmstudio.time_to_first_token",
    "tokensPerSecond": "lmstudio.tokens_per_second",
}
"""The attributes of the server's statistics, by their wire names. The conventions have none for the last two."""


def request_attributes(parameter: Mapping[str, Any]) -> Attributes:
    """Return the settings that the caller has set."""
    settings = _settings_of(parameter)
    attributes: Attributes = {}
    for name, (key, convert) in _SETTINGS.items():
        value = getattr(settings, name)
        if value is not None and value is not False:  # false: it is switched off
            attributes[key] = convert(value)
    if (settings.structured or {}).get("type") == "json":
        attributes["gen_ai.output.type"] = "json"
    return attributes


def _settings_of(parameter: Mapping[str, Any]) -> LlmPredictionConfig:
    return LlmPredictionConfig.from_fields(collapse(parameter["predictionConfigStack"]))


def result_attributes(result: PredictionResult) -> Attributes:
    """Return what the server has reported of a finished prediction."""
    end, reason = result.end, _finish_reason(result)
    values = {key: end.stats.get(name) for name, key in _STATS.items()}
    values["gen_ai.response.finish_reasons"] = reason and [reason]
    values["gen_ai.response.model"] = end.model_info.get("modelKey")
    values["gen_ai.usage.cache_read.input_tokens"] = result.cached_tokens
    values["gen_ai.usage.reasoning.output_tokens"] = result.reasoning_tokens or None
    return {key: value for key, value in values.items() if value is not None}


def _finish_reason(result: PredictionResult) -> str | None:
    """Return why a prediction ended, if it is known. The conventions differ in one word from OpenAI's."""
    reason = finish_reason(result)
    return "tool_call" if reason == "tool_calls" else reason


def input_content(parameter: Mapping[str, Any]) -> Attributes:
    """Return the messages of a request, or the text to continue, and its tools."""
    if "rawPrompt" in parameter:
        messages = [_message("user", [_text(parameter["rawPrompt"])])]
    else:
        messages = [
            _message(message["role"], [_PARTS[part["type"]](part) for part in message["content"]])
            for message in parameter["history"]["messages"]
        ]
    values = {"gen_ai.input.messages": _json(messages)}
    tools = (_settings_of(parameter).raw_tools or {}).get("tools")
    if tools:
        values["gen_ai.tool.definitions"] = _json([{"type": "function", **tool["function"]} for tool in tools])
    return values


def output_content(result: PredictionResult) -> Attributes:
    """Return the response as one message."""
    parts = [{"type": "reasoning", "content": result.reasoning_content}] if result.reasoning_content else []
    parts += [_text(result.content)] if result.content else []
    parts += [
        _present(type="tool_call", id=call.id, name=call.name, arguments=call.arguments)
        for call in result.tool_call_requests
    ]
    reason = _finish_reason(result) or "unknown"  # the conventions require one here
    return {"gen_ai.output.messages": _json([_message("assistant", parts) | {"finish_reason": reason}])}


def _message(role: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": role, "parts": parts}


def _text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def _tool_call(part: Mapping[str, Any]) -> dict[str, Any]:
    request = part["toolCallRequest"]
    return _present(type="tool_call", id=request.get("id"), name=request["name"], arguments=request.get("arguments"))


_PARTS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "text": lambda part: _text(part["text"]),
    "file": lambda part: {
        "type": "file",
        "modality": "image" if part["fileType"] == "image" else "document",
        "file_id": part["identifier"],
    },
    "toolCallRequest": _tool_call,
    "toolCallResult": lambda part: _present(
        type="tool_call_response", id=part.get("toolCallId"), response=part["content"]
    ),
}
"""The parts of the conventions, by the type of the part on the wire."""


def _present(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _json(messages: list[dict[str, Any]]) -> str:
    return without_surrogates(json.dumps(messages, ensure_ascii=False))
