"""A client and its session in simulated time: flows run, packets come late or never, and every end is recorded.

Nothing is awaited and no thread runs: each wait advances the time, tick by tick.
"""

import heapq
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations.client.models.server_models import ServerModels
from lmstudio_integrations.client.transport.client_context import NO_TIMEOUTS, ClientContext
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.connections import TICK
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.listener import NOBODY
from lmstudio_integrations.client.transport.mailboxes import Mailbox, ThreadMailbox
from lmstudio_integrations.client.transport.operation import Call, Operation
from lmstudio_integrations.protocol.endpoints import Endpoint, Namespace
from lmstudio_integrations.protocol.exchange import Exchange, Timeouts
from lmstudio_integrations.protocol.session import ClientSession

Frames = Iterable[tuple[float, dict[str, Any]]]
"""A server's response to one request: each frame, with the seconds since the one before."""
React = Callable[[str], Frames]
"""Returns the response to a request to an endpoint; the simulation adds the id to each frame."""

ENDLESS = 2_000.0
"""Seconds after which a call is considered hung."""


class _IO:
    """Stands for the I/O thread, which does not run here."""

    stopped = belongs_to_parent = False

    def wake_or_hold(self, _wake: Callable[[], None]) -> None:
        raise AssertionError("no caller sleeps in simulated time")

    def exit_calling_daemon_thread(self) -> None:
        """Do nothing: the process continues."""

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        raise AssertionError("calls are cancelled in place")


@dataclass
class Record:
    """One request: when it was fed, and when it ended.

    Attributes:
        exchange: The request.
        fed_at: When its timeout started or was last restarted, according to the documentation.
        limit: The timeout that runs, in seconds, according to the documentation.
        ended_at: When its mailbox was woken for the last time.
    """

    exchange: Exchange
    fed_at: float
    limit: float | None
    ended_at: float | None = None


class SimulatedCall(Call):
    """A call that is cancelled synchronously."""

    def __init__(self, world: "World", exchange: Exchange, mailbox: Mailbox) -> None:
        super().__init__(_IO(), (Target.of("localhost:1", None), "llm"), exchange, mailbox, None)  # type: ignore[arg-type]
        self._world = world

    def cancel(self) -> None:
        self._world.session.cancel(self.exchange)

    @property
    def server_is_done(self) -> bool:
        return self._is_done

    @server_is_done.setter
    def server_is_done(self, value: bool) -> None:
        self._is_done = value
        if value:
            self._world.end(self.exchange)

    def close(self, error: BaseException | None = None, *, at_once: bool = False) -> None:
        if not (self._is_done or self.mailbox.done):
            self._is_done = True
            self._world.session.close(self.exchange, error)


class _Mailbox(Mailbox):
    """Advances the time during a wait and records when its call ended."""

    __slots__ = ("record", "world")

    def __init__(self, world: "World") -> None:
        super().__init__(_IO())  # type: ignore[arg-type]
        self.world = world
        self.record: Record | None = None

    def wait(self) -> list[Any]:
        """Advance the time until an item arrives; return it."""
        while (batch := self.pop_all()) is None:
            self.world.step()
        return batch

    def _wake(self) -> None:
        raise AssertionError("`wait` advances the time itself")

    def finish(self, error: BaseException | None) -> None:
        super().finish(error)
        if self.record is not None:
            self.record.ended_at = self.world.now


class _Pause:
    """A wait in simulated time."""

    def __init__(self, world: "World", seconds: float) -> None:
        self.mailbox = self
        self._world = world
        self._until = world.now + seconds

    def wait(self) -> list[None]:
        """Advance the time."""
        while self._world.now < self._until:
            self._world.step()
        return [None]


class SimulatedContext(ClientContext):
    """A context of which `SimulatedOperation` makes the calls."""

    def __init__(self, world: "World", timeouts: Timeouts) -> None:
        super().__init__(Target(None), timeouts, ThreadMailbox)
        self.world = world

    def shared(self, kind: type[Any]) -> Any:
        assert kind is ServerModels
        return self.world.models

    def pause(self, seconds: float) -> Flow[None]:
        yield _Pause(self.world, seconds)


