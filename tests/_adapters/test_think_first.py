"""A thought before structured output where the grammar leaves none, on every way to request structured output."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import METHODS, STRUCTURED, messages_of, seen_of
from tests.support.gate import AT_THE_GATE, Gate

pytestmark = pytest.mark.leaf


class Place(BaseModel):
    """A place."""

    city: str


THOUGHT = "Is it Oslo? Yes."
RULES: tuple[dict[str, Any], ...] = (
    {"when": {"structured": True}, "then": [{"text": '{"city": "Oslo"}'}]},
    {"then": [{"reasoning": THOUGHT}, {"text": "I would say Oslo. "}, AT_THE_GATE]},
)
"""The free response only ends if it is cancelled."""

OSLO = Place(city="Oslo")

Seen = tuple[Any, str | None]
"""What was requested, and the thought where it can be seen."""


def of_method(name: str, llm: Any) -> Seen:
    make, method = METHODS[name]
    seen = seen_of(method(llm, messages_of(make, [("user", "Where?")]), response_format=Place))
    return Place.model_validate_json(seen["text"]), seen["reasoning"]


def of_structured(name: str, llm: LMStudio) -> Seen:
    return STRUCTURED[name](llm, Place, "Where?")[-1], None


def with_raw(llm: ChatLMStudio) -> Seen:
    found: Any = llm.with_structured_output(Place, include_raw=True).invoke("Where?")
    return found["parsed"], found["raw"].additional_kwargs.get("reasoning_content", "")


LANGCHAIN: dict[str, Callable[[Any], Seen]] = {
    "with_structured_output": with_raw,
    "with_structured_output, streamed": lambda llm: ([*llm.with_structured_output(Place).stream("Where?")][-1], None),
    **{name: partial(of_method, name) for name in ("stream", "astream")},
}
LLAMA_INDEX: dict[str, Callable[[Any], Seen]] = {
    **{name: partial(of_structured, name) for name in STRUCTURED if "predict" in name},
    "as_structured_llm": partial(of_structured, "chat"),
    **{name: partial(of_method, name) for name in ("chat", "astream_chat")},
}


def respond(model: lms.LLM, **given: Any) -> Seen:
    stream = model.respond_stream("Where?", response_format=Place, config={"enable_thinking": True}, **given)
    reasoning = "".join(fragment.content for fragment in stream if fragment.reasoning_type == "reasoning")
    return stream.result().parsed_as(Place), reasoning


def twice(host: str, name: str, **given: Any) -> list[Seen]:
    """Request structured output two times from one object."""
    if name == "native":
        with lms.Client(host) as client:
            model = client.llm.model("m")
            return [respond(model, **given) for _ in range(2)]
    make: Any = ChatLMStudio if name in LANGCHAIN else LMStudio
    llm = make(model="m", host=host, enable_thinking=True, **given)
    return [(LANGCHAIN | LLAMA_INDEX)[name](llm) for _ in range(2)]


@pytest.mark.parametrize(
    ("name", "is_on"),
    [*((name, True) for name in (*LANGCHAIN, *LLAMA_INDEX, "native")), ("stream", False), ("chat", False)],
)
def test_structured_output_follows_a_thought_once_it_is_known_to_be_necessary(
    gate: Gate, name: str, is_on: bool
) -> None:
    given = {} if is_on else {"think_first": False}
    with Emulator([ModelEntry(key="m", rules=RULES)], engines=gate.engines()) as server:
        found = twice(server.address, name, **given)
        assert [value for value, _ in found] == [OSLO, OSLO]
        requested = [(record.raw, "structured" in record.config) for record in server.predictions]
        assert requested == [(False, True), *([(False, False), (True, True)] if is_on else [(False, True)])]
        assert [thought for _, thought in found] in ([None, None], ["", THOUGHT if is_on else ""])
        if is_on:
            assert (server.predictions[-1].prompt or "").endswith(f"<think>{THOUGHT}</think>")
