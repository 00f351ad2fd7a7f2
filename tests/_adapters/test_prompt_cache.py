"""A conversation that only grows, and whose prompts begin differently all the same: natively and in both frameworks."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from tests._adapters.ways import METHODS, Turns, messages_of, metadata_of, whole
from tests.support.served import served

RULES = "You are a guide for travelers, and you keep to the point. " * 5
SCRIPT: tuple[dict[str, Any], ...] = ({"when": {"last": "^Name"}, "then": [{"text": '{"name": "Oslo"}'}]},)

server = served([ModelEntry(key="m", rules=SCRIPT)], scope="function")


Answer = tuple[str, int, int]
"""A response: its text, the tokens of it and its prompt, and how many of them were in the cache."""


def framework(name: str) -> Callable[[str, Turns], Answer]:
    make, method = METHODS[name]

    def ask(host: str, turns: Turns) -> Answer:
        response = whole(method(make(model="m", host=host), messages_of(make, turns)))
        cached = metadata_of(response)["cached_tokens"]
        if isinstance(response, AIMessage):
            usage: Any = response.usage_metadata
            assert usage["input_token_details"]["cache_read"] == cached
            return response.text, usage["total_tokens"], cached
        usage = response.raw["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == cached
        return response.message.content, usage["total_tokens"], cached

    return ask


def native(host: str, turns: Turns) -> Answer:
    with lms.Client(host) as client:
        given: Any = {"messages": [{"role": role, "content": text} for role, text in turns]}
        result = client.llm.model("m").respond(given)
    assert result.cached_tokens is not None
    return result.content, result.stats.total_tokens_count or 0, result.cached_tokens


WAYS = {"native": native, **{name: framework(name) for name in ("invoke", "astream", "chat", "astream_chat")}}
trips = count()
"""No conversation is the same: what is remembered of a server is still there for the next one at its address."""


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("has_clock", [True, False])
def test_the_cached_tokens_say_whether_the_beginning_has_changed(server: Emulator, name: str, has_clock: bool) -> None:
    turns, found = list[tuple[str, str]](), list[int]()
    for turn in range(4):
        question = f"Trip {next(trips)}: where does this train go, what is there to see, and how long does it take?"
        turns.append(("user", f"{question} {'Take your time. ' * 5}"))
        system = f"{RULES} It is 12:0{turn * has_clock}."
        text, tokens, cached = WAYS[name](server.address, [("system", system), *turns])
        turns.append(("assistant", text))
        found.append(cached)
        assert cached < tokens
    assert found[0] == 0
    assert found[1:] == [0] * 3 if has_clock else 0 < found[1] < found[2] < found[3]


def test_a_correction_is_a_turn(server: Emulator) -> None:
    schema = {"title": "City", "type": "object", "properties": {"name": {"type": "integer"}}, "required": ["name"]}
    model = ChatLMStudio(model="m", host=server.address)
    structured = model.with_structured_output(schema, include_raw=True, max_attempts=3)
    messages: list[Any] = [SystemMessage(RULES)]
    for number in range(2):
        messages.append(HumanMessage(f"Name city number {number}. Take your time, and think about it for a while."))
        messages.append(structured.invoke(messages)["raw"])
    raw = messages[-1]
    assert raw.response_metadata["attempts"] > 1
    assert raw.response_metadata["cached_tokens"] == raw.usage_metadata["input_token_details"]["cache_read"]
