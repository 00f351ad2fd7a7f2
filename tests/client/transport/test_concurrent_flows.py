"""Several flows in one: all of them make progress, and the first error ends them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations import AsyncClient, Client
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.concurrent_flows import MakeMailbox, run_concurrently
from lmstudio_integrations.client.transport.flows import Flow, arun, run

Drive: Callable[..., Any] = pytest.mark.parametrize("path", ["sync", "async"])


def drive(path: str, make: Callable[[ClientContext], Flow[None]]) -> None:
    """Run a flow with a client that sends nothing."""
    if path == "sync":
        run(make(Client()._context))
        return

    async def main() -> None:
        await arun(make(AsyncClient()._context))

    asyncio.run(main())


@Drive
def test_all_flows_run_at_once(path: str) -> None:
    """Each waits for the one after it, which would never end if it began only then."""
    events: list[str] = []

    def make(context: ClientContext) -> Flow[None]:
        gates = [asyncio.Event() for _ in range(4)]
        gates[3].set()

        async def pass_gate(number: int) -> None:
            await gates[number].wait()
            if number:
                gates[number - 1].set()

        def work(number: int, make_mailbox: MakeMailbox) -> Flow[None]:
            events.append(f"begin {number}")
            yield from context.with_mailboxes(make_mailbox).run_task(lambda: pass_gate(number))
            events.append(f"end {number}")

        return run_concurrently(context, [lambda make, number=number: work(number, make) for number in range(4)])  # type: ignore[misc]  # a default binds the number

    drive(path, make)
    assert events[:4] == [f"begin {number}" for number in range(4)]
    assert sorted(events[4:]) == [f"end {number}" for number in range(4)]


@Drive
def test_the_first_error_closes_the_other_flows(path: str) -> None:
    closed: list[str] = []

    def make(context: ClientContext) -> Flow[None]:
        async def fail() -> None:
            raise ValueError("no")

        def waits(make_mailbox: MakeMailbox) -> Flow[None]:
            try:
                yield from context.with_mailboxes(make_mailbox).run_task(asyncio.Event().wait)
            finally:
                closed.append("waits")

        def fails(make_mailbox: MakeMailbox) -> Flow[None]:
            yield from context.with_mailboxes(make_mailbox).run_task(fail)

        return run_concurrently(context, [waits, fails])

    with pytest.raises(ValueError, match="no"):
        drive(path, make)
    assert closed == ["waits"]


@Drive
def test_a_flow_may_handle_the_error_of_its_own_call(path: str) -> None:
    results: list[object] = []

    def make(context: ClientContext) -> Flow[None]:
        async def fail() -> None:
            raise ValueError("no")

        async def succeed() -> str:
            return "yes"

        def work(make_mailbox: MakeMailbox) -> Flow[None]:
            own = context.with_mailboxes(make_mailbox)
            try:
                yield from own.run_task(fail)
            except ValueError as error:
                results.append(str(error))
            results.append((yield from own.run_task(succeed)))

        return run_concurrently(context, [work, work])

    drive(path, make)
    assert sorted(map(str, results)) == ["no", "no", "yes", "yes"]


async def test_cancelling_the_task_closes_all_flows() -> None:
    closed: list[int] = []
    context = AsyncClient()._context

    def work(make_mailbox: MakeMailbox) -> Flow[None]:
        try:
            yield from context.with_mailboxes(make_mailbox).run_task(asyncio.Event().wait)
        finally:
            closed.append(1)

    task = asyncio.create_task(arun(run_concurrently(context, [work, work])))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [1, 1]


@Drive
def test_no_flows_end_at_once(path: str) -> None:
    drive(path, lambda context: run_concurrently(context, []))
