"""The real and the manual clock."""

import asyncio

from lmstudio_integrations.emulator.models.clock import ManualClock, SystemClock


async def test_a_clock_that_is_moved_calls_what_is_due_in_order() -> None:
    clock, called = ManualClock(unix_ms=1000), list[str]()
    clock.call_later(2, lambda: called.append("two"))
    clock.call_later(1, lambda: called.append("one"))
    clock.call_later(1.5, lambda: called.append("cancelled")).cancel()
    clock.call_later(3, lambda: called.append("three"))
    clock.advance(2)
    await asyncio.sleep(0)
    assert called == ["one", "two"]
    assert (clock.now(), clock.unix_ms()) == (2, 3000)


async def test_the_real_clock_runs() -> None:
    clock, rung = SystemClock(), asyncio.Event()
    before = clock.now()
    clock.call_later(0, rung.set)
    await asyncio.wait_for(rung.wait(), 600)
    assert clock.now() >= before
    assert clock.unix_ms() > 1_700_000_000_000
