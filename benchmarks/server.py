"""The scripted server: the same responses in the protocols of LM Studio, OpenAI and Ollama.

`python -m benchmarks.server` prints its port and serves until its input ends. The name of a model determines the
response: `burst-1000` is a thousand tokens, `vector` embeds. A response is one write, of bytes that are made in advance
where that is possible, because the server shares the machine with what is measured. As with real servers, each token
is a frame, an event or a line of its own, and over HTTP a chunk of its own.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

DIMENSIONS = 768

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
"""The kinds of WebSocket frames (RFC 6455)."""

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEAD_END = b"\r\n\r\n"
_WHEN = "2026-11-20T08:00:00.000000Z"
_WORDS = (" the", " sky", " is", " blue", " because", " short", " waves", " scatter")


@lru_cache
def tokens_of(model: str) -> tuple[str, ...]:
    """Return the tokens of a model's response."""
    count = int(model.partition("-")[2] or 1)
    return tuple(_WORDS[i % len(_WORDS)] for i in range(count))


@lru_cache
def vector() -> tuple[float, ...]:
    """Return the vector of every text, with eight decimals."""
    return tuple(round(((i * 2654435761) % (1 << 32) / (1 << 31) - 1) / 27.7, 8) for i in range(DIMENSIONS))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# The protocols of OpenAI (SSE) and Ollama (NDJSON) ---------------------------------------------------------------


def _whole(value: Any, status: str = "200 OK") -> bytes:
    body = _json(value)
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _streamed(kind: str, chunks: Iterable[bytes]) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
    return head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def _openai_chat(request: dict[str, Any]) -> bytes:
    if request.get("stream"):
        return _openai_stream(
            request["model"], counted=(request.get("stream_options") or {}).get("include_usage", False)
        )
    return _openai_body(request["model"])


def _openai_head(kind: str, model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model, "system_fingerprint": model}


def _openai_usage(model: str) -> dict[str, int]:
    count = len(tokens_of(model))
    return {"prompt_tokens": 9, "completion_tokens": count, "total_tokens": 9 + count}


@lru_cache
def _openai_body(model: str) -> bytes:
    message = {"role": "assistant", "content": "".join(tokens_of(model))}
    choice = {"index": 0, "logprobs": None, "finish_reason": "stop", "message": message}
    return _whole({**_openai_head("chat.completion", model), "choices": [choice], "usage": _openai_usage(model)})


@lru_cache
def _openai_stream(model: str, *, counted: bool) -> bytes:
    head = _openai_head("chat.completion.chunk", model)

    def chunk(delta: dict[str, str], finish: str | None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    chunks = [chunk({"role": "assistant", "content": token}, None) for token in tokens_of(model)]
    chunks.append(chunk({}, "stop"))
    if counted:
        chunks.append({**head, "choices": [], "usage": _openai_usage(model)})
    return _streamed("text/event-stream", (b"data: %b\n\n" % each for each in (*map(_json, chunks), b"[DONE]")))


@lru_cache
def _openai_vectors(count: int, *, as_floats: bool) -> bytes:
    packed = base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector())).decode()
    data = [{"object": "embedding", "index": i, "embedding": vector() if as_floats else packed} for i in range(count)]
    return _whole({"object": "list", "data": data, "model": "vector", "usage": {"prompt_tokens": 1, "total_tokens": 1}})


def _ollama_chat(request: dict[str, Any]) -> bytes:
    return _ollama_stream(request["model"]) if request.get("stream") else _ollama_body(request["model"])


def _ollama_part(model: str, text: str, *, last: bool = False) -> dict[str, Any]:
    part = {"model": model, "created_at": _WHEN, "message": {"role": "assistant", "content": text}, "done": last}
    if not last:
        return part
    counts = {"total_duration": 1, "load_duration": 1, "prompt_eval_count": 9, "prompt_eval_duration": 1}
    return {**part, **counts, "done_reason": "stop", "eval_count": len(tokens_of(model)), "eval_duration": 1}


