"""One socket: its client is authenticated, then frames in, a task for each request, frames out.

Frames of one turn of the event loop are sent in one write. Nothing waits for a slow reader: its output is buffered up
to a limit, then its socket is closed. Used by `server`; built on the protocol's `ServerSession`. Everything here
belongs to the emulator's event loop.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, ClassVar

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from lmstudio_integrations.emulator.engines.base import FaultKind
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.server.clients import Authenticator
from lmstudio_integrations.emulator.server.context import Context, OpenChannel, ServerState
from lmstudio_integrations.emulator.server.handlers import HANDLERS, SERVED
from lmstudio_integrations.emulator.server.sockets import Socket
from lmstudio_integrations.emulator.server.tcp import reset
from lmstudio_integrations.protocol import envelope
from lmstudio_integrations.protocol.endpoints import Endpoint, Namespace
from lmstudio_integrations.protocol.server_session import CallReceived, ChannelOpened, PacketReceived, ServerSession

logger: logging.Logger = logging.getLogger(__name__)

AUTHENTICATION_TIMEOUT = 10.0
"""Seconds that a client has to authenticate."""

_FLUSH_AT = 1024 * 1024
"""Bytes of output that are written at once, so that the limit on unread output applies; less is sent with the turn."""


class ConnectionHandler:
    """One socket of one client.

    Args:
        socket: The socket, opened.
        namespace: Its namespace.
        state: The server's state.
        authenticator: Checks the client's credentials.
    """

    served: ClassVar[Mapping[Namespace, Mapping[str, Endpoint]]] = SERVED
    """The endpoints that get a response."""

    def __init__(self, socket: Socket, namespace: Namespace, state: ServerState, authenticator: Authenticator) -> None:
        self.namespace: Namespace = namespace
        self.session: ServerSession = ServerSession(self.served[namespace], self._authenticate)
        self._socket = socket
        self._state = state
        self._authenticator = authenticator
        self._context: Context | None = None
        """The client, once it is authenticated; requests come after that."""
        self._channels: dict[int, OpenChannel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._flush_is_due = False

    @property
    def client(self) -> str | None:
        """The identifier of the client, once it is authenticated."""
        return None if self._context is None else self._context.client.identifier

    async def run(self) -> None:
        """Serve the socket until it is closed; then cancel all its requests."""
        deadline = self._state.clock.call_later(AUTHENTICATION_TIMEOUT, self._time_out)
        try:
            while not self.session.rejected:
                self._receive(await self._socket.recv(decode=False))
        except ConnectionClosed as closed:
            ours = None if closed.rcvd_then_sent else closed.sent
            if ours is not None and ours.code == CloseCode.MESSAGE_TOO_BIG:
                logger.warning("closed the connection of %s: %s", self._socket.remote_address, ours.reason)
        finally:
            deadline.cancel()
            tasks = set(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            if self._context is not None:
                self._authenticator.disconnect(self._context.client)

    def _send(self, channel_id: int, packet: Mapping[str, Any]) -> None:
        """Send a packet of a channel, unless the connection is lost."""
        if self._socket.writable:
            self.session.send(channel_id, packet)
            self._flush_soon()

    def _flush_soon(self) -> None:
        """Send pending frames at the end of this turn of the event loop; large output at once."""
        if self.session.pending_size >= _FLUSH_AT:
            self._flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _inject_fault(self, channel_id: int, kind: FaultKind) -> None:
        """Break the connection after what was sent on the channel."""
        self._flush()
        match kind:
            case "drop":
                reset(self._socket.transport)
            case "half_close":
                self._socket.is_half_closed = True  # nothing may be written afterwards
                self._socket.transport.write_eof()
            case "corrupt":
                self._socket.write(['{"type":"channelSend",'])  # the beginning of a frame
            case "unknown_packet":
                self._socket.write([envelope.channel_send(channel_id, '{"type":"unheardOf","info":1}')])

    def _receive(self, data: bytes) -> None:
        match self.session.receive(data):
            case CallReceived() as call:
                self._start(self._reply(call))
            case ChannelOpened() as opened:
                self._open(opened)
            case PacketReceived(channel_id=channel_id, packet=packet):
                self._channels[channel_id].receive(packet)
            case _:
                pass
        # Includes frames of the session itself: the authentication result and warnings.
        self._flush()

    def _authenticate(self, identifier: str, passkey: str) -> str | None:
        reason = self._authenticator.why_rejected(identifier, passkey)
        if reason is not None:
            return reason
        self._context = Context(self._state, self._authenticator.connect(identifier, passkey), self.namespace)
        self._socket.is_admitted = True
        return None

    def _time_out(self) -> None:
        self.session.reject_unauthenticated()
        self._flush()
        if self.session.rejected:
            self._start(self._socket.close())

    async def _reply(self, call: CallReceived) -> None:
        self._log("info", call.endpoint.name)
        try:
            await self._state.simulate_latency()
            await self._respond(call)
        except Exception as error:  # noqa: BLE001 - a handler that fails must not close the socket
            self.session.reject(call.call_id, self._failure(error, call.endpoint.name))
        self._flush_soon()

    async def _respond(self, call: CallReceived) -> None:
        """Reply to a call, or raise what is wrong with it."""
        result = await HANDLERS[self.namespace][call.endpoint.name](self._context, call.parameter)
        self.session.reply(call.call_id, result)

    def _open(self, opened: ChannelOpened) -> None:
        """Start the task of a channel; packets may arrive before it runs."""
        channel_id = opened.channel_id
        channel = OpenChannel(partial(self._send, channel_id), partial(self._inject_fault, channel_id))
        self._channels[channel_id] = channel
        self._start(self._serve(opened, channel))

    async def _serve(self, opened: ChannelOpened, channel: OpenChannel) -> None:
        self._log("info", opened.endpoint.name)
        try:
            await self._state.simulate_latency()
            await self._stream(opened, channel)
        except Exception as error:  # noqa: BLE001 - a handler that fails must not close the socket
            self.session.fail(opened.channel_id, self._failure(error, opened.endpoint.name))
        else:
            self.session.close(opened.channel_id)
        finally:
            del self._channels[opened.channel_id]
        self._flush_soon()

    async def _stream(self, opened: ChannelOpened, channel: OpenChannel) -> None:
        """Send the packets of a channel, or raise what ends it."""
        await HANDLERS[self.namespace][opened.endpoint.name](self._context, channel, opened.parameter)

    def _failure(self, error: Exception, endpoint: str) -> Mapping[str, Any]:
        """Return the wire form of what a handler raised; a defect of the emulator is logged."""
        if not isinstance(error, WireError):
            logger.error("the handler of %s failed", endpoint, exc_info=error)
            error = WireError("Internal error of the emulator", cause=repr(error))
        error.title = error.title_in(self._state.registry.catalog.played)
        self._log("error", endpoint, f" failed: {error.title}")
        return error.to_dict()

    def _log(self, level: str, endpoint: str, outcome: str = "") -> None:
        """Write a request to the log that clients stream; requests for the log itself would only add noise."""
        if self.namespace != "diagnostics":
            content = f"{self.client}: {self.namespace}.{endpoint}{outcome}"
            self._state.log({"type": "server.log", "level": level, "content": content})

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _flush(self) -> None:
        self._flush_is_due = False
        frames = self.session.data_to_send()
        if frames:
            self._write(frames)

    def _write(self, frames: list[str]) -> None:
        self._socket.write(frames)
