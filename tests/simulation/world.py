"""The servers, the clients and what goes wrong between them, on a simulated loop."""

import asyncio
import random
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from lmstudio_integrations.client.transport import io_thread
from lmstudio_integrations.client.transport.connections import Connections
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.simulation.loop import SimulatedLoop, virtual_time

SLOTS = 2
DIMENSIONS = 8
_CALL: Any = [{"tool": "look_up", "arguments": {"word": "{last}"}}]
RULES: tuple[dict[str, Any], ...] = (
    {"when": {"role": "tool"}, "then": [{"text": "Found {last}"}]},
    {"when": {"role": "user", "tools": ["look_up"]}, "then": _CALL},
    {"then": [{"text": "One two three "}, {"wait": 0.3}, {"text": "four five. You said {last}"}]},
)
MODELS = (
    ModelEntry(key="chat", context_length=4096, rules=RULES, load_seconds=2.0, tokens_per_second=50, slots=SLOTS),
    ModelEntry(key="other", context_length=4096, rules=RULES, load_seconds=1.0, tokens_per_second=200, slots=SLOTS),
    ModelEntry(key="vectors", kind="embedding", embedding_length=DIMENSIONS, load_seconds=0.5),
)


def response_to(text: str) -> str:
    return f"One two three four five. You said {text}"


@dataclass
class World:
    """What one program plays in.

    Attributes:
        loop: The loop.
        servers: The servers that run.
        trace: What has happened.
        is_calm: Whether nothing goes wrong in the network.
    """

    loop: SimulatedLoop
    servers: list[Any] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    is_calm: bool = False

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
                emulator = Emulator(MODELS, auto_evict=auto_evict)
                self.servers.append(await stack.enter_async_context(emulator._serving()))
            yield

    async def harm(self) -> None:
        """Let something go wrong, somewhere."""
        chance, number = self.random, self.random.randrange(len(self.servers))
        server, port = self.servers[number], self.ports[number]
        affected = sorted((each for each in self.loop.network.connections if each.port == port), key=_age)
        kind = chance.choice(["cut", "cut later", "stall", "half close", "disappear", "unload"])
        self.note(f"fault: {kind} at {number}")
        if kind == "disappear":
            self.loop.network.rejecting.add(port)
            for each in affected:
                each.cut()
            self.loop.call_later(chance.uniform(0.1, 5), self.loop.network.rejecting.discard, port)
        elif kind == "unload":
            registry = server.state.registry
            instances = registry.instances(devices=registry.devices({}))
            if instances:
                await registry.unload(chance.choice(instances))
        elif affected:
            connection = chance.choice(affected)
            if kind == "cut":
                connection.cut()
            elif kind == "cut later":
                connection.bytes_left = chance.randrange(2_000)
            elif kind == "stall":
                connection.stalled_until = self.loop.time() + chance.choice([0.5, 5, 60, 1e6])
            else:
                connection.sides[1].write_eof()

    def heal(self) -> None:
        """Let nothing more go wrong. What is stalled for good is lost, as the system's keepalive would find out."""
        self.loop.network.rejecting.clear()
        for connection in list(self.loop.network.connections):
            connection.bytes_left = None
            if connection.stalled_until > self.loop.time():
                connection.cut()

    def remains(self) -> list[str]:
        """Return what is left of the calls, once all clients are closed."""
        io = IOThread.current()
        left = [f"socket of {key[1]}" for key in Connections.of(io)._connections]
        left += [f"task {task.get_coro()}" for task in Connections.of(io).tasks]  # type: ignore[attr-defined]
        for shared in io.shared.values():
            permits: dict[Any, Any] = getattr(getattr(shared, "limiter", None), "permits", {})
            left += [f"permit {permit.key}" for permit in permits.values()]
            if isinstance(shared, dict):
                for record in shared.values():
                    left += [f"slot {slot}" for slot in getattr(record, "calls", ())]
        left += [f"prediction on {number}" for number, server in enumerate(self.servers) for _ in _busy(server)]
        own = asyncio.current_task()
        left += [
            f"task {task.get_coro().__qualname__}"  # type: ignore[union-attr]
            for task in asyncio.all_tasks(self.loop)
            if task is not own and "Server" not in str(task.get_coro())
        ]
        return left


def _age(connection: Any) -> int:
    port: int = connection.sides[0].get_extra_info("sockname")[1]
    return port


def _busy(server: Any) -> list[Any]:
    registry = server.state.registry
    return [each for each in registry.instances(devices=registry.devices({})) if each.state()["status"] != "idle"]


@contextmanager
def simulation(seed: int = 0) -> Generator[SimulatedLoop]:
    """Let the thread and the loop of a simulation be the client's I/O thread, and its time that of the process."""
    loop = SimulatedLoop(seed)
    asyncio.set_event_loop(loop)
    try:
        with (
            virtual_time(loop),
            patch.object(io_thread, "_start_loop", lambda _run: (loop, threading.current_thread())),
            patch.object(IOThread, "_current", None),
        ):
            IOThread._current = IOThread()
            yield loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()
