"""The servers, the clients and what goes wrong between them, on a simulated loop."""

import asyncio
import math
import random
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from lmstudio_integrations.client.concurrency import io_thread, mailboxes
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport import socket_session
from lmstudio_integrations.client.transport.connections import Connections
from lmstudio_integrations.emulator import Emulator, ModelEntry, SystemClock
from lmstudio_integrations.emulator.engines import generation
from lmstudio_integrations.emulator.engines.scripted.engine import ScriptedEngine
from lmstudio_integrations.emulator.models.clock import Timer
from lmstudio_integrations.types.models import QuerySpecifier
from tests.simulation.loop import SimulatedLoop, virtual_time
from tests.simulation.network import Connection
from tests.simulation.session import WatchedSession
from tests.simulation.threads import FOREVER, SimulatedThreads, end_threads

SLOTS = 2
FAULTS = ("cut", "cut later", "stall", "half close", "disappear", "restart", "freeze", "freeze", "unload")
FREEZES = (0.5, 5.0, 5.0, 5.0, 8.0, 8.0, 25.0, 400.0)
"""Seconds for which a server freezes: shorter than each timeout of a call, and longer than all of them."""
DIMENSIONS = 8
AT_LENGTH = " at length"
"""The end of a text whose response takes longer than most timeouts of those that wait behind it."""
_CALL: Any = [{"tool": "look_up", "arguments": {"word": "{last}"}}]
RULES: tuple[dict[str, Any], ...] = (
    {"when": {"role": "tool"}, "then": [{"text": "Found {last}"}]},
    {"when": {"role": "user", "tools": ["look_up"]}, "then": _CALL},
    {
        "when": {"last": AT_LENGTH + "$"},
        "then": [*[{"text": "on "}, {"wait": 2.0}] * 8, {"text": "on. You said {last}"}],
    },
    {"then": [{"text": "One two three "}, {"wait": 1.0}, {"text": "four five. You said {last}"}]},
)
MODELS = (
    ModelEntry(key="chat", context_length=4096, rules=RULES, load_seconds=2.0, tokens_per_second=5, slots=SLOTS),
    ModelEntry(key="other", context_length=4096, rules=RULES, load_seconds=1.0, tokens_per_second=20, slots=SLOTS),
    ModelEntry(key="vectors", kind="embedding", embedding_length=DIMENSIONS, load_seconds=0.5),
)


def response_to(text: str) -> str:
    if text.endswith(AT_LENGTH):
        return "on " * 8 + f"on. You said {text}"
    return f"One two three four five. You said {text}"


AFTERMATH = 1.0
"""Seconds after the end of a fault in which calls may still begin that meet it."""


