"""A TCP proxy between clients and a server that can be observed, and in which faults happen.

It forwards bytes, and knows enough of HTTP and WebSocket to act on the n-th frame of a response. It runs on a thread of
its own; other threads start it with injections, act on its open connections, and heal it.
"""

import asyncio
import contextlib
import math
import re
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from websockets.exceptions import ProtocolError
from websockets.frames import Close, CloseCode, Frame, Opcode

from lmstudio_integrations._support import environment
from lmstudio_integrations.emulator.server.tcp import reset, stop_accepting
from tests.faults.wire_items import (
    PROGRESS,
    FrameReader,
    Sender,
    WireItem,
    WireTracker,
    serialize,
)

T = TypeVar("T")

LIMIT = 600.0
"""Seconds that anything asked of the proxy may take."""

HOST = "127.0.0.1"
"""Where all proxies listen."""

_CHUNK = 65536
_HEAD_END = b"\r\n\r\n"
_EXTENSIONS = re.compile(rb"\r\nsec-websocket-extensions:[^\r\n]*\r\n", re.IGNORECASE)
"""What a client offers. Without it frames are not compressed, and can be read."""


ALWAYS = math.inf
"""How often an injection happens that lasts until the proxy is healed."""

Action = Callable[[Any, WireItem], Awaitable[None]]
"""What happens to a `ProxiedConnection`, or to its server's own connection, in place of forwarding an item."""


@dataclass(frozen=True, slots=True)
class Injection:
    """What happens at a point of the conversation.

    Attributes:
        point: An injection point: one of `WireTracker`, or `accept`, `request head`, `upgrade` or `response head`.
        action: What happens in place of forwarding.
        times: How often; afterwards the proxy forwards again.
        skip: How many opportunities pass before the first time.
        seconds: After how many seconds from the first time it is over in any case.
    """

    point: str
    action: Action
    times: float = 1
    skip: int = 0
    seconds: float = math.inf


class _Due:
    """An injection, and what is left of it."""

    def __init__(self, injection: Injection) -> None:
        self.injection = injection
        self._skip = injection.skip
        self._times = injection.times
        self._deadline = math.inf

    def take(self, item: WireItem) -> bool:
        """Return whether it happens now."""
        injection, now = self.injection, time.monotonic()
        if injection.point not in item.points or self._times <= 0 or now >= self._deadline:
            return False
        if self._skip:
            self._skip -= 1
            return False
        self._times -= 1
        self._deadline = min(self._deadline, now + injection.seconds)
        return True


class Observer:
    """Sees everything that passes through a proxy, on the proxy's thread."""

    def on_item(self, connection: "ProxiedConnection", item: WireItem) -> None:
        """Handle an item before it is forwarded, or anything else happens to it."""


