"""The limit on how many operations run on one model at once."""

import asyncio

import pytest

from lmstudio_integrations.client.models.admission import ConcurrencyLimiter, Permit
from tests.support.virtual_time import in_virtual_time


async def acquire(
    limiter: ConcurrencyLimiter, name: str = "model", limit: int = 1
) -> tuple[Permit, "asyncio.Task[None]"]:
    """Let an operation request its place, as far as that is possible without waiting."""
    permit = Permit(name, None, limit)
    task = asyncio.ensure_future(limiter.wait(permit))
    await asyncio.sleep(1)
    return permit, task


def admitted(*permits: Permit) -> list[bool]:
    return [each.limiter is not None for each in permits]


def is_kept(limiter: ConcurrencyLimiter) -> bool:
    """Whether the limit of any model is kept."""
    return bool(limiter._limiters)


@in_virtual_time
async def test_no_more_operations_run_on_a_model_than_each_of_them_allows() -> None:
    limiter = ConcurrencyLimiter()
    entered = [await acquire(limiter, limit=limit) for limit in (4, 4, 1, 4, 2, 2)]
    other, _ = await acquire(limiter, "other model")
    first, second, alone, *others = permits = [permit for permit, _ in entered]
    assert admitted(*permits, other) == [True, True, False, False, False, False, True]
    for ended, expected in (
        (first, [False, True, False, False, False, False]),
        (second, [False, False, True, False, False, False]),
        (alone, [False, False, False, True, True, False]),
    ):
        limiter.end(ended)
        await asyncio.sleep(1)
        assert admitted(*permits) == expected
    for permit, (_, task) in zip(others, entered[3:], strict=True):
        await task
        limiter.end(permit)
    limiter.end(other)
    del entered, first, second, alone, others, permits, permit, task, ended
    assert not is_kept(limiter)


@in_virtual_time
async def test_a_cancelled_operation_is_skipped() -> None:
    limiter = ConcurrencyLimiter()
    first, _ = await acquire(limiter)
    second, waiting = await acquire(limiter)
    third, last = await acquire(limiter)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    limiter.end(second)
    limiter.end(first)
    await last
    limiter.end(third)
    assert not is_kept(limiter)


@in_virtual_time
async def test_an_operation_that_ends_before_or_as_it_is_admitted_gives_its_place_back() -> None:
    limiter = ConcurrencyLimiter()
    permit = Permit("model", None, 1)
    limiter.end(permit)
    await limiter.wait(permit)
    assert not is_kept(limiter)
    first, _ = await acquire(limiter)
    second, waiting = await acquire(limiter)
    third, last = await acquire(limiter)
    limiter.end(first)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    limiter.end(second)
    await last
    assert admitted(third) == [True]
