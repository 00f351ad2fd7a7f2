"""Answers of servers with OpenAI's address, such as `http://HOST:1234/v1` of LM Studio, for the collector."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from neighbour_servers import CHAT, Received

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 3},
}
"""The token counts of each answer."""


def replies(*steps: str | Mapping[str, Any]) -> Callable[[Received], tuple[int, Any]]:
    """Return what answers requests for chat completions, one step after the other; the last step repeats.

    Args:
        steps: A text, or a call of a tool: `{"tool": NAME, "arguments": {…}}`.
    """
    left = list(steps)

    def answer(request: Received) -> tuple[int, Any]:
        if not request.path.endswith("/chat/completions"):
            return 200, {"object": "list", "data": [{"id": CHAT, "object": "model", "owned_by": "organization_owner"}]}
        return 200, reply(left.pop(0) if len(left) > 1 else left[0], request.json)

    return answer


def reply(step: str | Mapping[str, Any], body: Any) -> dict[str, Any] | bytes:
    """Return the answer to a request for a chat completion: whole, or the events of a stream.

    Args:
        step: See `replies`.
        body: The request.
    """
    reason, message = "stop", dict[str, Any](role="assistant", content=step)
    if not isinstance(step, str):
        function = {"name": step["tool"], "arguments": json.dumps(step["arguments"])}
        call = {"index": 0, "id": "1", "type": "function", "function": function}
        reason, message = "tool_calls", {"role": "assistant", "content": None, "tool_calls": [call]}
    common = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return {**common, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    chunk = {**common, "object": "chat.completion.chunk"}
    chunks = [
        {**chunk, "choices": [{"index": 0, "delta": message, "finish_reason": None}]},
        {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        {**chunk, "choices": [], "usage": USAGE},
    ]
    return "".join(f"data: {each}\n\n" for each in [*map(json.dumps, chunks), "[DONE]"]).encode()
