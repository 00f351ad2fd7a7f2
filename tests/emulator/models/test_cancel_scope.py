"""Cancel scopes."""

import asyncio

import pytest

from lmstudio_integrations.emulator.models.cancel_scope import CancelScope


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_scope_is_cancelled_without_an_error_and_keeps_the_first_reason() -> None:
    scope = CancelScope()

    async def work() -> str:
        with scope:
            await forever()
        await asyncio.sleep(0)
        return "continued"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    scope.cancel("one")
    scope.cancel("two")
    assert await task == "continued"
    assert scope.reason == "one"


async def test_a_scope_that_was_cancelled_before_it_began_ends_at_its_first_await() -> None:
    scope, reached = CancelScope(), list[str]()
    scope.cancel("early")
    with scope:
        reached.append("before")
        await asyncio.sleep(0)
        reached.append("after")
    assert reached == ["before"]
    with CancelScope() as awaiting_nothing:
        awaiting_nothing.cancel("inside")
    await asyncio.sleep(0)


async def test_a_block_that_cancels_its_own_scope_ends_at_its_next_await() -> None:
    scope, reached = CancelScope(), list[str]()
    with scope:
        scope.cancel("inside")
        reached.append("before")
        await asyncio.sleep(0)
        reached.append("after")
    assert reached == ["before"]


async def test_cancelling_the_task_passes_through_a_scope_that_cancelled_nothing() -> None:
    scope = CancelScope()

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        with scope:
            scope.cancel("inside")
            task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())


async def test_cancelling_the_task_passes_through_a_scope() -> None:
    scope = CancelScope()

    async def work() -> None:
        with scope:
            await forever()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    scope.cancel("stopped")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_pass_through_a_cancelled_scope() -> None:
    scope = CancelScope()

    async def work() -> None:
        with scope:
            try:
                await forever()
            except asyncio.CancelledError:
                raise ValueError("while cleaning up") from None

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    scope.cancel("stopped")
    with pytest.raises(ValueError, match="cleaning up"):
        await task
