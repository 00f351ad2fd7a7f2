"""The limit on how many operations run on one model at once."""

import asyncio

import pytest

from lmstudio_integrations.client.models.admission import Gates, Permit

pytestmark = pytest.mark.usefixtures("as_the_io_thread")


async def enter(gates: Gates, name: str = "model", limit: int = 1) -> tuple[Permit, "asyncio.Task[None]"]:
    """Let an operation request its place, as far as that is possible without waiting."""
    permit = Permit(name, None, limit)
    task = asyncio.ensure_future(gates.wait(permit))
    await asyncio.sleep(0)
    return permit, task


def admitted(*permits: Permit) -> list[bool]:
    return [each.gate is not None for each in permits]


async def test_an_operation_is_admitted_when_another_one_ends() -> None:
    gates = Gates()
    first, _ = await enter(gates)
    second, waiting = await enter(gates)
    other, _ = await enter(gates, "other model")
    assert admitted(first, second, other) == [True, False, True]
    gates.end(first)
    await waiting
    assert admitted(second) == [True]
    gates.end(second)
    gates.end(other)
    assert not gates._gates


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
    assert not gates._gates


async def test_an_operation_that_ends_before_it_is_admitted_gives_its_place_back() -> None:
    gates = Gates()
    permit = Permit("model", None, 1)
    gates.end(permit)
    await gates.wait(permit)
    assert not gates._gates


async def test_no_more_operations_run_than_each_of_them_allows() -> None:
    gates = Gates()
    entered = [await enter(gates, limit=limit) for limit in (4, 4, 1, 4, 2, 2)]
    first, second, alone, *others = permits = [permit for permit, _ in entered]
    assert admitted(*permits) == [True, True, False, False, False, False]
    for ended, expected in (
        (first, [False, True, False, False, False, False]),
        (second, [False, False, True, False, False, False]),
        (alone, [False, False, False, True, True, False]),
    ):
        gates.end(ended)
        await asyncio.sleep(0)
        assert admitted(*permits) == expected
    for permit, (_, task) in zip(others, entered[3:], strict=True):
        await task
        gates.end(permit)
    del entered, first, second, alone, others, permits, permit, task, ended
    assert not gates._gates


async def test_an_operation_that_is_cancelled_as_it_is_admitted_gives_its_place_back() -> None:
    gates = Gates()
    first, _ = await enter(gates)
    second, waiting = await enter(gates)
    third, last = await enter(gates)
    gates.end(first)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gates.end(second)
    await last
    assert admitted(third) == [True]
