"""Sockets to the server: one per target and namespace, opened on first use, shared by every client.

All of this runs on the I/O thread; `Link`, in `_link.py`, is the callers' side of it.
"""

import asyncio
import contextlib
import logging
import math
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lmstudio_integrations._discreet import client_logger
from lmstudio_integrations._secrets import holds_secret, redact
from lmstudio_integrations.client._address import Address, Target, local_candidates
from lmstudio_integrations.client._io import IOThread
from lmstudio_integrations.client._probe import diagnose, first_greeting
from lmstudio_integrations.errors import (
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioUnreachableError,
)
from lmstudio_integrations.protocol.endpoints import Namespace
from lmstudio_integrations.protocol.session import ClientSession, Exchange
from lmstudio_integrations.types.files import Origin

if TYPE_CHECKING:
    from lmstudio_integrations.client._socket import Socket

logger = logging.getLogger(__name__)

TICK = 0.1
"""Seconds between two looks at the clocks of what is open."""

LINGER = 5.0
"""Seconds for which an idle connection outlives its last user."""

CLOSE_TIMEOUT = 1.0
"""Seconds that the server has to answer the closing handshake."""


class Connection:
    """One socket, and the session on it; both are made anew after a loss, at the next call.

    Args:
        target: Which server, as whom.
        namespace: The namespace.
        on_closed: Called when nothing is left of it.
    """

    def __init__(self, target: Target, namespace: Namespace, on_closed: Callable[[], None]) -> None:
        self._target = target
        self._namespace: Namespace = namespace
        self._on_closed = on_closed
        self._session: ClientSession | None = None
        self._socket: Socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._uploads: weakref.WeakSet[Origin] = weakref.WeakSet()
        self.users: dict[int, float] = {}
        """Who may use it again, each with the seconds for which it wants an idle connection kept open."""

    def start(self, exchanges: Sequence[Exchange]) -> None:
        """Send requests, connecting first where needed."""
        if self._session is None:
            self._open()
        assert self._session is not None, "opening sets the session"
        for exchange in exchanges:
            self._session.start(exchange)
        self._flush()
        self._idle_since = 0.0
        self._arm()

    def cancel(self, exchange: Exchange) -> None:
        """Ask the server to stop."""
        if self._session is not None:
            self._session.cancel(exchange)
            self._flush()

    def abandon(self, exchange: Exchange, error: BaseException | None) -> None:
        """Ask the server to stop, and drop what still comes; whoever waits is told."""
        if self._session is not None:
            self._session.abandon(exchange, error)
            self._flush()

    def leave(self, user: int) -> None:
        """Stop what a user has open, and take note that it does not come back."""
        self.users.pop(user, None)
        if self._session is not None:
            self._session.leave(user)
            self._flush()
            self._idle_since = 0.0
            self._arm()

    @property
    def is_over(self) -> bool:
        """Whether it is closed, and nobody may use it again."""
        return self._session is None and not self.users

    def watch(self, origin: Origin) -> None:
        """Note on an uploaded file when this connection is lost: the server then forgets the file."""
        if self._session is None:
            origin.expired = True
        else:
            self._uploads.add(origin)

    async def close(self) -> None:
        """Close the socket; whoever waits is told that the connection is lost."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _open(self) -> None:
        who, address = self._target.credentials(), self._target.address
        peer = "LM Studio on this machine" if address is None else f"LM Studio at {address}"
        session = self._session = ClientSession(who.identifier, who.passkey, peer)
        self._task = asyncio.ensure_future(self._run(session))

    async def _run(self, session: ClientSession) -> None:
        """Live through one connection, from the first packet to the last."""
        error: Callable[[], BaseException] = _closed
        socket: Socket | None = None
        try:
            socket = self._socket = await _connect(self._target, self._namespace)
            socket.session = session
            self._flush()
            while not session.ready:
                session.receive(await socket.recv(decode=False), time.monotonic())
            self._flush()
            while True:  # only few frames come this way, see `Socket`
                session.receive(await socket.recv(decode=False), time.monotonic())
        except asyncio.CancelledError:
            pass
        except LMStudioError as problem:
            error = _same(problem)
        except Exception as problem:  # noqa: BLE001 - whatever breaks the socket is told to all who wait
            error = _lost(problem)
        finally:
            if self._session is session:
                self._detach()
            session.lost(error)
            if socket is not None:
                with contextlib.suppress(Exception):
                    await socket.close()

    def _detach(self) -> None:
        """Let go of the session and its socket: the next call opens new ones."""
        self._socket = self._session = self._task = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for origin in self._uploads:
            origin.expired = True
        self._uploads.clear()
        self._on_closed()

    def _retire(self) -> None:
        """Close the socket for want of use. It is let go of first: a call may come before its task has ended."""
        task = self._task
        self._detach()
        if task is not None:
            task.cancel()

    def _flush(self) -> None:
        """Write what is due, all frames in one go. Without a socket it waits for one, but for the first frame."""
        socket, session = self._socket, self._session
        if socket is None or session is None:
            return
        frames = session.data_to_send()
        if not frames:
            return
        # What `socket.send` does, for several frames at once and without waiting: a client sends little.
        with contextlib.suppress(Exception):  # the pump sees a socket that has gone
            for frame in frames:
                socket.protocol.send_text(frame.encode())
            socket.transport.write(b"".join(socket.protocol.data_to_send()))

    def _arm(self, delay: float = TICK) -> None:
        """See to it that the next look comes in time."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        """Look at the clocks of what is open; close what nobody needs."""
        self._timer = None
        session, now = self._session, time.monotonic()
        if session is None:
            return
        session.tick(now)
        self._flush()
        if session.wanted:
            self._idle_since = 0.0
            self._arm()
            return
        self._idle_since = self._idle_since or now
        left = max(self.users.values(), default=LINGER) - (now - self._idle_since)
        if left <= 0 or not session.ready:
            self._retire()
        elif left < math.inf:
            self._arm(left)


class Pool:
    """All connections of the process; lives on the I/O thread and ends with it."""

    _pools: "dict[IOThread, Pool]" = {}  # noqa: RUF012 - one table for the process

    def __init__(self) -> None:
        self._connections: dict[tuple[Target, Namespace], Connection] = {}

    @classmethod
    def of(cls, io: IOThread) -> "Pool":
        """Return the pool of an I/O thread."""
        pool = cls._pools.get(io)
        if pool is None:
            pool = cls._pools[io] = cls()
            io.at_exit(pool.close)
        return pool

    def get(self, target: Target, namespace: Namespace) -> Connection:
        """Return the connection to a namespace."""
        key = target, namespace
        connection = self._connections.get(key)
        if connection is None:
            connection = Connection(target, namespace, lambda: self._forget(key))
            self._connections[key] = connection
        return connection

    def find(self, target: Target, namespace: Namespace) -> Connection | None:
        """Return the connection to a namespace, if there is one."""
        return self._connections.get((target, namespace))

    def leave(self, user: int) -> None:
        """Take note that a user does not come back."""
        for key, connection in list(self._connections.items()):
            connection.leave(user)
            self._forget(key)

    async def close(self) -> None:
        """Close every socket."""
        await asyncio.gather(*(connection.close() for connection in list(self._connections.values())))

    def _forget(self, key: tuple[Target, Namespace]) -> None:
        if key in self._connections and self._connections[key].is_over:
            del self._connections[key]


async def _connect(target: Target, namespace: Namespace) -> "Socket":
    address = target.address or await _locate()
    _warn_of_clear_text(address, target)
    return await _open_socket(address, namespace, target)


async def _locate() -> Address:
    """Return the LM Studio of this machine."""
    found, tried = await first_greeting(local_candidates())
    if found is None:
        raise LMStudioUnreachableError(
            "no LM Studio found on this machine; start it (or `lms server start`), or pass host=. "
            f"Tried {'; '.join(tried)}",
            tried=tried,
        )
    return found


async def _open_socket(address: Address, namespace: Namespace, target: Target) -> "Socket":
    # The socket library is loaded on first use.
    from lmstudio_integrations.client._socket import Connect, Socket, redirect_of  # noqa: PLC0415

    try:
        socket = await Connect(
            address.url(namespace),
            additional_headers=list(target.headers),
            compression=None,
            open_timeout=None,
            close_timeout=CLOSE_TIMEOUT,
            max_size=None,
            max_queue=None,
            create_connection=Socket,
            ssl=target.ssl_context if address.tls else None,
            proxy=None if address.is_loopback else True,
            logger=client_logger,
        )
    except Exception as error:  # noqa: BLE001 - whatever prevents the handshake is reported with its reason
        problem = error
    else:
        assert isinstance(socket, Socket), "it is made by what was given to connect"
        return socket
    reason = (
        redirect_of(problem, address.url(namespace))
        or await diagnose(address, target.ssl_context)
        or f"LM Studio is there, but rejected the WebSocket /{namespace}: {redact(str(problem))}"
    )
    raise LMStudioUnreachableError(
        f"LM Studio is not reachable at {address}: {reason}. Is it running, and is that its port?",
        tried=(f"{address}: {reason}",),
    ) from (None if holds_secret(problem) else problem)  # such as the URL of a proxy, with its password


def _warn_of_clear_text(address: Address, target: Target) -> None:
    if target.token and not address.tls and not address.is_loopback:
        logger.warning("the API token travels unencrypted to %s; put a TLS proxy in front of it", address.netloc)


def _closed() -> BaseException:
    return LMStudioConnectionLostError("the connection was closed on this side")


def _lost(cause: Exception) -> Callable[[], BaseException]:
    def error() -> BaseException:
        lost = LMStudioConnectionLostError(
            f"the connection to LM Studio was lost ({str(cause) or type(cause).__name__}); the next call reconnects"
        )
        lost.__cause__ = cause
        return lost

    return error


def _same(problem: LMStudioError) -> Callable[[], BaseException]:
    """Return a maker of like exceptions, so that no two threads raise one object."""

    def error() -> BaseException:
        like = type(problem)(*problem.args)
        like.__dict__.update(problem.__dict__)
        like.__cause__ = problem.__cause__
        return like

    return error
