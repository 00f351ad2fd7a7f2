"""Just enough of LM Studio's native protocol: one socket of a namespace."""

import asyncio
import json
from functools import lru_cache
from typing import Any

from benchmarks.script import response_of, vector
from benchmarks.server.frames import CLOSE, PING, PONG, TEXT, frame, received
from benchmarks.server.play import Cancellations, Player, Script

_NO_FIELDS: dict[str, Any] = {"fields": []}


class NativeSocket:
    """One connection after its upgrade.

    Args:
        transport: Where to write.
        kind: The namespace.
        cancellations: Records when a client cancels.
    """

    def __init__(self, transport: asyncio.WriteTransport, kind: str, cancellations: Cancellations) -> None:
        self._transport = transport
        self._kind = kind
        self._cancellations = cancellations
        self._buffer = bytearray()
        self._trusted = False
        self._playing: dict[int, tuple[Player, str]] = {}

    def feed(self, data: bytes) -> None:
        """Process the received frames and answer them."""
        self._buffer += data
        for kind, payload in received(self._buffer):
            if kind == TEXT:
                self._reply(json.loads(payload))
            elif kind == PING:
                self._transport.write(frame(payload, PONG))
            elif kind == CLOSE:
                self._transport.write(frame(payload, CLOSE))
                self._transport.close()

    def lost(self) -> None:
        """Stop what is on its way to nobody."""
        for player, _ in self._playing.values():
            player.stop()
            self._cancellations.record()
        self._playing.clear()

    def _reply(self, message: dict[str, Any]) -> None:
        if not self._trusted:
            self._trusted = True
            self._send({"success": True})
            return
        match message["type"]:
            case "rpcCall":
                self._transport.write(_rpc(self._kind, message))
            case "channelCreate" if message["endpoint"] in {"getOrLoad", "loadModel"}:
                self._load(message)
            case "channelCreate":
                self._predict(message)
            case "channelSend":
                self._cancel(message["channelId"])
            case _:
                pass

    def _send(self, value: dict[str, Any]) -> None:
        self._transport.write(_text(value))

    def _load(self, message: dict[str, Any]) -> None:
        channel, requested = message["channelId"], message["creationParameter"]
        loaded = {"type": "alreadyLoaded", "info": info(self._kind, requested["identifier"])}
        self._transport.write(_packet(channel, loaded) + _text({"type": "channelClose", "channelId": channel}))

    def _predict(self, message: dict[str, Any]) -> None:
        channel: int = message["channelId"]
        model: str = message["creationParameter"]["modelSpecifier"]["query"]["identifier"]
        player = Player(self._transport, _script(model, channel), lambda: self._ended(channel))
        self._playing[channel] = player, model
        player.start()

    def _ended(self, channel: int) -> None:
        self._playing.pop(channel, None)

    def _cancel(self, channel: int) -> None:
        found = self._playing.pop(channel, None)
        if found is None:
            return
        self._cancellations.record()
        player, model = found
        player.stop()
        self._transport.write(_end(model, channel, "userStopped"))


def info(kind: str, model: str) -> dict[str, Any]:
    """Return what is known of a model."""
    more = {"vision": False, "trainedForToolUse": True} if kind == "llm" else {}
    return more | {
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


def _rpc(kind: str, message: dict[str, Any]) -> bytes:
    call, endpoint = message["callId"], message["endpoint"]
    if endpoint == "embedString":
        return frame(b'{"type":"rpcResult","callId":%d,"result":{"embedding":%b}}' % (call, _vector()))
    result: Any = _NO_FIELDS
    if endpoint == "getModelInfo":
        result = info(kind, message["parameter"]["specifier"]["query"].get("identifier", "burst-1"))
    elif endpoint == "listLoaded":
        result = [info(kind, "burst-1")]
    elif endpoint == "listDownloadedModels":
        result = [info("embedding", "vector")]
    return _text({"type": "rpcResult", "callId": call, "result": result})


@lru_cache(maxsize=1)
def _vector() -> bytes:
    return json.dumps(vector(), separators=(",", ":")).encode()


def _script(model: str, channel: int) -> Script:
    response = response_of(model)
    head = b"".join(_packet(channel, _progress(done)) for done in (0, 1))
    # A frame per token, made for the channel: all but its id is the same from response to response.
    tokens = [frame(b'{"type":"channelSend","channelId":%d,%b' % (channel, rest)) for rest in _fragments(model)]
    return Script(head, tokens, _end(model, channel, "eosFound"), response.gap)


@lru_cache(maxsize=32)
def _fragments(model: str) -> list[bytes]:
    return [
        json.dumps({"message": {"type": "fragment", "fragment": _fragment(token)}}, separators=(",", ":"))[1:].encode()
        for token in response_of(model).tokens
    ]


def _fragment(token: str) -> dict[str, Any]:
    return {
        "content": token,
        "tokensCount": 1,
        "containsDrafted": False,
        "reasoningType": "none",
        "isStructural": False,
    }


def _progress(done: int) -> dict[str, Any]:
    counts = {
        "cachedTokenCount": 0,
        "totalPromptTokenCount": 9,
        "processedPromptTokenCount": 9 * done,
        "unprocessedPromptTokenCount": 9 - 9 * done,
    }
    return {"type": "promptProcessingProgress", "progress": done, "details": counts}


def _end(model: str, channel: int, reason: str) -> bytes:
    count = len(response_of(model).tokens)
    stats = {
        "stopReason": reason,
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
        "modelInfo": info("llm", model),
        "loadModelConfig": {"fields": [{"key": "llm.load.contextLength", "value": 32768}]},
        "predictionConfig": {"fields": [{"key": "llm.prediction.temperature", "value": 0.8}]},
    }
    return _packet(channel, packet) + _text({"type": "channelClose", "channelId": channel})


def _packet(channel: int, message: dict[str, Any]) -> bytes:
    return _text({"type": "channelSend", "channelId": channel, "message": message})


def _text(value: dict[str, Any]) -> bytes:
    return frame(json.dumps(value, separators=(",", ":")).encode())
