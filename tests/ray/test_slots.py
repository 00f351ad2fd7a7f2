"""A number of slots that may change."""

import asyncio
import contextlib

from lmstudio_integrations.ray._slots import Slots


async def let_others_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Calls:
    """Calls that hold a slot until they are released."""

    def __init__(self, slots: Slots) -> None:
        self.running: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._slots = slots
        self._ends: list[asyncio.Event] = []

    async def start(self, count: int) -> None:
        for _ in range(count):
            self._ends.append(asyncio.Event())
            self.tasks.append(asyncio.create_task(self._call(len(self.tasks))))
        await let_others_run()

    async def end(self, number: int) -> None:
        self._ends[number].set()
        await let_others_run()

    async def _call(self, number: int) -> None:
        async with self._slots:
            self.running.append(number)
            try:
                await self._ends[number].wait()
            finally:
                self.running.remove(number)


async def test_as_many_calls_run_as_there_are_slots_in_the_order_in_which_they_came() -> None:
    slots = Slots()
    slots.resize(2)
    calls = Calls(slots)
    await calls.start(4)
    assert calls.running == [0, 1]
    await calls.end(0)
    assert calls.running == [1, 2]
    slots.resize(3)
    await let_others_run()
    assert calls.running == [1, 2, 3]
    slots.resize(1)
    await calls.start(1)
    await calls.end(1)
    assert calls.running == [2, 3]
    for number in (2, 3, 4):
        await calls.end(number)
    assert calls.running == []
    await asyncio.gather(*calls.tasks)


async def test_a_cancelled_call_gives_its_slot_to_the_next() -> None:
    calls = Calls(Slots())
    await calls.start(3)
    calls.tasks[1].cancel()
    await let_others_run()
    calls.tasks[0].cancel()
    await let_others_run()
    assert calls.running == [2]
    await calls.end(2)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*calls.tasks)


async def test_a_call_that_is_cancelled_just_after_its_slot_was_given_gives_it_back() -> None:
    slots = Slots()
    calls = Calls(slots)
    await calls.start(2)
    calls._ends[0].set()
    slots.resize(2)  # gives the slot before the waiting task runs
    calls.tasks[1].cancel()
    await let_others_run()
    slots.resize(1)
    await calls.start(1)
    assert calls.running == [2]
    await calls.end(2)
