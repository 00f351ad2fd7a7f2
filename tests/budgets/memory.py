"""The client without a thread and without a socket, so that each run does the same work in the same order.

The scripted server of the benchmark is joined to the client's socket in memory. Everything runs in the calling thread:
the event loop of the I/O thread runs while a caller waits. What is sent in one write arrives in reads of `READ` bytes.
"""

import asyncio
import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from benchmarks.server import Connection
from lmstudio_integrations.client.transport import socket_session, waiters
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.connect.websocket import Socket
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.protocol.endpoints import Namespace

ADDRESS = "127.0.0.1:1"
"""Where nothing listens."""

READ = 16 * 1024
_MOST_TURNS = 10_000

writes: Counter[str] = Counter()
"""How often the client wrote to a socket, under `writes`."""


class _End(asyncio.Transport):
    """One end of a connection. The other end receives what is written in later turns of the event loop."""

    def __init__(self, deliver: Callable[[bytes], None], *, is_client: bool) -> None:
        super().__init__()
        self._deliver = deliver
        self._is_client = is_client

    def write(self, data: bytes | bytearray | memoryview) -> None:
        writes["writes"] += self._is_client
        loop, text = asyncio.get_running_loop(), bytes(data)
        for start in range(0, len(text), READ):
            loop.call_soon(self._deliver, text[start : start + READ])

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing: nothing waits for the end."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: the buffer is unlimited."""


async def _open(target: Target, namespace: Namespace) -> Socket:
    assert target.address is not None, "the programs name their server"
    socket = Socket(ClientProtocol(parse_uri(target.address.url(namespace))))
    server = Connection()
    server.connection_made(_End(socket.data_received, is_client=False))
    socket.connection_made(_End(server.data_received, is_client=True))
    await socket.handshake()
    return socket


class _IO(IOThread):
    """The I/O thread without a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        with mock.patch.object(threading.Thread, "start"):
            super().__init__()
        self.loop.close()
        self.loop = loop


class _Signal:
    """What a thread waits on: the event loop runs until it is set."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_set = False

    def put(self, _item: None) -> None:
        self._is_set = True

    def get(self, timeout: float) -> None:
        for _ in range(_MOST_TURNS):
            if self._is_set:
                self._is_set = False
                return
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
        raise AssertionError("nothing wakes the caller")


def _never() -> float:
    """Return the same time again and again, so that no timer runs."""
    return 0.0


@contextlib.contextmanager
def in_memory(runner: asyncio.Runner) -> Generator[None]:
    """Let all clients of this process connect in memory. Coroutines run in the loop of the runner."""
    loop = runner.get_loop()
    signals: Any = SimpleNamespace(SimpleQueue=lambda: _Signal(loop), Empty=queue.Empty)
    with (
        mock.patch.object(IOThread, "_current", _IO(loop)),
        mock.patch.object(socket_session, "open_socket", _open),
        mock.patch.object(waiters, "queue", signals),
        mock.patch.object(loop, "time", _never),
    ):
        yield
