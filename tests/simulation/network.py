"""A network in memory: what is written on one side arrives on the other, later, in pieces, or never.

Each direction of a connection keeps its order. A fault cuts a connection after a number of bytes, stalls it for a time,
or closes one direction. A server can disappear for a time (`Network.rejecting`), or freeze and recover, with the
connections that it had and those that its system has accepted meanwhile (`Network.freeze`).
"""

import asyncio
import math
import random
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HIGH_WATER = 64 * 1024
"""Bytes on the way after which a writer is paused."""


class Transport(asyncio.Transport):
    """One side of a connection.

    Args:
        network: The network.
        protocol: Who receives what arrives.
        names: Its own address, and that of the other side.
    """

    def __init__(self, network: "Network", protocol: Any, names: tuple[Any, Any]) -> None:
        super().__init__({"sockname": names[0], "peername": names[1]})
        self._network = network
        self._loop = network.loop
        self._protocol = protocol
        self.peer: Transport = self
        self.connection: Connection
        self._sent: deque[bytes | None] = deque()
        """What is on the way to the other side; `None` is the end, no bytes a reset."""
        self._incoming: deque[bytes | None] = deque()
        """What has arrived and is not delivered."""
        self._on_the_way = 0
        self._arrives_at = 0.0
        self._reading_paused = self._writing_paused = False
        self._closing = self._is_lost = self._eof_sent = False

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False
        self._loop.call_soon(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self._on_the_way

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: Any) -> None:
        if self._is_lost or self._eof_sent or not data:
            return
        data = self.connection.pass_bytes(self, bytes(data))
        if not data:
            return
        self._on_the_way += len(data)
        if self._on_the_way > HIGH_WATER and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()
        at = self._network.random.randrange(len(data)) if self._network.random.random() < 0.2 else 0
        for piece in (data[:at], data[at:]):
            if piece:
                self._send(piece)

    def write_eof(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            self._send(None)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.write_eof()
            self._loop.call_soon(self.lose, None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, error: Exception | None) -> None:  # as TLS calls it
        if not self._is_lost:
            self._closing = True
            self._loop.call_soon(self.lose, error)
            self._send(b"")

    def lose(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._closing = self._is_lost = True
            if all(side._is_lost for side in self.connection.sides):
                self._network.connections.discard(self.connection)
                self.connection.lost_at = self._loop.time()
            self._incoming.clear()
            self._protocol.connection_lost(error)

    def _send(self, piece: bytes | None) -> None:
        self._sent.append(piece)
        self._arrives_at = max(self._arrives_at, self._loop.time() + self._network.delay())
        self._loop.call_at(self._arrives_at, self._arrive)

    def _arrive(self) -> None:
        """Let the next piece arrive: timers of the same moment have no order."""
        if self.connection.stalled_until > self._loop.time():
            self._loop.call_at(self.connection.stalled_until, self._arrive)
        else:
            self.peer._incoming.append(self._sent.popleft())
            self.peer._deliver()

    def _deliver(self) -> None:
        while self._incoming and not self._reading_paused and not self._is_lost:
            piece = self._incoming.popleft()
            if piece == b"":
                self.lose(ConnectionResetError("connection reset"))
                return
            if piece is None:
                if not self._protocol.eof_received():
                    self.close()
                return
            self.peer._has_arrived(len(piece))
            if isinstance(self._protocol, asyncio.BufferedProtocol):  # TLS
                memoryview(self._protocol.get_buffer(len(piece)))[: len(piece)] = piece
                self._protocol.buffer_updated(len(piece))
            else:
                self._protocol.data_received(piece)

    def _has_arrived(self, size: int) -> None:
        self._on_the_way -= size
        if self._writing_paused and self._on_the_way < HIGH_WATER // 4 and not self._is_lost:
            self._writing_paused = False
            self._protocol.resume_writing()


@dataclass(eq=False)
class Connection:
    """Two sides, the client's first, and what happens to them.

    Attributes:
        bytes_left: How many bytes of the server still arrive before the connection is cut; `None` for all.
        stalled_until: When bytes arrive again.
        lost_at: When both sides have lost it; never before. A server works on for a client whose end it does not see.
    """

    port: int
    sides: tuple[Transport, Transport] = field(init=False)
    bytes_left: int | None = None
    stalled_until: float = 0.0
    lost_at: float = math.inf

    def pass_bytes(self, side: Transport, data: bytes) -> bytes:
        """Return what passes of what one side writes."""
        if self.bytes_left is None or side is self.sides[0]:
            return data
        passed, self.bytes_left = data[: self.bytes_left], max(0, self.bytes_left - len(data))
        if len(passed) < len(data):
            side._loop.call_soon(self.cut)
        return passed

    def cut(self) -> None:
        """Lose the connection: both sides hear of it."""
        for side in self.sides:
            side._loop.call_soon(side.lose, ConnectionResetError("connection reset"))


class Listener:
    """A server in the network, with what `websockets` asks of an `asyncio.Server`."""

    family = socket.AF_INET

    def __init__(
        self, network: "Network", factory: Callable[[], Any], address: tuple[str, int], bound: socket.socket | None
    ) -> None:
        self._network = network
        self.factory = factory
        self._address = address
        self._bound = bound

    @property
    def sockets(self) -> tuple[Any, ...]:
        return (self,)

    def getsockname(self) -> tuple[str, int]:
        return self._address

    def get_loop(self) -> Any:
        return self._network.loop

    def is_serving(self) -> bool:
        return self._network.listeners.get(self._address[1]) is self

    async def start_serving(self) -> None:
        pass

    def close(self) -> None:
        if self.is_serving():
            del self._network.listeners[self._address[1]]
        if self._bound is not None:
            self._bound.close()

    async def wait_closed(self) -> None:
        pass


class Network:
    """All servers and connections.

    Args:
        loop: The loop.
        source: Decides latencies and pieces.
    """

    def __init__(self, loop: Any, source: random.Random) -> None:
        self.loop = loop
        self.random = source
        self.latency = 0.0001, 0.02
        """Seconds that a piece takes, at least and at most."""
        self.listeners: dict[int, Listener] = {}
        self.connections: set[Connection] = set()
        self.rejecting: set[int] = set()
        self.frozen_until: dict[int, float] = {}
        """When the servers at some ports read and write again."""
        self._ports = iter(range(20_000, 60_000))

    def delay(self) -> float:
        return self.random.uniform(*self.latency)

    def listen(self, factory: Callable[[], Any], host: str, port: int, bound: socket.socket | None = None) -> Listener:
        """Add a server; a bound socket is closed with it."""
        port = port or next(self._ports)
        if port in self.listeners:
            raise OSError("the address is in use")
        self.listeners[port] = Listener(self, factory, (host, port), bound)
        return self.listeners[port]

    def freeze(self, port: int, until: float) -> None:
        """Let a server neither read nor write for a time; then it goes on with all its connections."""
        self.frozen_until[port] = until
        for connection in self.connections:
            if connection.port == port:
                connection.stalled_until = max(connection.stalled_until, until)

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Transport, Any]:
        await asyncio.sleep(self.delay())
        listener = self.listeners.get(port)
        if listener is None or port in self.rejecting:
            raise ConnectionRefusedError(f"nothing listens at {host}:{port}")
        own, there = ("127.0.0.1", next(self._ports)), (host, port)
        connection = Connection(port, stalled_until=self.frozen_until.get(port, 0.0))
        client, server = factory(), listener.factory()
        ours, theirs = Transport(self, client, (own, there)), Transport(self, server, (there, own))
        ours.peer, theirs.peer = theirs, ours
        ours.connection = theirs.connection = connection
        connection.sides = ours, theirs
        self.connections.add(connection)
        server.connection_made(theirs)
        client.connection_made(ours)
        return ours, client
