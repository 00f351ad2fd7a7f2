"""Answers of a given form; the same bodies for both clients."""

import json
import socketserver
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter

import lmstudio_integrations as lms
from lmstudio_integrations.client._structured import Format
from lmstudio_integrations.client.asynchronous import AsyncClient
from lmstudio_integrations.emulator import Emulator
from tests.client.both import sync_client
from tests.requirements import proves

MARKER = "__LM_STUDIO_INTERNAL_LSEP_SYNTHETIC_REASONING_END_0123abcd__"

RULES: list[dict[str, Any]] = [
    {"when": {"last": "^good"}, "then": [{"text": '{"name": "Oslo", "people": 700000}'}]},
    {"when": {"last": "^marked"}, "then": [{"text": MARKER + '\n{"name": "Oslo", "people": 1}'}]},
    {
        "when": {"last": "^thoughtful"},
        "then": [{"reasoning": '{"name": 1}'}, {"text": '{"name": "Oslo", "people": 1}'}],
    },
    {"when": {"last": "^bad"}, "then": [{"text": "Oslo, of course"}]},
    {"when": {"last": "^wrong"}, "then": [{"text": '{"name": "Oslo", "people": "many"}'}]},
    {"when": {"last": "^list"}, "then": [{"text": "[1, 2, 3]"}]},
    {"when": {"last": "^string"}, "then": [{"text": '"Oslo"'}]},
    {"when": {"last": "^yes"}, "then": [{"text": "yes"}]},
    {"when": {"last": "^deep"}, "then": [{"text": "[" * 100_000}]},
    {"when": {"last": "^digits"}, "then": [{"text": '{"name": "Oslo", "people": ' + "9" * 10_000 + "}"}]},
]


class City(BaseModel):
    name: str
    people: int = Field(ge=0)


class OwnSchema:
    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return City.model_json_schema()


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([{"key": "chatty", "rules": RULES}]) as running:
        yield running


@pytest.fixture(params=[sync_client, AsyncClient], ids=["sync", "async"])
async def model(request: pytest.FixtureRequest, server: Emulator) -> Any:
    async with request.param(server.address) as client:
        yield await client.llm.model("chatty")


@proves("C-STRUCTURED")
async def test_a_class_gives_a_checked_instance(model: Any) -> None:
    result = await model.respond("good", response_format=City)
    assert result.parsed == City(name="Oslo", people=700000)
    assert result.structured
    assert result.prediction_config.structured["type"] == "json"


async def test_a_stream_is_text_and_its_result_is_checked(model: Any) -> None:
    stream = model.respond_stream("good", response_format=City)
    text = "".join([fragment.content async for fragment in stream])
    assert City.model_validate_json(text) == stream.result().parsed


async def test_a_completion_may_be_structured_too(model: Any) -> None:
    assert (await model.complete("good", response_format=City)).parsed.name == "Oslo"


@proves("C-STRUCTURED")
@pytest.mark.parametrize(
    "asked",
    [
        City.model_json_schema(),
        {"type": "json", "jsonSchema": City.model_json_schema()},
        OwnSchema,
        {"type": "json"},
    ],
)
async def test_a_schema_gives_checked_data(model: Any, asked: Any) -> None:
    result = await model.respond("good", response_format=asked)
    assert result.parsed == {"name": "Oslo", "people": 700000}
    assert result.structured


async def test_the_setting_does_the_same_as_the_argument(model: Any) -> None:
    wire = {"type": "json", "jsonSchema": City.model_json_schema()}
    assert (await model.respond("good", config={"structured": wire})).parsed["name"] == "Oslo"
    with pytest.raises(lms.LMStudioValueError, match="not both"):
        await model.respond("good", response_format=City, config={"structured": wire})


async def test_what_a_grammar_allows_need_not_be_json(model: Any) -> None:
    grammar = {"type": "gbnf", "gbnfGrammar": 'root ::= "yes" | "no"'}
    result = await model.respond("yes", response_format=grammar)
    assert (result.parsed, result.structured) == ("yes", False)
    assert (await model.respond("list", response_format=grammar)).parsed == [1, 2, 3]


async def test_a_string_that_a_schema_asks_for_is_structured(model: Any) -> None:
    result = await model.respond("string", response_format={"type": "string"})
    assert (result.content, result.parsed, result.structured) == ('"Oslo"', "Oslo", True)


@pytest.mark.parametrize("prompt", ["marked", "thoughtful"])
async def test_thoughts_and_markers_never_reach_the_parser(model: Any, prompt: str) -> None:
    assert (await model.respond(prompt, response_format=City)).parsed == City(name="Oslo", people=1)