@lru_cache
def _ollama_body(model: str) -> bytes:
    return _whole(_ollama_part(model, "".join(tokens_of(model)), last=True))


@lru_cache
def _ollama_stream(model: str) -> bytes:
    parts = [*(_ollama_part(model, token) for token in tokens_of(model)), _ollama_part(model, "", last=True)]
    return _streamed("application/x-ndjson", (_json(part) + b"\n" for part in parts))


@lru_cache
def _ollama_vectors(count: int) -> bytes:
    return _whole({"model": "vector", "embeddings": [vector()] * count, "total_duration": 1})


REPLIES: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "/lmstudio-greeting": lambda _: _whole({"lmstudio": True}),
    "/v1/chat/completions": _openai_chat,
    # LM Studio sends lists of floats, whatever is requested.
    "/v1/embeddings": lambda request: _openai_vectors(len(request["input"]), as_floats=True),
    "/base64/v1/embeddings": lambda request: _openai_vectors(len(request["input"]), as_floats=False),
    "/v1/models": lambda _: _whole({"object": "list", "data": [{"id": "burst-1", "object": "model", "created": 1}]}),
    "/api/chat": _ollama_chat,
    "/api/embed": lambda request: _ollama_vectors(len(request["input"])),
    "/api/show": lambda _: _whole({"model_info": {"general.context_length": 32768}}),
}
"""What a request is responded with, by its path."""


# LM Studio's native protocol -------------------------------------------------------------------------------------


