"""The queue of models that evict each other: fair, cancellable, bounded, and dropped when no longer needed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.models.admission import EvictionQueue, EvictionTurn
from lmstudio_integrations.client.models.server_models import ServerModels
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioTimeoutError
from tests.client.fake import wait_until
from tests.support.gate import AT_THE_GATE, Gate

# The queue itself -----------------------------------------------------------------------------------------------------


class Queue:
    """A queue, and the order in which they were granted."""

    def __init__(self) -> None:
        self.side_by_side: list[tuple[str, str]] = []
        self.eviction_queue = EvictionQueue(lambda one, other: self.side_by_side.append((one, other)))
        self.granted: list[str] = []
        self.waits: dict[str, tuple[EvictionTurn, asyncio.Task[None]]] = {}

    async def enter(
        self, name: str, *, queue_timeout: float | None = 5.0, remaining: float | None = None
    ) -> EvictionTurn:
        """Request a turn on the model that the first letter of the name stands for."""
        turn = EvictionTurn(name[0])
        task = asyncio.create_task(self.eviction_queue.wait(turn, queue_timeout, remaining))
        task.add_done_callback(lambda task: self._record(name, task))
        self.waits[name] = turn, task
        await self.run_pending()
        return turn

    def _record(self, name: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.granted.append(name)

    async def end(self, name: str, *, succeeded: bool = True, loaded: bool = True) -> None:
        """End the operation."""
        turn, _ = self.waits[name]
        turn.succeeded, turn.loaded = succeeded, loaded
        self.eviction_queue.end(turn)
        await self.run_pending()

    async def run_pending(self) -> None:
        """Run everything that is ready to run."""
        for _ in range(10):
            await asyncio.sleep(0)


class Receiver:
    """Records what it receives."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.ended = False

    def put(self, item: Any) -> None:
        self.items.append(item)

    def finish(self, error: BaseException | None) -> None:
        self.ended = True

    def is_alive(self) -> bool:
        return True


@pytest.mark.usefixtures("as_the_io_thread")
async def test_calls_of_one_model_run_together_and_others_wait() -> None:
    queue = Queue()
    for name in ("a1", "a2", "b1"):
        await queue.enter(name)
    assert queue.granted == ["a1", "a2"]
    await queue.end("a1")
    assert queue.granted == ["a1", "a2"]
    await queue.end("a2")
    assert queue.granted == ["a1", "a2", "b1"]


@pytest.mark.usefixtures("as_the_io_thread")
async def test_nobody_joins_the_running_model_while_another_waits() -> None:
    queue = Queue()
    for name in ("a1", "b1", "a2", "c1", "b2", "a3"):
        await queue.enter(name)
    for name in ("a1", "b1", "b2", "a2", "a3", "c1"):
        assert name in queue.granted
        await queue.end(name)
    assert queue.granted == ["a1", "b1", "b2", "a2", "a3", "c1"]


@pytest.mark.usefixtures("as_the_io_thread")
async def test_operations_that_waited_only_behind_a_cancelled_one_join_the_running_model() -> None:
    queue = Queue()
    for name in ("a1", "b1", "a2", "a3", "c1", "a4"):
        await queue.enter(name)
    queue.waits["b1"][1].cancel()
    await queue.end("b1")
    assert queue.granted == ["a1", "a2", "a3"]  # `a4` waits behind another model
    for name in ("a1", "a2", "a3"):
        await queue.end(name)
    assert queue.granted[3:] == ["c1"]


@pytest.mark.usefixtures("as_the_io_thread")
async def test_an_operation_that_ended_before_its_request_gets_no_turn() -> None:
    queue = Queue()
    turn = EvictionTurn("a")
    queue.eviction_queue.end(turn)
    await queue.eviction_queue.wait(turn, None, None)
    await queue.enter("b1")
    assert queue.granted == ["b1"]


@pytest.mark.usefixtures("as_the_io_thread")
@pytest.mark.parametrize(("limits", "name"), [((0.05, None), "queue_timeout"), ((None, 0.05), "timeout")])
async def test_waiting_is_bounded(limits: tuple[float | None, float | None], name: str) -> None:
    queue = Queue()
    await queue.enter("a1")
    queue_timeout, remaining = limits
    await queue.enter("b1", queue_timeout=queue_timeout, remaining=remaining)
    with pytest.raises(
        LMStudioTimeoutError, match=f"timed out waiting to load 'b': it would evict 'a'.*{name} expired"
    ) as caught:
        await asyncio.wait_for(queue.waits["b1"][1], 5)
    assert caught.value.timeout_name == name


@pytest.mark.slow
@pytest.mark.usefixtures("as_the_io_thread")
async def test_a_packet_of_the_running_model_restarts_the_queue_timeout() -> None:
    queue = Queue()
    turn = await queue.enter("a1")
    receiver = queue.eviction_queue.hold(turn, Receiver())
    await queue.enter("b1", queue_timeout=0.5)
    for _ in range(6):
        done, _waiting = await asyncio.wait([queue.waits["b1"][1]], timeout=0.1)
        assert not done
        receiver.put("packet")
    receiver.finish(None)
    await queue.end("a1")
    assert queue.granted == ["a1", "b1"]


