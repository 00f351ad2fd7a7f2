"""Cancel scopes and the fair queue."""

import asyncio

import pytest

from lmstudio_integrations.emulator.models.fair_queue import CancelScope, FairQueue


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


async def test_slots_are_granted_to_clients_in_turn() -> None:
    queue, order = FairQueue(1), list[str]()

    async def work(client: str) -> None:
        await queue.acquire(client)
        order.append(client)
        queue.release()

    await queue.acquire("first")
    tasks = [asyncio.create_task(work(client)) for client in ("a", "a", "a", "b", "c")]
    await asyncio.sleep(0)
    assert (queue.running, queue.queued) == (1, 5)
    queue.release()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c", "a", "a"]
    assert (queue.running, queue.queued) == (0, 0)


async def test_a_newcomer_does_not_overtake_a_granted_waiter() -> None:
    queue = FairQueue(1)
    await queue.acquire("a")
    waiting = asyncio.create_task(queue.acquire("b"))
    await asyncio.sleep(0)
    queue.release()
    late = asyncio.create_task(queue.acquire("a"))
    await waiting
    await asyncio.sleep(0)
    assert not late.done()
    queue.release()
    await late


async def test_a_cancelled_waiter_takes_no_slot() -> None:
    queue = FairQueue(1)
    await queue.acquire("a")
    waiting = [asyncio.create_task(queue.acquire("b")) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    queue.release()
    await waiting[1]
    assert (queue.running, queue.queued) == (1, 0)


async def test_a_slot_granted_to_a_cancelled_waiter_is_granted_to_the_next() -> None:
    queue = FairQueue(1)
    await queue.acquire("a")
    first, second = (asyncio.create_task(queue.acquire("b")) for _ in range(2))
    await asyncio.sleep(0)
    queue.release()
    first.cancel()
    await second
    assert first.cancelled()
    assert (queue.running, queue.queued) == (1, 0)