class SimulatedOperation(Operation):
    """An operation whose calls go to a session in simulated time."""

    def __init__(self, context: ClientContext, timeouts: Timeouts = NO_TIMEOUTS, *, listener: Any = NOBODY) -> None:
        assert isinstance(context, SimulatedContext)
        assert context.started_at is None, "only operations on several hosts begin before their calls"
        self.world = context.world
        super().__init__(context, timeouts, listener=listener)
        self._started_at = self.world.now

    @property
    def elapsed(self) -> float:
        return self.world.now - self._started_at

    def start_all(
        self,
        _namespace: Namespace,
        endpoint: Endpoint,
        parameters: Sequence[Mapping[str, Any] | None],
        *,
        label: str,
        channel: Call | None = None,
    ) -> list[Call]:
        assert channel is None, "a prediction has no calls"
        started = self._started_at
        return [self.world.start(endpoint, parameter, self.timeouts, started, label) for parameter in parameters]


@dataclass
class World:
    """The simulated time, a session and a simulated server.

    Attributes:
        react: The server.
        limit_of: Returns the timeout that runs after a request or a type of packet, according to the documentation.
    """

    react: React
    limit_of: Callable[[str, str | None, str | None], str | None]
    now: float = 0.0
    session: ClientSession = field(default_factory=ClientSession)
    records: list[Record] = field(default_factory=list[Record])
    models: ServerModels = field(default_factory=ServerModels)

    def __post_init__(self) -> None:
        self._due: list[tuple[float, int, dict[str, Any]]] = []
        self._order = itertools.count()
        self._ticks = 0
        self._by_id: dict[int, Record] = {}
        self._running: dict[int, str | None] = {}
        self.session.data_to_send()
        self.session.receive('{"success":true}', self.now)

    def start(
        self,
        endpoint: Endpoint,
        parameter: Mapping[str, Any] | None,
        timeouts: Timeouts,
        started: float,
        operation: str,
    ) -> Call:
        """Send a request, and let the server choose its response."""
        mailbox = _Mailbox(self)
        text = None if parameter is None else json.dumps(parameter)
        exchange = Exchange(endpoint, text, mailbox, timeouts, started, operation, since=self.now)
        if endpoint.timeout_name == "queue_timeout":
            exchange.specifier = '{"type":"query","query":{"identifier":"m1"}}'
        running = self.limit_of(endpoint.name, None, None)
        record = mailbox.record = Record(exchange, self.now, timeouts.get(running or ""))
        self.records.append(record)
        self.session.start(exchange)
        self._by_id[exchange.id] = record
        self._running[exchange.id] = running
        self.flush()
        return SimulatedCall(self, exchange, mailbox)

    def flush(self) -> None:
        """Let the server receive what the session sends."""
        for text in self.session.data_to_send():
            frame = json.loads(text)
            if frame["type"] not in {"rpcCall", "channelCreate"}:
                continue
            name = "callId" if frame["type"] == "rpcCall" else "channelId"
            at = self.now
            for delay, response in self.react(frame["endpoint"]):
                at += delay
                heapq.heappush(self._due, (at, next(self._order), {**response, name: frame[name]}))

    def step(self) -> None:
        """Advance the time to the next frame or tick."""
        tick = (self._ticks + 1) * TICK
        if self._due and self._due[0][0] <= tick:
            at, _, frame = heapq.heappop(self._due)
            self.now = max(self.now, at)
            self._feed(frame)
            self.session.receive(json.dumps(frame), self.now)
        else:
            self.now, self._ticks = tick, self._ticks + 1
            self.session.tick(self.now)
        self.flush()
        assert self.now < ENDLESS, "a call hangs"

    def end(self, exchange: Exchange) -> None:
        """Record that a request has its result, so nobody waits for it any more."""
        record = self._by_id[exchange.id]
        record.ended_at = self.now if record.ended_at is None else record.ended_at

    def _feed(self, frame: dict[str, Any]) -> None:
        """Restart the timeouts that a frame affects: its own call's, and those of calls that wait for the same."""
        record = self._by_id.get(frame.get("callId", frame.get("channelId", 0)))
        if record is None or record.ended_at is not None:
            return
        name, number = record.exchange.endpoint.name, record.exchange.id
        packet = frame["message"]["type"] if frame["type"] == "channelSend" else None
        if packet is not None:
            running = self._running[number] = self.limit_of(name, packet, self._running[number])
            record.fed_at, record.limit = self.now, record.exchange.timeouts.get(running or "")
        for other_id, other in self._by_id.items():
            same_call = "callId" in frame and other.exchange.endpoint.name == name
            if same_call or self._running[other_id] == "queue_timeout" == self.limit_of(name, None, None):
                other.fed_at = self.now
