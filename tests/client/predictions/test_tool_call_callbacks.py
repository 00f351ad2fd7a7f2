"""What `act` reports of tool calls, and what it tells the tools; the same bodies for both clients."""

import asyncio
import gc
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.flows import call_back, run
from lmstudio_integrations.client.concurrency.mailboxes import current_thread_or_task
from lmstudio_integrations.client.predictions.tool_loop.runners import ToolCallReports
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.results import ToolCallEvent
from tests.client.both import Awaited, make_client
from tests.client.fake import Socket, authenticate, fake_server, receive, send, until_stopped
from tests.client.prediction_frames import END as FINISHED
from tests.client.prediction_frames import INFO, loaded_handle, packet
from tests.client.predictions.test_act import RULES, add, results_of, shout
from tests.support.endless import ENDLESS

__all__ = ["make_client"]

MORE_RULES: list[dict[str, Any]] = [
    {"when": {"round": 1, "last": "^twice"}, "then": [{"tool": "add", "arguments": {"a": 1}}]},
    {"when": {"round": 2, "last": "^1$"}, "then": [{"tool": "add", "arguments": {"a": 2}}]},
    {"when": {"last": "^for ever"}, "then": ENDLESS},
    {"when": {"last": "^garbled"}, "then": [{"tool": "add", "malformed": "{"}]},
    {"when": {"last": "^lookup"}, "then": [{"tool": "look-up", "arguments": {"place-name": "Oslo"}}]},
    {"when": {"last": "^misread"}, "then": [{"tool": "look-up", "arguments": {"place-name": 5}}]},
]

WRITTEN = ("request_start", "request_name_received", "request_argument_fragment", "request_end")
STEPS = (*WRITTEN, "request_failure", "request_finalized", "result")
OTHERS = ("round_start", "round_end", "prediction_completed", "message", "first_token", "prediction_fragment")
PROGRESS = "prompt_processing_progress"


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator([{"key": "chatty", "rules": [*MORE_RULES, *RULES]}]) as running:
        yield running


class Recorder:
    """Records the callbacks of `act`, and who calls them. They are async if `waits`."""

    def __init__(self, *, waits: bool = False) -> None:
        self.order: list[tuple[Any, ...]] = []
        self.callers: set[object] = set()
        self.callbacks = {f"on_tool_call_{step}": self.record(step, waits=waits) for step in STEPS}
        self.callbacks |= {f"on_{name}": self.record(name, waits=waits) for name in (*OTHERS, PROGRESS)}

    def record(self, name: str, *, waits: bool) -> Callable[..., Any]:
        def record(*arguments: Any) -> None:
            self.order.append((name, *arguments))
            self.callers.add(current_thread_or_task())

        async def record_slowly(*arguments: Any) -> None:
            await asyncio.sleep(0)
            record(*arguments)

        return record_slowly if waits else record

    def of(self, *names: str) -> list[tuple[Any, ...]]:
        """Return the callbacks of these names, with their arguments."""
        return [each for each in self.order if each[0] in names]

    def numbers_of(self, *names: str) -> list[tuple[Any, ...]]:
        """Return the callbacks of these names, each with its round and its call, and once."""
        return list(dict.fromkeys(each[:3] for each in self.of(*names)))


@pytest.fixture
def recorder(model: Any) -> Recorder:
    """Records callbacks, which for the async client are async."""
    return Recorder(waits=not isinstance(model, Awaited))


# Callbacks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [1, None])
async def test_each_tool_call_is_reported_in_order(model: Any, recorder: Recorder, parallel: int | None) -> None:
    await model.act("both", [add, shout], max_parallel_tool_calls=parallel, **recorder.callbacks)
    assert recorder.numbers_of(*WRITTEN) == [(step, 0, call) for call in (0, 1) for step in WRITTEN]
    for call, arguments in enumerate([{"text": "slow"}, {"a": 3, "b": 4}]):
        written = "".join(each[3] for each in recorder.of("request_argument_fragment") if each[2] == call)
        assert json.loads(written) == arguments
    starts, ends = recorder.of("request_start"), recorder.of("request_end")
    assert [each[3].id for each in starts] == [each[3].id for each in ends]
    results = {each[2]: each[3] for each in recorder.of("result")}
    assert {call: (each.name, each.content) for call, each in results.items()} == {
        0: ("shout", '"SLOW"'),
        1: ("add", "7"),
    }
    ran = ["request_finalized", "result"] * 2 if parallel == 1 else ["request_finalized"] * 2 + ["result"] * 2
    seldom = [each for each in recorder.order if each[0] not in {*WRITTEN, "prediction_fragment", PROGRESS}]
    assert [each[0] for each in seldom] == [
        *("round_start", "prediction_completed", *ran, "message", "message", "round_end"),
        *("round_start", "first_token", "prediction_completed", "message", "round_end"),
    ]
    assert [each[1] for each in seldom if each[0] in {"round_start", "first_token", "round_end"}] == [0, 0, 1, 1, 1]
    assert {each[2] for each in recorder.of("prediction_fragment")} == {1}
    assert [number for _, done, number in recorder.of(PROGRESS) if done == 1.0] == [0, 1]