@pytest.mark.parametrize("asked", [City, City.model_json_schema()])
@pytest.mark.parametrize(("prompt", "told"), [("bad", "expected value|JSON"), ("wrong", "people")])
async def test_an_answer_of_another_form_is_an_error_with_its_text(
    model: Any, asked: Any, prompt: str, told: str
) -> None:
    with pytest.raises(lms.LMStudioStructuredOutputError, match=told) as caught:
        await model.respond(prompt, response_format=asked)
    assert "Oslo" in (caught.value.text or "")


async def test_an_answer_that_was_cut_off_says_so(model: Any) -> None:
    with pytest.raises(lms.LMStudioStructuredOutputError, match="raise max_tokens"):
        await model.respond("good", response_format=City, config={"max_tokens": 2})
    with pytest.raises(lms.LMStudioStructuredOutputError, match=r"the whole: .* larger context length"):
        Format({}, City.model_validate_json).read('{"name": "Os', "contextLengthReached")


async def test_a_cancelled_answer_is_not_looked_at(model: Any) -> None:
    stream = model.respond_stream("good", response_format=City)
    iterator = aiter(stream)
    await anext(iterator)
    stream.cancel()
    async for _fragment in iterator:
        pass
    result = stream.result()
    assert not result.structured or result.parsed.name == "Oslo"


class NoJson(BaseModel):
    call: Callable[[int], int]


class Unfinished(BaseModel):
    later: "Later"  # type: ignore[name-defined]  # noqa: F821 - the fault is the point


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (int, "response_format class int has no model_json_schema"),
        (5, "response_format must be a class with a JSON schema, or a dict; got 5"),
        ({"type": "gbnf"}, "needs gbnfGrammar"),
        (NoJson, "response_format class NoJson has no JSON schema; use fields that JSON can hold: Cannot"),
        (Unfinished, "response_format class Unfinished has no JSON schema"),
        (BaseModel, "response_format class BaseModel has no JSON schema"),
        ({"type": "json", "jsonSchema": 5}, "structured output needs a JSON schema; got 5"),
        ({"type": "nothing"}, "got {'type': 'nothing'}: 'nothing' is not valid"),
        ({"properties": {1, 2}}, "structured output needs a JSON schema"),
    ],
)
async def test_what_is_no_format_is_refused_before_sending(model: Any, asked: Any, told: str, server: Emulator) -> None:
    with pytest.raises(lms.LMStudioValueError) as caught:
        await model.respond("good", response_format=asked)
    assert told in str(caught.value)
    assert server.predictions == ()


async def test_a_stream_of_the_wrong_form_gives_all_its_text_before_the_error(model: Any) -> None:
    stream = model.respond_stream("bad", response_format=City)
    read: list[str] = []

    async def read_all() -> None:
        async for fragment in stream:
            read.extend([fragment.content])

    with pytest.raises(lms.LMStudioStructuredOutputError):
        await read_all()
    assert "".join(read) == "Oslo, of course"
    with pytest.raises(lms.LMStudioStructuredOutputError):
        stream.result()


@pytest.mark.parametrize("prompt", ["deep", "digits"])
@pytest.mark.parametrize("asked", [City, OwnSchema, {"type": "json"}])
async def test_a_response_that_no_parser_reads_is_an_error_of_limited_length(
    model: Any, prompt: str, asked: Any
) -> None:
    with pytest.raises(lms.LMStudioStructuredOutputError) as caught:
        await model.respond(prompt, response_format=asked)
    assert len(str(caught.value)) < 1_000
    assert len(caught.value.text or "") > 10_000


def test_a_parser_that_recurses_too_deep_finds_no_value() -> None:
    with pytest.raises(lms.LMStudioStructuredOutputError, match="nests too deep"):
        Format({}, json.loads).read("[" * 100_000, "eosFound")


def test_the_reasons_in_the_message_are_cut() -> None:
    findings = [{"name": "x" * 100, "people": -1}] * 10_000
    with pytest.raises(lms.LMStudioStructuredOutputError) as caught:
        Format({}, TypeAdapter(list[City]).validate_json).read(json.dumps(findings), "eosFound")
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize("scheme", ["http", "file"])
async def test_a_reference_to_another_document_is_never_fetched(model: Any, scheme: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"type": "object"}')
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as elsewhere:
        elsewhere.socket.setblocking(False)
        where = {"http": f"http://127.0.0.1:{elsewhere.server_address[1]}/", "file": f"{tmp_path.as_uri()}/"}[scheme]
        with pytest.raises(lms.LMStudioStructuredOutputError, match="schema that was asked for is not valid"):
            await model.respond("good", response_format={"$ref": f"{where}other.json"})
        with pytest.raises(BlockingIOError):
            elsewhere.socket.accept()


async def test_a_reference_to_the_schema_of_schemas_is_known(model: Any) -> None:
    schema = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert (await model.respond("good", response_format=schema)).parsed["name"] == "Oslo"
