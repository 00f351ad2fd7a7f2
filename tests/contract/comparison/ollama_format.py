"""Ollama's protocol: JSON lines, settings in a separate `options` dict, tool calls without ids."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.base import EngineEvent
from lmstudio_integrations.types.tools import Tool, ToolCallRequest
from tests.contract.comparison.wire_formats import HistoryBuilder, ParsedRequest, ResponseWriter

_CREATED = {"created_at": "2026-01-01T00:00:00Z"}
_ANY_OBJECT = {"type": "object"}


class ChatResponseWriter(ResponseWriter):
    """A response of `/api/chat`."""

    content_type = "application/x-ndjson"

    def encode(self, event: EngineEvent) -> Sequence[bytes]:
        new = self.add(event)
        if new is None:
            return ()
        return (json.dumps(self._last("") if "end" in new else self._chunk(new)).encode() + b"\n",)

    def _chunk(self, new: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": new.get("text", "")}
        if "reasoning" in new:
            message["thinking"] = new["reasoning"]
        if "call" in new:
            message["tool_calls"] = [_call(new["call"])]
        logprobs = {"logprobs": new["logprobs"]} if "logprobs" in new else {}
        return {**self._head(), "message": message, "done": False, **logprobs}

    def _head(self) -> dict[str, Any]:
        return {**_CREATED, "model": self.model}

    def _last(self, text: str) -> dict[str, Any]:
        assert self.end is not None
        return {
            **self._head(),
            "message": {"role": "assistant", "content": text},
            "done": True,
            "done_reason": "length" if self.end.stop_reason == "maxPredictedTokensReached" else "stop",
            "prompt_eval_count": self.end.prompt_tokens,
            "eval_count": self.end.predicted_tokens,
        }

    def complete(self) -> dict[str, Any]:
        response = self._last(self.text)
        if self.reasoning:
            response["message"]["thinking"] = self.reasoning
        if self.calls:
            response["message"]["tool_calls"] = [_call(call) for call in self.calls]
        if self.logprobs:
            response["logprobs"] = self.logprobs
        return response

    def vectors(self, vectors: list[list[float]]) -> dict[str, Any]:
        return {"model": "vectors", "embeddings": vectors}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    return {"function": {"name": call["name"], "arguments": call["arguments"]}}


def _chat(body: dict[str, Any]) -> ParsedRequest:
    history = HistoryBuilder()
    for message in body["messages"]:
        if message["role"] == "tool":
            history.add_result(message.get("content") or "", message.get("images") or (), message.get("tool_call_id"))
            continue
        calls = [
            ToolCallRequest.from_dict({"name": call["function"]["name"], "arguments": call["function"]["arguments"]})
            for call in message.get("tool_calls") or ()
        ]
        texts, images = [message.get("content") or ""], message.get("images") or ()
        history.add(message["role"], texts, images, calls, message.get("thinking"))
    return ParsedRequest(
        ChatResponseWriter(body["model"]),
        bool(body.get("stream")),
        history=history.finish(),
        images=history.images,
        reasoning=history.reasoning,
        tools=[Tool.from_dict(tool) for tool in body.get("tools") or ()],
        config=_config(body),
    )


def _config(body: dict[str, Any]) -> dict[str, Any]:
    settings = body.get("options") or {}
    names = {"temperature": "temperature", "num_predict": "max_tokens", "stop": "stop_strings", "seed": "seed"}
    config = {name: settings[theirs] for theirs, name in names.items() if settings.get(theirs) is not None}
    schema = _ANY_OBJECT if body.get("format") == "json" else body.get("format")
    if is_object(schema):
        config["structured"] = {"type": "json", "jsonSchema": schema}
    if body.get("logprobs"):
        config["log_probs"] = body.get("top_logprobs") or 1
    if body.get("think") is False:
        config["enable_thinking"] = False
    return config


def _show(_body: dict[str, Any]) -> dict[str, Any]:
    info = {"general.architecture": "scripted", "scripted.context_length": 32768}
    return {"model_info": info, "capabilities": ["completion", "tools", "vision"], "details": {}}


def _embed(body: dict[str, Any]) -> ParsedRequest:
    texts = body["input"]
    return ParsedRequest(ChatResponseWriter(), texts=texts if isinstance(texts, list) else [texts])


ROUTES: dict[str, Callable[[dict[str, Any]], ParsedRequest | dict[str, Any]]] = {
    "/api/chat": _chat,
    "/api/show": _show,
    "/api/embed": _embed,
}