async def test_callbacks_run_in_the_task_or_thread_of_the_caller(model: Any, recorder: Recorder) -> None:
    given: Any = {"max_parallel_tool_calls": None, **recorder.callbacks}
    if isinstance(model, Awaited):
        model.sync.act("both", [add, shout], **given)
    else:
        await model.act("both", [add, shout], **given)
    assert recorder.callers == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("prompt", "expected"), [("nobody", "Cannot find tool with name nobody."), ("wrong", "Failed to parse arguments")]
)
async def test_an_invalid_call_fails_and_has_a_result(
    model: Any, recorder: Recorder, prompt: str, expected: str
) -> None:
    await model.act(prompt, [add], repair_tool_calls=False, **recorder.callbacks)
    assert not recorder.of("request_end", "request_finalized")
    (failure,), (result,) = recorder.of("request_failure"), recorder.of("result")
    assert failure[1:3] == result[1:3] == (0, 0)
    assert isinstance(failure[3], lms.LMStudioToolCallError)
    assert failure[3].raw_content
    assert expected in str(failure[3])
    assert expected in result[3].content


async def test_a_call_that_cannot_be_read_fails_before_act_does(model: Any, recorder: Recorder) -> None:
    handled: list[Any] = []
    with pytest.raises(lms.LMStudioToolCallError) as caught:
        await model.act(
            "garbled",
            [add],
            handle_invalid_tool_request=lambda error, request: handled.append((error, request)),
            repair_tool_calls=False,
            **recorder.callbacks,
        )
    assert recorder.numbers_of("request_start", "request_end", "request_failure") == [
        ("request_start", 0, 0),
        ("request_failure", 0, 0),
    ]
    assert str(recorder.of("request_failure")[0][3]) == str(caught.value)
    assert handled == [(caught.value, None)]


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_call_that_is_cut_off_fails(caplog: pytest.LogCaptureFixture, *, is_lost: bool) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        await send(socket, packet({"type": "toolCallGenerationStart"}))
        if is_lost:
            await socket.close()
        else:
            await send(socket, packet({"type": "toolCallGenerationNameReceived", "name": "add"}))
            await send(socket, packet({**FINISHED, "stats": {"stopReason": "maxPredictedTokensReached"}}))

    recorder = Recorder()
    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        with pytest.raises(lms.LMStudioConnectionLostError) if is_lost else nullcontext():
            # Otherwise a call is reported once it is complete.
            await loaded_handle(client).act("Hi", [add], repair_tool_calls=not is_lost, **recorder.callbacks)
    assert recorder.numbers_of("request_start", "request_end", "request_failure") == [
        ("request_start", 0, 0),
        ("request_failure", 0, 0),
    ]
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert logged == ([] if is_lost else ["'chatty': a call of the tool 'add' was cut off (maxPredictedTokensReached)"])
    reason = "Generation failed: " if is_lost else "the call was cut off (maxPredictedTokensReached)"
    assert reason in str(recorder.of("request_failure")[0][3])


async def test_the_number_of_a_call_that_was_cut_off_is_not_given_again() -> None:
    called = {"type": "toolCallGenerationEnd", "toolCallRequest": {"name": "add", "arguments": {"a": 1}}}
    start = {"type": "toolCallGenerationStart"}

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        for number, packets in enumerate(([start, called, start], [start, called], []), 1):
            await receive(socket)
            for each in (*packets, FINISHED):
                await send(socket, packet(each) | {"channelId": number})

    recorder = Recorder()
    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        await loaded_handle(client).act("Hi", [add], **recorder.callbacks)
    assert recorder.numbers_of("request_start", "result") == [
        ("request_start", 0, 0),
        ("request_start", 0, 1),
        ("result", 0, 0),
        ("request_start", 1, 2),
        ("result", 1, 2),
    ]


