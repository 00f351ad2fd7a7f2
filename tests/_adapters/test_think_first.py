"""A thought before structured output where the grammar leaves none, on every way to request structured output."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pytest
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import (
    collected,
    collected_later,
    said,
    seen_chunks,
    seen_response,
    seen_responses,
)
from tests.support.gate import AT_THE_GATE, Gate


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
PROMPT = PromptTemplate("Where?")
FORMAT: dict[str, Any] = {"response_format": Place}

Way: TypeAlias = Callable[[Any], tuple[Any, str | None]]
"""Returns what was requested, and the thought where it can be seen."""


def raw_and_parsed(found: Mapping[str, Any]) -> tuple[Any, str | None]:
    return found["parsed"], found["raw"].additional_kwargs.get("reasoning_content", "")


def with_raw(llm: ChatLMStudio) -> Any:
    return llm.with_structured_output(Place, include_raw=True)


def seen(given: Mapping[str, Any]) -> tuple[Any, str | None]:
    return Place.model_validate_json(given["text"]), given["reasoning"]


def of_result(result: lms.PredictionResult) -> tuple[Any, str | None]:
    return result.parsed_as(Place), result.reasoning_content


def of_stream(stream: Any) -> tuple[Any, str | None]:
    reasoning = "".join(fragment.content for fragment in stream if fragment.reasoning_type == "reasoning")
    return of_result(stream.result())[0], reasoning


LANGCHAIN: dict[str, Way] = {
    "with_structured_output": lambda llm: raw_and_parsed(with_raw(llm).invoke("Where?")),
    "with_structured_output, async": lambda llm: raw_and_parsed(asyncio.run(with_raw(llm).ainvoke("Where?"))),
    "with_structured_output, streamed": lambda llm: (
        [*llm.with_structured_output(Place).stream("Where?")][-1],
        None,
    ),
    "stream": lambda llm: seen(seen_chunks([*llm.bind(**FORMAT).stream("Where?")])),
    "astream": lambda llm: seen(seen_chunks(asyncio.run(collected(llm.bind(**FORMAT).astream("Where?"))))),
}
LLAMA_INDEX: dict[str, Way] = {
    "structured_predict": lambda llm: (llm.structured_predict(Place, PROMPT), None),
    "astructured_predict": lambda llm: (asyncio.run(llm.astructured_predict(Place, PROMPT)), None),
    "stream_structured_predict": lambda llm: ([*llm.stream_structured_predict(Place, PROMPT)][-1], None),
    "as_structured_llm": lambda llm: (llm.as_structured_llm(Place).chat(said("Where?")).raw, None),
    "chat": lambda llm: seen(seen_response(llm.chat(said("Where?"), **FORMAT), [])),
    "stream_chat": lambda llm: seen(seen_responses([*llm.stream_chat(said("Where?"), **FORMAT)])),
    "astream_chat": lambda llm: seen(
        seen_responses(asyncio.run(collected_later(llm.astream_chat(said("Where?"), **FORMAT))))
    ),
}
NATIVE: dict[str, Callable[..., tuple[Any, str | None]]] = {
    "respond": lambda model, given: of_result(model.respond("Where?", **given)),
    "respond_stream": lambda model, given: of_stream(model.respond_stream("Where?", **given)),
}


def twice(host: str, framework: str, name: str, given: Mapping[str, Any]) -> list[tuple[Any, str | None]]:
    """Request structured output two times from one object."""
    if framework == "LangChain":
        chat = ChatLMStudio(model="m", host=host, enable_thinking=True, **given)
        return [LANGCHAIN[name](chat) for _ in range(2)]
    if framework == "LlamaIndex":
        llm = LMStudio(model="m", host=host, enable_thinking=True, **given)
        return [LLAMA_INDEX[name](llm) for _ in range(2)]
    arguments = {**FORMAT, "config": {"enable_thinking": True}, **given}
    if name == "respond, async":
        return asyncio.run(natively(host, arguments))
    with lms.Client(host) as client:
        model = client.llm.model("m")
        return [NATIVE[name](model, arguments) for _ in range(2)]


async def natively(host: str, arguments: Mapping[str, Any]) -> list[tuple[Any, str | None]]:
    async with lms.AsyncClient(host) as client:
        model: Any = await client.llm.model("m")
        return [of_result(await model.respond("Where?", **arguments)) for _ in range(2)]


WAYS = [
    *[("LangChain", name) for name in LANGCHAIN],
    *[("LlamaIndex", name) for name in LLAMA_INDEX],
    *[("native", name) for name in (*NATIVE, "respond, async")],
]


@pytest.mark.parametrize(
    ("framework", "name", "is_on"),
    [*((*way, True) for way in WAYS), ("LangChain", "stream", False), ("LlamaIndex", "chat", False)],
)
def test_structured_output_follows_a_thought_once_it_is_known_to_be_necessary(
    gate: Gate, framework: str, name: str, is_on: bool
) -> None:
    given = {} if is_on else {"think_first": False}
    with Emulator([ModelEntry(key="m", rules=RULES)], engines=gate.engines()) as server:
        found = twice(server.address, framework, name, given)
        assert [value for value, _ in found] == [OSLO, OSLO]
        requested = [(record.raw, "structured" in record.config) for record in server.predictions]
        assert requested == [(False, True), *([(False, False), (True, True)] if is_on else [(False, True)])]
        assert [thought for _, thought in found] in ([None, None], ["", THOUGHT if is_on else ""])
        if is_on:
            assert (server.predictions[-1].prompt or "").endswith(f"<think>{THOUGHT}</think>")