class ServerClock(SystemClock):
    """The time of a server: what is due while it is frozen happens when it recovers."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.frozen_until = 0.0

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        async def ring() -> None:
            await self.sleep(seconds)
            callback()

        return self._loop.create_task(ring())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self.frozen_until > self._loop.time():
            await asyncio.sleep(self.frozen_until - self._loop.time())


@dataclass
class Fault:
    """What goes wrong in the network of a server: until a time, and no longer than the connection lasts."""

    port: int
    since: float
    until: float
    connection: Connection | None = None

    @property
    def over_at(self) -> float:
        return self.until if self.connection is None else min(self.until, self.connection.lost_at)


@dataclass
class World:
    """What one program plays in.

    Attributes:
        loop: The loop.
        servers: The servers that run.
        clocks: The time of each of them.
        kinds: Which faults there are: alone, one lasts longer than among all of them.
        trace: What has happened.
        faults: What has gone wrong in the network.
        ends: When an instance has ended, at which port, and of which model.
        substitutes: When a call went to another instance than the one it names, which had ended; at which port, and
            of which model. Its client does not see how that queue moves.
    """

    loop: SimulatedLoop
    servers: list[Any] = field(default_factory=list)
    clocks: list[ServerClock] = field(default_factory=list)
    kinds: Sequence[str] = FAULTS
    trace: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    ends: list[tuple[float, int, str]] = field(default_factory=list)
    substitutes: list[tuple[float, int, str]] = field(default_factory=list)

    @property
    def ports(self) -> list[int]:
        return [running.server.port for running in self.servers]

    @property
    def random(self) -> random.Random:
        return self.loop.random

    def note(self, text: str) -> None:
        self.trace.append(f"{self.loop.time():10.4f} {text}")

    @asynccontextmanager
    async def open(self, hosts: int, *, auto_evict: bool) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for _ in range(hosts):
                clock = ServerClock(self.loop)
                engines = {ScriptedEngine.name: ScriptedEngine(clock.sleep)}
                emulator = Emulator(MODELS, auto_evict=auto_evict, clock=clock, engines=engines)
                running = await stack.enter_async_context(emulator._serving())
                self._watch(running.state.registry, running.server.port)
                self.servers.append(running)
                self.clocks.append(clock)
            yield

    def _watch(self, registry: Any, port: int) -> None:
        discard, find = registry.discard, registry.find

        def recorded(instance: Any, state: Any = "unloaded") -> Any:
            if instance.unloading is None:
                self.ends.append((self.loop.time(), port, instance.entry.key))
                self.note(f"{instance.identifier} at {self.ports.index(port)} is {state}")
            return discard(instance, state)

        def found(kind: Any, specifier: Any) -> Any:
            instance = find(kind, specifier)
            if isinstance(specifier, QuerySpecifier) and specifier.query.identifier != instance.identifier:
                self.substitutes.append((self.loop.time(), port, instance.entry.key))
            return instance

        registry.discard, registry.find = recorded, found

    # What goes wrong ------------------------------------------------------------------------------------------------

    async def harm(self) -> None:
        """Let something go wrong, somewhere."""
        number, kind = self.random.randrange(len(self.servers)), self.random.choice(self.kinds)
        server, port = self.servers[number], self.ports[number]
        self.note(f"fault: {kind} at {number}")
        affected = sorted((each for each in self.loop.network.connections if each.port == port), key=_age)
        if kind == "freeze":
            await self._until_busy(server)
            self.freeze(number, self.random.choice(FREEZES))
        elif kind == "unload":
            registry = server.state.registry
            instances = registry.instances(devices=registry.devices({}))
            if instances:
                await registry.unload(self.random.choice(instances))
        elif kind in {"disappear", "restart"}:
            for each in affected:
                each.cut()
            self._reject(port)
            if kind == "restart":
                await server.state.registry.close()
        elif affected:
            self._harm_connection(kind, self.random.choice(affected))

    def _reject(self, port: int) -> None:
        """Let nothing listen at a port for a time."""
        rejecting, until = self.loop.network.rejecting, self.loop.time() + self.random.choice([0.2, 1.0, 5.0])
        rejecting.add(port)
        self.loop.call_at(until, rejecting.discard, port)
        self._record(port, until)

    def _harm_connection(self, kind: str, connection: Connection) -> None:
        until = math.inf
        if kind == "cut":
            connection.cut()
        elif kind == "cut later":
            connection.bytes_left = self.random.randrange(2_000)
        elif kind == "stall":
            until = connection.stalled_until = self.loop.time() + self.random.choice([0.5, 5, 60, 1e6])
        else:
            connection.sides[1].write_eof()
        self._record(connection.port, until, connection)

    def freeze(self, number: int, seconds: float) -> None:
        """Let a server stand still, with its timers and all its connections, and then go on."""
        clock, port, until = self.clocks[number], self.ports[number], self.loop.time() + seconds
        if clock.frozen_until <= self.loop.time():
            clock.frozen_until = until
            self.loop.network.freeze(port, until)
            self._record(port, until)

    async def _until_busy(self, server: Any) -> None:
        """Wait until a server responds to something, but not for long."""
        for _ in range(50):
            if _busy(server):
                return
            await asyncio.sleep(0.1)

    def _record(self, port: int, until: float, connection: Connection | None = None) -> None:
        self.faults.append(Fault(port, self.loop.time(), until, connection))

    async def heal(self) -> None:
        """Let nothing more go wrong, and servers recover.

        What is stalled for good is lost, as the system's keepalive would find out.
        """
        network = self.loop.network
        network.rejecting.clear()
        for connection in list(network.connections):
            connection.bytes_left = None
            if connection.stalled_until > max(self.loop.time(), network.frozen_until.get(connection.port, 0.0)):
                connection.cut()
        await asyncio.sleep(max(0.0, *(clock.frozen_until - self.loop.time() for clock in self.clocks)))

    # What may fail --------------------------------------------------------------------------------------------------

    def is_network_to_blame(self, ports: Collection[int], since: float) -> bool:
        """Whether a call that began at a time may fail because of the network."""
        return any(fault.port in ports and fault.over_at + AFTERMATH >= since for fault in self.faults)

    def unfinished(self) -> list[str]:
        """Return what is left of the calls, a while after the last one."""
        connections = Connections.of(IOThread.current())._connections
        sockets = {key[1]: each._current for key, each in connections.items() if each._current is not None}
        return [f"a request to {namespace}" for namespace, each in sockets.items() if not each.session.idle]

    def remains(self) -> list[str]:
        """Return what is left of the calls, once all clients are closed."""
        io = IOThread.current()
        hosts: Any = sys.modules.get("lmstudio_integrations.client.hosts.host")  # a leaf, which need not be there
        left = [f"socket of {key[1]}" for key in Connections.of(io)._connections]
        left += [f"task {task.get_coro()}" for task in Connections.of(io).tasks]  # type: ignore[attr-defined]
        for shared in io.shared.values():
            permits: dict[Any, Any] = getattr(getattr(shared, "limiter", None), "permits", {})
            left += [f"permit {permit.key}" for permit in permits.values()]
            left += [f"running load {key}" for key in getattr(shared, "running_loads", ())]
            if hosts is not None and isinstance(shared, hosts.HostRecords):
                for record in shared.values():
                    left += [f"slot {slot}" for slot in record.calls]
                    left += [f"load of {record.nothing.host}" for _ in record.loads]
                    left += [f"probe of {record.nothing.host}"] if record.probe is not None else []
        left += [f"prediction on {number}" for number, server in enumerate(self.servers) for _ in _busy(server)]
        own = asyncio.current_task()
        left += [
            f"task {task.get_coro().__qualname__}"  # type: ignore[union-attr]
            for task in asyncio.all_tasks(self.loop)
            if task is not own and "Server" not in str(task.get_coro())
        ]
        return left


def count_events(
    events: Iterable[tuple[float, int, str]], ports: Collection[int], keys: Collection[str], since: float
) -> int:
    """Return how many events were at some ports and of some models, since a time."""
    return sum(at >= since and port in ports and key in keys for at, port, key in events)


def _age(connection: Any) -> int:
    port: int = connection.sides[0].get_extra_info("sockname")[1]
    return port


def _busy(server: Any) -> list[Any]:
    registry = server.state.registry
    return [each for each in registry.instances(devices=registry.devices({})) if each.state()["status"] != "idle"]


@contextmanager
def simulation(seed: int = 0) -> Generator[SimulatedLoop]:
    """Let a simulated loop be that of the client's I/O thread and of coroutines, and its time that of the process.

    Threads that wait for the client do so without a limit: whatever does not wake them is a deadlock.
    """
    loop = SimulatedLoop(seed)
    asyncio.set_event_loop(loop)
    try:
        with (
            virtual_time(loop),
            patch.object(io_thread, "_threads_of_this_process", lambda: SimulatedThreads(loop)),
            patch.object(mailboxes, "SLICE", FOREVER),
            patch.object(generation, "threads", SimpleNamespace(run_in_thread=loop.submit_to_thread)),
            patch.object(IOThread, "_current", None),
            patch.object(socket_session, "ClientSession", WatchedSession),
            patch.object(WatchedSession, "found", [], create=True),
        ):
            IOThread._current = IOThread()
            try:
                yield loop
            finally:
                end_threads(loop)  # what they do at their end waits for nothing of the system
    finally:
        asyncio.set_event_loop(None)
        loop.close()
