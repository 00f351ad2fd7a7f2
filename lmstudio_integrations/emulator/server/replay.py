"""Responds with what was recorded, in the place of the handlers.

`Matcher` finds the recorded request, and `ReplayConnection` sends what followed it, at the pace of the recording or at
once.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.server.connection_handler import ConnectionHandler
from lmstudio_integrations.emulator.server.context import USER_STOPPED, OpenChannel
from lmstudio_integrations.emulator.server.handlers import SERVED
from lmstudio_integrations.emulator.testing.cassette import ABSENT, Event, Interaction, Pace, Request
from lmstudio_integrations.emulator.testing.wire_items import Matcher
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS, Endpoint, Namespace, Rpc
from lmstudio_integrations.protocol.server_session import CallReceived, ChannelOpened

logger: logging.Logger = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds that a client has to send what it sent in the recording, such as a cancel."""


class RecordedError(WireError):
    """An error of the recording; it is sent as it was."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("title")))
        self._error = error

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form."""
        return dict(self._error)


def request_of(namespace: str, received: CallReceived | ChannelOpened) -> Request:
    """Return what a client asks. A parameter that is null is taken as absent."""
    return Request(namespace, received.endpoint.name, ABSENT if received.parameter is None else received.parameter)


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
        pace: How fast it is replayed.
    """

    served: ClassVar[Mapping[Namespace, Mapping[str, Endpoint]]] = {
        namespace: {name: _lenient(endpoint) for name, endpoint in endpoints.items()}
        for namespace, endpoints in SERVED.items()
    }

    def __init__(self, *arguments: Any, matcher: Matcher, pace: Pace) -> None:
        super().__init__(*arguments)
        self._matcher = matcher
        self._pace = pace

    async def _respond(self, call: CallReceived) -> None:
        interaction = self._matcher.find(request_of(self.namespace, call))
        if interaction is None:
            raise self._matcher.explain(request_of(self.namespace, call))
        end = interaction.end
        if end is not None:
            await self._wait_until(self._loop.time(), end)
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
        interaction = self._matcher.find(request_of(self.namespace, opened))
        if interaction is None:
            raise self._matcher.explain(request_of(self.namespace, opened))
        if any(event.kind == "sent" for event in interaction.events):
            await self._converse(interaction, channel, opened.endpoint.stop)
            return
        start, at = self._loop.time(), 0
        with channel.scope as scope:
            for at, event in enumerate(interaction.events):  # noqa: B007 - used after the block
                await self._wait_until(start, event)
                await self._send_event(channel, event)
            if interaction.end is None:
                await self._loop.create_future()  # the channel stays open until the client stops it
        if scope.reason:
            self._stop(channel, interaction.events[at:])

    async def _converse(self, interaction: Interaction, channel: OpenChannel, stop: str | None) -> None:
        """Send what was recorded on a channel on which the client sent packets as well, which it has to send again.

        Raises:
            WireError: If it does not.
        """
        packets: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        channel.on_packet = packets.put_nowait
        if channel.scope.reason:  # the client stopped it at once, before this ran
            packets.put_nowait({"type": stop})
        start = self._loop.time()
        for event in interaction.events:
            if event.kind == "sent":
                await _receive(packets, event)
                start = self._loop.time() - event.at  # what follows, follows this
            else:
                await self._wait_until(start, event)
                await self._send_event(channel, event)
        if interaction.end is None:
            await packets.get()

    async def _send_event(self, channel: OpenChannel, event: Event) -> None:
        if event.kind == "received":
            channel.send(event.body)
        elif event.kind != "closed":
            await self._end(event)

    async def _wait_until(self, start: float, event: Event) -> None:
        """Wait as in the recording; in any case let a client cancel (docs/protocol.md#check-cancel-points)."""
        due = start + event.at if self._pace == "recorded" else start
        await asyncio.sleep(max(due - self._loop.time(), 0))

    def _stop(self, channel: OpenChannel, rest: list[Event]) -> None:
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