@pytest.mark.usefixtures("as_the_io_thread")
async def test_a_call_keeps_the_turn_of_the_operation_that_started_it() -> None:
    queue = Queue()
    turn, receiver = await queue.enter("a1"), Receiver()
    kept = queue.eviction_queue.hold(turn, receiver)
    await queue.enter("b1")
    await queue.end("a1")
    assert queue.granted == ["a1"]
    kept.put("packet")
    kept.finish(None)
    await queue.run_pending()
    assert (receiver.items, receiver.ended, kept.is_alive()) == (["packet"], True, True)
    assert queue.granted == ["a1", "b1"]


@pytest.mark.usefixtures("as_the_io_thread")
async def test_models_that_turn_out_to_be_loaded_side_by_side_are_reported() -> None:
    queue = Queue()
    for name in ("a1", "b1", "a2", "c1"):
        await queue.enter(name)
    await queue.end("a1", loaded=True)
    await queue.end("b1", loaded=True)
    assert queue.side_by_side == []
    await queue.end("a2", loaded=False)
    assert queue.side_by_side == [("b", "a")]
    await queue.end("c1", succeeded=False, loaded=False)
    assert queue.side_by_side == [("b", "a")]


# Through the clients --------------------------------------------------------------------------------------------------

RULES: tuple[dict[str, Any], ...] = (
    {"when": {"last": "^slowly"}, "then": [{"text": "so "}, AT_THE_GATE, {"text": "slow"}]},
    {"when": {"last": "^briefly"}, "then": [{"text": "so "}, {"wait": 0.1}, {"text": "slow"}]},
)
MODELS = (ModelEntry(key="one", rules=RULES), ModelEntry(key="two", rules=RULES))


@pytest.fixture
async def server(gate: Gate) -> AsyncIterator[Emulator]:
    """A server with Auto-Evict."""
    with Emulator(MODELS, engines=gate.engines()) as running:
        yield running


async def waiting_in_queue(count: int) -> None:
    """Wait until this many operations wait for their turn."""
    shared = IOThread.current().shared.values()
    await wait_until(
        lambda: (
            sum(len(each.eviction_queue._waiting) for each in list(shared) if isinstance(each, ServerModels)) == count
        )
    )


async def generating(model: Any, server: Emulator) -> "asyncio.Task[Any]":
    """Return a call that the gate blocks, once the server has received it; it is the third call."""
    running = asyncio.create_task(model.respond("slowly"))
    await asyncio.to_thread(server.wait_for, lambda: len(server.predictions) == 3)
    return running


@pytest.fixture
async def pair(client: Any, server: Emulator) -> tuple[Any, Any]:
    """Two models that are known to evict each other, the second of them loaded."""
    one, two = client.llm.lazy_model("one"), client.llm.lazy_model("two")
    await one.respond("Hi")
    with pytest.warns(lms.LMStudioEvictionWarning):
        await two.respond("Hi")
    return one, two


@pytest.mark.slow
async def test_calls_of_two_models_never_meet_once_the_pair_is_known(
    pair: tuple[Any, Any], server: Emulator, gate: Gate
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(12))
    one, two = pair
    calls = [await generating(two, server)]
    for waiting, model in ((6, one), (11, two)):
        while len(calls) < waiting + 1:
            calls.append(asyncio.create_task(model.respond("briefly")))
        await waiting_in_queue(waiting)
    gate.open()
    assert all(result.content == "so slow" for result in await asyncio.gather(*calls))
    assert not [record for record in server.predictions if record.stop_reason == "modelUnloaded"]
    assert [record.identifier for record in server.loads] == ["one", "two"] * 2


async def test_a_stream_that_is_read_slowly_keeps_nobody_waiting(pair: tuple[Any, Any], gate: Gate) -> None:
    one, two = pair
    stream = aiter(two.respond_stream("slowly"))
    first = await anext(stream)
    gate.open()
    assert (await asyncio.wait_for(one.respond("Hi"), 5)).content
    rest = [fragment.content async for fragment in stream]
    assert "".join([first.content, *rest]) == "so slow"


async def test_reading_a_response_that_has_arrived_needs_neither_a_turn_nor_the_model(
    pair: tuple[Any, Any], server: Emulator, gate: Gate
) -> None:
    one, two = pair
    stream = two.respond_stream("Hi")
    await stream.start()
    await asyncio.to_thread(server.wait_for, lambda: [each.state for each in server.predictions] == ["ended"] * 3)
    running = asyncio.create_task(one.respond("slowly"))  # evicts the model of the stream
    await asyncio.to_thread(server.wait_for, lambda: len(server.predictions) == 4)
    assert (await asyncio.wait_for(stream.wait_for_result(), 5)).content
    assert [info.identifier for info in server.loaded()] == ["one"]
    gate.open()
    assert (await running).content == "so slow"


