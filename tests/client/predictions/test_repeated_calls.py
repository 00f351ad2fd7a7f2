"""Which calls of a turn repeat: a table of turns, in which each message has its calls and their results."""

from typing import Any

import pytest

from lmstudio_integrations.client.predictions.tool_loop.repeated_calls import (
    MadeCall,
    RequestedCall,
    find_repeated,
)

Turn = list[list[str]]
"""Messages with their calls: a tool, and after `=` its result, if it matters. One with `*` may repeat."""


def played(messages: Turn, most: int = 3) -> str:
    """Return what is done with each call: `r` runs, `a` is answered, `|` follows a message, `.` is the end."""
    made: list[MadeCall] = []
    done = ""
    for message in messages:
        calls = [call.partition("=") for call in message]
        requested = [RequestedCall(name.strip("*"), {"of": name}, name.endswith("*")) for name, _, _ in calls]
        found = find_repeated(made, requested, most=most)
        done += "".join("r" if answer is None else "a" for answer in found.answers)
        if found.ending:
            assert found.reason == (
                f"Stopped: `{found.ending.name}` was called {found.count} times with the same arguments and result."
            )
            return f"{done}."
        assert not found.reason
        done += "|"
        made += [
            MadeCall(call.name, call.arguments, None if answer else result or "same")
            for call, answer, (_, _, result) in zip(requested, found.answers, calls, strict=True)
        ]
    return done


@pytest.mark.parametrize(
    ("messages", "most", "expected"),
    [
        ([["a"]] * 9, 3, "r|r|a|a|a|a."),
        ([["a*"]] * 9, 3, "r|" * 9),
        ([[f"a={at}"] for at in range(9)], 3, "r|" * 9),
        ([["a=1"], ["a=1"], ["a=2"], ["a=2"], ["a=2"]], 4, "r|r|r|r|r|"),
        ([["a"], ["b"]] * 6, 3, "r|r|r|r|a|a|a|a|a|a|a."),
        ([["a"], ["b*"]] * 6, 3, "r|r|r|r|a|r|a|r|a|r|a."),
        ([each for at in range(9) for each in (["test"], [f"edit {at}"])], 3, "r|" * 18),
        ([each for at in range(9) for each in (["test"], [f"poll*={at}"])], 3, "r|" * 18),
        ([["a", "a", "a", "a"], ["a"], ["a"]], 3, "rraa|a|a."),
        ([["a"] * 9, ["a"]], 3, "rraaaaaaa|a."),
        ([["a"] * 9], 3, "rraaaaaaa|"),
        ([*[["a"]] * 5, ["a", "b"], ["a"], ["a"]], 3, "r|r|a|a|a|ar|r|a|"),
    ],
    ids=[
        "the same",
        "repeatable",
        "other results",
        "the last result counts",
        "two in turn",
        "with a poll that finds nothing",
        "tests after edits",
        "with a poll that finds something",
        "in one message",
        "more in one message than end a turn",
        "before the model has seen an answer",
        "with something new",
    ],
)
def test_a_call_that_repeats_is_answered_and_then_ends_the_turn(messages: Turn, most: int, expected: str) -> None:
    assert played(messages, most) == expected


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"a": 1, "b": [1, {"d": 1, "c": 2}]}, {"b": [1, {"c": 2, "d": 1}], "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": None}, {}, False),
        ({"a": "\ud800"}, {"a": "\ud800"}, True),
        ({"a": b"no JSON"}, {"a": b"no JSON"}, True),
    ],
)
def test_arguments_are_the_same_if_their_json_is(one: dict[str, Any], other: dict[str, Any], is_same: bool) -> None:
    found = find_repeated([MadeCall("tool", one, "same")], [RequestedCall("tool", other)], most=2)
    assert (found.answers[0] is not None) is is_same


def test_the_model_reads_which_call_it_was() -> None:
    made = [MadeCall("look_up", {}, "same")] * 2
    (answer,) = find_repeated(made, [RequestedCall("look_up", {})], most=3).answers
    assert answer == (
        "`look_up` did not run: this is call number 3 with the same arguments, and the result was the same each time. "
        "Use that result, change the arguments, or do something else."
    )
