"""A client session and a server session, joined in memory: each receives what the other sends."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, Namespace
from lmstudio_integrations.protocol.exchange import Exchange, InstanceQueues, exchange_type
from lmstudio_integrations.protocol.server_session import (
    CallReceived,
    ChannelOpened,
    Event,
    PacketReceived,
    ServerSession,
)
from lmstudio_integrations.protocol.session import ClientSession
from tests.support.strict.listener import Direction, StrictListener


@dataclass
class RecordingReceiver:
    """A receiver that records what it receives."""

    items: list[Any] = field(default_factory=list[Any])
    ends: list[BaseException | None] = field(default_factory=list[BaseException | None])
    alive: bool = True

    def put(self, item: Any) -> None:
        self.items.append(item)

    def finish(self, error: BaseException | None) -> None:
        self.ends.append(error)

    def is_alive(self) -> bool:
        return self.alive

    @property
    def texts(self) -> list[str]:
        """The texts of the fragments that were received."""
        return [item.content for item in self.items if isinstance(item, lms.LlmPredictionFragment)]

    @property
    def error(self) -> BaseException:
        """The error with which it was finished, once."""
        (end,) = self.ends
        assert end is not None, "it was finished without an error"
        return end


class SessionPair:
    """Both ends of one connection, and the time, which only a test moves.

    Args:
        namespace: What is served.
        authenticated: Whether the client is authenticated before the test begins.
        rejection: Why the server rejects the client, if it does.
        checked: Whether the frames are checked against the specification.
        queues: The queues that the client's connections to this server share.
    """

    def __init__(
        self,
        namespace: Namespace = "llm",
        *,
        authenticated: bool = True,
        rejection: str | None = None,
        checked: bool = True,
        queues: InstanceQueues | None = None,
    ) -> None:
        self.namespace: Namespace = namespace
        self.client = ClientSession(queues=queues)
        self.client.authenticate("guest:1", "secret")
        self.server = ServerSession(ENDPOINTS[namespace], lambda _identifier, _passkey: rejection)
        self.strict = StrictListener() if checked else None
        self.now = 0.0
        self.events: list[Event] = []
        self.to_server: list[dict[str, Any]] = []
        self.to_client: list[dict[str, Any]] = []
        if authenticated:
            self.pump()
            self.to_server.clear()
            self.to_client.clear()

    def call(
        self, name: str, parameter: Mapping[str, Any] | None = None, **details: Any
    ) -> tuple[Exchange, RecordingReceiver]:
        """Make a request, with the parameter in wire form, and carry it over."""
        receiver = RecordingReceiver()
        endpoint = ENDPOINTS[self.namespace][name]
        exchange = exchange_type(endpoint)(
            endpoint,
            None if parameter is None else json.dumps(parameter),
            receiver,
            details.pop("timeouts", {}),
            details.pop("started", self.now),
            **details,
        )
        self.client.start(exchange)
        self.pump()
        return exchange, receiver

    def pump(self) -> None:
        """Carry frames over, both ways, until nothing is due."""
        while frames := self.client.data_to_send():
            for frame in frames:
                self.to_server.append(json.loads(frame))
                self._check("client", frame)
                event = self.server.receive(frame)
                if event is not None:
                    self.events.append(event)
            self.pump_to_client()

    def pump_to_client(self) -> None:
        """Carry the frames of the server over."""
        for frame in self.server.data_to_send():
            self.to_client.append(json.loads(frame))
            self._check("server", frame)
            self.client.receive(frame, self.now)

    def _check(self, direction: Direction, frame: str) -> None:
        if self.strict is not None:
            self.strict.feed(direction, self.namespace, frame)

    def send(self, exchange: Exchange, *packets: Mapping[str, Any]) -> None:
        """Let the server send packets on a channel."""
        for packet in packets:
            self.server.send(exchange.id, packet)
        self.pump_to_client()

    def close(self, exchange: Exchange) -> None:
        """Let the server end a channel."""
        self.server.close(exchange.id)
        self.pump_to_client()

    def raw(self, frame: Any) -> None:
        """Let the client receive a frame that the server session would not send."""
        self.client.receive(frame if isinstance(frame, str | bytes) else json.dumps(frame), self.now)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, check the timeouts, and carry the frames over."""
        self.now += seconds
        self.client.tick(self.now)
        self.pump()

    @property
    def opened(self) -> list[ChannelOpened]:
        """The channels that the client opened."""
        return [event for event in self.events if isinstance(event, ChannelOpened)]

    @property
    def called(self) -> list[CallReceived]:
        """The RPCs of the client."""
        return [event for event in self.events if isinstance(event, CallReceived)]

    @property
    def client_packets(self) -> list[PacketReceived]:
        """The packets of the client."""
        return [event for event in self.events if isinstance(event, PacketReceived)]