async def test_callbacks_about_tool_calls_do_not_keep_an_unloaded_model_from_its_reload() -> None:
    endpoints: list[str] = []

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        for number, stop_reason in ((1, "modelUnloaded"), (3, "eosFound")):
            endpoints.append((await receive(socket))["endpoint"])
            await send(socket, {**packet({**FINISHED, "stats": {"stopReason": stop_reason}}), "channelId": number})
            if number == 1:
                endpoints.append((await receive(socket))["endpoint"])
                await send(socket, {**packet({"type": "loadSuccess", "info": INFO}), "channelId": 2})

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        callback = {"on_tool_call_request_start": print}
        assert (await loaded_handle(client).act("Hi", [add], **callback)).rounds == 1
    assert endpoints == ["predict", "getOrLoad", "predict"]


START, END, ARGUMENTS = lms.ToolCallStart("c1"), lms.ToolCallEnd("c1", "add", {"a": 1}), '{\n  "a": 1\n}'
UNSTREAMED = ("start 0", "name_received 0: add", f"argument_fragment 0: {ARGUMENTS}", "end 0")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([START, END], UNSTREAMED),
        ([END], UNSTREAMED),
        ([START, END, lms.ToolCallName("late"), lms.ToolCallArguments("late")], UNSTREAMED),
        (
            [START, lms.ToolCallName("add"), lms.ToolCallArguments("{"), lms.ToolCallArguments("}"), END],
            ("start 0", "name_received 0: add", "argument_fragment 0: {", "argument_fragment 0: }", "end 0"),
        ),
        (
            [START, START, lms.ToolCallName("add"), lms.ToolCallArguments("{")],
            (
                *("start 0", "failure 0: the model gave the call up for another one", "start 1"),
                *("name_received 1: add", "argument_fragment 1: {"),
            ),
        ),
        (
            [lms.ToolCallFailed({"title": "no JSON"}, "{"), START],
            ("start 0", "failure 0: Failed to parse tool call request: no JSON", "start 1"),
        ),
    ],
)
def test_each_call_starts_once_and_ends_once(events: Sequence[ToolCallEvent], expected: Sequence[str]) -> None:
    steps: list[str] = []

    def record(name: str, number: int, argument: object) -> Any:
        shown = "" if isinstance(argument, lms.ToolCallStart | lms.ToolCallEnd) else f": {argument}"
        return call_back(name, steps.append, f"{name.removeprefix('on_tool_call_request_')} {number}{shown}")

    reports = ToolCallReports(record, lambda _: None, first_id=0)
    for event in events:
        run(reports.report(event))
    assert steps == list(expected)


# Async callbacks ------------------------------------------------------------------------------------------------------


async def test_the_handler_of_invalid_tool_requests_may_be_async(server: Emulator) -> None:
    async def handle(_error: Exception, request: Any) -> str:
        await asyncio.sleep(0)
        return f"{request.name}?"

    async with lms.AsyncClient(server.address) as client:
        model = await client.llm.model("chatty")
        assert await results_of(model, "nobody", [add], handle_invalid_tool_request=handle) == ["nobody?"]


async def test_async_callbacks_of_a_response_are_awaited_in_order(server: Emulator) -> None:
    names = ("first_token", "prediction_fragment", "prompt_processing_progress", "message")
    orders: list[list[Any]] = []
    async with lms.AsyncClient(server.address) as client:
        model = await client.llm.model("chatty")
        for waits in (False, True):
            recorder = Recorder(waits=waits)
            callbacks: Any = {f"on_{name}": recorder.record(name, waits=waits) for name in names}
            await model.respond("hello", **callbacks)
            await model.complete("hello", **callbacks)
            await model.respond_stream("hello", **callbacks).wait_for_result()
            orders.append(recorder.order)
            assert recorder.callers == {asyncio.current_task()}
    assert [each[0] for each in orders[0]] == [each[0] for each in orders[1]]
    assert len(orders[1]) > len(names)