async def test_getting_or_describing_a_model_waits_for_its_turn_too(
    pair: tuple[Any, Any], client: Any, server: Emulator, gate: Gate
) -> None:
    _, two = pair
    running = await generating(two, server)
    getting = asyncio.create_task(client.llm.model("one"))
    describing = asyncio.create_task(client.llm.lazy_model("one").get_info())
    await waiting_in_queue(2)
    gate.open()
    handle, lazy = await getting, await describing
    assert handle.identifier == lazy.identifier == "one"
    assert (await running).content == "so slow"
    assert len(server.predictions) == 3


async def test_a_cancelled_wait_for_a_turn_delays_nobody(pair: tuple[Any, Any], server: Emulator, gate: Gate) -> None:
    one, two = pair
    running = await generating(two, server)
    stream = one.respond_stream("Hi")
    waiting = asyncio.create_task(stream.wait_for_result())
    await waiting_in_queue(1)
    stream.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await wait_until(lambda: not any("EvictionQueue.wait" in repr(task) for task in asyncio.all_tasks()))
    assert (await asyncio.wait_for(two.respond("Hi"), 5)).content
    gate.open()
    assert (await running).content == "so slow"
    assert len(server.loads) == 2


async def test_closing_the_client_ends_the_wait_for_a_turn(pair: tuple[Any, Any], server: Emulator, gate: Gate) -> None:
    _, two = pair
    running = await generating(two, server)
    async with lms.AsyncClient(server.address) as another:
        waiting = asyncio.create_task(another.llm.lazy_model("one").respond("Hi"))
        await waiting_in_queue(1)
    with pytest.raises(lms.LMStudioError, match="closed"):
        await waiting
    gate.open()
    assert (await running).content == "so slow"


async def test_an_explicit_instance_needs_no_turn(
    pair: tuple[Any, Any], client: Any, server: Emulator, gate: Gate
) -> None:
    _, two = pair
    server.unload("two")
    kept = await client.llm.model("one", load_policy="explicit")
    running = await generating(two, server)
    assert (await kept.respond("Hi")).content
    assert server.predictions[2].state == "running"
    gate.open()
    await running


async def test_without_auto_evict_the_turns_end(make_client: Any, gate: Gate) -> None:
    with Emulator(MODELS, engines=gate.engines()) as server:
        async with make_client(server.address) as client:
            one, two = client.llm.lazy_model("one"), client.llm.lazy_model("two")
            await one.respond("Hi")
            with pytest.warns(lms.LMStudioEvictionWarning):
                await two.respond("Hi")
            server.load("one")
            for model in (one, two, one, two):  # both are loaded now, so nothing is loaded in turn
                await model.respond("Hi")
            running = asyncio.create_task(two.respond("slowly"))
            await asyncio.to_thread(gate.reached.wait)
            assert (await one.respond("Hi")).content
            assert [record.state for record in server.predictions[-2:]] == ["running", "ended"]
            gate.open()
            await running


async def test_a_call_right_after_another_of_its_caller_waits_for_its_turn(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Callable[[], object]] = []
    skipped: list[bool] = []

    def submit_late(self: ClientContext, function: Any, *arguments: Any) -> None:
        if function.__name__ == "end":  # the I/O thread hears of it only when the next call has begun
            ends.append(partial(submit, self, function, *arguments))
        else:
            submit(self, function, *arguments)

    def record(self: EvictionQueue, turn: EvictionTurn) -> bool:
        skipped.append(would_deadlock(self, turn))
        while ends:
            ends.pop()()
        return skipped[-1]

    submit, would_deadlock = ClientContext.submit, EvictionQueue.would_deadlock
    monkeypatch.setattr(ClientContext, "submit", submit_late)
    monkeypatch.setattr(EvictionQueue, "would_deadlock", record)
    for model in (*pair, *pair):
        await model.respond("Hi")
    assert skipped == [False] * 4
    ends.pop()()


async def test_a_thread_that_blocks_the_loop_of_a_call_with_a_turn_does_not_wait_for_that_call(
    server: Emulator, gate: Gate
) -> None:
    # The call has its turn until its task has read the first fragment, which it cannot while its loop is blocked.
    with lms.Client(server.address, queue_timeout=5.0) as blocking:
        async with lms.AsyncClient(server.address) as client:
            blocking.llm.lazy_model("one").respond("Hi")
            with pytest.warns(lms.LMStudioEvictionWarning):
                blocking.llm.lazy_model("two").respond("Hi")
            running = await generating(client.llm.lazy_model("two"), server)
            gate.open()
            assert blocking.llm.lazy_model("one").respond("Hi").content
            assert (await running).content == "so slow"
