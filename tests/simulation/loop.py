"""An event loop whose time is virtual: it jumps to the next timer as soon as nothing is ready.

The order of tasks that are ready at once, and the durations of the network, come from a seed.
"""

import asyncio
import itertools
import random
import ssl
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from unittest.mock import patch

from tests.simulation.network import Network
from tests.simulation.threads import FOREVER, Signal, SimulatedThread

T = TypeVar("T")

START = 1_000.0
"""The time at which it starts."""

MOST_STEPS = 300_000
"""Turns of the loop after which something goes round in circles."""

TURN = 1e-6
"""Seconds that a turn takes."""


class DeadlockError(Exception):
    """Nothing is ready, and no timer runs: everything waits forever."""


class _Task(asyncio.Task[Any]):
    """A task whose place in a set depends on when it was made, and not on its address in memory."""

    _number: int

    def __hash__(self) -> int:
        return self._number


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop. It has no sockets or signals of the system, and threads run while it stands still."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._now = START
        self._steps = 0
        self.random = random.Random(seed)
        self.network = Network(self, self.random)
        self.threads: set[SimulatedThread] = set()
        """Those that have not ended."""
        self.shuffles = True
        """Whether tasks and threads that are ready at once run in any order, or in that of asyncio."""
        self.stops_threads = False
        """Whether they are stopped between lines, too, which is slow."""
        self._selector = self  # `BaseEventLoop` asks it what is ready
        self._numbers = itertools.count()
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        return self._now

    def seconds_to_next_timer(self) -> float:
        """Return how long nothing happens if nothing is ready."""
        return max(0.0, self._scheduled[0].when() - self._now) if self._scheduled else 0.0  # type: ignore[attr-defined]

    def select(self, timeout: float | None) -> list[Any]:
        """Shuffle the tasks that are ready, or let the time pass until the next timer."""
        self._steps += 1
        self._now += TURN
        if self._steps > MOST_STEPS:
            raise DeadlockError("it goes round in circles")
        if timeout is None:
            raise DeadlockError("everything waits, and no timer runs")
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        elif self.shuffles:
            self._shuffle()
        return []

    def _shuffle(self) -> None:
        """Change the order of the steps of tasks and threads. That of other callbacks is promised by asyncio."""
        ready: Any = self._ready  # type: ignore[attr-defined]
        at_once = [*ready]  # what is collected as garbage meanwhile may add to it
        places = [place for place, handle in enumerate(at_once) if _is_step(handle)]
        if len(places) > 1:
            steps = [ready[place] for place in places]
            self.random.shuffle(steps)
            for place, step in zip(places, steps, strict=True):
                ready[place] = step

    def run_in_thread(self, function: Callable[[], Any]) -> "asyncio.Future[Any]":
        """Run a function in a thread of the simulation."""
        return SimulatedThread(self, function).future

    def submit_to_thread(self, function: Callable[[], T]) -> "Future[T]":
        """Run a function in a thread of the simulation; return its result as threads of the system do."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - who waits for the future raises it
                future.set_exception(error)

        self.run_in_thread(run)
        return future

    def complete(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result; a thread of the simulation waits for it meanwhile."""
        if SimulatedThread.current() is None:
            return self.run_until_complete(work)
        ended, task = Signal(self), self.create_task(work)
        task.add_done_callback(lambda _: ended.put(None))
        ended.get(timeout=FOREVER)
        result: T = task.result()
        return result

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        return self.run_in_thread(partial(func, *args))

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **arguments: Any
    ) -> Any:
        """Connect to a server in the network."""
        context: Any = arguments.get("ssl")
        if context is None:
            return await self.network.connect(protocol_factory, host, port)
        context = ssl.create_default_context() if context is True else context
        ready, name = self.create_future(), arguments.get("server_hostname") or host

        def secure() -> Any:
            return SSLProtocol(self, protocol_factory(), context, ready, server_hostname=name)

        transport, tls = await self.network.connect(secure, host, port)
        try:
            await ready
        except BaseException:
            transport.close()
            raise
        return tls._app_transport, tls._app_protocol

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **arguments: Any) -> Any:
        """Listen in the network; in place of a socket that is bound, at its port."""
        bound: Any = arguments.get("sock")
        context: Any = arguments.get("ssl")
        if bound is not None:
            host, port = bound.getsockname()

        def secure() -> Any:
            nobody_waits: Any = None
            return SSLProtocol(self, protocol_factory(), context, nobody_waits, server_side=True)

        return self.network.listen(protocol_factory if context is None else secure, host, port or 0, bound)

    def _new_task(self, _loop: Any, coro: Any, **arguments: Any) -> Any:
        task = _Task.__new__(_Task)
        task._number = next(self._numbers)  # first, because it enters a set when it is made
        task.__init__(coro, loop=self, **arguments)  # type: ignore[misc]
        return task

    def _process_events(self, _events: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def _is_step(handle: Any) -> bool:
    owner = getattr(handle._callback, "__self__", None)
    return isinstance(owner, asyncio.Task | SimulatedThread)


@contextmanager
def virtual_time(loop: SimulatedLoop) -> Generator[None]:
    """Let the functions of the module `time` tell the virtual time."""
    with (
        patch.object(time, "monotonic", loop.time),
        patch.object(time, "perf_counter", loop.time),
        patch.object(time, "time", lambda: 1.7e9 + loop.time()),
        patch.object(time, "time_ns", lambda: int((1.7e9 + loop.time()) * 1e9)),
    ):
        yield
