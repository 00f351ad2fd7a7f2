"""`guard_tool_call` of `act`: the same body for both clients, and for callbacks that are awaited."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from tests.client.both import Awaited, make_client

__all__ = ["make_client"]

CALL = {"tool": "add", "arguments": {"a": 1, "b": 2}}
RULES: list[dict[str, Any]] = [
    {"when": {"role": "user", "last": "^both"}, "then": [CALL, {"tool": "add", "arguments": {"a": 5, "b": 5}}]},
    {"when": {"role": "user"}, "then": [CALL]},
    {"when": {"role": "tool"}, "then": [{"text": "Result: {last}"}]},
]

Guard = Callable[[lms.GuardToolCallController], Any]


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([{"key": "chatty", "rules": RULES}]) as running:
        yield running


class Run:
    """One `act` with a guard: what ran, what was reported, and the messages."""

    def __init__(self, model: Any, *, waits: bool) -> None:
        self.added: list[tuple[int, int]] = []
        self.guarded: list[tuple[int, int, str, Any]] = []
        self.finalized: list[Any] = []
        self.messages: list[Any] = []
        self._model = model
        self._waits = waits

    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        self.added.append((a, b))
        return a + b

    async def act(self, prompt: str, decide: Guard) -> str:
        def guard(number: int, call: int, controller: lms.GuardToolCallController) -> None:
            request = controller.tool_call_request
            self.guarded.append((number, call, controller.tool.name, request.arguments))
            decide(controller)

        async def guard_later(*given: Any) -> None:
            guard(*given)

        await self._model.act(
            prompt,
            [self.add],
            guard_tool_call=guard_later if self._waits else guard,
            on_tool_call_request_finalized=lambda _round, _call, call: self.finalized.append(call.arguments),
            on_message=self.messages.append,
        )
        return str(self.messages[-1].content[0].text)


@pytest.fixture
def act(model: Any) -> Run:
    return Run(model, waits=not isinstance(model, Awaited))


async def test_an_allowed_call_runs(act: Run) -> None:
    assert await act.act("one", lambda guard: guard.allow()) == "Result: 3"
    assert act.guarded == [(0, 0, "add", {"a": 1, "b": 2})]
    assert act.finalized == [{"a": 1, "b": 2}]


async def test_other_arguments_are_what_the_conversation_shows(act: Run) -> None:
    answer = await act.act("one", lambda guard: guard.allow_and_override_parameters({"a": 7, "b": 2}))
    assert answer == "Result: 9"
    assert act.added == [(7, 2)]
    assert act.finalized == [{"a": 7, "b": 2}]
    (part,) = [part for part in act.messages[0].content if part.type == "toolCallRequest"]
    assert part.tool_call_request.arguments == {"a": 7, "b": 2}


@pytest.mark.parametrize(("reason", "sent"), [("not today", "not today"), (None, "The tool call was denied.")])
async def test_a_denied_call_does_not_run_and_the_model_gets_the_reason(
    act: Run, reason: str | None, sent: str
) -> None:
    def decide(guard: lms.GuardToolCallController) -> None:
        guard.deny(reason) if guard.tool_call_request.arguments["a"] == 5 else guard.allow()  # type: ignore[index]

    await act.act("both", decide)
    assert act.added == [(1, 2)]
    results = [part.content for part in act.messages[1].content]
    assert results == ["3", f'{{"error": "{sent}"}}']
    assert act.finalized == [{"a": 1, "b": 2}]


def _twice(guard: lms.GuardToolCallController) -> None:
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
async def test_an_exception_ends_act(act: Run, decide: Guard, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        await act.act("one", decide)
    assert act.added == []