async def test_a_task_that_is_cancelled_in_an_async_callback_stops_the_server(server: Emulator) -> None:
    begun = asyncio.Event()

    async def wait(_fragment: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with lms.AsyncClient(server.address) as client:
        responding = asyncio.create_task(
            (await client.llm.model("chatty")).respond("for ever", on_prediction_fragment=wait)
        )
        await asyncio.wait_for(begun.wait(), 600)
        responding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await responding
        await until_stopped(server)


# Contexts -------------------------------------------------------------------------------------------------------------


def described(text: str, ctx: lms.ToolCallContext) -> str:
    """Repeat a text."""
    ctx.status(f"call {ctx.call_id}")
    ctx.warn("quietly")
    return f"{text} {ctx.cancelled}"


async def described_slowly(text: str, *, ctx: lms.ToolCallContext | None = None) -> str:
    """Repeat a text."""
    await asyncio.sleep(0)
    assert ctx is not None
    return described(text, ctx)


@pytest.mark.parametrize(("function", "parallel"), [(described, 1), (described_slowly, None)])
async def test_a_tool_gets_its_context(
    model: Any, function: Callable[..., Any], parallel: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tools = [add, lms.ToolFunctionDef.from_callable(function, name="shout")]
    assert await results_of(model, "both", tools, max_parallel_tool_calls=parallel) == ['"slow False"', "7"]
    records = [(each.levelname, each.getMessage()) for each in caplog.records if "shout" in each.getMessage()]
    assert records == [("INFO", "tool 'shout': call 0"), ("WARNING", "tool 'shout': quietly")]


async def test_a_tool_can_see_that_nobody_waits_for_it(model: Any) -> None:
    contexts: list[lms.ToolCallContext] = []
    begun, release = threading.Event(), threading.Event()

    def wait(text: str, ctx: lms.ToolCallContext) -> None:
        """Wait in a thread."""
        contexts.append(ctx)
        begun.set()
        release.wait(600)

    async def quick(a: int, b: int) -> int:
        """Add two numbers, once the other tool has begun."""
        await asyncio.to_thread(begun.wait, 600)
        return a + b

    def end(*_: object) -> None:
        assert not contexts[0].cancelled
        assert repr(contexts[0]) == "ToolCallContext(name='shout', call_id=0)"
        raise KeyError("mine")

    tools = [
        lms.ToolFunctionDef.from_callable(wait, name="shout"),
        lms.ToolFunctionDef.from_callable(quick, name="add"),
    ]
    with pytest.raises(KeyError, match="mine"):
        await model.act("both", tools, max_parallel_tool_calls=None, on_tool_call_result=end)
    assert contexts[0].cancelled
    release.set()


@pytest.mark.slow
async def test_the_end_of_act_cancels_async_tools_and_nothing_else_does(model: Any) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def wait(text: str) -> None:
        """Wait for what nothing else refers to."""
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def end(*_: object) -> None:
        assert begun.wait(600)
        gc.collect()
        assert not cancelled.is_set()
        raise KeyError("mine")

    tools = [add, lms.ToolFunctionDef.from_callable(wait, name="shout")]
    with pytest.raises(KeyError, match="mine"):
        await model.act("both", tools, max_parallel_tool_calls=None, on_tool_call_result=end)
    assert await asyncio.to_thread(cancelled.wait, 600)


async def test_all_async_tools_of_an_act_share_a_loop(model: Any) -> None:
    loops: set[object] = set()

    async def note(a: int) -> int:
        """Return a number."""
        loops.add(asyncio.get_running_loop())
        return a

    await model.act("twice", [lms.ToolFunctionDef.from_callable(note, name="add")])
    assert len(loops) == 1


def test_a_tool_may_end_the_program(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        model = client.llm.model("chatty")
        tool = lms.ToolFunctionDef("add", "End.", {"a": int, "b": int}, lambda a, b: sys.exit(f"with {a}"))
        for parallel in (1, None):
            with pytest.raises(SystemExit, match="with 1"):
                model.act("add", [tool], max_parallel_tool_calls=parallel)


# Tools with a JSON schema, and tools without a function -------------------------------------------------------------


SCHEMA = {"type": "object", "properties": {"place-name": {"type": "string"}}, "required": ["place-name"]}


async def test_a_tool_may_be_described_by_a_json_schema(model: Any, server: Emulator) -> None:
    def look_up(ctx: lms.ToolCallContext, **arguments: Any) -> list[str]:
        return [arguments["place-name"], ctx.name]

    tool = {"name": "look-up", "description": "Find a place.", "parameters": SCHEMA, "implementation": look_up}
    replies = [await results_of(model, prompt, [tool], repair_tool_calls=False) for prompt in ("lookup", "misread")]
    wrong = "Failed to parse arguments for tool look-up: place-name: 5 is not of type 'string'"
    assert replies == [['["Oslo","look-up"]'], [wrong]]
    (sent,) = server.predictions[-1].tools
    assert sent["function"]["parameters"] == SCHEMA


@pytest.mark.leaf
async def test_act_ends_after_a_call_of_a_tool_without_a_function_and_the_others_of_that_round_run(model: Any) -> None:
    tool = lms.ToolFunctionDef("add", "Add.", {"a": int, "b": int}, None)
    alone, beside = Recorder(), Recorder()
    assert (await model.act("add", [tool], **alone.callbacks)).rounds == 1
    ((_, message),) = alone.of("message")
    assert message.content[-1].tool_call_request.arguments == {"a": 1, "b": 2}  # mended
    assert alone.of("request_finalized")
    assert not alone.of("result")
    assert (await model.act("both", [tool, shout], **beside.callbacks)).rounds == 1
    _, (_, reply) = beside.of("message")
    assert [part.content for part in reply.content] == ['"SLOW"']
