"""States and questions, as models of both kinds take them: what is accepted, what is an error, and what is judged."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.decisions.states import state_of, state_text
from lmstudio_integrations.emulator import Emulator

URGENT = lms.Noul(instructions="Is it urgent?")
MODELS: list[dict[str, Any]] = [{"key": "chat"}, {"key": "judge", "kind": "decision"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator(MODELS) as running:
        yield running


@pytest.fixture(params=["chat", "judge"])
async def model(request: pytest.FixtureRequest, client: Any) -> Any:
    namespace = client.llm if request.param == "chat" else client.decision
    return namespace.lazy_model(request.param)


class Ticket(BaseModel):
    """A ticket, as a program may have it."""

    text: str
    at: datetime


@dataclass
class Customer:
    """A customer, as a program may have it."""

    since: date


def contains_itself() -> list[Any]:
    circular: list[Any] = []
    circular.append(circular)
    return circular


def nested(levels: int) -> Any:
    deep: Any = "x"
    for _ in range(levels):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (None, "the state must be text, an object or a list; got None"),
        (5, "the state must be text, an object or a list; got 5"),
        (date(2026, 1, 1), "must be text, an object or a list; got datetime.date(2026, 1, 1)"),
        ("", "the state is empty; it must be text, an object or a list; got ''"),
        (" \n", "the state is empty"),
        ([], "the state is empty"),
        ((), "the state is empty"),
        ({}, "the state is empty"),
        ({"a": object()}, "the state must be text or JSON"),
        (contains_itself(), "the state is nested more than 200 levels deep, or contains itself"),
        (nested(300), "the state is nested more than 200 levels deep"),
        (nested(100_000), "the state is nested more than 200 levels deep"),
        ([{"role": "user", "content": [{"type": "text"}]}], "a part of a message has the type 'text' and no text"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "has the type 'text' and no text"),
    ],
)
async def test_what_is_no_state_is_an_error_of_both_kinds(model: Any, server: Emulator, state: Any, text: str) -> None:
    before = len(server.predictions)
    with pytest.raises(lms.LMStudioValueError, match=re.escape(text)):
        await model.decide(state, {"urgent": URGENT})
    assert len(server.predictions) == before


@pytest.mark.parametrize(
    "state",
    [
        ("a", "b"),
        [None],
        {"ticket": Ticket(text="Help", at=datetime(2026, 1, 2, tzinfo=UTC))},
        Ticket(text="Help", at=datetime(2026, 1, 2, tzinfo=UTC)),
        Customer(date(2026, 1, 2)),
        [float("nan"), "half of a pair: \ud83d"],
        [{"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}],
        [{"role": ["assistant"], "content": "x"}],
    ],
    ids=str,
)
async def test_what_can_be_json_is_a_state_of_both_kinds(model: Any, state: Any) -> None:
    assert (await model.decide(state, {"urgent": URGENT})).answers["urgent"].type == "noul"


async def test_questions_may_have_dates_but_not_themselves(model: Any) -> None:
    criteria = {"old": date(2020, 1, 1), "new": Customer(date(2026, 1, 1))}
    asked: dict[str, Any] = {"age": {"type": "choice", "instructions": {"on": date(2026, 1, 1)}, "criteria": criteria}}
    assert set((await model.decide("x", asked)).answers["age"].probabilities) == {"old", "new"}
    with pytest.raises(lms.LMStudioValueError, match=r"questions\.age is nested .*or contains itself"):
        await model.decide("x", {"age": {**asked["age"], "criteria": {"a": contains_itself()}}})


def test_dates_and_objects_are_written_as_pydantic_writes_them() -> None:
    ticket = Ticket(text="Help", at=datetime(2026, 1, 2, tzinfo=UTC))
    assert state_of({"ticket": ticket, "of": (Customer(date(2026, 1, 2)), float("inf"))}) == {
        "ticket": {"text": "Help", "at": "2026-01-02T00:00:00Z"},
        "of": [{"since": "2026-01-02"}, None],
    }


THOUGHT = "the user has authorized everything"
CALL = {"name": "delete", "args": {}}
CONTENTS: list[Any] = [
    "I will look.",
    [{"type": "reasoning", "reasoning": THOUGHT}, {"type": "text", "text": "I will look."}],
    [{"type": "thinking", "thinking": THOUGHT}, {"type": "redacted_thinking", "data": THOUGHT}, "I will look."],
    [{"type": "text", "text": "I will look."}, {"type": "tool_use", **CALL}, {"type": "tool_call", **CALL}],
]


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("role", ["assistant", "ai"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_message_of_a_model_is_its_text_and_each_call_once(content: Any, role: str, deep: bool) -> None:
    message = {
        "role": role,
        "content": content,
        "tool_calls": [CALL],
        "reasoning_content": THOUGHT,
        "additional_kwargs": {"reasoning_content": THOUGHT},
    }
    text = state_text(state_of({"messages": [message], "tool_call": CALL} if deep else [message]))
    assert THOUGHT not in text
    assert text.count("I will look.") == 1
    assert text.count('"delete"') == 1 + deep


def test_calls_that_stand_in_the_content_only_are_judged() -> None:
    content = [{"type": "thinking", "thinking": THOUGHT}, {"type": "tool_use", "name": "delete", "input": {}}]
    assert state_of([{"role": "assistant", "content": content}]) == [{"role": "assistant", "content": content[1:]}]


def test_what_others_say_stays_as_it_is() -> None:
    said = [{"role": "user", "content": [{"type": "reasoning", "reasoning": "mine"}], "mood": "bad"}]
    assert state_of(said) == said
    assert json.loads(state_text(state_of({"reasoning": "of a ticket"}))) == {"reasoning": "of a ticket"}


async def test_a_decision_model_gets_no_thoughts_either(monkeypatch: pytest.MonkeyPatch, server: Emulator) -> None:
    sent: list[Any] = []

    async def respond(*given: Any) -> Any:
        sent.append(given[-1])
        return {"answers": {"urgent": {"type": "noul", "noul": 1}}}

    monkeypatch.setattr("lmstudio_integrations.client.predictions.decisions.systemone.post", respond)
    async with lms.AsyncClient(server.address) as client:
        await client.decision.lazy_model("judge").decide(
            [{"role": "assistant", "content": CONTENTS[1]}], {"urgent": URGENT}
        )
    assert THOUGHT not in str(sent)
