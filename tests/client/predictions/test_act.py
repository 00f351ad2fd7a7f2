"""The tool loop: what runs, what the model gets, and how it ends; the same bodies for both clients."""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from tests.client.both import Awaited, make_client
from tests.client.fake import Socket, authenticate, fake_server, receive, send
from tests.client.prediction_frames import END, loaded_handle, packet

__all__ = ["make_client"]

MANY = 40
"""More tools than a pool of threads has room for, which is 32 at most by default."""

ENOUGH = 9
"""How often a tool is called until the model gets what it waits for."""

POLL = {"tool": "poll", "arguments": {"of": "ferry"}}
NOBODY = {"tool": "nobody", "arguments": {}}

RULES: list[dict[str, Any]] = [
    {"when": {"last": "^three polls"}, "then": [POLL] * 3},
    {"when": {"last": "nobody", "tools": ["poll"], "role": "user"}, "then": [NOBODY]},
    {"when": {"last": "nobody", "tools": ["poll"], "role": "tool"}, "then": [NOBODY]},
    {"when": {"last": "is here"}, "then": [{"text": "Good."}]},
    {"when": {"tools": ["poll"], "role": "user"}, "then": [POLL]},
    {"when": {"tools": ["poll"], "role": "tool"}, "then": [POLL]},
    {"when": {"role": "tool"}, "then": [{"text": "I heard: {last}"}]},
    {"when": {"last": "^add", "tools": ["add"]}, "then": [{"tool": "add", "arguments": {"a": 1, "b": "2"}}]},
    {
        "when": {"last": "^both", "tools": ["add", "shout"]},
        "then": [
            {"tool": "shout", "arguments": {"text": "slow"}},
            {"tool": "add", "arguments": {"a": 3, "b": 4}},
        ],
    },
    {"when": {"last": "^nobody", "tools": ["add"]}, "then": [NOBODY]},
    {"when": {"last": "^wrong", "tools": ["add"]}, "then": [{"tool": "add", "arguments": {"a": "x"}}]},
    {"when": {"last": "^meet", "tools": ["meet"]}, "then": [{"tool": "meet", "arguments": {}}] * MANY},
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


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator([{"key": "chatty", "rules": RULES}]) as running:
        yield running


def tool_that(implementation: Callable[..., Any] | None, **members: Any) -> lms.ToolFunctionDef:
    """Return a tool that adds."""
    return lms.ToolFunctionDef("add", "Add.", {"a": int, "b": int}, implementation, **members)


async def results_of(model: Any, prompt: str, tools: Sequence[Any], **parameters: Any) -> list[str]:
    """Return the results that the model gets in the first round."""
    messages: list[Any] = []
    await model.act(prompt, tools, on_message=messages.append, **parameters)
    return [part.content for part in messages[1].content]


# Rounds and messages --------------------------------------------------------------------------------------------------


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


async def test_the_last_round_has_no_tools_and_requires_none(model: Any) -> None:
    results: list[Any] = []
    parameters: Any = {
        "config": {"toolChoice": {"type": "generic", "mode": "required"}},
        "on_prediction_completed": results.append,
    }
    await model.act("add", [add], max_prediction_rounds=2, **parameters)
    assert [each.prediction_config.tool_choice["mode"] for each in results] == ["required", "auto"]
    assert [each.round_index for each in results] == [0, 1]
    assert [len(each.tool_call_requests) for each in results] == [1, 0]
    assert (await model.act("add", [add], max_prediction_rounds=1)).rounds == 1
    with pytest.raises(lms.LMStudioPredictionError, match="final prediction round"):
        await model.act("always", [add], max_prediction_rounds=1)


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


@pytest.mark.leaf
@pytest.mark.filterwarnings("ignore:.*stop_on_repetition=False")
async def test_a_call_that_repeats_itself_ends_the_loop_with_that_reason() -> None:
    arguments = {"type": "toolCallGenerationArgumentFragmentGenerated", "content": "Let me think about it again. " * 20}
    failed = {"type": "toolCallGenerationFailed", "error": {"title": "Cut off"}, "rawContent": "{"}

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        for each in ({"type": "toolCallGenerationStart"}, *[arguments] * 20):
            await send(socket, packet(each))
        assert (await receive(socket))["message"]["type"] == "cancel"
        await send(socket, packet(failed))
        await send(socket, packet({**END, "stats": {"stopReason": "userStopped"}}))

    results: list[Any] = []
    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        done = await loaded_handle(client).act("Hi", [add], on_prediction_completed=results.append)
    assert (done.rounds, done.stop_reason) == (1, "repetition")
    assert [(each.stats.stop_reason, each.tool_call_requests) for each in results] == [("repetition", ())]


# How tools run --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("implementation", "parallel"),
    [(shout, None), (Loud(), 1), (wrapped, 1), (wrapped, None)],
    ids=["function", "object", "wrapped-one", "wrapped"],
)
async def test_an_awaitable_result_of_a_tool_is_awaited(
    model: Any, implementation: Callable[..., Any], parallel: int | None
) -> None:
    tools = [add, lms.ToolFunctionDef("shout", "Say it loudly.", {"text": str}, implementation)]
    assert await results_of(model, "both", tools, max_parallel_tool_calls=parallel) == ['"SLOW"', "7"]


