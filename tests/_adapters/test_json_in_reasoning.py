"""A response in a format that the server has taken for reasoning, on every way to read one."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import LANGCHAIN, STRUCTURED, said
from tests.support.adapters import covering

pytestmark = pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # in core's structured models


class Place(BaseModel):
    """A place."""

    name: str


def rule(prompt: str, *steps: dict[str, Any], is_structured: bool = True) -> dict[str, Any]:
    return {"when": {"last": f"^{prompt}", "structured": is_structured}, "then": list(steps)}


THOUGHT = "The user asks for a city."
RULES = (
    rule("(.*\\s)*Now call", {"text": '<think>{"name": "Place", "arguments": {"name": "Oslo"}}'}),
    rule("fits", {"reasoning": '{"name": "Oslo"}'}),
    rule("misfit", {"reasoning": '{"city": "Oslo"}'}),
    rule("thought", {"reasoning": THOUGHT}),
    rule("", {"reasoning": THOUGHT}, is_structured=False),
)
METHODS = ("json_schema", "json_mode", "function_calling")


def of_chain(name: str, method: Any) -> Callable[[str, str], Any]:
    return lambda host, text: LANGCHAIN[name](
        ChatLMStudio(model="m", host=host).with_structured_output(Place, method=method), text
    )[-1]


def of_llama(name: str) -> Callable[[str, str], Any]:
    return lambda host, text: STRUCTURED[name](LMStudio(model="m", host=host), Place, text)[-1]


def parsed(host: str, text: str) -> Any:
    with lms.Client(host) as client:
        stream = client.llm.model("m").respond_stream(text, response_format=Place)
        parts = [each.content for each in stream if each.reasoning_type == "none"]
    assert "".join(parts) == stream.result().content
    return stream.result().parsed_as(Place)


WAYS: dict[str, Callable[[str, str], Any]] = {
    **{f"{name}, {method}": of_chain(name, method) for name, method in covering(LANGCHAIN, METHODS)},
    "astream, json_mode": of_chain("astream", "json_mode"),
    **{name: of_llama(name) for name in STRUCTURED},
    "native": parsed,
}
BY_GRAMMAR = [name for name in WAYS if "function" not in name]


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with Emulator([ModelEntry(key="m", rules=RULES)]) as server:
        yield server.address


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_reasoning_that_fits_is_the_response(host: str, way: Callable[[str, str], Any]) -> None:
    assert way(host, "fits") == Place(name="Oslo")


@pytest.mark.parametrize(("name", "prompt"), covering(BY_GRAMMAR, ["misfit", *["thought"] * len(BY_GRAMMAR)]))
def test_the_error_says_where_the_response_is(host: str, name: str, prompt: str) -> None:
    with pytest.raises(lms.LMStudioStructuredOutputError) as caught:
        WAYS[name](host, prompt)
    text = str(caught.value)
    assert "max_tokens" not in text
    if "text is empty" not in text:
        assert "name" in text  # any object is what `json_mode` asks for
    else:
        expected = "the JSON in the reasoning does not fit" if prompt == "misfit" else "the model only reasoned"
        assert expected in text


def test_the_metadata_say_so(host: str) -> None:
    given = ChatLMStudio(model="m", host=host).with_structured_output(Place, include_raw=True).invoke("fits")
    assert isinstance(given, dict)
    raw = given["raw"]
    assert (given["parsed"], raw.text) == (Place(name="Oslo"), '{"name": "Oslo"}')
    assert raw.response_metadata["structured_from"] == "reasoning"
    assert raw.additional_kwargs["reasoning_content"] == raw.text
    response = LMStudio(model="m", host=host).complete("fits", response_format=Place)
    assert response.raw is not None
    assert (json.loads(response.text), response.raw["stats"]["structured_from"]) == ({"name": "Oslo"}, "reasoning")
    with lms.Client(host) as client:
        result = client.llm.model("m").respond("fits", response_format=Place)
    assert (result.parsed, result.structured, result.stats.structured_from) == ({"name": "Oslo"}, True, "reasoning")


def test_a_response_that_is_all_reasoning_is_advised_to_raise_no_limit(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    ChatLMStudio(model="m", host=host).invoke("Hi")
    assert "is all reasoning; set enable_thinking=False" in caplog.text


def test_the_text_of_a_model_that_reasons_is_the_first_block() -> None:
    """Core's `DocumentContextExtractor` reads no other."""
    with Emulator([ModelEntry(key="m", rules=({"then": [{"reasoning": THOUGHT}, {"text": "Oslo."}]},))]) as server:
        llm = LMStudio(model="m", host=server.address)
        for message in (llm.chat(said("Hi")).message, *(chunk.message for chunk in llm.stream_chat(said("Hi")))):
            assert [block.block_type for block in message.blocks] == ["text", "thinking"]
