"""Several flows at once: they wait together, and the first error ends all of them."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from lmstudio_integrations import AsyncClient, Client
from lmstudio_integrations.client.concurrency.concurrent_flows import MakeMailbox, run_concurrently
from lmstudio_integrations.client.concurrency.flows import Flow, arun, run
from lmstudio_integrations.client.transport.client_context import ClientContext
from tests.client.fake import context_of

Work = Callable[[ClientContext], Flow[None]]


def drive(path: str, works: list[Work]) -> None:
    """Run flows with a client that sends nothing."""

    def make(context: ClientContext) -> Flow[None]:
        def with_own(work: Work, make_mailbox: MakeMailbox) -> Flow[None]:
            return work(context.with_mailboxes(make_mailbox))

        return run_concurrently(context.new_mailbox(), [partial(with_own, work) for work in works])

    async def main() -> None:
        await arun(make(context_of(AsyncClient())))

    if path == "sync":
        run(make(context_of(Client())))
    else:
        asyncio.run(main())


async def fail() -> None:
    raise ValueError("no")


@pytest.mark.parametrize("path", ["sync", "async"])
def test_all_flows_run_at_once(path: str) -> None:
    """Each waits for the one after it, which would never end if it began only then."""
    events: list[str] = []
    gates = [asyncio.Event() for _ in range(4)]
    gates[3].set()

    async def pass_gate(number: int) -> None:
        await gates[number].wait()
        if number:
            gates[number - 1].set()

    def work(number: int, context: ClientContext) -> Flow[None]:
        events.append(f"begin {number}")
        yield from context.run_task(lambda: pass_gate(number))
        events.append(f"end {number}")

    drive(path, [partial(work, number) for number in range(4)])
    assert events[:4] == [f"begin {number}" for number in range(4)]
    assert sorted(events[4:]) == [f"end {number}" for number in range(4)]
    drive(path, [])  # no flows end at once


@pytest.mark.parametrize("path", ["sync", "async"])
def test_the_first_error_closes_the_other_flows(path: str) -> None:
    closed: list[str] = []

    def waits(context: ClientContext) -> Flow[None]:
        try:
            yield from context.run_task(asyncio.Event().wait)
        finally:
            closed.append("waits")

    with pytest.raises(ValueError, match="no"):
        drive(path, [waits, lambda context: context.run_task(fail)])
    assert closed == ["waits"]


@pytest.mark.parametrize("path", ["sync", "async"])
def test_a_flow_may_handle_the_error_of_its_own_call(path: str) -> None:
    results: list[object] = []

    async def succeed() -> str:
        return "yes"

    def work(context: ClientContext) -> Flow[None]:
        try:
            yield from context.run_task(fail)
        except ValueError as error:
            results.append(str(error))
        results.append((yield from context.run_task(succeed)))

    drive(path, [work, work])
    assert sorted(map(str, results)) == ["no", "no", "yes", "yes"]


async def test_cancelling_the_task_closes_all_flows() -> None:
    closed: list[int] = []
    context = context_of(AsyncClient())

    def work(make_mailbox: MakeMailbox) -> Flow[None]:
        try:
            yield from context.with_mailboxes(make_mailbox).run_task(asyncio.Event().wait)
        finally:
            closed.append(1)

    task = asyncio.create_task(arun(run_concurrently(context.new_mailbox(), [work, work])))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [1, 1]
