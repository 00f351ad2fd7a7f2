"""One socket: frames in, work for each request, frames out.

Frames that come together leave in one write. Nothing waits for a slow reader: its output is buffered up to a limit,
then its socket is closed.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from lmstudio_integrations.emulator.authentication import Authenticator
from lmstudio_integrations.emulator.context import USER_STOPPED, Client, Context, ServerState
from lmstudio_integrations.emulator.engines.base import FaultKind
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.handlers import HANDLERS, SERVED
from lmstudio_integrations.emulator.limits import has_more_values
from lmstudio_integrations.emulator.scheduling import CancelScope
from lmstudio_integrations.emulator.sockets import Socket
from lmstudio_integrations.protocol.endpoints import Namespace
from lmstudio_integrations.protocol.server_session import CallReceived, ChannelOpened, PacketReceived, ServerSession

logger: logging.Logger = logging.getLogger(__name__)

AUTHENTICATION_TIMEOUT = 10.0
"""Seconds that a client has to authenticate."""

_FLUSH_AT = 1024 * 1024
"""Output that is written at once, so that the limit on unread output sees it; less waits for the end of the turn."""


class ServerChannel:
    """The server's end of one channel."""

    def __init__(self, connection: "ConnectionHandler", channel_id: int) -> None:
        self.scope: CancelScope = CancelScope()
        self._connection = connection
        self._id = channel_id

    def send(self, packet: Mapping[str, Any]) -> None:
        """Send a packet, as long as there is somebody to receive it."""
        if self._connection.writable:
            self._connection.session.send(self._id, packet)
            self._connection.flush_soon()

    def inject_fault(self, kind: FaultKind) -> None:
        """Carry out a fault of the line."""
        if kind == "unknown_packet":
            self.send({"type": "unheardOf"})
        else:
            self._connection.inject_fault(kind)


