"""The tool loop; the same bodies for both clients."""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.api.asynchronous import AsyncClient
from lmstudio_integrations.emulator import Emulator
from tests.client.both import make_client

__all__ = ["make_client"]

MANY = 40
"""More tools than a pool of threads has room for, which is 32 at most by default."""

LOOP = "Let me think about it again. " * 4_000

RULES: list[dict[str, Any]] = [
    {"when": {"role": "tool"}, "then": [{"text": "I heard: {last}"}]},
    {"when": {"last": "^add", "tools": ["add"]}, "then": [{"tool": "add", "arguments": {"a": 1, "b": "2"}}]},
    {
        "when": {"last": "^both", "tools": ["add", "shout"]},
        "then": [
            {"tool": "shout", "arguments": {"text": "slow"}},
            {"tool": "add", "arguments": {"a": 3, "b": 4}},
        ],
    },
    {"when": {"last": "^nobody", "tools": ["add"]}, "then": [{"tool": "nobody", "arguments": {}}]},
    {"when": {"last": "^wrong", "tools": ["add"]}, "then": [{"tool": "add", "arguments": {"a": "x"}}]},
    {"when": {"last": "^meet", "tools": ["meet"]}, "then": [{"tool": "meet", "arguments": {}}] * MANY},
    {"when": {"last": "^loop"}, "then": [{"tool": "add", "arguments": {}, "malformed": '{"a": "' + LOOP}]},
    {"when": {"last": "^always"}, "then": [{"tool": "add", "arguments": {"a": 1, "b": 1}}]},
]


def add(a: int, b: int = 0) -> int:
    """Add two numbers."""
    return a + b


async def shout(text: str) -> str:
    """Repeat it in capitals."""
    await asyncio.sleep(0)
    return text.upper()


class Loud:
    """A tool that is an object."""

    async def __call__(self, text: str) -> str:
        return await shout(text)


@functools.wraps(shout)
def wrapped(**arguments: Any) -> Any:
    return shout(**arguments)


def fail(a: int, b: int = 0) -> int:
    """Add two numbers; fails."""
    raise ZeroDivisionError("never")


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([{"key": "chatty", "rules": RULES}]) as running:
        yield running


async def test_the_model_gets_what_the_tool_returned(model: Any) -> None:
    messages: list[Any] = []
    result = await model.act("add please", [add], on_message=messages.append, repair_tool_calls=False)
    assert result.rounds == 2
    assert result.total_time_seconds > 0
    assert [message.role for message in messages] == ["assistant", "tool", "assistant"]
    call = messages[0].content[-1].tool_call_request
    reply = messages[1].content[0]
    assert (call.name, call.arguments, reply.content, reply.tool_call_id) == ("add", {"a": 1, "b": "2"}, "3", call.id)
    assert messages[2].content[0].text == "I heard: 3"


@pytest.mark.parametrize("parallel", [1, 2, None])
async def test_replies_come_in_the_order_of_the_requests(model: Any, parallel: int | None) -> None:
    messages: list[Any] = []
    await model.act("both", [add, shout], on_message=messages.append, max_parallel_tool_calls=parallel)
    assert [part.content for part in messages[1].content] == ['"SLOW"', "7"]


@pytest.mark.parametrize("implementation", [shout, Loud(), wrapped])
@pytest.mark.parametrize("parallel", [1, None])
async def test_an_awaitable_result_of_a_tool_is_awaited(
    model: Any, implementation: Callable[..., Any], parallel: int | None
) -> None:
    messages: list[Any] = []
    tools = [add, lms.ToolFunctionDef("shout", "Say it loudly.", {"text": str}, implementation)]
    await model.act("both", tools, on_message=messages.append, max_parallel_tool_calls=parallel)
    assert messages[1].content[0].content == '"SLOW"'


async def test_all_tools_of_a_round_run_at_once_however_many_they_are(model: Any) -> None:
    together = threading.Barrier(MANY, timeout=600)
    tool = lms.ToolFunctionDef("meet", "Wait for the others.", {}, lambda: together.wait() >= 0, repeatable=True)
    messages: list[Any] = []
    await model.act("meet", [tool], on_message=messages.append, max_parallel_tool_calls=None)
    assert [part.content for part in messages[1].content] == ["true"] * MANY