def frame(payload: bytes, kind: int = TEXT) -> bytes:
    """Return one whole WebSocket frame, from server to client."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | kind, length))
    elif length < 1 << 16:
        head = bytes((0x80 | kind, 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | kind, 127)) + length.to_bytes(8, "big")
    return head + payload


def received(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Split the received bytes into the client's complete frames: the kind and the payload of each."""
    while len(buffer) >= 2:
        kind, size, start = buffer[0] & 0x0F, buffer[1] & 0x7F, 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big")
        end = start + 4 + size
        if len(buffer) < end:
            return
        mask, payload = bytes(buffer[start : start + 4]), bytes(buffer[start + 4 : end])
        del buffer[:end]
        pattern = (mask * (size // 4 + 1))[:size]
        yield kind, (int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")).to_bytes(size, "big")


def native_reply(kind: str, message: dict[str, Any]) -> bytes:
    """Return the frames that a message of a client is responded with.

    Args:
        kind: The namespace of the socket.
        message: The message.
    """
    match message:
        case {"authVersion": _}:
            return frame(_json({"success": True}))
        case {"type": "rpcCall", "callId": call}:
            return frame(b'{"type":"rpcResult","callId":%d,"result":%b}' % (call, _result(kind, message)))
        case {"type": "channelCreate", "endpoint": "predict", "channelId": channel, "creationParameter": requested}:
            return _prediction(requested["modelSpecifier"]["query"]["identifier"], channel)
        case {"type": "channelCreate", "channelId": channel, "creationParameter": {"identifier": model}}:
            return _packet(channel, {"type": "alreadyLoaded", "info": _info(kind, model)}) + _closed(channel)
    return b""


def _info(kind: str, model: str) -> dict[str, Any]:
    return {
        **({"vision": False, "trainedForToolUse": True} if kind == "llm" else {}),
        "type": kind,
        "modelKey": model,
        "format": "gguf",
        "displayName": model,
        "publisher": "benchmark",
        "path": f"benchmark/{model}.gguf",
        "sizeBytes": 1,
        "indexedModelIdentifier": model,
        "deviceIdentifier": None,
        "maxContextLength": 32768,
        "identifier": model,
        "instanceReference": model,
        "ttlMs": None,
        "lastUsedTime": None,
        "contextLength": 32768,
    }


def _result(kind: str, message: dict[str, Any]) -> bytes:
    match message["endpoint"]:
        case "embedString":
            return _embedding()
        case "getModelInfo":
            return _json(_info(kind, message["parameter"]["specifier"]["query"].get("identifier", "burst-1")))
        case "listLoaded":
            return _json([_info(kind, "burst-1")])
        case "listDownloadedModels":
            return _json([_info("embedding", "vector")])
        case _:
            return _json({"fields": []})


@lru_cache
def _embedding() -> bytes:
    return _json({"embedding": vector()})


def _prediction(model: str, channel: int) -> bytes:
    # All but the number of the channel is the same from response to response.
    tokens = (frame(b'{"type":"channelSend","channelId":%d,%b' % (channel, rest)) for rest in _fragments(model))
    return b"".join((*(_packet(channel, _progress(done)) for done in (0, 1)), *tokens, _end(model, channel)))


@lru_cache
def _fragments(model: str) -> list[bytes]:
    others = {"tokensCount": 1, "containsDrafted": False, "reasoningType": "none", "isStructural": False}
    return [
        _json({"message": {"type": "fragment", "fragment": {"content": token, **others}}})[1:]
        for token in tokens_of(model)
    ]


def _progress(done: int) -> dict[str, Any]:
    counts = {
        "cachedTokenCount": 0,
        "totalPromptTokenCount": 9,
        "processedPromptTokenCount": 9 * done,
        "unprocessedPromptTokenCount": 9 - 9 * done,
    }
    return {"type": "promptProcessingProgress", "progress": done, "details": counts}


def _end(model: str, channel: int) -> bytes:
    count = len(tokens_of(model))
    stats = {
        "stopReason": "eosFound",
        "tokensPerSecond": 200.0,
        "numGpuLayers": -1,
        "timeToFirstTokenSec": 0.1,
        "totalTimeSec": 0.2,
        "promptTokensCount": 9,
        "predictedTokensCount": count,
        "totalTokensCount": 9 + count,
    }
    packet = {
        "type": "success",
        "stats": stats,
        "modelInfo": _info("llm", model),
        "loadModelConfig": {"fields": [{"key": "llm.load.contextLength", "value": 32768}]},
        "predictionConfig": {"fields": [{"key": "llm.prediction.temperature", "value": 0.8}]},
    }
    return _packet(channel, packet) + _closed(channel)


def _packet(channel: int, message: dict[str, Any]) -> bytes:
    return frame(_json({"type": "channelSend", "channelId": channel, "message": message}))


def _closed(channel: int) -> bytes:
    return frame(_json({"type": "channelClose", "channelId": channel}))


class Connection(asyncio.Protocol):
    """One TCP connection: HTTP until it is upgraded, if it is."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._kind: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._kind is None and _HEAD_END in self._buffer:
            if not self._request():
                return
        if self._kind is not None:
            self._frames(self._kind)

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def _request(self) -> bool:
        """Respond to the next request; return whether it is complete."""
        end = self._buffer.index(_HEAD_END) + len(_HEAD_END)
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        size = int(headers.get("content-length", 0))
        if len(self._buffer) < end + size:
            return False
        body = bytes(self._buffer[end : end + size])
        del self._buffer[: end + size]
        path = first.split(" ")[1]
        if "sec-websocket-key" in headers:
            self._kind = path.removeprefix("/")
            accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + _GUID).encode()).digest()).decode()
            upgrade = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}", "", "")
            self._transport.write("\r\n".join(("HTTP/1.1 101 Switching Protocols", *upgrade)).encode())
        elif path in REPLIES:
            self._transport.write(REPLIES[path](json.loads(body or b"{}")))
        else:
            self._transport.write(_whole({"error": f"nothing at {path}"}, "404 Not Found"))
        return True

    def _frames(self, namespace: str) -> None:
        for kind, payload in received(self._buffer):
            if kind == TEXT:
                self._transport.write(native_reply(namespace, json.loads(payload)))
            elif kind == PING:
                self._transport.write(frame(payload, PONG))
            elif kind == CLOSE:
                self._transport.write(frame(payload, CLOSE))
                self._transport.close()


async def serve() -> None:
    """Serve until the other end of the standard input goes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)  # what is still connected is nobody's concern


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