class ConnectionHandler:
    """One socket of one client.

    Args:
        socket: The socket, opened.
        namespace: What it is for.
        hub: The server's state.
        admission: Who may come in.
    """

    def __init__(self, socket: Socket, namespace: Namespace, state: ServerState, authenticator: Authenticator) -> None:
        self.namespace: Namespace = namespace
        self.session: ServerSession = ServerSession(SERVED[namespace], self._authenticate)
        self._socket = socket
        self._state = state
        self._authenticator = authenticator
        self._client: Client | None = None
        self._channels: dict[int, ServerChannel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._flush_is_due = False
        self._mute = False

    @property
    def client(self) -> str | None:
        """The identifier of the client, once it is authenticated."""
        return None if self._client is None else self._client.identifier

    @property
    def writable(self) -> bool:
        """Whether what is sent may still arrive."""
        return self._socket.writable and not self._mute

    async def run(self) -> None:
        """Serve the socket until it is closed; then stop all work for it."""
        deadline = self._state.clock.call_later(AUTHENTICATION_TIMEOUT, self._time_out)
        self._socket.watch()
        try:
            while not self.session.refused:
                message = await self._socket.recv(decode=False)
                if has_more_values(message, self._state.limits.message_values):
                    await self._socket.close(CloseCode.MESSAGE_TOO_BIG, "the message has too many values")
                else:
                    self._receive(message)
        except ConnectionClosed as closed:
            ours = None if closed.rcvd_then_sent else closed.sent
            if ours is not None and ours.code == CloseCode.MESSAGE_TOO_BIG:
                logger.warning("closed the connection of %s: %s", self._socket.remote_address, ours.reason)
        finally:
            deadline.cancel()
            await self._stop_work()
            if self._client is not None:
                self._authenticator.leave(self._client)

    def abort_unread(self) -> None:
        """Abort the socket if its client does not read: it would not take a close frame either."""
        if self._mute or self._socket.paused:
            self._socket.transport.abort()

    def flush_soon(self) -> None:
        """Write all that is due, after all that happens in this turn of the loop; at once if it is much."""
        if self.session.pending_size >= _FLUSH_AT:
            self._flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def inject_fault(self, kind: FaultKind) -> None:
        """Drop the socket, close its writing side, or send what is no JSON."""
        self._flush()
        if kind == "drop":
            self._socket.transport.abort()
        elif kind == "half_close":
            self._socket.half_close()
            self._mute = True
        else:
            self._write(['{"type":"channelSend",'])

    def _receive(self, data: bytes) -> None:
        match self.session.receive(data):
            case CallReceived() as call:
                self._begin(
                    len(data), lambda: self._answer(call), lambda error: self.session.refuse(call.call_id, error)
                )
            case ChannelOpened() as opened:
                self._begin(
                    len(data), lambda: self._open(opened), lambda error: self.session.fail(opened.channel_id, error)
                )
            case PacketReceived(channel_id=channel_id):
                self._channels[channel_id].scope.stop(USER_STOPPED)
            case _:
                pass
        # Also what the session itself has to say: the answer to credentials, a warning.
        self._flush()

    def _begin(
        self, size: int, work: Callable[[], Coroutine[Any, Any, None]], reject: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """Start the work for a request, if its client may have one more."""
        client = self._client
        assert client is not None, "requests come after authentication"
        try:
            client.begin_request(size, self._state.limits)
        except WireError as error:
            reject(error.to_dict())
        else:
            self._start(work()).add_done_callback(lambda _: client.end_request(size))

    def _authenticate(self, identifier: str, passkey: str) -> str | None:
        refusal = self._authenticator.refusal(identifier, passkey)
        if refusal is not None:
            return refusal
        client = self._client = self._authenticator.enter(identifier, passkey)
        if client.sockets > self._state.limits.client_connections:
            return f"This server allows {self._state.limits.client_connections:,} connections of one client"
        self._socket.mark_authenticated()
        return None

    def _time_out(self) -> None:
        self.session.time_out()
        self._flush()
        if self.session.refused:
            self._start(self._socket.close())

    async def _answer(self, call: CallReceived) -> None:
        try:
            await self._state.simulate_latency()
            result = await HANDLERS[self.namespace][call.endpoint.name](self._context(), call.parameter)
            self.session.reply(call.call_id, result)
        except Exception as error:  # noqa: BLE001 - a handler that fails must not take the socket with it
            self.session.refuse(call.call_id, _error(error, call.endpoint.name))
        self.flush_soon()

    def _open(self, opened: ChannelOpened) -> Coroutine[Any, Any, None]:
        """Return the work for a channel; its packets find it before it runs."""
        channel = self._channels[opened.channel_id] = ServerChannel(self, opened.channel_id)
        return self._serve(opened, channel)

    async def _serve(self, opened: ChannelOpened, channel: ServerChannel) -> None:
        handler = HANDLERS[self.namespace][opened.endpoint.name]
        try:
            await self._state.simulate_latency()
            await handler(self._context(), channel, opened.parameter)
        except Exception as error:  # noqa: BLE001 - as above
            self.session.fail(opened.channel_id, _error(error, opened.endpoint.name))
        else:
            self.session.close(opened.channel_id)
        finally:
            del self._channels[opened.channel_id]
        self.flush_soon()

    def _context(self) -> Context:
        assert self._client is not None, "requests come after authentication"
        return Context(self._state, self._client, self.namespace)

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stop_work(self) -> None:
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _flush(self) -> None:
        self._flush_is_due = False
        frames = self.session.data_to_send()
        if frames:
            self._write(frames)

    def _write(self, frames: list[str]) -> None:
        if self.writable:
            self._socket.write(frames)


def _error(error: Exception, endpoint: str) -> Mapping[str, Any]:
    """Return what goes over the wire for what a handler raised; a failure of our own is logged."""
    if not isinstance(error, WireError):
        logger.error("the handler of %s failed", endpoint, exc_info=error)
        error = WireError("Internal error of the emulator", cause=repr(error))
    return error.to_dict()
