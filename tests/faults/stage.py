"""Where cells run: in virtual time on the network of the simulation, or on threads and sockets."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator
from tests.faults.proxy import ProxyThread
from tests.simulation.loop import DeadlockError, SimulatedLoop
from tests.simulation.threads import SimulatedThread
from tests.simulation.world import simulation
from tests.support.virtual_time import end_tasks

T = TypeVar("T")
Body = Callable[[], None]

LIMIT = 600.0
"""Seconds after which a cell counts as hung."""


class Threads(ProxyThread):
    """Each cell has a thread, each server another one. Nothing of what is played here may wait for a timeout."""

    emulator = Emulator
    new_runner = asyncio.Runner

    def wait(self, holds: Callable[[], bool]) -> bool:
        """Wait until something holds on the I/O thread of the client; return whether it does."""
        io, done = IOThread.current(), threading.Event()

        def look() -> None:
            if holds():
                done.set()
            else:
                io.loop.call_later(0.001, look)

        io.submit(look)
        return done.wait(LIMIT)

    def run_all(self, bodies: list[tuple[str, Body]]) -> list[str]:
        """Run them at once; return the names of those that hang."""
        threads = [threading.Thread(target=body, name=name, daemon=True) for name, body in bodies]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + LIMIT
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        return [thread.name for thread in threads if thread.is_alive()]


class _Emulator(Emulator):
    """A server on the loop of the simulation."""

    def start(self) -> Self:
        self._open = self._serving()
        self._running = self._loop.complete(self._open.__aenter__())
        return self

    def stop(self) -> None:
        self._loop.complete(self._open.__aexit__(None, None, None))
        self._running = None

    def wait_for(self, predicate: Callable[[], bool], timeout: float = LIMIT) -> None:
        _run_until(self._loop, predicate, timeout)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.complete(work)

    @property
    def _loop(self) -> SimulatedLoop:
        thread = SimulatedThread.current()
        loop = asyncio.get_event_loop() if thread is None else thread.loop
        assert isinstance(loop, SimulatedLoop), "this runs in a simulation"
        return loop


class _Runner:
    """Runs coroutines as `asyncio.Runner` does, on the loop of the simulation."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.run = loop.complete

    def close(self) -> None:
        """Do nothing: the loop goes on."""


class Simulation(ProxyThread):
    """All cells, one after the other, each in a thread; all servers are in another one. Seconds take no time."""

    emulator = _Emulator

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop: SimulatedLoop = loop

    @classmethod
    @contextmanager
    def begin(cls) -> Generator[Self]:
        """Let time be virtual, and the network be in memory."""
        with simulation() as loop:
            # A row is one fault: requests that are sent at once arrive at once, and in their order.
            loop.network.latency, loop.shuffles = (0.001, 0.001), False
            yield cls(loop)
            loop.run_until_complete(end_tasks())

    def new_runner(self) -> _Runner:
        return _Runner(self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> Any:
        """Run a coroutine; if a coroutine asks for it, soon."""
        is_in_loop = self._loop.is_running() and SimulatedThread.current() is None
        return self._loop.create_task(work) if is_in_loop else self._loop.complete(work)

    def wait(self, holds: Callable[[], bool]) -> bool:
        """Let time pass until something holds; return whether it does."""
        try:
            _run_until(self._loop, holds, LIMIT)
        except TimeoutError:
            return False
        return True

    def run_all(self, bodies: list[tuple[str, Body]]) -> list[str]:
        """Run them; none hangs, because the loop notices, and says so where the cell waits."""
        for _, body in bodies:
            running = self._loop.run_in_thread(body)
            try:
                self._loop.run_until_complete(running)
            except DeadlockError as error:
                for thread in list(self._loop.threads):
                    thread.interrupt(error)
                self._loop.run_until_complete(running)
        return []


def _run_until(loop: SimulatedLoop, holds: Callable[[], bool], seconds: float) -> None:
    async def wait() -> None:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - what it waits for has no event
                await asyncio.sleep(0.01)

    loop.complete(wait())


Stage = Threads | Simulation
