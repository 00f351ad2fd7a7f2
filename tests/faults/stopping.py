"""Rows of the fault table: callers who stop a stream in an unusual way. The server stops, and the next call works."""

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

from tests.faults.cells import Cell, CellError
from tests.faults.faults import Phase
from tests.faults.model import WORKS, Row
from tests.faults.stage import LIMIT
from tests.faults.surfaces import Surface

_STALLS = ({"text": "So far. "}, {"fault": "stall"})

TRIES = 30
"""How often a race is run."""

_INTERVAL = sys.getswitchinterval()


def _can_cancel(surface: Surface) -> bool:
    return surface.streams and surface.family == "native"


def _is_async_stream(surface: Surface) -> bool:
    return surface.streams and surface.is_async


def _cancel_at_once(cell: Cell) -> None:
    """Cancel when the server has just read the request; the caller may not even know yet that it is sent."""
    for number in range(1, TRIES + 1):
        stream = cell.subject.model.respond_stream("fault")

        def cancel(stream: Any = stream, number: int = number) -> None:
            cell.servers.main.wait_for(lambda: len(cell.predictions) == number, LIMIT)
            stream.cancel()

        cancelling = threading.Thread(target=cancel)
        cancelling.start()
        with _switching_often():
            result = stream.wait_for_result()
            if cell.surface.is_async:
                result = cell.subject.run(result)
        cancelling.join(LIMIT)
        if result.stats.stop_reason != "userStopped":
            raise CellError(f"the cancelled stream ended with {result.stats.stop_reason!r}")


@contextmanager
def _switching_often() -> Iterator[None]:
    """Let another thread run at every chance, so that the race has both ends."""
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(_INTERVAL)


def _end_the_task(cell: Cell) -> None:
    """Cancel the task that has read a part, and leave the stream in a reference cycle."""

    async def call() -> None:
        has_read = asyncio.Event()

        async def read() -> None:
            parts: AsyncGenerator[Any] = cell.subject.parts("fault")
            cycle: list[Any] = [parts]
            cycle.append(cycle)
            await anext(parts)
            has_read.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(read())
        await asyncio.wait_for(has_read.wait(), LIMIT)
        task.cancel()
        await asyncio.wait([task], timeout=LIMIT)
        del task
        stopped = asyncio.create_task(asyncio.to_thread(cell.wait_until_stopped))
        while not stopped.done():  # closing one generator may leave another one in a cycle
            gc.collect()
            await asyncio.wait([stopped], timeout=0.01)
        await stopped

    cell.subject.run(call())


ROWS = (
    Row(
        "A stream is cancelled just as its request is sent. The server stops, and what has arrived is the result.",
        Phase.STOP,
        WORKS,
        None,
        steps=_STALLS,
        stop=_cancel_at_once,
        only=_can_cancel,
    ),
    Row(
        "The task that reads a stream ends, and only a reference cycle refers to the stream. The server stops when "
        "Python collects it.",
        Phase.STOP,
        WORKS,
        None,
        steps=_STALLS,
        stop=_end_the_task,
        only=_is_async_stream,
    ),
)