class ProxyThread:
    """A thread with an event loop, for any number of proxies."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lmstudio-proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the thread and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT)


class Proxy:
    """One listening port in front of a server. A context manager; its methods are for other threads.

    Args:
        thread: Where it runs.
        upstream: `host:port` of the server.
        injections: What goes wrong, until it is healed.
        tls: The certificate, if clients connect with TLS; the server is always reached without.
        is_rejecting: Whether it rejects connections until it is healed.
        observer: Sees what passes.
    """

    def __init__(
        self,
        thread: ProxyThread,
        upstream: str,
        injections: Sequence[Injection] = (),
        *,
        tls: ssl.SSLContext | None = None,
        is_rejecting: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self._thread = thread
        self.upstream: str = upstream
        self._due = [_Due(injection) for injection in injections]
        self._tls = tls
        self.is_rejecting: bool = is_rejecting
        self._server: asyncio.Server | None = None
        self._socket = _bind(0)
        self.thawed: asyncio.Event = asyncio.Event()
        self.thawed.set()
        self.connections: set[ProxiedConnection] = set()
        self.happened: threading.Event = threading.Event()
        """Set once a fault has happened."""
        self.observer: Observer = observer or Observer()

    @property
    def port(self) -> int:
        """The port for clients."""
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Listen, unless connections are rejected."""
        environment.allow(HOST, self.port)
        if self.is_rejecting:
            self.happened.set()
        else:
            self._thread.run(self._listen())

    def close(self) -> None:
        """Close the port and every connection. Does nothing if it is closed."""
        if self._socket.fileno() != -1:
            environment.disallow(HOST, self.port)
            self._thread.run(self._close())

    def heal(self) -> None:
        """End the faults: listen, thaw, and forward from now on. What is broken or silent stays so."""
        self._thread.run(self._heal())

    def apply(self, action: Action) -> None:
        """Do something to every open connection now."""
        self._thread.run(self._apply(action))

    def reject_connections(self) -> None:
        """Reject new connections until it is healed."""
        self._thread.run(self._reject_connections())

    def consume(self, item: WireItem) -> Action | None:
        """Return what is to happen at this point, if anything is (on the thread)."""
        due = next((each for each in self._due if each.take(item)), None)
        if due is None:
            return None
        self.happened.set()
        return due.injection.action

    async def _listen(self) -> None:
        if self._server is None and self._socket.fileno() != -1:
            self._server = await asyncio.start_server(self._handle, sock=self._socket, ssl=self._tls)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this in a task of its own"
        connection = ProxiedConnection(self, task, reader, writer)
        self.connections.add(connection)
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)

    async def _heal(self) -> None:
        self._due.clear()
        self.thawed.set()
        await self._listen()

    async def _apply(self, action: Action) -> None:
        for connection in tuple(self.connections):
            await action(connection, WireItem("server", b""))
        self.happened.set()

    async def _reject_connections(self) -> None:
        assert self._server is not None, "a port that rejects connections cannot be closed"
        port = self.port
        await stop_accepting(self._server)
        self._server.close()
        self._server = None
        self._socket = _bind(port)

    async def _close(self) -> None:
        self.thawed.set()
        if self._server is not None:
            await stop_accepting(self._server)
            self._server.close()
        self._socket.close()
        tasks = [connection.task for connection in self.connections]
        for connection in tuple(self.connections):
            connection.end()
        if tasks:
            await asyncio.wait(tasks)


