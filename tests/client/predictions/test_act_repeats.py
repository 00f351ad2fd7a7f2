"""`max_repeated_tool_calls` of `act`: what runs, what is answered and how it ends."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator

ENOUGH = 9
"""How often a tool is called until the model gets what it waits for."""

CALL = {"tool": "poll", "arguments": {"of": "ferry"}}
RULES: list[dict[str, Any]] = [
    {"when": {"last": "done"}, "then": [{"text": "The ferry is here."}]},
    {"when": {"last": "^three at once"}, "then": [CALL] * 3},
    {"when": {"last": "unknown|nobody"}, "then": [{"tool": "nobody", "arguments": {}}]},
    {"then": [CALL]},
]


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([{"key": "chatty", "rules": RULES}]) as running:
        yield running


class Ferry:
    """A tool that returns the same each time, or its number, until the model has called it often enough."""

    def __init__(self) -> None:
        self.polls = 0
        self.guarded: list[tuple[int, int]] = []

    def poll(self, of: str) -> str:
        """Return where a ferry is."""
        self.polls += 1
        return f"The {of} is done." if self.polls == ENOUGH else f"The {of} is away."

    def count(self, of: str) -> str:
        """Return where a ferry is, each time another text."""
        return f"{self.polls} {self.poll(of)}"

    def allow(self, round_index: int, call_id: int, guard: lms.GuardToolCallController) -> None:
        self.guarded.append((round_index, call_id))
        guard.allow()

    def deny(self, round_index: int, call_id: int, guard: lms.GuardToolCallController) -> None:
        self.guarded.append((round_index, call_id))
        guard.deny()

    def change(self, round_index: int, call_id: int, guard: lms.GuardToolCallController) -> None:
        self.guarded.append((round_index, call_id))
        guard.allow_and_override_parameters({"of": f"ferry {call_id % 2}"})


def tool_of(function: Callable[..., Any], **members: Any) -> lms.ToolFunctionDef:
    return replace(lms.ToolFunctionDef.from_callable(function, name="poll"), **members)


@pytest.mark.parametrize(
    ("prompt", "tool", "options", "polls", "rounds", "stop_reason"),
    [
        ("poll", lambda it: it.poll, {}, 2, 6, "repeated_tool_call"),
        ("poll", lambda it: it.poll, {"max_repeated_tool_calls": None}, ENOUGH, ENOUGH + 1, None),
        ("poll", lambda it: tool_of(it.poll, repeatable=True), {}, ENOUGH, ENOUGH + 1, None),
        ("three at once", lambda it: it.poll, {"max_parallel_tool_calls": None}, 2, 4, "repeated_tool_call"),
        ("three at once", lambda it: tool_of(it.poll, implementation=None), {}, 0, 1, None),
        ("unknown", lambda it: it.poll, {}, 0, 6, "repeated_tool_call"),
    ],
    ids=[
        "the same",
        "off",
        "repeatable",
        "in one round, at once",
        "left to the program",
        "an invalid call",
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


@pytest.mark.parametrize(
    ("guard", "ran"), [(Ferry.allow, 2), (Ferry.deny, 0), (Ferry.change, ENOUGH)], ids=["allows", "denies", "changes"]
)
async def test_results_count_as_the_guard_makes_them(model: Any, guard: Callable[..., None], ran: int) -> None:
    ferry = Ferry()
    await model.act("poll", [ferry.poll], guard_tool_call=guard.__get__(ferry))
    assert ferry.polls == ran
    assert ferry.guarded == [(at, at) for at in range(ran or 2)]


async def test_the_model_and_the_callbacks_get_the_answer_as_the_result(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ferry, finalized, results, messages, ended = Ferry(), list[Any](), list[Any](), list[Any](), list[int]()
    await model.act(
        "poll",
        [ferry.poll],
        on_tool_call_request_finalized=lambda *of: finalized.append(of[:2]),
        on_tool_call_result=lambda *of: results.append(of),
        on_message=messages.append,
        on_round_end=ended.append,
    )
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
