"""One socket: frames in, work for each request, frames out.

Frames that come together leave in one write. Nothing waits for a slow reader: what it does not take is kept for
it, up to a limit, and then its socket is closed.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from lmstudio_integrations.emulator.admission import Admission
from lmstudio_integrations.emulator.context import USER_STOPPED, Client, Context, Hub
from lmstudio_integrations.emulator.engines.base import EngineError, FaultKind
from lmstudio_integrations.emulator.handlers import HANDLERS, SERVED
from lmstudio_integrations.emulator.refusals import RefusedError, from_engine
from lmstudio_integrations.emulator.work import Scope
from lmstudio_integrations.protocol.endpoints import Namespace
from lmstudio_integrations.protocol.server_session import CallReceived, ChannelOpened, PacketReceived, ServerSession

logger: logging.Logger = logging.getLogger(__name__)

AUTHENTICATION_TIMEOUT = 10.0
"""Seconds that a client has to say who it is."""


class OpenChannel:
    """The server's end of one channel."""

    def __init__(self, connection: "Connection", channel_id: int) -> None:
        self.scope: Scope = Scope()
        self._connection = connection
        self._id = channel_id

    def send(self, packet: Mapping[str, Any]) -> None:
        """Send a packet."""
        self._connection.session.send(self._id, packet)
        self._connection.flush_soon()

    def break_line(self, kind: FaultKind) -> None:
        """Carry out a fault of the line."""
        if kind == "unknown_packet":
            self.send({"type": "unheardOf"})
        else:
            self._connection.break_line(kind)


class Connection:
    """One socket of one client.

    Args:
        socket: The socket, opened.
        namespace: What it is for.
        hub: The server's state.
        admission: Who may come in.
        max_backlog: Bytes that are kept for a reader who does not take them.
    """

    def __init__(
        self, socket: ServerConnection, namespace: Namespace, hub: Hub, admission: Admission, *, max_backlog: int
    ) -> None:
        self.namespace: Namespace = namespace
        self.session: ServerSession = ServerSession(SERVED[namespace], self._authenticate)
        self._socket = socket
        self._hub = hub
        self._admission = admission
        self._max_backlog = max_backlog
        self._client: Client | None = None
        self._channels: dict[int, OpenChannel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._flush_is_due = False
        self._mute = False

    @property
    def client(self) -> str | None:
        """The identifier of the client, once it is let in."""
        return None if self._client is None else self._client.identifier

    async def run(self) -> None:
        """Serve the socket until it goes; then stop all work for it."""
        deadline = self._hub.clock.call_later(AUTHENTICATION_TIMEOUT, self._time_out)
        try:
            while not self.session.refused:
                self._receive(await self._socket.recv(decode=False))
        except ConnectionClosed:
            pass
        finally:
            deadline.cancel()
            await self._stop_work()
            if self._client is not None:
                self._admission.leave(self._client)

    def hang_up(self) -> None:
        """Abort the socket if its client does not read: it would not take a close frame either."""
        if self._mute or self._socket.paused:
            self._socket.transport.abort()

    def flush_soon(self) -> None:
        """Write all that is due, after all that happens in this turn of the loop."""
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def break_line(self, kind: FaultKind) -> None:
        """Drop the socket, close its writing side, or send what is no JSON."""
        self._flush()
        if kind == "drop":
            self._socket.transport.abort()
        elif kind == "half_close":
            self._socket.transport.write_eof()
            self._mute = True
        else:
            self._write(['{"type":"channelSend",'])

    def _receive(self, data: bytes) -> None:
        match self.session.receive(data):
            case CallReceived() as call:
                self._start(self._answer(call))
            case ChannelOpened() as opened:
                channel = self._channels[opened.channel_id] = OpenChannel(self, opened.channel_id)
                self._start(self._serve(opened, channel))
            case PacketReceived(channel_id=channel_id):
                self._channels[channel_id].scope.stop(USER_STOPPED)
            case _:
                pass
        # Also what the session itself has to say: the answer to credentials, a warning.
        self._flush()

    def _authenticate(self, identifier: str, passkey: str) -> str | None:
        refusal = self._admission.refusal(identifier, passkey)
        if refusal is None:
            self._client = self._admission.enter(identifier, passkey)
        return refusal

    def _time_out(self) -> None:
        self.session.time_out()
        self._flush()
        if self.session.refused:
            self._start(self._socket.close())

    async def _answer(self, call: CallReceived) -> None:
        try:
            await self._hub.travel()
            result = await HANDLERS[self.namespace][call.endpoint.name](self._context(), call.parameter)
        except Exception as error:  # noqa: BLE001 - a handler that fails must not take the socket with it
            self.session.refuse(call.call_id, _error(error, call.endpoint.name))
        else:
            self.session.reply(call.call_id, result)
        self.flush_soon()

    async def _serve(self, opened: ChannelOpened, channel: OpenChannel) -> None:
        handler = HANDLERS[self.namespace][opened.endpoint.name]
        try:
            await self._hub.travel()
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
        return Context(self._hub, self._client, self.namespace)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
        """Hand frames to the socket in one write, if it still takes any."""
        protocol, transport = self._socket.protocol, self._socket.transport
        if self._mute or protocol.state is not State.OPEN:
            return
        for frame in frames:
            protocol.send_text(frame.encode())
        transport.write(b"".join(protocol.data_to_send()))
        if transport.get_write_buffer_size() > self._max_backlog:
            logger.warning("closed the socket of a client that does not read")
            transport.abort()


def _error(error: Exception, endpoint: str) -> Mapping[str, Any]:
    """Return what goes over the wire for what a handler raised; a failure of our own is logged."""
    if isinstance(error, EngineError):
        return from_engine(error).error
    if not isinstance(error, RefusedError):
        logger.error("the handler of %s failed", endpoint, exc_info=error)
        error = RefusedError("Internal error of the emulator", cause=repr(error))
    return error.error
