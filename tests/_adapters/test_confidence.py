"""The confidence of the fields of a structured response, on every way to generate."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import collected, ways
from tests.support.adapters import covering
from tests.support.confidences import Document, generated, recomputed

pytestmark = pytest.mark.leaf("confidence")

DOCUMENTS = 3
LOOK = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "on": {"type": "boolean"}},
    "required": ["city", "on"],
}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": LOOK}}
ARGUMENTS = {"city": "Oslo", "on": True}
IN_TEXT = f'<tool_call>\n{{"name": "look", "arguments": {json.dumps(ARGUMENTS)}}}\n</tool_call>'
IN_XML = (
    "<tool_call>\n<function=look>\n<parameter=city>\nOslo\n</parameter>\n<parameter=on>\ntrue\n</parameter>\n"
    "</function>\n</tool_call>"
)
OFFERED: dict[str, Any] = {"rawTools": {"type": "toolArray", "tools": [TOOL]}, "logProbs": 20}

RULES: list[dict[str, Any]] = [
    {"when": {"last": "^in the text$"}, "then": [{"text": f"Let me look.\n{IN_TEXT}"}]},
    {"when": {"last": "^in xml$"}, "then": [{"text": IN_XML}]},
    {"when": {"last": "^call$"}, "then": [{"tool": "look", "arguments": ARGUMENTS}]},
    {"when": {"last": "^remark$"}, "then": [{"text": "It rains."}]},
    {"when": {"last": "^person"}, "then": [{"reasoning": '{"name": 1}'}, {"text": '{"name": "Ann", "age": 7}'}]},
    {"when": {"last": "^half"}, "then": [{"text": '{"name": "Ann", "a'}]},
]


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    generating = [
        {"when": {"last": f"^{seed}$"}, "then": [{"text": generated(seed).text}]} for seed in range(DOCUMENTS)
    ]
    with Emulator([ModelEntry(key="m", rules=(*generating, *RULES))]) as running:
        yield running


def by_words(document: Document) -> Document:
    """Return a document with the tokens of the scripted model."""
    tokens, spans, at = list[dict[str, Any]](), list[tuple[int, int]](), 0
    for word in words.split(document.text):
        tokens.append(words.log_probs(words.probabilities_of(word), 20))
        spans.append((at, at + len(word)))
        at += len(word)
    return replace(document, tokens=tokens, spans=spans)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(DOCUMENTS))
def test_every_way_has_the_confidence_of_a_recomputation(server: Emulator, seed: int) -> None:
    document = by_words(generated(seed))
    structured = {"type": "json", "jsonSchema": document.schema}
    request = {"response_format": structured, "include_confidence": True}
    native = {"config": {"structured": structured, "log_probs": 20}}
    expected = recomputed(document)
    for name, way in ways(request, native).items():
        found = way(server.address, str(seed))["confidence"]
        assert found.keys() == expected.keys(), name
        for path, (probability, _, alternative_probability) in expected.items():
            assert found[path]["probability"] == pytest.approx(probability, abs=1e-2), name
            assert found[path]["alternative_probability"] == pytest.approx(alternative_probability, abs=1e-2), name


CALLING = ways(
    {"tools": [TOOL], "tool_choice": "required", "include_confidence": True},
    {
        "config": {**OFFERED, "toolChoice": {"type": "generic", "mode": "required"}},
        "rescue_tool_calls": True,
        "required_tool_fallback": True,
    },
)


CALLED = {"in the text": {"city", "on"}, "remark": {"city", "on"}, "in xml": None, "call": None}


@pytest.mark.parametrize(("name", "prompt"), covering(CALLING, CALLED))
def test_a_call_has_a_confidence_if_its_json_was_generated_as_text(name: str, prompt: str) -> None:
    fields: Any = CALLED[prompt]
    with Emulator([ModelEntry(key="m", rules=tuple(RULES))]) as fresh:
        seen = CALLING[name](fresh.address, prompt)
        ((tool, arguments),) = seen["calls"]
        assert tool == "look"
        assert seen["forced_by_grammar"] is (True if prompt == "remark" else None)
        assert set(arguments) >= (fields or set())
        found = seen["confidence"]
        assert (None if found is None else set(found)) == fields
        assert all(0 < each["probability"] < 1 for each in (found or {}).values())


async def results_of(chain: Any, prompt: str) -> list[Any]:
    """Return the results of all ways, the last ones streamed."""
    streamed = list(chain.stream(prompt)), await collected(chain.astream(prompt))
    return [chain.invoke(prompt), await chain.ainvoke(prompt), *(reduce(add, parts) for parts in streamed)]


async def test_with_structured_output_has_it_beside_the_message(server: Emulator) -> None:
    model = ChatLMStudio(model="m", host=server.address)
    for method in ("json_schema", "json_mode"):
        chain = model.with_structured_output(Person, method=method, include_raw=True, include_confidence=True)
        first, *others = await results_of(chain, "person")
        assert first["parsed"] == Person(name="Ann", age=7)
        assert set(first["confidence"]) == {"name", "age"}
        assert all(isinstance(each, lms.FieldConfidence) for each in first["confidence"].values())
        assert "logprobs" not in first["raw"].response_metadata
        json.dumps(first["raw"].response_metadata)
        assert all(each["confidence"] == first["confidence"] for each in others)
        *_, last = chain.stream("person")
        assert set(last) == {"confidence"}
        half = await results_of(chain, "half")
        assert [(each["parsed"], each["confidence"]) for each in half] == [(None, None)] * 4
    plain = await results_of(model.with_structured_output(Person, include_raw=True), "person")
    assert all("confidence" not in each for each in plain)


@pytest.mark.parametrize(("prompt", "known"), [("in the text", True), ("call", False)])
async def test_with_structured_output_by_calls(server: Emulator, prompt: str, known: bool) -> None:
    schema = {"title": "look", **LOOK}
    model = ChatLMStudio(model="m", host=server.address)
    chain = model.with_structured_output(schema, method="function_calling", include_raw=True, include_confidence=True)
    for each in await results_of(chain, prompt):
        assert each["parsed"] == ARGUMENTS
        assert (None if each["confidence"] is None else set(each["confidence"])) == (set(ARGUMENTS) if known else None)


async def test_the_confidence_of_another_call_is_not_that_of_the_response(server: Emulator) -> None:
    model = ChatLMStudio(model="m", host=server.address)
    chain = model.with_structured_output(Person, tools=[TOOL], include_raw=True, include_confidence=True)
    assert [each["confidence"] for each in await results_of(chain, "in the text")] == [None] * 4


def test_requested_logprobs_stay(server: Emulator) -> None:
    model = ChatLMStudio(model="m", host=server.address, top_logprobs=2)
    chain = model.with_structured_output(Person, include_raw=True, include_confidence=True)
    first, *_ = chain.invoke("person")["raw"].response_metadata["logprobs"]["content"]
    assert len(first["top_logprobs"]) == 2
    assert server.predictions[-1].config["logProbs"] == 20
    first, *_ = model.invoke("person").response_metadata["logprobs"]["content"]
    assert len(first["top_logprobs"]) == 2


def test_it_needs_the_raw_message(server: Emulator) -> None:
    model = ChatLMStudio(model="m", host=server.address)
    with pytest.raises(LMStudioValueError, match="include_confidence=True needs include_raw=True"):
        model.with_structured_output(Person, include_confidence=True)


@pytest.mark.parametrize("mode", [PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION])
def test_an_instance_has_no_place_for_it(server: Emulator, mode: PydanticProgramMode) -> None:
    llm = LMStudio(model="m", host=server.address, pydantic_program_mode=mode)
    given: dict[str, Any] = {"include_confidence": True}
    for call in (
        lambda: llm.structured_predict(Person, PromptTemplate("person"), given),
        lambda: list(llm.stream_structured_predict(Person, PromptTemplate("person"), given)),
        lambda: llm.as_structured_llm(Person).chat([ChatMessage("person")], **given),
    ):
        with pytest.raises(LMStudioValueError, match=r"use chat\(…, response_format=Person, include_confidence=True\)"):
            call()


def test_without_log_probabilities_it_is_not_known(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        assert client.llm.model("m").respond("person").confidence is None
