"""Parts of hostile or broken clients: raw bytes, sockets that are not read, and connections that go dead.

Also the memory that they take, of this process or of a server's own.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.emulator.bare_client import TIMEOUT, Server, Wire, wire

UPGRADE = (
    b"GET /%s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
TEXT, CLOSE, PING = 1, 8, 9


def frame(payload: bytes, *, opcode: int = TEXT, final: bool = True) -> bytes:
    """Return a frame of a client, masked with zeros."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | size])
    elif size < 1 << 16:
        head = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([opcode | (0x80 if final else 0)]) + head + bytes(4) + payload


def connected(server: Server) -> socket.socket:
    """Open a plain TCP connection."""
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT)


@contextmanager
def raw_websocket(server: Server, namespace: str = "llm", client: str = "guest:raw") -> Iterator[socket.socket]:
    """Open an authenticated WebSocket as a plain TCP connection, which replies to no ping and no close frame."""
    with connected(server) as line:
        line.sendall(UPGRADE % namespace.encode())
        assert line.recv(4096).startswith(b"HTTP/1.1 101")
        credentials = {"authVersion": 1, "clientIdentifier": client, "clientPasskey": "secret"}
        line.sendall(frame(json.dumps(credentials).encode()))
        assert b'{"success":true}' in line.recv(4096)
        yield line


@contextmanager
def lazy(server: Emulator, namespace: str = "llm", client: str = "guest:lazy") -> Iterator[Wire]:
    """Open a socket whose client reads nothing once it is authenticated, and has next to no room for it."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", server.port))
    with wire(server, namespace, client, sock=line, max_queue=1, close_timeout=0.1) as me:
        yield me


@contextmanager
def memory_at_most(size: int) -> Iterator[None]:
    """Check that Python holds no more than this at any time within the block, the server's thread included."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size, f"{peak:,} bytes at the peak"


@dataclass(frozen=True)
class Process:
    """A server in a process of its own, of which Linux tells the memory."""

    address: str
    pid: int
    errors: IO[str]

    def memory(self, *, peak: bool = False) -> int:
        """Return how many bytes it has now, or has had at most."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status)
        assert found, status
        return int(found[1]) * 1024

    def has_at_most(self, size: int) -> bool:
        """Whether it has so much memory once it has read what was sent, for which it gets the time of many requests."""
        for _ in range(300):
            if self.memory() <= size:
                return True
            with connected(self) as line:
                line.sendall(b"GET /lms-status HTTP/1.1\r\n\r\n")
                while line.recv(4096):
                    pass
        return False


def measured(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of a process that only Linux tells about."""
    on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the memory of a process")
    marked: Callable[..., None] = pytest.mark.slow(on_linux(test))
    return marked


_SERVING = """
import gc
import sys
from lmstudio_integrations.emulator import Emulator

gc.disable()  # what is no longer used is free at once

emulator = Emulator(["chat"], tokens=sys.argv[1:], latency=600)  # requests wait
emulator.serve_forever(lambda: print(emulator.address, flush=True))
"""


@contextmanager
def process(*tokens: str) -> Iterator[Process]:
    """Run a server that accepts these tokens, in a process of its own; its requests wait."""
    command = [sys.executable, "-c", _SERVING, *tokens]
    variables = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}  # glibc keeps nothing large for later
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=variables) as started:
        try:
            assert started.stdout is not None
            assert started.stderr is not None
            yield Process(started.stdout.readline().strip(), started.pid, started.stderr)
        finally:
            started.kill()
