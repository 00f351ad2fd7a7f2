"""Open a socket to a namespace: find the server, make the WebSocket handshake, explain a failure.

Called by `socket_session.py` on the I/O thread, with the first connection. The socket is that of `websockets`, which
also knows when anything was received.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, PayloadTooBig, WebSocketException
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import Event

from lmstudio_integrations._support.environment import USER_AGENT
from lmstudio_integrations._support.secrets import client_logger, redact_address
from lmstudio_integrations._support.suggestions import UPDATE_FOR_DECISIONS
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport.connect.addresses import Address, Target, source_of, unencrypted
from lmstudio_integrations.client.transport.connect.discovery import diagnose, discover, may_get_secrets, not_found
from lmstudio_integrations.client.transport.connect.probe import (
    NEXT_ADDRESS_DELAY,
    no_descriptors,
    redirected,
    without_blocked,
)
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioServerError,
    LMStudioUnreachableError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.endpoints import Namespace


class Connect(connect):
    """Opens a socket to the address that the user gave, and to no other, because credentials are sent next."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the error; the library would return the address to follow."""
        return exc


def redirect_of(error: Exception, url: str) -> str | None:
    """Return a clause that says where the response to a handshake redirects to; `None` if it does not redirect."""
    if not isinstance(error, InvalidStatus) or error.response.status_code // 100 != 3:
        return None
    location = error.response.headers.get("Location")
    return None if location is None else redirected(url, location)


class Socket(ClientConnection):
    """A connection of the library that is watched: bytes of a message that is still incomplete show life, too."""

    received_at: float = 0.0
    """When anything was last received."""

    _received_wall: float = 0.0
    """The same in wall-clock time, which continues while the machine sleeps."""

    on_messages: Callable[[list[bytes]], None] | None = None
    """Receives the messages that arrive together. While it is `None`, they are read with `read`."""

    most_bytes: int = 0
    """The size up to which a frame is read without the library, which checks the limit of the user."""

    _messages: int = 0
    """How many messages were received."""

    _batch: list[bytes]

    _unframed: int | None = None
    """How many bytes of an incomplete frame have arrived; `None` until the handshake has ended."""

    @property
    def rejected_size(self) -> int | None:
        """How large the message is for which the connection was closed; `None` if it was not for one."""
        problem = self.protocol.parser_exc
        if not isinstance(problem, PayloadTooBig):
            return None
        fields = vars(problem)
        read = fields.get("current_size", fields.get("cur_size"))  # before websockets 16, its name was shorter
        return (problem.size or 0) + (read or 0)

    def quiet_for(self) -> float:
        """Return the seconds since anything was received, including those in which the machine slept."""
        return max(time.monotonic() - self.received_at, time.time() - self._received_wall)

    async def read(self) -> bytes:
        """Return the next message."""
        message = await self.recv(decode=False)
        self._messages += 1
        return message

    async def responds_to_ping(self, limit: float) -> bool:
        """Send a ping; return whether the server answers within a limit of seconds.

        A message counts as an answer. Received bytes restart the limit, because the pong may be queued behind a long
        response. Bytes alone do not count, because a frame may announce more of them than ever arrive.
        """
        pinged_at, read_before = time.monotonic(), self._messages
        pong = asyncio.ensure_future(self._pong())
        try:
            while not pong.done() and self._messages == read_before:
                remaining = max(pinged_at, self.received_at) + limit - time.monotonic()
                if remaining <= 0:
                    return False
                await asyncio.wait([pong], timeout=remaining)
            return not pong.done() or pong.result()
        finally:
            pong.cancel()

    async def _pong(self) -> bool:
        """Return whether a ping could be sent and was answered."""
        try:
            await (await self.ping())
        except (OSError, WebSocketException):
            return False  # the reader notices a broken socket
        return True

    def write_frames(self, frames: list[str]) -> None:
        """Send text frames: like `send`, but in one write and without `drain`, because nothing here may wait."""
        try:
            for frame in frames:
                self.protocol.send_text(frame.encode())
            self.transport.write(b"".join(self.protocol.data_to_send()))
        except (OSError, RuntimeError, WebSocketException):
            pass  # the reader notices a broken socket

    def process_event(self, event: Event) -> None:
        """Collect a whole message for `on_messages`.

        `recv` costs a turn of the loop for each batch, which is a fifth of a token that comes alone. It puts fragments
        together, though: from the first one on, it is what all messages are read with.
        """
        if isinstance(event, Frame) and self._unframed is not None:
            self._unframed -= _size_of(event)
        if self.on_messages is None or not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif event.fin and event.opcode is not Opcode.CONT:
            self._messages += 1
            self._batch.append(bytes(event.data))
        else:
            self._deliver()
            self.on_messages = None
            super().process_event(event)

    def _deliver(self) -> None:
        batch, self._batch = self._batch, []
        if batch and self.on_messages is not None:
            self.on_messages(batch)

    def data_received(self, data: bytes) -> None:
        """Note when bytes arrive, and end the socket where the server has closed it."""
        self.received_at, self._received_wall = time.monotonic(), time.time()
        if self._unframed == 0 and self.on_messages is not None and len(data) <= self.most_bytes:
            message = _only_message(data)
            if message is not None:
                self._messages += 1
                self.on_messages([message])
                return
        self._batch, is_shaking_hands = [], self.response is None
        if self._unframed is not None:
            self._unframed += len(data)
        super().data_received(data)
        self._deliver()
        if is_shaking_hands and data.startswith(b"HTTP/") and data.find(_HEAD_END) == len(data) - len(_HEAD_END):
            self._unframed = 0  # this was the whole head of the response, and nothing else
        if self.protocol.close_rcvd is not None or self.protocol.parser_exc is not None:
            # The library has sent its own, and would wait for the server to close the TCP connection, perhaps forever.
            # `close` would wait until the server has read all that was written.
            self.transport.abort()

    def eof_received(self) -> None:
        """End the socket: the server sends nothing more."""
        super().eof_received()
        self.transport.abort()


