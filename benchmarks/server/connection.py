"""One TCP connection to the scripted server, whatever is spoken over it.

It is as cheap as can be, because it shares the machine with what is measured, and keeps ready-made responses as bytes.
"""

import asyncio
import json

from benchmarks.server import http
from benchmarks.server.frames import accept_key
from benchmarks.server.native import NativeSocket
from benchmarks.server.play import Cancellations, Player

_HEAD_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One TCP connection: HTTP until it is upgraded, if it is."""

    def __init__(self, cancellations: Cancellations) -> None:
        self._cancellations = cancellations
        self._buffer = bytearray()
        self._socket: NativeSocket | None = None
        self._player: Player | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._socket is not None:
            self._socket.feed(data)
            return
        self._buffer += data
        while _HEAD_END in self._buffer and self._request():
            pass

    def connection_lost(self, exc: Exception | None) -> None:
        if self._socket is not None:
            self._socket.lost()
        elif self._player is not None:
            self._player.stop()
            self._cancellations.record()

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def _request(self) -> bool:
        """Answer the next request, if it is complete and valid."""
        end = self._buffer.index(_HEAD_END) + len(_HEAD_END)
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        size = int(headers.get("content-length", 0))
        if len(self._buffer) < end + size:
            return False
        body = bytes(self._buffer[end : end + size])
        del self._buffer[: end + size]
        _, path, _ = first.split(" ")
        if "sec-websocket-key" in headers:
            self._upgrade(path, headers["sec-websocket-key"])
            return False
        self._reply(path, body)
        return True

    def _upgrade(self, path: str, key: str) -> None:
        lines = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept_key(key)}")
        self._transport.write("\r\n".join(("HTTP/1.1 101 Switching Protocols", *lines, "", "")).encode())
        self._socket = NativeSocket(self._transport, path.removeprefix("/"), self._cancellations)
        self._socket.feed(bytes(self._buffer))
        self._buffer.clear()

    def _reply(self, path: str, body: bytes) -> None:
        if path == "/lmstudio-greeting":
            reply: http.Reply = http.whole({"lmstudio": True})
        elif path == "/cancelled":
            reply = http.whole(self._cancellations.pop())
        elif path in http.POSTS:
            reply = http.POSTS[path](json.loads(body or b"{}"))
        else:
            reply = http.whole({"error": f"nothing at {path}"}, "404 Not Found")
        if isinstance(reply, bytes):
            self._transport.write(reply)
        else:
            self._player = Player(self._transport, reply, self._ended)
            self._player.start()

    def _ended(self) -> None:
        self._player = None