async def test_callbacks_receive_the_index_of_the_round(model: Any) -> None:
    order: list[Any] = []
    await model.act(
        "add",
        [add],
        on_round_start=lambda number: order.append(("start", number)),
        on_round_end=lambda number: order.append(("end", number)),
        on_first_token=lambda number: order.append(("first", number)),
        on_prediction_fragment=lambda fragment, number: order.append((fragment.content, number)),
        on_prompt_processing_progress=lambda progress, number: order.append((progress, number)),
        on_prediction_completed=lambda result: order.append(("completed", result.content)),
    )
    assert [each for each in order if each[0] in {"start", "end", "first"}] == [
        ("start", 0),
        ("end", 0),
        ("start", 1),
        ("first", 1),
        ("end", 1),
    ]
    assert order[-2] == ("completed", "I heard: 3")
    assert [number for done, number in order if done == 1.0] == [0, 1]
    assert ("I", 1) in order


async def test_an_error_of_a_tool_is_sent_to_the_model(model: Any) -> None:
    messages: list[Any] = []
    tool = lms.ToolFunctionDef.from_callable(fail, name="add")
    await model.act("add", [tool], on_message=messages.append)
    assert "ZeroDivisionError('never')" in messages[1].content[0].content


async def test_a_tool_may_raise_stop_iteration(model: Any) -> None:
    messages: list[Any] = []
    tool = lms.ToolFunctionDef("add", "Add.", {"a": int, "b": int}, lambda a, b: next(iter([])))
    await model.act("add", [tool], on_message=messages.append)
    assert "StopIteration()" in messages[1].content[0].content


@pytest.mark.parametrize(
    ("prompt", "expected"), [("nobody", "Cannot find tool with name nobody."), ("wrong", "Failed to parse arguments")]
)
async def test_an_invalid_tool_request_is_reported_to_the_model(model: Any, prompt: str, expected: str) -> None:
    messages: list[Any] = []
    await model.act(prompt, [add], on_message=messages.append, repair_tool_calls=False)
    assert expected in messages[1].content[0].content


async def test_the_handler_of_invalid_tool_requests_may_replace_the_result_or_end_the_loop(model: Any) -> None:
    messages: list[Any] = []
    await model.act(
        "nobody",
        [add],
        on_message=messages.append,
        handle_invalid_tool_request=lambda error, request: f"{request.name}? {error}",
    )
    assert messages[1].content[0].content == "nobody? Cannot find tool with name nobody."

    def end(error: Exception, _request: Any) -> None:
        raise error

    with pytest.raises(lms.LMStudioToolCallError, match="Cannot find tool"):
        await model.act("nobody", [add], handle_invalid_tool_request=end)


@pytest.mark.filterwarnings("ignore:.*stop_on_repetition=False")
async def test_a_call_that_repeats_itself_ends_the_loop_with_that_reason(model: Any) -> None:
    results: list[Any] = []
    done = await model.act("loop", [add], on_prediction_completed=results.append)
    assert done.stop_reason == "repetition"
    assert [(each.stats.stop_reason, each.tool_call_requests) for each in results] == [("repetition", ())]


async def test_the_handler_of_invalid_tool_requests_is_also_called_for_a_tool_that_failed(model: Any) -> None:
    messages: list[Any] = []
    calls: list[Any] = []

    def handle_error(error: Exception, request: Any) -> str | None:
        calls.append((error, request.name))
        return 'Try "later".' if len(calls) == 1 else None

    tool = lms.ToolFunctionDef.from_callable(fail, name="add")
    for _ in range(2):
        await model.act("add", [tool], on_message=messages.append, handle_invalid_tool_request=handle_error)
    (error, name), _ = calls
    assert isinstance(error, lms.LMStudioPredictionError)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert name == "add"
    assert [message.content[0].content for message in messages if message.role == "tool"] == [
        '"Try \\"later\\"."',
        "\"Unhandled Python exception: ZeroDivisionError('never')\"",
    ]


@pytest.mark.parametrize("prompt", ["nobody", "add"])
async def test_a_handler_must_return_a_string(model: Any, prompt: str) -> None:
    tool = lms.ToolFunctionDef.from_callable(fail, name="add")
    with pytest.raises(lms.LMStudioValueError, match="handle_invalid_tool_request must return a string or None; got 5"):
        await model.act(prompt, [tool], handle_invalid_tool_request=lambda _error, _request: 5)


async def test_the_last_round_has_no_tools(model: Any) -> None:
    messages: list[Any] = []
    result = await model.act("add", [add], max_prediction_rounds=1, on_message=messages.append)
    assert result.rounds == 1
    assert messages[0].role == "assistant"
    with pytest.raises(lms.LMStudioPredictionError, match="final prediction round"):
        await model.act("always", [add], max_prediction_rounds=1)