_HEAD_END = b"\r\n\r\n"
"""How the response to the handshake ends."""

_TEXT, _TWO_BYTES = 0x81, 126
"""The first byte of a text frame that is a whole message; the second byte if the size follows (RFC 6455, 5.2)."""


def _only_message(data: bytes) -> bytes | None:
    """Return the message if the data are one frame with a whole message of less than 64 KB.

    The library takes 75 to 90 µs for a token that comes alone, because its code is in no cache then: an eighth of what
    such a token costs in LangChain.
    """
    if len(data) <= 4 or data[0] != _TEXT:
        return None
    if data[1] < _TWO_BYTES:
        return data[2:] if len(data) == 2 + data[1] else None
    is_whole = data[1] == _TWO_BYTES and len(data) == 4 + int.from_bytes(data[2:4], "big")
    return data[4:] if is_whole else None


def _size_of(frame: Frame) -> int:
    """Return how many bytes a frame of a server has, at least."""
    size = len(frame.data)
    return size + (2 if size < _TWO_BYTES else 4 if size < 1 << 16 else 10)


logger: logging.Logger = logging.getLogger(__name__)

READ_SIZE = 64 * 1024
"""Bytes that are read at once."""

CLOSE_TIMEOUT = 1.0
"""Seconds within which the server must answer the closing handshake."""

_ALWAYS_THERE: Namespace = "llm"
"""A namespace that every server has."""


async def find_server(target: Target) -> Target:
    """Return a target with an address: if it has none, that of this machine's server.

    It has no token and no headers if that server may be another user's: anyone may listen on a port.

    Raises:
        LMStudioUnreachableError: If there is none.
        LMStudioRuntimeError: If tests block it.
    """
    if target.address is not None:
        return target
    address, attempts = await discover()
    if address is None:
        raise LMStudioUnreachableError(not_found(attempts), tried=tuple(map(str, attempts)))
    IOThread.current().shared[None, Address] = address  # what was seen there is the same under its own name
    has_secrets = target.token is not None or bool(target.headers)
    if has_secrets and not await asyncio.to_thread(may_get_secrets, address):
        return replace(target, address=address, token=None, headers=())
    return replace(target, address=address)


