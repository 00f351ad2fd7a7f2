"""An emulator that responds with what was recorded.

`Matcher` finds the recorded request, and `ReplayConnection` sends what followed it, at once.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.cassettes.cassette import ABSENT, BeforeRecord, Event, Interaction, read
from lmstudio_integrations.cassettes.matching import Matcher
from lmstudio_integrations.emulator.emulator import Emulator
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.server.clients import Authenticator
from lmstudio_integrations.emulator.server.connection_handler import ConnectionHandler
from lmstudio_integrations.emulator.server.context import USER_STOPPED, OpenChannel, ServerState
from lmstudio_integrations.emulator.server.handlers import SERVED
from lmstudio_integrations.emulator.server.sockets import Socket
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS, Endpoint, Namespace, Rpc
from lmstudio_integrations.protocol.server_session import CallReceived, ChannelOpened

TIMEOUT = 10.0
"""Seconds that a client has to send what it sent in the recording, such as a cancel."""


class Replay(Emulator):
    """An emulator that responds with what was recorded, and has no models of its own.

    A request gets the response of the recorded request that it equals, but for what is new in each run
    (docs/tools/cassettes.md#matching). Any other is an error that tells the difference to the nearest one.

    Args:
        cassette: The file.
        before_record: That of the recording, see `use_cassette`.
        settings: `host`, `port`, `tokens`, `latency`, `origins`, `clock` and `limits` of `Emulator`.

    Raises:
        LMStudioOSError: If the file cannot be read.
        LMStudioValueError: If it is not a cassette, of another version, or cut off, or an argument is not valid.
    """

    def __init__(self, cassette: str | Path, *, before_record: BeforeRecord | None = None, **settings: Any) -> None:
        super().__init__((), **settings)
        interactions = read(Path(cassette))
        try:
            self._matcher = Matcher(interactions, before_record)
        except RecursionError:
            raise LMStudioValueError(
                f"the cassette {str(cassette)!r} cannot be read: a request is nested too deeply; record it again"
            ) from None
        for each in interactions:
            if each.end is None and not each.was_open:
                raise LMStudioValueError(
                    f"the cassette {str(cassette)!r} is cut off: request {each.number} ({each.name}) has no end; "
                    "record it again"
                )

    @property
    def unmatched(self) -> tuple[str, ...]:
        """What clients asked that the cassette does not have: a text for each, with the difference."""
        return tuple(self._matcher.unmatched)

    def _serve_connection(
        self, socket: Socket, namespace: Namespace, state: ServerState, authenticator: Authenticator
    ) -> ConnectionHandler:
        return ReplayConnection(socket, namespace, state, authenticator, matcher=self._matcher)


class RecordedError(WireError):
    """An error of the recording; it is sent as it was."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("title")))
        self._error = error

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form."""
        return dict(self._error)


def _lenient(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint that takes any parameter: what a server makes of a wrong one is in the recording."""
    if isinstance(endpoint, Rpc):
        return replace(endpoint, parameter=Any)
    return replace(endpoint, parameter=Any, packets=dict.fromkeys(endpoint.packets))


class ReplayConnection(ConnectionHandler):
    """One socket of one client, which gets what was recorded.

    Args:
        arguments: Those of `ConnectionHandler`.
        matcher: The recording.
    """

    served: ClassVar[Mapping[Namespace, Mapping[str, Endpoint]]] = {
        namespace: {name: _lenient(endpoint) for name, endpoint in endpoints.items()}
        for namespace, endpoints in SERVED.items()
    }

    def __init__(self, *arguments: Any, matcher: Matcher) -> None:
        super().__init__(*arguments)
        self._matcher = matcher

    def _find(self, received: CallReceived | ChannelOpened) -> Interaction:
        return self._matcher.find(f"{self.namespace}.{received.endpoint.name}", received.parameter)

    async def _respond(self, call: CallReceived) -> None:
        end = self._find(call).end
        if end is None:
            await self._loop.create_future()  # no reply came, until the client went
        elif end.kind == "result":
            self.session.reply(call.call_id, None if end.body is ABSENT else end.body)
        else:
            await self._end(end)

    async def _end(self, event: Event) -> None:
        """End a request as it ended in the recording: with an error, the loss of the connection, or never.

        Raises:
            RecordedError: If it was an error.
        """
        if event.kind == "error":
            raise RecordedError(event.body)
        if event.kind == "lost":
            self._socket.transport.abort()
        else:
            self.session.warn(str(event.body.get("warning")), event.body.get("kind", "unknown"))
            self._flush_soon()
        await self._loop.create_future()  # nothing follows a warning

    async def _stream(self, opened: ChannelOpened, channel: OpenChannel) -> None:
        """Send what was recorded; what the client sent there, it has to send again.

        A client that sends anything else, as it does to cancel, ends what it has not waited for.
        """
        interaction = self._find(opened)
        packets: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        channel.on_packet = packets.put_nowait
        if channel.scope.reason:  # the client stopped it at once, before this ran
            packets.put_nowait({"type": opened.endpoint.stop})
        for at, event in enumerate(interaction.events):
            await asyncio.sleep(0)  # let a client cancel (docs/protocol.md#check-cancel-points)
            if event.kind == "sent":
                await _receive(packets, event)
            elif not packets.empty() and not any(each.kind == "sent" for each in interaction.events[at:]):
                _stop(channel, interaction.events[at:])
                return
            elif event.kind == "received":
                channel.send(event.body)
            elif event.kind != "closed":
                await self._end(event)
        if interaction.end is None:
            await packets.get()  # the channel stays open until the client stops it


def _stop(channel: OpenChannel, rest: list[Event]) -> None:
    """End a channel that the client stops, and in the recording did not: with its last packet, if it has one."""
    for event in rest:
        packet = event.body
        if event.kind == "received" and packet.get("type") in LAST_PACKETS:
            stats = packet.get("stats")
            stopped = {**packet, "stats": {**stats, "stopReason": USER_STOPPED}} if is_object(stats) else packet
            channel.send(stopped)


async def _receive(packets: "asyncio.Queue[Mapping[str, Any]]", event: Event) -> None:
    """Wait for a packet that the client sent in the recording.

    Raises:
        WireError: If it does not come, or another one comes.
    """
    expected = event.body.get("type") if is_object(event.body) else None
    try:
        packet = await asyncio.wait_for(packets.get(), TIMEOUT)
    except TimeoutError:
        raise WireError(f"In the recording, the client sent {expected!r} here; now it sent nothing") from None
    if packet.get("type") != expected:
        raise WireError(f"In the recording, the client sent {expected!r} here; now it sent {packet.get('type')!r}")