async def test_the_last_round_requires_no_tool(model: Any) -> None:
    results: list[Any] = []
    required = {"type": "generic", "mode": "required"}
    parameters = {"config": {"toolChoice": required}, "on_prediction_completed": results.append}
    await model.act("add", [add], max_prediction_rounds=2, **parameters)
    assert [each.prediction_config.tool_choice["mode"] for each in results] == ["required", "auto"]
    assert [each.round_index for each in results] == [0, 1]
    assert results[0].tool_call_requests[0].name == "add"


async def test_the_callers_chat_is_not_changed(model: Any) -> None:
    chat = lms.Chat()
    chat.add_user_message("add")
    await model.act(chat, [add])
    assert len(chat) == 1


def texts_of(messages: Iterable[Any]) -> list[str]:
    return [part.text for message in messages for part in message.content if part.type == "text"]


@pytest.mark.parametrize(("begun", "rounds"), [("hello ", 1), ("add ", 2)])
async def test_a_chat_that_ends_with_an_assistant_message_can_be_continued(model: Any, begun: str, rounds: int) -> None:
    chat = lms.Chat()
    chat.add_user_message("Do.")
    chat.add_assistant_response(begun)
    added: list[Any] = []

    def add_message(message: Any) -> None:
        added.append(message)
        chat.append(message)

    assert (await model.act(chat, [add], on_message=add_message)).rounds == rounds
    assert len(texts_of(added)) == rounds
    assert texts_of(chat.messages[1:]) == [begun, *texts_of(added)]


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ([add, add], "duplicate"),
        ([5], "must be a function"),
    ],
)
async def test_unusable_tools_are_rejected_before_sending(
    model: Any, tools: Any, expected: str, server: Emulator
) -> None:
    with pytest.raises(lms.LMStudioValueError, match=expected):
        await model.act("add", tools)
    assert server.predictions == ()


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_prediction_rounds": 0},
        {"max_parallel_tool_calls": 0},
        {"max_repeated_tool_calls": 1},
        {"max_repeated_tool_calls": True},
        {"on_mesage": None},
    ],
)
async def test_invalid_parameters_of_act_are_rejected(model: Any, parameters: dict[str, Any]) -> None:
    with pytest.raises(lms.LMStudioValueError, match=next(iter(parameters))):
        await model.act("add", [add], **parameters)


@pytest.mark.parametrize("parallel", [1, None])
@pytest.mark.parametrize("is_async", [False, True])
async def test_tools_see_the_context_of_the_caller(model: Any, parallel: int | None, is_async: bool) -> None:
    place = contextvars.ContextVar("place", default="nowhere")
    seen: list[str] = []

    def look(**_numbers: int) -> None:
        seen.append(place.get())

    async def look_slowly(**numbers: int) -> None:
        look(**numbers)

    tool = lms.ToolFunctionDef("add", "Add.", {"a": int, "b": int}, look_slowly if is_async else look)
    place.set("here")
    await model.act("add", [tool], max_parallel_tool_calls=parallel)
    assert seen == ["here"]


async def cancel_itself(**_numbers: int) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def end_cancelled(**_numbers: int) -> None:
    raise asyncio.CancelledError


def end_cancelled_at_once(**_numbers: int) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("parallel", [1, None])
@pytest.mark.parametrize("implementation", [cancel_itself, end_cancelled, end_cancelled_at_once])
async def test_a_cancelled_tool_counts_as_failed(
    model: Any, implementation: Callable[..., Any], parallel: int | None
) -> None:
    messages: list[Any] = []
    tool = lms.ToolFunctionDef("add", "Add.", {"a": int, "b": int}, implementation)
    await model.act("add", [tool], on_message=messages.append, max_parallel_tool_calls=parallel)
    assert messages[1].content[0].content == '"Unhandled Python exception: CancelledError()"'


async def test_cancelling_the_loop_cancels_its_tools(server: Emulator) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(**_numbers: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    tool = lms.ToolFunctionDef("add", "Add.", {"a": int, "b": int}, wait)
    async with AsyncClient(server.address) as client:
        acting = asyncio.create_task((await client.llm.model("chatty")).act("add", [tool]))
        await asyncio.wait_for(begun.wait(), 600)
        acting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acting
        assert ended.is_set()
