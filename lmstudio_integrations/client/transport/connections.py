"""Connections to the server: one per target and namespace, opened on first use, shared by all clients of the process.

All but `Connections.of` and `losses` runs on the I/O thread, called by `client_context.py` and `operation.py`. A
connection owns a `SocketSession`, or none while it is idle, and replaces it when the socket is lost.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from lmstudio_integrations.client.concurrency.io_thread import IOThread, on_io_thread
from lmstudio_integrations.client.concurrency.mailboxes import IOTask
from lmstudio_integrations.client.transport.connect.addresses import Address, Target
from lmstudio_integrations.client.transport.listener import ConnectionReport
from lmstudio_integrations.client.transport.socket_session import (
    Guests,
    SocketSession,
    closed_locally_error,
    dead_socket_error,
)
from lmstudio_integrations.protocol.endpoints import Namespace
from lmstudio_integrations.protocol.exchange import Exchange, InstanceQueues, Timeouts
from lmstudio_integrations.protocol.session import ClientSession, client_closed

logger: logging.Logger = logging.getLogger(__name__)

ConnectionKey = tuple[Target, Namespace]
"""Which connection a call is made on."""

TICK = 0.1
"""Seconds between two checks of the timeouts."""

LINGER = 5.0
"""Seconds for which a connection stays open without clients."""

QUIET = 3.0
"""Seconds of silence after which a socket is checked before the next call uses it."""

PING_TIMEOUT = 1.0
"""Seconds that the server has to answer a ping before a second socket is tried."""

SECOND_SOCKET_TIMEOUT, LONGEST_SECOND_SOCKET_TIMEOUT = 5.0, 30.0
"""Seconds within which the server must accept a second socket; doubled with each attempt, up to the longest."""


class Connection:
    """The connection to one namespace of a server. The next call opens its socket, also after a loss.

    A socket may be dead without a sign: after sleep, behind NAT, or when a cable is pulled. So the connection pings the
    server after an expired timeout, before a call that follows a silence, and every `keepalive` seconds. The socket is
    dead if the server does not answer but accepts a second socket, which then replaces it. If neither answers, the
    server is frozen: calls in flight keep their timeouts, unless another host can take them, and new ones wait for
    `connect_timeout`.

    Args:
        target: Which server, and with which credentials.
        namespace: The namespace.
        queues: The queues of the model instances there.
        guests: The identities of this process, for targets without a token.
        on_socket_lost: Called when the socket was lost or closed.
    """

    def __init__(
        self,
        target: Target,
        namespace: Namespace,
        queues: InstanceQueues,
        guests: Guests,
        on_socket_lost: Callable[[], None],
    ) -> None:
        self._target = target
        self._namespace: Namespace = namespace
        self._queues = queues
        self._guests = guests
        self._on_socket_lost = on_socket_lost
        self._current: SocketSession | None = None
        self._check: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._timeouts: Timeouts = {}
        self.keep_idle_by_client: dict[object, float] = {}
        """The clients that may use it again, each with the seconds for which an idle connection is kept open for it."""

    @on_io_thread
    def start(self, exchanges: Sequence[Exchange], report: ConnectionReport | None = None) -> None:
        """Send requests, connecting or checking the socket first where needed."""
        if self._current is not None and self._current.is_closing:
            self._detach()
        current = self._current = self._current or self._open_socket(report)
        session = current.session
        self._timeouts = exchanges[0].timeouts
        must_check = self._check is not None or current.quiet_for() > QUIET
        session.paused = session.paused or must_check
        for exchange in exchanges:
            session.start(exchange)
        if must_check:
            self._start_check(current)
        current.flush()
        self._idle_since = 0.0
        self._arm()

    @on_io_thread
    def change_session(self, change: Callable[..., None], *arguments: object) -> None:
        """Call a method of the session, such as `cancel`, and send the frames that result from it."""
        if self._current is not None:
            change(self._current.session, *arguments)
            self._current.flush()

    @on_io_thread
    def close_client(self, client_id: object) -> None:
        """Close everything that a client has open; the client will not use it again."""
        self.keep_idle_by_client.pop(client_id, None)
        if self._current is not None:
            self.change_session(ClientSession.close_client, client_id)
            self._idle_since = 0.0
            self._arm()

    def follow_file(self) -> None:
        """Drop a socket that nobody waits for, if this machine's LM Studio is another one by now."""
        current = self._current
        if current is not None and current.is_outdated and not current.session.has_callers:
            self.drop()

    @property
    def unused(self) -> bool:
        """Whether it has neither a socket nor clients."""
        return self._current is None and not self.keep_idle_by_client

    async def shut_down(self) -> None:
        """Close the socket; waiting callers get an error."""
        if self._current is not None:
            self._current.close()
            await asyncio.wait([self._current.task])

    def _open_socket(self, report: ConnectionReport | None = None) -> SocketSession:
        return SocketSession(
            self._target, self._namespace, self._queues, self._guests, on_ended=self._on_ended, report=report
        )

    def _on_ended(self, ended: SocketSession) -> None:
        """Drop the current socket if it ended. Requests that it held back were not sent and go to a new one."""
        if self._current is not ended:
            return
        was_lost = ended.session.ready and ended.make_error is not closed_locally_error
        backlog = ended.session.pop_backlog() if was_lost else []
        self._detach()
        if backlog:
            self.start(backlog)

    def _detach(self) -> None:
        """Drop the socket and its session; the next call opens new ones."""
        for pending in (self._check, self._timer):
            if pending is not None:
                pending.cancel()
        self._current = self._check = self._timer = None
        self._on_socket_lost()

    def drop(self) -> None:
        """Close the socket. It is forgotten first, because a call may come before it has closed."""
        current = self._current
        self._detach()
        if current is not None:
            current.close()

    # Liveness ---------------------------------------------------------------------------------------------------

    def _start_check(self, current: SocketSession) -> None:
        """Check whether the server is alive, unless a check is running."""
        if self._check is None and current.session.ready:
            self._check = asyncio.ensure_future(self._run_check(current))

    async def _run_check(self, current: SocketSession) -> None:
        """Ping until the server answers, a second socket takes over, or no caller waits any more."""
        session, limit = current.session, SECOND_SOCKET_TIMEOUT
        pinged_at = time.monotonic()
        connect_timeout = self._timeouts.get("connect_timeout")
        # Half of a short `connect_timeout` is left for a second socket.
        ping_timeout = PING_TIMEOUT if connect_timeout is None else min(PING_TIMEOUT, connect_timeout / 2)
        while not await current.responds_to_ping(ping_timeout):
            session.unanswered_since = session.unanswered_since or pinged_at
            if not session.has_callers:
                self.drop()
                return
            if await self._is_replaced(current, limit):
                return
            session.fail_over()
            current.flush()
            limit = min(2 * limit, LONGEST_SECOND_SOCKET_TIMEOUT)
        self._check = None
        if session.ready:  # else it was closed as the server answered
            session.resume(time.monotonic())
            current.flush()

    async def _is_replaced(self, current: SocketSession, limit: float) -> bool:
        """Try a second socket while the first is silent; return whether the first is dropped."""
        second = self._open_socket()
        accepted = asyncio.ensure_future(second.accepted.wait())
        pong = asyncio.ensure_future(current.responds_to_ping(limit))
        try:
            await asyncio.wait([accepted, pong, second.task], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if pong.done() and pong.result():
                return False
            if accepted.done():
                if second.is_closing or not second.session.ready:  # it would never end the calls that it takes over
                    return False
                self._replace(current, second)
                return True
            return second.task.done() and self._fail_backlog(current, second.make_error)
        finally:
            accepted.cancel()
            pong.cancel()
            if self._current is not second:
                second.close()

    def _replace(self, current: SocketSession, second: SocketSession) -> None:
        logger.info("a connection to %s is dead; a new one replaces it", self._target)
        self._current, self._check = second, None
        self._on_socket_lost()
        backlog = current.session.pop_backlog()
        # First, so that a caller whose call was held back finds the channel of that call ended.
        current.close(dead_socket_error)
        second.session.adopt(backlog, time.monotonic())
        second.flush()

    def _fail_backlog(self, current: SocketSession, make_error: Callable[[], BaseException]) -> bool:
        """Fail the requests that were not sent; drop the silent socket if no caller waits for a response on it."""
        for exchange in current.session.pop_backlog():
            exchange.finish(make_error())
        if current.session.in_flight:
            return False
        self.drop()
        return True

    # Time -----------------------------------------------------------------------------------------------------------

    def _arm(self, delay: float = TICK) -> None:
        """Ensure that the next tick runs within a delay."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        """Fail calls whose timeout expired, check a silent server, close an idle socket."""
        self._timer = None
        current, now = self._current, time.monotonic()
        if current is None:
            return
        session = current.session
        timed_out = session.tick(now)
        current.flush()
        has_callers = session.has_callers
        keepalive = session.keepalive if has_callers else self._timeouts.get("keepalive")
        quiet = current.quiet_for()
        if timed_out or (keepalive is not None and quiet >= keepalive):
            self._start_check(current)
        if has_callers:
            self._idle_since = 0.0
            if session.ready or now - current.opened_at < session.connect_timeout:
                self._arm()
                return
            # It may wait for ever, and as long as somebody waits for it, nobody would try another one.
            backlog = session.pop_backlog()
            self.drop()
            self.start(backlog)
            return
        self._idle_since = self._idle_since or now
        remaining = max(self.keep_idle_by_client.values(), default=LINGER) - (now - self._idle_since)
        if remaining <= 0 or not session.ready:
            self.drop()
            return
        delay = remaining if keepalive is None else min(remaining, max(keepalive - quiet, PING_TIMEOUT))
        if delay < math.inf:
            self._arm(delay)


@dataclass(eq=False)
class Connections:
    """All connections of the process. It lives on the I/O thread and ends with it.

    Attributes:
        tasks: Running coroutines that clients wait for. Not a `WeakSet`, from which any thread may remove one.
        losses: How many sockets of a connection were lost or closed. Any thread may read it.
    """

    tasks: set[IOTask[Any]] = field(default_factory=set[IOTask[Any]])
    losses: Counter[ConnectionKey] = field(default_factory=Counter[ConnectionKey])
    _connections: dict[ConnectionKey, Connection] = field(default_factory=dict[ConnectionKey, Connection])
    _guests: Guests = field(default_factory=Guests)
    _queues: dict[tuple[Address | None, Namespace], InstanceQueues] = field(default_factory=dict[Any, InstanceQueues])

    @classmethod
    def of(cls, io: IOThread) -> "Connections":
        """Return the connections of an I/O thread, which closes them when the process exits."""
        # Made in one step: two threads may make the first call.
        tenant = io.tenant or vars(io).setdefault("tenant", cls())
        return cast("Connections", tenant)  # nothing else lives there

    @on_io_thread
    def get(self, key: ConnectionKey, client_id: object, keep_idle: float) -> Connection:
        """Return the connection to a namespace, for a client that keeps it open for some idle seconds."""
        connection = self._connections.get(key)
        if connection is None:
            target, namespace = key
            queues = self._queues.setdefault((target.address, namespace), InstanceQueues())
            connection = Connection(target, namespace, queues, self._guests, partial(self._on_socket_lost, key))
            self._connections[key] = connection
        if client_id not in connection.keep_idle_by_client:
            connection.follow_file()
        connection.keep_idle_by_client[client_id] = keep_idle
        return connection

    @on_io_thread
    def change_session(self, key: ConnectionKey, change: Callable[..., None], *arguments: object) -> None:
        """Call a method of the session with a namespace, unless its connection was dropped meanwhile."""
        connection = self._connections.get(key)
        if connection is not None:
            connection.change_session(change, *arguments)

    @on_io_thread
    def close_client(self, client_id: object) -> None:
        """Close everything that a client has open, and drop its references to connections."""
        for task in [task for task in self.tasks if task.client_id == client_id]:
            task.cancel(client_closed())
        for key, connection in list(self._connections.items()):
            connection.close_client(client_id)
            self._forget(key)

    async def close(self) -> None:
        """Close every socket."""
        await asyncio.gather(*(connection.shut_down() for connection in list(self._connections.values())))

    def _on_socket_lost(self, key: ConnectionKey) -> None:
        self.losses[key] += 1
        self._forget(key)

    def _forget(self, key: ConnectionKey) -> None:
        connection = self._connections.get(key)
        if connection is not None and connection.unused:
            del self._connections[key]
