"""The limit on how many operations run on one model at once."""

import asyncio

import pytest

from lmstudio_integrations.client.models.admission import Gates, Permit

pytestmark = pytest.mark.usefixtures("as_the_io_thread")


async def enter(gates: Gates, name: str = "model") -> tuple[Permit, "asyncio.Task[None]"]:
    """Let an operation request its place, as far as that is possible without waiting."""
    permit = Permit(name, None)
    task = asyncio.ensure_future(gates.wait(permit, 1))
    await asyncio.sleep(0)
    return permit, task


async def test_an_operation_is_admitted_when_another_one_ends() -> None:
    gates = Gates()
    first, _ = await enter(gates)
    second, waiting = await enter(gates)
    other, _ = await enter(gates, "other model")
    assert [each.semaphore is not None for each in (first, second, other)] == [True, False, True]
    gates.end(first)
    await waiting
    assert second.semaphore is not None
    gates.end(second)
    gates.end(other)
    assert not gates._semaphores


async def test_a_cancelled_operation_is_skipped() -> None:
    gates = Gates()
    first, _ = await enter(gates)
    second, waiting = await enter(gates)
    third, last = await enter(gates)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gates.end(second)
    gates.end(first)
    await last
    gates.end(third)
    assert not gates._semaphores


async def test_an_operation_that_ends_before_it_is_admitted_gives_its_place_back() -> None:
    gates = Gates()
    permit = Permit("model", None)
    gates.end(permit)
    await gates.wait(permit, 1)
    assert not gates._semaphores
