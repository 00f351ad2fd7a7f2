"""Asks a real server what a recording does not have, so that new requests can be added to a cassette.

What was loaded in the recording is not loaded on the server: it is loaded there before the first request that uses it.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import from_json
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from lmstudio_integrations._support.json_text import dumps
from lmstudio_integrations._support.secrets import client_logger
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.server.context import ConnectedClient, OpenChannel
from lmstudio_integrations.emulator.server.replay import RecordedError, ReplayConnection, request_of
from lmstudio_integrations.emulator.testing.cassettes.cassette import ABSENT, Interaction, Kind
from lmstudio_integrations.protocol import envelope
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS
from lmstudio_integrations.protocol.server_session import CallReceived, ChannelOpened

Frames = asyncio.Queue[Mapping[str, Any]]
"""What a server sends on a request."""

_ENDS = {"rpcResult", "rpcError", "channelClose", "channelError"}
_LOST = {"title": "The connection to the recorded server was lost"}


class ForwardingConnection(ReplayConnection):
    """One socket of one client, which gets what was recorded, and the rest from a server.

    Args:
        arguments: Those of `ReplayConnection`.
        server: `host:port` of the server.
    """

    def __init__(self, *arguments: Any, server: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._server = server
        self._opening = asyncio.Lock()
        self._upstream: _Upstream | None = None
        self._loads: dict[Interaction, asyncio.Task[str]] = {}

    async def run(self) -> None:
        """Serve the socket until it is closed."""
        try:
            await super().run()
        finally:
            if self._upstream is not None:
                await self._upstream.close()

    async def _respond_unmatched(self, call: CallReceived) -> None:
        _, frames = await self._ask("call", call)
        reply = await frames.get()
        if "error" in reply:
            raise RecordedError(reply["error"])
        self.session.reply(call.call_id, reply.get("result"))

    async def _stream_unmatched(self, opened: ChannelOpened, channel: OpenChannel) -> None:
        number, frames = await self._ask("channel", opened)
        upstream = await self._ensure_connected()

        def forward(packet: Mapping[str, Any]) -> None:
            upstream.send(number, packet)

        channel.on_packet = forward
        if channel.scope.reason:  # the client stopped it at once, before this ran
            forward({"type": opened.endpoint.stop})
        while (frame := await frames.get())["type"] == "channelSend":
            channel.send(frame["message"])
        if "error" in frame:
            raise RecordedError(frame["error"])

    async def _ask(self, kind: Kind, received: CallReceived | ChannelOpened) -> tuple[int, Frames]:
        request = request_of(self.namespace, received)
        parameter = request.parameter
        if is_object(parameter):
            parameter = {
                name: await self._ensure_loaded(value) if name in {"modelSpecifier", "specifier"} else value
                for name, value in parameter.items()
            }
        return (await self._ensure_connected()).request(kind, request.endpoint, parameter)

    async def _ensure_loaded(self, specifier: Any) -> Any:
        """Return what names a model on the server, once it is loaded there if the recording has loaded it."""
        interaction = self._matcher.load_of(specifier)
        if interaction is None:
            return specifier
        if interaction not in self._loads:
            self._loads[interaction] = asyncio.ensure_future(self._load(interaction))
        reference = await asyncio.shield(self._loads[interaction])
        is_reference = is_object(specifier) and specifier.get("type") == "instanceReference"
        return {**specifier, "instanceReference": reference} if is_reference else specifier

    async def _load(self, interaction: Interaction) -> str:
        _, frames = (await self._ensure_connected()).request("channel", interaction.endpoint, interaction.parameter)
        while (frame := await frames.get())["type"] == "channelSend":
            packet = frame["message"]
            if packet.get("type") in LAST_PACKETS:
                return str(packet["info"]["instanceReference"])
        raise RecordedError(frame.get("error", _LOST))

    async def _ensure_connected(self) -> "_Upstream":
        async with self._opening:
            if self._upstream is None:
                assert self._client is not None, "requests come after authentication"
                url = f"ws://{self._server}/{self.namespace}"
                self._upstream = await _Upstream.open(url, self._client, self._warn)
        return self._upstream

    def _warn(self, frame: Mapping[str, Any]) -> None:
        self.session.warn(frame["warning"], frame.get("kind", "unknown"))
        self._flush_soon()


class _Upstream:
    """A socket of a server, with the requests on it.

    Args:
        socket: The socket.
        on_warning: Called with each warning, which the server sends in the place of a reply.
    """

    def __init__(self, socket: ClientConnection, on_warning: Callable[[Mapping[str, Any]], None]) -> None:
        self._socket = socket
        self._on_warning = on_warning
        self._ids = itertools.count(1)
        self._requests: dict[int, Frames] = {}
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())]

    @classmethod
    async def open(
        cls, url: str, client: ConnectedClient, on_warning: Callable[[Mapping[str, Any]], None]
    ) -> "_Upstream":
        """Connect with the credentials of a client.

        Raises:
            WireError: If that fails.
        """
        try:
            socket = await connect(url, max_size=None, compression=None, logger=client_logger)
            await socket.send(envelope.auth(client.identifier, client.passkey))
            result = from_json(await socket.recv())
        except (OSError, InvalidHandshake, ConnectionClosed) as error:
            raise WireError(f"The server to record cannot be reached: {error}") from error
        if not result.get("success"):
            await socket.close()
            raise WireError(f"The server to record rejects this client: {result.get('error')}")
        return cls(socket, on_warning)

    async def close(self) -> None:
        """Close the socket."""
        for task in self._tasks:
            task.cancel()
        await self._socket.close()

    def request(self, kind: Kind, endpoint: str, parameter: Any) -> tuple[int, Frames]:
        """Send a request; return its id, and what the server sends on it."""
        number, frames = next(self._ids), Frames()
        self._requests[number] = frames
        frame_of = envelope.rpc_call if kind == "call" else envelope.channel_create
        text = None if parameter is ABSENT else dumps(parameter)
        self._outgoing.put_nowait(frame_of(endpoint, number, text))
        return number, frames

    def send(self, number: int, packet: Mapping[str, Any]) -> None:
        """Send a packet on a channel, after what was sent before."""
        self._outgoing.put_nowait(envelope.channel_send(number, dumps(packet)))

    async def _write(self) -> None:
        while True:
            await self._socket.send(await self._outgoing.get())

    async def _read(self) -> None:
        try:
            async for data in self._socket:
                frame = envelope.parse(data)[0] or {}
                if frame.get("type") == "communicationWarning":
                    self._on_warning(frame)
                number = frame.get("callId", frame.get("channelId"))
                if number in self._requests:
                    self._requests[number].put_nowait(frame)
                    if frame.get("type") in _ENDS:
                        del self._requests[number]
        finally:
            for frames in self._requests.values():
                frames.put_nowait({"type": "channelError", "error": _LOST})
