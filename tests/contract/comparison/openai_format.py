"""OpenAI's protocol as LM Studio implements it: a named `tool_choice` is rejected, vectors are lists of numbers."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.engines.base import EngineEvent
from lmstudio_integrations.types.tools import Tool, ToolCallRequest
from tests.contract.comparison.wire_formats import BadRequestError, HistoryBuilder, ParsedRequest, ResponseWriter

_HEAD = {"created": 1, "system_fingerprint": "chatty"}
_FRAGMENT_LENGTH = 4
_numbers = itertools.count(1)


class ChatResponseWriter(ResponseWriter):
    """A response of `/v1/chat/completions` or `/v1/completions`."""

    content_type = "text/event-stream"

    def __init__(self, model: str = "", *, raw: bool = False, usage: bool = False, parallel: bool = True) -> None:
        super().__init__(model, parallel=parallel)
        self._raw = raw
        self._with_usage = usage
        self._id = f"chatcmpl-{next(_numbers)}"

    def encode(self, event: EngineEvent) -> Sequence[bytes]:
        new = self.add(event)
        if new is None:
            return ()
        if "call" in new:
            return [_event(self._choice(delta, None)) for delta in self._call_deltas(new["call"])]
        if "end" not in new:
            return (_event(self._choice(self._delta(new), None)),)
        last = [_event(self._choice({}, self._finish_reason()))]
        if self._with_usage:
            last.append(_event({**self._head(), "choices": [], "usage": self._usage()}))
        return (*last, b"data: [DONE]\n\n")

    def _delta(self, new: dict[str, Any]) -> dict[str, Any]:
        if "reasoning" in new:
            return {"role": "assistant", "reasoning_content": new["reasoning"]}
        return {"role": "assistant", "content": new["text"]}

    def _call_deltas(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield a tool call as a stream delivers it: first the name, then the arguments in fragments."""
        index, written = len(self.calls) - 1, _call(call)
        arguments = written["function"].pop("arguments")
        yield {"role": "assistant", "tool_calls": [{"index": index, **written}]}
        for start in range(0, len(arguments), _FRAGMENT_LENGTH):
            fragment = arguments[start : start + _FRAGMENT_LENGTH]
            yield {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}

    def _head(self) -> dict[str, Any]:
        return {
            **_HEAD,
            "id": self._id,
            "model": self.model,
            "object": "text_completion" if self._raw else "chat.completion.chunk",
        }

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

    def complete(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
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


def _chat(body: dict[str, Any]) -> ParsedRequest:
    history = HistoryBuilder()
    for message in body["messages"]:
        _add(history, message)
    stream_settings = body.get("stream_options") or {}
    return ParsedRequest(
        ChatResponseWriter(
            body["model"],
            usage=bool(stream_settings.get("include_usage")),
            parallel=body.get("parallel_tool_calls") is not False,
        ),
        bool(body.get("stream")),
        history=history.finish(),
        images=history.images,
        reasoning=history.reasoning,
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
    max_tokens = body.get("max_completion_tokens", body.get("max_tokens"))
    if max_tokens is not None:
        config["max_tokens"] = max_tokens
    if body.get("seed") is not None:
        config["seed"] = body["seed"]
    if body.get("stop"):
        config["stop_strings"] = body["stop"] if is_list(body["stop"]) else [body["stop"]]
    response_format = body.get("response_format") or {}
    if response_format.get("type") == "json_object":
        raise BadRequestError("'response_format.type' must be 'json_schema' or 'text'")
    if response_format.get("type") == "json_schema":
        config["structured"] = {"type": "json", "jsonSchema": response_format["json_schema"].get("schema") or {}}
    return config


def _add(history: HistoryBuilder, message: dict[str, Any]) -> None:
    texts, images = _content(message.get("content"))
    if message["role"] in {"tool", "function"}:
        history.add_result("".join(texts), images, message.get("tool_call_id"))
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
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    history.add(message["role"], texts, images, calls, reasoning)


def _content(content: Any) -> tuple[list[str], list[str]]:
    if not is_list(content):
        return [content or ""], []
    parts = [part for part in content if is_object(part)]
    if any(part["type"] not in {"text", "image_url"} for part in parts):
        raise BadRequestError("'content' objects must have a 'type' field that is either 'text' or 'image_url'")
    texts = [part["text"] for part in parts if part["type"] == "text"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return texts, [url.partition(",")[2] for url in urls]


def _completion(body: dict[str, Any]) -> ParsedRequest:
    return ParsedRequest(
        ChatResponseWriter(body["model"], raw=True),
        bool(body.get("stream")),
        prompt=str(body["prompt"]),
        config=_config(body),
    )


def _embeddings(body: dict[str, Any]) -> ParsedRequest:
    texts = body["input"]
    return ParsedRequest(ChatResponseWriter(), texts=texts if is_list(texts) else [texts])


ROUTES: dict[str, Callable[[dict[str, Any]], ParsedRequest | dict[str, Any]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embeddings,
}
