"""One socket and the protocol session on it, from connecting to the loss. Runs on the I/O thread.

`connections.py` makes it, notices when it is silent or dead, and replaces it. It opens the socket with
`connect/opening.py`, and moves text between the socket and the session (`protocol/session.py`). A client without a
token authenticates as a guest.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial

from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport.connect.addresses import Address, Credentials, Target
from lmstudio_integrations.client.transport.connect.opening import find_server, open_socket
from lmstudio_integrations.client.transport.connect.probe import name_proxy, proxy_of
from lmstudio_integrations.client.transport.connect.records import announced_ports
from lmstudio_integrations.client.transport.connect.sockets import Socket
from lmstudio_integrations.client.transport.listener import ConnectionReport
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioProtocolError,
)
from lmstudio_integrations.protocol.endpoints import Namespace
from lmstudio_integrations.protocol.errors import add_suggestion, copy_of
from lmstudio_integrations.protocol.exchange import InstanceQueues
from lmstudio_integrations.protocol.session import ClientSession

recorders: list[Callable[..., ClientSession]] = []
"""What makes sessions while conversations are recorded, from their namespace, a getter of the server that is found, and
the arguments of `ClientSession`. Each knows all recordings, so the newest makes the session."""

_RELEASED = "already released"
"""In the error of a server that has released a client (docs/protocol.md#authentication-rules)."""


class Guest:
    """An identity that all sockets to a server share, because uploaded files belong to it.

    Attributes:
        credentials: What the server receives.
        sockets: Which sockets have it.
        was_accepted: Whether the server has accepted it.
        was_released: Whether the server has released it.
    """

    def __init__(self) -> None:
        self.credentials: Credentials = Credentials.new_guest()
        self.sockets: set[SocketSession] = set()
        self.was_accepted: bool = False
        self.was_released: bool = False

    @property
    def in_use(self) -> bool:
        """Whether another socket may have it.

        With the last one, a server may release it, and reject it from then on (docs/protocol.md#authentication-rules).
        """
        return not self.was_released and any(not socket.is_closing for socket in self.sockets)


class Guests:
    """The current identity for each server."""

    def __init__(self) -> None:
        self._current: dict[Address | None, Guest] = {}

    def join(self, address: Address | None, socket: "SocketSession") -> Guest:
        """Return the identity of a socket that is about to authenticate: that of the open ones, else a new one."""
        guest = self._current.get(address)
        if guest is None or not guest.in_use:
            guest = self._current[address] = Guest()
        guest.sockets.add(socket)
        return guest


class SocketSession:
    """One socket and the session on it, from connecting to the loss; it is never reused after that.

    Args:
        target: Which server, and with which credentials.
        namespace: The namespace.
        queues: The queues of the model instances there.
        guests: The identities of this process, for targets without a token.
        on_ended: Called with this object when the socket is lost or closed.
        report: Receives how the connection is made, for the call that waits for it.
    """

    def __init__(
        self,
        target: Target,
        namespace: Namespace,
        queues: InstanceQueues,
        guests: Guests,
        *,
        on_ended: "Callable[[SocketSession], None]",
        report: ConnectionReport | None = None,
    ) -> None:
        address = target.address
        peer = "LM Studio on this machine" if address is None else f"LM Studio at {address}"
        if address is not None and (proxy := proxy_of(address)):
            peer = f"{peer}, through {name_proxy(proxy)},"
        new_session = partial(recorders[-1], namespace, lambda: self.found) if recorders else ClientSession
        self.session: ClientSession = new_session(peer, queues)
        self.accepted: asyncio.Event = asyncio.Event()
        """Set when the server has accepted this client."""
        self.make_error: Callable[[], BaseException] = closed_locally_error
        """Makes the exceptions that waiting callers get when it ends, one for each."""
        self._guests = guests
        self._guest: Guest | None = None
        self._on_ended = on_ended
        self._report = report
        if report is not None:
            report.begin()
        self._target = target
        self.found: Target = target
        """The target with the address of its server, once that was found, and the secrets that are sent there."""
        self._announced: tuple[int, ...] = ()
        """The ports that the applications' records named when the server was found."""
        self._namespace: Namespace = namespace
        self._socket: Socket | None = None
        self.opened_at: float = time.monotonic()
        """When it began to connect."""
        self.task: asyncio.Task[None] = asyncio.ensure_future(self._run())

    def quiet_for(self) -> float:
        """Return the seconds since anything was read; 0 while connecting, which has a timeout of its own."""
        return self._socket.quiet_for() if self._socket is not None and self.session.ready else 0.0

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more, although the end is not reported yet."""
        return self.task.cancelling() > 0 or (self._socket is not None and self._socket.transport.is_closing())

    @property
    def is_outdated(self) -> bool:
        """Whether the server was found, and the applications' records name only others by now."""
        if self._target.address is not None or self.found.address is None:
            return False
        ports = announced_ports()
        return ports not in {(), self._announced} and self.found.address.port not in ports

    async def responds_to_ping(self, limit: float) -> bool:
        """Send a ping; return whether a complete frame arrives within a limit of seconds."""
        assert self._socket is not None, "only a server that has accepted this client is pinged"
        return await self._socket.responds_to_ping(limit)

    def flush(self) -> None:
        """Write all pending frames at once. Without a socket they stay pending."""
        socket = self._socket
        if socket is None:
            return
        frames = self.session.data_to_send()
        if not frames:
            return
        try:
            socket.write_frames(frames)
        except Exception as problem:  # noqa: BLE001 - the frames are lost, so their callers must not wait
            self.close(partial(_lost_error, problem))

    def close(self, make_error: Callable[[], BaseException] | None = None) -> None:
        """Close the socket; waiting callers get an exception."""
        self.make_error = make_error or self.make_error
        self.session.connection_lost(self.make_error)  # here, too: `_run` does nothing if it has not begun
        self.task.cancel()

    async def _connect(self) -> Socket:
        """Open a socket and authenticate; again, if the server has released the identity of this guest."""
        session = self.session
        while True:
            if self._target.address is None:
                self._announced = await asyncio.to_thread(announced_ports)
            self.found = await find_server(self._target)
            socket = self._socket = await open_socket(self.found, self._namespace)
            self._authenticate()
            self.flush()
            try:
                while not session.ready:
                    session.receive(await socket.read(), time.monotonic())
            except LMStudioAuthenticationError as problem:
                if not self._drop_released_guest(problem):
                    raise
                self._socket = None
                await socket.close()
            else:
                if self._guest is not None:
                    self._guest.was_accepted = True
                return socket

    def _authenticate(self) -> None:
        """Send the credentials of the token, or those of a guest."""
        credentials = self.found.credentials()
        if credentials is None:
            self._guest = self._guests.join(self._target.address, self)
            credentials = self._guest.credentials
        self.session.authenticate(credentials.identifier, credentials.passkey)

    def _drop_released_guest(self, problem: LMStudioAuthenticationError) -> bool:
        """Return whether the server has released the guest that it accepted before; then never use it again.

        All sockets of the guest are dead for the server then. This machine may have slept, and not noticed.
        """
        guest = self._guest
        if guest is None or not guest.was_accepted or _RELEASED not in (problem.cause or ""):
            return False
        guest.was_released = True
        guest.sockets.remove(self)
        for other in tuple(guest.sockets):
            if other.session.ready:
                other.close(dead_socket_error)
        return True

    def _receive(self, io: IOThread, messages: list[bytes]) -> None:
        """Deliver messages that arrived together; wake their callers after the last."""
        now, are_several = time.monotonic(), len(messages) > 1
        if are_several:
            io.hold_wakes()
        try:
            for message in messages:
                self.session.receive(message, now)
        except Exception as problem:  # noqa: BLE001 - it ends the session
            self._note(problem)
            self.task.cancel()
        finally:
            if are_several:
                io.release_wakes()

    def _note(self, problem: Exception) -> None:
        """Note with which error the session ends."""
        size = None if self._socket is None else self._socket.rejected_size
        if isinstance(problem, LMStudioAuthenticationError):
            problem = add_suggestion(problem, self._target.advice_after_rejection(self.found))
        if isinstance(problem, LMStudioError):
            self.make_error = partial(copy_of, problem)
        elif size is None:
            self.make_error = partial(_lost_error, problem)
        else:
            self.make_error = partial(_too_large, self._target, size)

    async def _run(self) -> None:
        """Connect, authenticate, and read until the socket is lost or closed."""
        session = self.session
        try:
            socket = await self._connect()
            self.flush()
            self.accepted.set()
            if self._report is not None:
                self._report.end()
            socket.on_messages = receive = partial(self._receive, IOThread.current())
            while True:
                receive([await socket.read()])
        except asyncio.CancelledError:
            pass
        except Exception as problem:  # noqa: BLE001 - any failure of the socket is the error of all waiting callers
            self._note(problem)
        finally:
            if self._guest is not None:
                self._guest.sockets.discard(self)
            if self._report is not None:  # before a caller is woken
                self._report.end(self.make_error)
            try:
                self._on_ended(self)  # first, because it moves unsent requests to the next socket
            finally:
                session.connection_lost(self.make_error)
                if self._socket is not None:
                    with contextlib.suppress(Exception):
                        await self._socket.close()


def closed_locally_error() -> BaseException:
    """Return the error of calls on a socket that this side closes."""
    return LMStudioConnectionLostError("the connection was closed on this side", retryable=False)


def dead_socket_error() -> BaseException:
    """Return the error of calls on a dead socket that another one replaces."""
    return LMStudioConnectionLostError(
        "the connection to LM Studio was lost (the server answers on a new connection, but not on this one); "
        "the next call uses the new one"
    )


def _too_large(target: Target, size: int) -> BaseException:
    return LMStudioProtocolError(
        f"LM Studio at {target} has sent a message of {size:,} bytes, and max_message_bytes is "
        f"{target.max_message_bytes:,}; raise it if you expect such messages; the next call reconnects"
    )


def _lost_error(cause: Exception) -> BaseException:
    reason = (str(cause) or type(cause).__name__).replace("; ", ", ")  # what helps follows on a semicolon
    lost = LMStudioConnectionLostError(f"the connection to LM Studio was lost ({reason}); the next call reconnects")
    lost.__cause__ = cause
    return lost