class ProxiedConnection:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(
        self, proxy: Proxy, task: asyncio.Task[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.proxy: Proxy = proxy
        self.task: asyncio.Task[Any] = task
        self.silent: set[Sender] = set()
        """Whose bytes are lost from now on."""
        self.dripping: set[Sender] = set()
        """Whose bytes arrive one by one from now on."""
        self.is_closing: bool = False
        """Whether the server has sent its close frame, and waits for the client's."""
        self.tracker: WireTracker = WireTracker()
        self._is_upgrade = False
        self._readers: dict[Sender, asyncio.StreamReader] = {"client": reader}
        self._writers: dict[Sender, asyncio.StreamWriter] = {"server": writer}
        self._over = asyncio.Event()
        self._pumps: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Forward until either side has gone."""
        try:
            if await self._pass(WireItem("client", b"", frozenset({"accept"}))):
                host, _, port = self.proxy.upstream.rpartition(":")
                self._readers["server"], self._writers["client"] = await asyncio.open_connection(
                    host.strip("[]"), int(port)
                )
                for sender in ("client", "server"):
                    self._pumps.append(asyncio.create_task(self._pump(sender)))
            await self._over.wait()
        except OSError:
            self.reset()
        finally:
            for pump in tuple(self._pumps):
                pump.cancel()
            for writer in self._writers.values():
                writer.transport.abort()

    # What actions do ------------------------------------------------------------------------------------------------

    async def send(self, sender: Sender, data: bytes, *, is_last: bool = False) -> None:
        """Pass bytes on to the other side of whoever sent them, as the last ones that get there if told so."""
        writer = self._writers[sender]
        if writer.is_closing() or sender in self.silent:
            return
        if is_last:
            self.silent.add(sender)
        with contextlib.suppress(ConnectionError):
            for part in [data] if sender not in self.dripping else [bytes([byte]) for byte in data]:
                writer.write(part)
                await writer.drain()
                if sender in self.dripping:
                    await asyncio.sleep(0)

    async def deliver(self, data: bytes) -> None:
        """Send the client bytes that are not the server's."""
        await self.send("server", data)

    def end(self) -> None:
        """Close both connections at once."""
        self._over.set()

    def reset(self) -> None:
        """Send RST to the client."""
        reset(self._writers["server"].transport)
        self.end()

    async def finish(self) -> None:
        """Send FIN to the client after what was sent before, and read no more."""
        writer = self._writers["server"]
        with contextlib.suppress(OSError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        self.end()

    def half_close(self) -> None:
        """Send FIN to the client, and go on reading."""
        self.silent.add("server")
        self._writers["server"].write_eof()

    async def stall(self, item: WireItem) -> None:
        """Let the server send nothing more on a channel, but progress; of a call with one response, not even that."""
        if "channelId" in item.message:
            self.tracker.stall(item)
            if item.message.get("message", {}).get("type") == PROGRESS:
                await forward(self, item)

    def repeat(self, data: bytes, seconds: float, channel: int) -> None:
        """Send bytes to the client every few seconds, until a channel that has stalled is cancelled."""
        task = asyncio.create_task(self._repeat(data, seconds, channel))
        self._pumps.append(task)
        task.add_done_callback(self._pumps.remove)

    async def _repeat(self, data: bytes, seconds: float, channel: int) -> None:
        while channel in self.tracker.stalled:
            await self.send("server", data)
            await asyncio.sleep(seconds)

    # Forwarding -----------------------------------------------------------------------------------------------------

    async def _pump(self, sender: Sender) -> None:
        try:
            await self._pass_all(sender)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except ProtocolError:
            close = Close(CloseCode.PROTOCOL_ERROR, "")
            await self.send("server", serialize("server", Frame(Opcode.CLOSE, close.serialize())))
            await self.finish()
        if sender == "client":
            self.end()
        elif "server" not in self.silent:
            await self.finish()

    async def _pass_all(self, sender: Sender) -> None:
        reader = self._readers[sender]
        head = await reader.readuntil(_HEAD_END)
        await self._pass(self._head(sender, head))
        frames = FrameReader(sender, self.tracker) if self._is_upgrade else None
        while data := await reader.read(_CHUNK):
            items = [WireItem(sender, data)] if frames is None else frames.feed(data)
            for item in items:
                await self._pass(item)

    def _head(self, sender: Sender, head: bytes) -> WireItem:
        if sender == "server":
            self._is_upgrade = head.startswith(b"HTTP/1.1 101")
            return WireItem(sender, head, frozenset({"response head"} if self._is_upgrade else ()))
        self._is_upgrade = b"upgrade: websocket" in head.lower()
        head = _EXTENSIONS.sub(b"\r\n", head)
        return WireItem(sender, head, frozenset({"request head", "upgrade"} if self._is_upgrade else {"request head"}))

    async def _pass(self, item: WireItem) -> bool:
        """Forward an item, or do what is due instead; return whether the connection goes on."""
        await self.proxy.thawed.wait()
        if "stalled" in item.points:
            self.tracker.stall(item)
            return True
        self.proxy.observer.on_item(self, item)
        if "cancel" in item.points:
            await self.send("server", self.tracker.stalled.pop(item.message["channelId"], b""))
        if self.is_closing and item.frame is not None and item.frame.opcode is Opcode.CLOSE:
            await self.finish()
        await (self.proxy.consume(item) or forward)(self, item)
        # An action may freeze the proxy at accept: the connection is then open, and nothing happens on it.
        await self.proxy.thawed.wait()
        return not self._over.is_set()


async def forward(connection: ProxiedConnection, item: WireItem) -> None:
    """Pass an item on."""
    if item.data:
        await connection.send(item.sender, item.data)


_last_ports: deque[int] = deque(maxlen=1000)
"""Ports that proxies had: a client may still know a connection to one."""


def _bind(port: int) -> socket.socket:
    """Return a socket that has a port, 0 for one that no proxy had lately, but rejects connections until it listens."""
    # asyncio switches the delay of small packets off for sockets that name their protocol.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if sys.platform != "win32":  # there it would let two servers listen on one port
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, port))
    if port == 0:
        bound = sock.getsockname()[1]
        if bound in _last_ports:
            with sock:  # it keeps the port meanwhile
                return _bind(0)
        _last_ports.append(bound)
    return sock
