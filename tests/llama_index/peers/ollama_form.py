"""Ollama's protocol: lines of JSON, options in a dict of their own, calls without identifiers."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.emulator.engines.base import EngineEvent
from lmstudio_integrations.types.tools import Tool, ToolCallRequest
from tests.llama_index.peers.forms import Answer, Asked, History

_HEAD = {"model": "chatty", "created_at": "2026-01-01T00:00:00Z"}


class ChatAnswer(Answer):
    """An answer of `/api/chat`."""

    content_type = "application/x-ndjson"

    def pieces(self, event: EngineEvent) -> Sequence[bytes]:
        new = self.take(event)
        if new is None:
            return ()
        return (json.dumps(self._last("") if "end" in new else self._piece(new)).encode() + b"\n",)

    def _piece(self, new: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": new.get("text", "")}
        if "thinking" in new:
            message["thinking"] = new["thinking"]
        if "call" in new:
            message["tool_calls"] = [_call(new["call"])]
        return {**_HEAD, "message": message, "done": False}

    def _last(self, text: str) -> dict[str, Any]:
        assert self.end is not None
        return {
            **_HEAD,
            "message": {"role": "assistant", "content": text},
            "done": True,
            "done_reason": "length" if self.end.stop_reason == "maxPredictedTokensReached" else "stop",
            "prompt_eval_count": self.end.prompt_tokens,
            "eval_count": self.end.predicted_tokens,
        }

    def whole(self) -> dict[str, Any]:
        answer = self._last(self.text)
        if self.thinking:
            answer["message"]["thinking"] = self.thinking
        if self.calls:
            answer["message"]["tool_calls"] = [_call(call) for call in self.calls]
        return answer

    def vectors(self, vectors: list[list[float]]) -> dict[str, Any]:
        return {"model": "vectors", "embeddings": vectors}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    return {"function": {"name": call["name"], "arguments": call["arguments"]}}


def _chat(body: dict[str, Any]) -> Asked:
    history = History()
    for message in body["messages"]:
        if message["role"] == "tool":
            history.add_result(message.get("content") or "", message.get("tool_call_id"))
            continue
        calls = [
            ToolCallRequest.from_dict({"name": call["function"]["name"], "arguments": call["function"]["arguments"]})
            for call in message.get("tool_calls") or ()
        ]
        history.add(message["role"], [message.get("content") or ""], message.get("images") or (), calls)
    return Asked(
        ChatAnswer(),
        body["model"],
        bool(body.get("stream")),
        history=history.finish(),
        images=history.images,
        tools=[Tool.from_dict(tool) for tool in body.get("tools") or ()],
        config=_config(body),
    )


def _config(body: dict[str, Any]) -> dict[str, Any]:
    options = body.get("options") or {}
    names = {"temperature": "temperature", "num_predict": "max_tokens", "stop": "stop_strings"}
    config = {name: options[theirs] for theirs, name in names.items() if options.get(theirs) is not None}
    if is_object(body.get("format")):
        config["structured"] = {"type": "json", "jsonSchema": body["format"]}
    if body.get("think") is False:
        config["enable_thinking"] = False
    return config


def _show(_body: dict[str, Any]) -> dict[str, Any]:
    info = {"general.architecture": "scripted", "scripted.context_length": 32768}
    return {"model_info": info, "capabilities": ["completion", "tools", "vision"], "details": {}}


def _embed(body: dict[str, Any]) -> Asked:
    given = body["input"]
    return Asked(ChatAnswer(), texts=given if isinstance(given, list) else [given])


ROUTES: dict[str, Callable[[dict[str, Any]], Asked | dict[str, Any]]] = {
    "/api/chat": _chat,
    "/api/show": _show,
    "/api/embed": _embed,
}
