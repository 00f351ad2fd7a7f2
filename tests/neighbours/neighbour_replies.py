"""Answers of the OpenAI-compatible address of LM Studio, `http://HOST:1234/v1`, for the collector."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from neighbour_servers import CHAT, Received


def replies(*steps: str | Mapping[str, Any]) -> Callable[[Received], tuple[int, Any]]:
    """Return what answers requests for chat completions, one step after the other; the last step repeats.

    Args:
        steps: A text, or a call of a tool: `{"tool": NAME, "arguments": {…}}`.
    """
    left = list(steps)

    def answer(request: Received) -> tuple[int, Any]:
        if not request.path.endswith("/chat/completions"):
            return 200, {"object": "list", "data": [{"id": CHAT, "object": "model", "owned_by": "organization_owner"}]}
        step = left.pop(0) if len(left) > 1 else left[0]
        stream = bool(request.json.get("stream"))
        return 200, _events(_choice(step), request) if stream else _completion(_choice(step), request)

    return answer


def _choice(step: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(step, str):
        return {"role": "assistant", "content": step}
    function = {"name": step["tool"], "arguments": json.dumps(step["arguments"])}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}


def _envelope(kind: str, choices: list[dict[str, Any]], request: Received) -> dict[str, Any]:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {
        "id": "chatcmpl-1",
        "object": kind,
        "created": 1,
        "model": request.json["model"],
        "choices": choices,
        "usage": usage,
    }


def _completion(message: dict[str, Any], request: Received) -> dict[str, Any]:
    reason = "tool_calls" if "tool_calls" in message else "stop"
    return _envelope("chat.completion", [{"index": 0, "finish_reason": reason, "message": message}], request)


def _events(message: dict[str, Any], request: Received) -> bytes:
    calls = [{"index": at, **call} for at, call in enumerate(message.get("tool_calls", ()))]
    delta = {**message, "tool_calls": calls} if calls else message
    reason = "tool_calls" if calls else "stop"
    chunks = [{"index": 0, "delta": delta, "finish_reason": None}, {"index": 0, "delta": {}, "finish_reason": reason}]
    sent = [_envelope("chat.completion.chunk", [chunk], request) for chunk in chunks]
    return "".join(f"data: {each}\n\n" for each in [*map(json.dumps, sent), "[DONE]"]).encode()