async def test_all_tools_of_a_round_run_at_once_however_many_they_are(model: Any) -> None:
    together = threading.Barrier(MANY, timeout=600)
    tool = lms.ToolFunctionDef("meet", "Wait for the others.", {}, lambda: together.wait() >= 0, repeatable=True)
    assert await results_of(model, "meet", [tool], max_parallel_tool_calls=None) == ["true"] * MANY


@pytest.mark.parametrize(("is_async", "parallel"), [(False, 1), (False, None), (True, None)])
async def test_tools_see_the_context_of_the_caller(model: Any, is_async: bool, parallel: int | None) -> None:
    place = contextvars.ContextVar("place", default="nowhere")
    seen: list[str] = []

    def look(**_numbers: int) -> None:
        seen.append(place.get())

    async def look_slowly(**numbers: int) -> None:
        look(**numbers)

    place.set("here")
    tool = tool_that(look_slowly if is_async else look)
    await model.act("add", [tool], max_parallel_tool_calls=parallel)
    assert seen == ["here"]


# Failures -------------------------------------------------------------------------------------------------------------


async def cancel_itself(**_numbers: int) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def end_cancelled(**_numbers: int) -> None:
    raise asyncio.CancelledError


def end_iteration(**_numbers: int) -> None:
    next(iter([]))


class UnshownError(Exception):
    def __repr__(self) -> str:
        raise RuntimeError


def raising(error: Exception) -> Callable[..., Any]:
    def implementation(**_numbers: int) -> None:
        raise error

    return implementation


@pytest.mark.parametrize(
    ("implementation", "parallel", "expected"),
    [
        (fail, 1, "ZeroDivisionError('never')"),
        (fail, None, "ZeroDivisionError('never')"),
        (end_iteration, None, "StopIteration()"),
        (cancel_itself, None, "CancelledError()"),
        (end_cancelled, 1, "CancelledError()"),
        (end_cancelled, None, "CancelledError()"),
        (raising(ValueError("password: hunter2")), 1, "ValueError('password: **********')"),
        (raising(UnshownError()), 1, "a value of type UnshownError"),
    ],
)
async def test_the_model_gets_the_error_of_a_tool(
    model: Any, implementation: Callable[..., Any], parallel: int | None, expected: str
) -> None:
    results = await results_of(model, "add", [tool_that(implementation)], max_parallel_tool_calls=parallel)
    assert results == [f'"Unhandled Python exception: {expected}"']


async def test_a_very_long_error_of_a_tool_is_shortened_for_the_model(model: Any) -> None:
    (result,) = await results_of(model, "add", [tool_that(raising(ValueError("x" * 1_000_000)))])
    assert "characters omitted" in result


async def test_the_handler_of_invalid_tool_requests_may_replace_the_result_or_end_the_loop(model: Any) -> None:
    def replace_result(error: Exception, request: Any) -> str:
        return f"{request.name}? {error}"

    def end(error: Exception, _request: Any) -> None:
        raise error

    results = await results_of(model, "nobody", [add], handle_invalid_tool_request=replace_result)
    assert results == ["nobody? Cannot find tool with name nobody."]
    with pytest.raises(lms.LMStudioToolCallError, match="Cannot find tool"):
        await model.act("nobody", [add], handle_invalid_tool_request=end)


