"""OpenAI's protocol as LM Studio speaks it: a named `tool_choice` is rejected, vectors are lists of numbers."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

from lmstudio_integrations._typeguards import is_list, is_object
from lmstudio_integrations.emulator.engines.base import EngineEvent
from lmstudio_integrations.types.tools import Tool, ToolCallRequest
from tests.llama_index.peers.forms import Answer, Asked, BadRequestError, History

_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "chatty", "system_fingerprint": "chatty"}


class ChatAnswer(Answer):
    """An answer of `/v1/chat/completions`, or of `/v1/completions`."""

    content_type = "text/event-stream"

    def __init__(self, *, raw: bool = False, usage: bool = False) -> None:
        super().__init__()
        self._raw = raw
        self._with_usage = usage

    def pieces(self, event: EngineEvent) -> Sequence[bytes]:
        new = self.take(event)
        if new is None:
            return ()
        if "end" not in new:
            return (_event(self._choice(self._delta(new), None)),)
        last = [_event(self._choice({}, self._finish_reason()))]
        if self._with_usage:
            last.append(_event({**self._head(), "choices": [], "usage": self._usage()}))
        return (*last, b"data: [DONE]\n\n")

    def _delta(self, new: dict[str, Any]) -> dict[str, Any]:
        if "thinking" in new:
            return {"role": "assistant", "reasoning_content": new["thinking"]}
        if "call" in new:
            return {"role": "assistant", "tool_calls": [{"index": len(self.calls) - 1, **_call(new["call"])}]}
        return {"role": "assistant", "content": new["text"]}

    def _head(self) -> dict[str, Any]:
        return {**_HEAD, "object": "text_completion" if self._raw else "chat.completion.chunk"}

    def _choice(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        content = {"text": delta.get("content", "")} if self._raw else {"delta": delta}
        return {**self._head(), "choices": [{"index": 0, **content, "logprobs": None, "finish_reason": reason}]}

    def _finish_reason(self) -> str:
        assert self.end is not None
        if self.calls:
            return "tool_calls"
        return "length" if self.end.stop_reason == "maxPredictedTokensReached" else "stop"

    def _usage(self) -> dict[str, int]:
        assert self.end is not None
        read, written = self.end.prompt_tokens, self.end.predicted_tokens
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.thinking:
            message["reasoning_content"] = self.thinking
        if self.calls:
            message["tool_calls"] = [_call(call) for call in self.calls]
        content = {"text": self.text} if self._raw else {"message": message}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": self._finish_reason()}
        return {**self._head(), "object": "chat.completion", "choices": [choice], "usage": self._usage()}

    def vectors(self, vectors: list[list[float]]) -> dict[str, Any]:
        data = [{"object": "embedding", "embedding": vector, "index": n} for n, vector in enumerate(vectors)]
        return {"object": "list", "data": data, "model": "vectors", "usage": {"prompt_tokens": 0, "total_tokens": 0}}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
    return {"id": call["id"], "type": "function", "function": function}


def _chat(body: dict[str, Any]) -> Asked:
    history = History()
    for message in body["messages"]:
        _add(history, message)
    options = body.get("stream_options") or {}
    return Asked(
        ChatAnswer(usage=bool(options.get("include_usage"))),
        body["model"],
        bool(body.get("stream")),
        history=history.finish(),
        images=history.images,
        tools=[Tool.from_dict(tool) for tool in body.get("tools") or ()],
        tool_choice=_choice(body.get("tool_choice")),
        config=_config(body),
    )


def _choice(choice: Any) -> Literal["none", "auto", "required"]:
    if choice is not None and not isinstance(choice, str):
        raise BadRequestError("Invalid tool_choice type: 'object'. Supported string values: none, auto, required")
    return cast("Any", choice) or "auto"


def _config(body: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if body.get("temperature") is not None:
        config["temperature"] = body["temperature"]
    if body.get("max_tokens") is not None:
        config["max_tokens"] = body["max_tokens"]
    if body.get("stop"):
        config["stop_strings"] = body["stop"] if is_list(body["stop"]) else [body["stop"]]
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        config["structured"] = {"type": "json", "jsonSchema": wanted["json_schema"].get("schema") or {}}
    return config


def _add(history: History, message: dict[str, Any]) -> None:
    texts, pictures = _content(message.get("content"))
    if message["role"] in {"tool", "function"}:
        history.add_result("".join(texts), message.get("tool_call_id"))
        return
    calls = [
        ToolCallRequest.from_dict(
            {
                "id": call.get("id"),
                "name": call["function"]["name"],
                "arguments": json.loads(call["function"]["arguments"] or "{}"),
            }
        )
        for call in message.get("tool_calls") or ()
    ]
    history.add(message["role"], texts, pictures, calls)


def _content(content: Any) -> tuple[list[str], list[str]]:
    if not is_list(content):
        return [content or ""], []
    parts = [part for part in content if is_object(part)]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return texts, [url.partition(",")[2] for url in urls]


def _completion(body: dict[str, Any]) -> Asked:
    return Asked(
        ChatAnswer(raw=True), body["model"], bool(body.get("stream")), prompt=str(body["prompt"]), config=_config(body)
    )


def _embeddings(body: dict[str, Any]) -> Asked:
    given = body["input"]
    return Asked(ChatAnswer(), texts=given if is_list(given) else [given])


ROUTES: dict[str, Callable[[dict[str, Any]], Asked | dict[str, Any]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embeddings,
}