async def open_socket(target: Target, namespace: Namespace) -> Socket:
    """Return a socket that has passed the WebSocket handshake.

    Raises:
        LMStudioUnreachableError: If that fails; the message says why.
        LMStudioAuthenticationError: If the server rejects this client in the handshake.
        LMStudioUnsupportedError: If it rejects this namespace only.
        LMStudioRuntimeError: If tests block it.
    """
    address = target.address
    assert address is not None, "it was found before"
    warning = unencrypted(target)
    if warning:
        logger.warning("%s", warning)
    without_blocked([address])
    try:
        return await _handshake(target, address, namespace)
    except Exception as error:  # noqa: BLE001 - any failure of the handshake is reported with its reason
        problem = error
    text, shown = str(problem), redact_address(str(problem))
    cause = None if shown != text else problem  # for example a proxy URL with a password
    reason = (
        redirect_of(problem, address.url(namespace))
        or no_descriptors(problem)
        or await diagnose(address, target.ssl_context)
    )
    if reason is None and (rejection := await _rejection_of(problem, target, address, namespace)):
        raise rejection from cause
    reason = reason or (
        f"LM Studio is there, but rejected the WebSocket /{namespace}: {shown}; update LM Studio, or "
        "let the proxy in front of it pass WebSockets"
    )
    raise LMStudioUnreachableError(
        f"LM Studio is not reachable at {address}{source_of(address)}: {reason}",
        tried=(f"{address}: {reason}",),
    ) from cause


async def _handshake(target: Target, address: Address, namespace: Namespace) -> Socket:
    socket = await Connect(
        address.url(namespace),
        additional_headers=list(target.headers),
        user_agent_header=USER_AGENT,
        compression=None,
        open_timeout=None,
        ping_interval=None,  # `Connection` pings
        close_timeout=CLOSE_TIMEOUT,
        max_size=target.max_message_bytes,
        max_queue=None,
        create_connection=Socket,
        ssl=(target.ssl_context or True) if address.tls else None,
        happy_eyeballs_delay=NEXT_ADDRESS_DELAY,
        proxy=None if address.is_loopback else True,
        logger=client_logger,
    )
    assert isinstance(socket, Socket), "it is made by create_connection"
    socket.most_bytes = min(READ_SIZE, target.max_message_bytes or READ_SIZE)
    # From 128 KB on, the C library asks the system for the memory of each read, which costs 100 µs.
    socket.transport.max_size = READ_SIZE  # type: ignore[attr-defined]
    return socket


async def _rejection_of(
    problem: Exception, target: Target, address: Address, namespace: Namespace
) -> LMStudioServerError | None:
    """Return the error for a status that an LM Studio sent instead of opening a namespace, if its meaning is known.

    Where a server requires tokens, a path that it does not have is 401 as well (docs/protocol.md#rejected-handshakes).
    So what another namespace comes to decides.
    """
    status = problem.response.status_code if isinstance(problem, InvalidStatus) else None
    if status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND}:
        return None
    if namespace != _ALWAYS_THERE and await _opens(target, address, _ALWAYS_THERE):
        update = UPDATE_FOR_DECISIONS if namespace == "decision" else "update LM Studio"
        return LMStudioUnsupportedError(
            f"LM Studio at {address} does not have the WebSocket /{namespace} (status {status:d}); {update}"
        )
    if status == HTTPStatus.NOT_FOUND:
        return None
    return LMStudioAuthenticationError(
        f"LM Studio at {address}, or a proxy in front of it, rejected this client with status {status:d}, before it "
        f"opened the WebSocket /{namespace}",
        title="Authentication failed",
    )


async def _opens(target: Target, address: Address, namespace: Namespace) -> bool:
    """Return whether a server opens a namespace."""
    try:
        socket = await _handshake(target, address, namespace)
    except (OSError, WebSocketException):
        return False
    socket.transport.abort()
    return True
