"""Responses over HTTP in the formats of OpenAI (SSE) and Ollama (NDJSON). Pure."""

import base64
import json
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from benchmarks.script import response_of, vector
from benchmarks.server.frames import chunk
from benchmarks.server.play import Script

Request: TypeAlias = dict[str, Any]
Reply: TypeAlias = bytes | Script

_WHEN = "2026-11-20T08:00:00.000000Z"


def whole(value: Any, status: str = "200 OK") -> bytes:
    """Return a response of one JSON value."""
    return _with_length(json.dumps(value, separators=(",", ":")).encode(), status)


def _with_length(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _streamed(kind: str, tokens: list[bytes], tail: bytes, gap: float) -> Script:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return Script(head, tokens, tail + chunk(b""), gap)


def _openai_chat(request: Request) -> Reply:
    if not request.get("stream"):
        return _openai_body(request["model"])
    counted: bool = (request.get("stream_options") or {}).get("include_usage", False)
    return _openai_stream(request["model"], counted=counted)


@lru_cache(maxsize=16)
def _openai_body(model: str) -> bytes:
    tokens = response_of(model).tokens
    message = {"role": "assistant", "content": "".join(tokens)}
    choice = {"index": 0, "logprobs": None, "finish_reason": "stop", "message": message}
    return whole({**_openai_head("chat.completion", model), "choices": [choice], "usage": _openai_usage(len(tokens))})


@lru_cache(maxsize=16)
def _openai_stream(model: str, *, counted: bool) -> Script:
    response = response_of(model)

    def event(delta: dict[str, str], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _sse({**_openai_head("chat.completion.chunk", model), "choices": [choice]})

    usage = {
        **_openai_head("chat.completion.chunk", model),
        "choices": list[Any](),
        "usage": _openai_usage(len(response.tokens)),
    }
    tail = event({}, "stop") + (_sse(usage) if counted else b"") + chunk(b"data: [DONE]\n\n")
    tokens = [event({"role": "assistant", "content": token}, None) for token in response.tokens]
    return _streamed("text/event-stream", tokens, tail, response.gap)


def _openai_head(kind: str, model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model, "system_fingerprint": model}


def _openai_usage(count: int) -> dict[str, int]:
    return {"prompt_tokens": 9, "completion_tokens": count, "total_tokens": 9 + count}


def _sse(value: dict[str, Any]) -> bytes:
    return chunk(b"data: %b\n\n" % json.dumps(value, separators=(",", ":")).encode())


def _openai_embeddings(request: Request) -> Reply:
    return _openai_vectors(len(request["input"]), as_floats=request.get("encoding_format") != "base64")


def _float_embeddings(request: Request) -> Reply:
    """Answer as LM Studio does, whatever encoding was requested."""
    return _openai_vectors(len(request["input"]), as_floats=True)


@lru_cache(maxsize=4)
def _openai_vectors(count: int, *, as_floats: bool) -> bytes:
    packed = base64.b64encode(struct.pack(f"<{len(vector())}f", *vector())).decode()
    data = [{"object": "embedding", "index": i, "embedding": vector() if as_floats else packed} for i in range(count)]
    return whole({"object": "list", "data": data, "model": "vector", "usage": {"prompt_tokens": 1, "total_tokens": 1}})


def _ollama_chat(request: Request) -> Reply:
    return _ollama_stream(request["model"]) if request.get("stream") else _ollama_body(request["model"])


@lru_cache(maxsize=16)
def _ollama_body(model: str) -> bytes:
    tokens = response_of(model).tokens
    return whole({**_ollama_part(model, "".join(tokens)), **_ollama_end(len(tokens))})


@lru_cache(maxsize=16)
def _ollama_stream(model: str) -> Script:
    response = response_of(model)
    tokens = [_ndjson(_ollama_part(model, token)) for token in response.tokens]
    tail = _ndjson({**_ollama_part(model, ""), **_ollama_end(len(response.tokens))})
    return _streamed("application/x-ndjson", tokens, tail, response.gap)


def _ollama_part(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "created_at": _WHEN, "message": {"role": "assistant", "content": text}, "done": False}


def _ollama_end(count: int) -> dict[str, Any]:
    counts = {"total_duration": 1, "load_duration": 1, "prompt_eval_count": 9, "prompt_eval_duration": 1}
    return {"done": True, "done_reason": "stop", **counts, "eval_count": count, "eval_duration": 1}


def _ndjson(value: dict[str, Any]) -> bytes:
    return chunk(json.dumps(value, separators=(",", ":")).encode() + b"\n")


def _ollama_embed(request: Request) -> Reply:
    return _ollama_vectors(len(request["input"]))


@lru_cache(maxsize=4)
def _ollama_vectors(count: int) -> bytes:
    return whole({"model": "vector", "embeddings": [vector()] * count, "total_duration": 1})


def _models(_request: Request) -> Reply:
    return whole({"object": "list", "data": [{"id": "burst-1", "object": "model", "created": 1, "owned_by": "us"}]})


POSTS: dict[str, Callable[[Request], Reply]] = {
    "/v1/chat/completions": _openai_chat,
    "/v1/embeddings": _openai_embeddings,
    "/floats/v1/embeddings": _float_embeddings,
    "/v1/models": _models,
    "/api/chat": _ollama_chat,
    "/api/embed": _ollama_embed,
    "/api/show": lambda _request: whole({"model_info": {"general.context_length": 32768}}),
}
"""Who responses a request with a body, by its path."""