@pytest.mark.parametrize(
    ("text", "sent"),
    [('Try "later".', '"Try \\"later\\"."'), (None, "\"Unhandled Python exception: ZeroDivisionError('never')\"")],
)
async def test_the_handler_of_invalid_tool_requests_is_also_called_for_a_tool_that_failed(
    model: Any, text: str | None, sent: str
) -> None:
    calls: list[Any] = []

    def handle_error(error: Exception, request: Any) -> str | None:
        calls.append((type(error), type(error.__cause__), request.name))
        return text

    assert await results_of(model, "add", [tool_that(fail)], handle_invalid_tool_request=handle_error) == [sent]
    assert calls == [(lms.LMStudioPredictionError, ZeroDivisionError, "add")]


async def test_a_handler_must_return_a_string(model: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match="handle_invalid_tool_request must return a string or None; got 5"):
        await model.act("nobody", [add], handle_invalid_tool_request=lambda _error, _request: 5)


async def test_cancelling_the_loop_cancels_its_tools(server: Emulator) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(**_numbers: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with lms.AsyncClient(server.address) as client:
        acting = asyncio.create_task((await client.llm.model("chatty")).act("add", [tool_that(wait)]))
        await asyncio.wait_for(begun.wait(), 600)
        acting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acting
        assert ended.is_set()


# `max_repeated_tool_calls` --------------------------------------------------------------------------------------------


class Ferry:
    """A tool that returns the same each time, until the model has called it often enough."""

    def __init__(self) -> None:
        self.polls = 0

    def poll(self, of: str) -> str:
        """Return where a ferry is."""
        self.polls += 1
        return "It is here." if self.polls == ENOUGH else f"The {of} is away."


def changed(ferry: Ferry, **members: Any) -> lms.ToolFunctionDef:
    return replace(lms.ToolFunctionDef.from_callable(ferry.poll), **members)


@pytest.mark.parametrize(
    ("prompt", "tool", "options", "polls", "rounds", "stop_reason"),
    [
        ("poll", changed, {"max_repeated_tool_calls": None}, ENOUGH, ENOUGH + 1, None),
        ("poll", lambda ferry: changed(ferry, repeatable=True), {}, ENOUGH, ENOUGH + 1, None),
        ("three polls", changed, {"max_parallel_tool_calls": None}, 2, 4, "repeated_tool_call"),
        ("three polls", lambda ferry: changed(ferry, implementation=None), {}, 0, 1, None),
        ("nobody", changed, {}, 0, 6, "repeated_tool_call"),
        *(
            (
                "poll",
                lambda ferry, members=members: changed(ferry, parameters={"of": int}, **members),
                {"max_prediction_rounds": 9, "repair_tool_calls": False},
                0,
                6,
                "repeated_tool_call",
            )
            for members in ({"implementation": None}, {"repeatable": True})
        ),
    ],
    ids=[
        *("off", "repeatable", "in one round, at once", "left to the program", "an invalid call"),
        *("an invalid call that the program would get", "an invalid call of what is repeatable"),
    ],
)
async def test_a_call_that_repeats_does_not_run_and_then_ends_act(
    model: Any,
    prompt: str,
    tool: Callable[[Ferry], Any],
    options: dict[str, Any],
    polls: int,
    rounds: int,
    stop_reason: str | None,
) -> None:
    ferry = Ferry()
    result = await model.act(prompt, [tool(ferry)], **options)
    assert (ferry.polls, result.rounds, result.stop_reason) == (polls, rounds, stop_reason)


async def test_the_model_and_the_callbacks_get_the_answer_as_the_result(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ferry, finalized, results, messages, ended = Ferry(), list[Any](), list[Any](), list[Any](), list[int]()
    done = await model.act(
        "poll",
        [ferry.poll],
        on_tool_call_request_finalized=lambda *of: finalized.append(of[:2]),
        on_tool_call_result=lambda *of: results.append(of),
        on_message=messages.append,
        on_round_end=ended.append,
    )
    assert (ferry.polls, done.rounds, done.stop_reason) == (2, 6, "repeated_tool_call")
    assert finalized == [(0, 0), (1, 1)]
    assert [each[:2] for each in results] == [(at, at) for at in range(6)]
    texts = [each.content for _, _, each in results]
    assert texts[:2] == ['"The ferry is away."'] * 2
    assert [text[:43] for text in texts[2:]] == [
        f"`poll` did not run: this is call number {at} w" for at in (3, 4, 5, 6)
    ]
    assert [each.content[0].content for each in messages if each.role == "tool"] == texts
    assert [each.role for each in messages] == ["assistant", "tool"] * 6
    assert ended == [*range(6)]
    stopped = "Stopped: `poll` was called 6 times with the same arguments and result."
    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert logged == [f"'chatty': {text}" for text in (*texts[2:], stopped)]


# `guard_tool_call` ----------------------------------------------------------------------------------------------------

Controller = lms.GuardToolCallController
Guard = Callable[[Controller], Any]


class Run:
    """An `act` with a guard, which for the async client is async: what ran, and what was reported."""

    def __init__(self, model: Any) -> None:
        self.added: list[dict[str, int]] = []
        self.guarded: list[tuple[int, int, str, Any]] = []
        self.finalized: list[Any] = []
        self._model = model

    def add(self, **numbers: int) -> int:
        self.added.append(numbers)
        return sum(numbers.values())

    async def act(self, prompt: str, decide: Guard) -> list[str]:
        """Return the results of the first round."""

        def guard(number: int, call: int, controller: Controller) -> None:
            request = controller.tool_call_request
            self.guarded.append((number, call, controller.tool.name, request.arguments))
            decide(controller)

        async def guard_later(*given: Any) -> None:
            guard(*given)

        return await results_of(
            self._model,
            prompt,
            [tool_that(self.add), shout],
            guard_tool_call=guard if isinstance(self._model, Awaited) else guard_later,
            on_tool_call_request_finalized=lambda _round, _call, call: self.finalized.append(call.arguments),
        )


@pytest.fixture
def run(model: Any) -> Run:
    return Run(model)


async def test_an_allowed_call_runs(run: Run) -> None:
    assert await run.act("always", lambda guard: guard.allow()) == ["2"]
    assert run.guarded == [(0, 0, "add", {"a": 1, "b": 1})]
    assert run.finalized == [{"a": 1, "b": 1}]


async def test_other_arguments_are_what_the_conversation_shows(run: Run, server: Emulator) -> None:
    assert await run.act("always", lambda guard: guard.allow_and_override_parameters({"a": 7, "b": 2})) == ["9"]
    assert run.added == run.finalized == [{"a": 7, "b": 2}]
    sent = server.predictions[-1].messages[-2]["content"]
    assert [part["toolCallRequest"]["arguments"] for part in sent if "toolCallRequest" in part] == run.added


@pytest.mark.parametrize(("reason", "sent"), [("not today", "not today"), (None, "The tool call was denied.")])
async def test_a_denied_call_does_not_run_and_the_model_gets_the_reason(
    run: Run, reason: str | None, sent: str
) -> None:
    def decide(guard: Controller) -> None:
        guard.deny(reason) if guard.tool.name == "shout" else guard.allow()

    assert await run.act("both", decide) == [f'{{"error": "{sent}"}}', "7"]
    assert run.finalized == [{"a": 3, "b": 4}]


def _twice(guard: Controller) -> None:
    guard.allow()
    guard.deny("too late")


@pytest.mark.parametrize(
    ("decide", "error", "message"),
    [
        (lambda _: None, lms.LMStudioRuntimeError, "has not decided the call of 'add'; call allow"),
        (_twice, lms.LMStudioRuntimeError, r"deny\(\) after allow\(\); decide a call once"),
        (
            lambda guard: guard.allow_and_override_parameters({"a": "x", "b": 1}),
            lms.LMStudioValueError,
            "Failed to parse arguments for tool add",
        ),
        (lambda guard: guard.allow_and_override_parameters(5), lms.LMStudioValueError, "must be a dict .* got 5"),
        (lambda _: 1 / 0, ZeroDivisionError, "division"),
    ],
)
async def test_an_exception_ends_act(run: Run, decide: Guard, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        await run.act("always", decide)
    assert run.added == []


@pytest.mark.parametrize(
    ("decide", "ran"),
    [
        (lambda guard, _: guard.allow(), 2),
        (lambda guard, _: guard.deny(), 0),
        (lambda guard, call: guard.allow_and_override_parameters({"of": f"ferry {call % 2}"}), ENOUGH),
    ],
    ids=["allows", "denies", "changes"],
)
async def test_results_count_as_the_guard_makes_them(model: Any, decide: Callable[..., None], ran: int) -> None:
    ferry, guarded = Ferry(), list[tuple[int, int]]()

    def guard(number: int, call: int, controller: Controller) -> None:
        guarded.append((number, call))
        decide(controller, call)

    await model.act("poll", [ferry.poll], guard_tool_call=guard)
    assert ferry.polls == ran
    assert guarded == [(at, at) for at in range(ran or 2)]
