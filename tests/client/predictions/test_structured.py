"""Structured output."""

import socketserver
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from tests.support.gate import AT_THE_GATE

MARKER = "__LM_STUDIO_INTERNAL_LSEP_SYNTHETIC_REASONING_END_0123abcd__"

RULES: list[dict[str, Any]] = [
    {"when": {"last": "^good at length"}, "then": [{"text": '{"name": "Oslo"}'}, AT_THE_GATE]},
    {"when": {"last": "^good"}, "then": [{"text": '{"name": "Oslo", "people": 700000}'}]},
    {"when": {"last": "^marked"}, "then": [{"text": MARKER + '\n{"name": "Oslo", "people": 1}'}]},
    {
        "when": {"last": "^thoughts in the text"},
        "then": [{"text": f'It is a town.\n{MARKER}\n{{"name": "Oslo", "people": 1}}'}],
    },
    {
        "when": {"last": "^thoughtful"},
        "then": [{"reasoning": '{"name": 1}'}, {"text": '{"name": "Oslo", "people": 1}'}],
    },
    {"when": {"last": "^bad"}, "then": [{"text": "Oslo, of course"}]},
    {"when": {"last": "^wrong"}, "then": [{"text": '{"name": "Oslo", "people": "many"}'}]},
    {"when": {"last": "^list"}, "then": [{"text": "[1, 2, 3]"}]},
]


class City(BaseModel):
    name: str
    people: int = Field(ge=0)


GOOD = {"name": "Oslo", "people": 700000}


class OwnSchema:
    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return City.model_json_schema()


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator([{"key": "chatty", "rules": RULES}]) as running:
        yield running


async def test_a_class_gives_a_dict_and_its_instance_on_request(model: Any) -> None:
    result = await model.respond("good", response_format=City)
    assert (result.parsed, result.structured) == (GOOD, True)
    assert result.parsed_as(City) == City(name="Oslo", people=700000)
    assert result.prediction_config.structured["type"] == "json"
    assert str(result) == '{\n  "name": "Oslo",\n  "people": 700000\n}'


async def test_a_stream_is_text_and_its_result_is_parsed(model: Any) -> None:
    stream = model.respond_stream("good", response_format=City)
    text = "".join([fragment.content async for fragment in stream])
    assert City.model_validate_json(text) == stream.result().parsed_as(City)
    assert stream.result().parsed == GOOD


SCHEMA = City.model_json_schema()
NULLABLE = SCHEMA | {"type": ["object", "null"]}
GRAMMAR = "root ::= object"
FORMATS: list[tuple[Any, dict[str, Any]]] = [
    (SCHEMA, {"type": "json", "jsonSchema": SCHEMA}),
    (OwnSchema, {"type": "json", "jsonSchema": SCHEMA}),
    (NULLABLE, {"type": "json", "jsonSchema": NULLABLE}),
    ({"type": "json", "json_schema": SCHEMA}, {"type": "json", "jsonSchema": SCHEMA}),
    ({"type": "json"}, {"type": "json"}),
    ({"type": "gbnf", "gbnf_grammar": GRAMMAR}, {"type": "gbnf", "gbnfGrammar": GRAMMAR}),
    ({"type": "json_object"}, {"type": "json", "jsonSchema": {"type": "object"}}),
    (
        {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": True}},
        {"type": "json", "jsonSchema": SCHEMA},
    ),
    ({"type": "json_schema", "name": "city", "schema": SCHEMA}, {"type": "json", "jsonSchema": SCHEMA}),
]


@pytest.mark.parametrize(("requested", "sent"), FORMATS)
async def test_any_other_format_gives_a_dict_too(
    model: Any, server: Emulator, requested: Any, sent: dict[str, Any]
) -> None:
    for call in (model.respond, model.complete):
        result = await call("good", response_format=requested)
        assert (result.parsed, result.structured) == (GOOD, True)
        assert result.parsed_as(City) == City(name="Oslo", people=700000)
        assert server.predictions[-1].config["structured"] == sent


async def test_the_setting_does_the_same_as_the_argument(model: Any) -> None:
    wire = {"type": "json", "jsonSchema": SCHEMA}
    assert (await model.respond("good", config={"structured": wire})).parsed == GOOD
    with pytest.raises(lms.LMStudioValueError, match="not both"):
        await model.respond("good", response_format=City, config={"structured": wire})


@pytest.mark.parametrize(
    "parameters", [{"config": {"structured": {"type": "none"}}}, {"response_format": {"type": "text"}}]
)
async def test_without_a_format_an_object_is_text(model: Any, parameters: dict[str, Any]) -> None:
    result = await model.respond("good", **parameters)
    assert (result.parsed, result.structured) == (result.content, False)
    assert str(result) == result.content
    assert result.parsed_as(City).name == "Oslo"


@pytest.mark.parametrize("prompt", ["bad", "list"])
async def test_what_is_no_json_object_is_text(model: Any, prompt: str) -> None:
    result = await model.respond(prompt, response_format=City)
    assert (result.parsed, result.structured) == (result.content, False)
    with pytest.raises(lms.LMStudioStructuredOutputError) as caught:
        result.parsed_as(City)
    assert caught.value.text == result.content
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("prompt", ["marked", "thoughts in the text", "thoughtful"])
async def test_reasoning_and_special_tokens_never_reach_the_parser(model: Any, prompt: str) -> None:
    result = await model.respond(prompt, response_format=City)
    assert result.parsed == {"name": "Oslo", "people": 1}
    assert result.parsed_as(City) == City(name="Oslo", people=1)


async def test_an_object_of_another_form_is_a_dict_and_no_instance(model: Any) -> None:
    result = await model.respond("wrong", response_format=City)
    assert result.parsed == {"name": "Oslo", "people": "many"}
    with pytest.raises(lms.LMStudioStructuredOutputError, match="people") as caught:
        result.parsed_as(City)
    assert "Oslo" in (caught.value.text or "")


async def test_a_truncated_response_is_text_and_parsing_it_is_an_error(model: Any) -> None:
    result = await model.respond("good", response_format=City, config={"max_tokens": 2})
    assert result.parsed == result.content
    with pytest.raises(lms.LMStudioStructuredOutputError, match="raise max_tokens"):
        result.parsed_as(City)


async def test_a_cancelled_response_is_text(model: Any) -> None:
    stream, text = model.respond_stream("good at length", response_format=City), ""
    async for fragment in stream:
        text += fragment.content
        if text.endswith("}"):
            stream.cancel()
    assert (stream.result().parsed, stream.result().structured) == (text, False)
    with pytest.raises(lms.LMStudioStructuredOutputError, match="userStopped"):
        stream.result().parsed_as(City)


class NoJson(BaseModel):
    call: Callable[[int], int]


class Unfinished(BaseModel):
    later: "Later"  # type: ignore[name-defined]  # noqa: F821 - the fault is the point


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [
        (int, "response_format class int has no model_json_schema"),
        ("json", "response_format must be a class or a dict, not a string; got 'json'"),
        ({"$ref": "#/$defs/Missing"}, "the schema of the response refers to '#/$defs/Missing', which it does not"),
        (5, "response_format must be a class with a JSON schema, or a dict; got 5"),
        ({"type": "gbnf", "gbnf_grammar": 5}, "needs gbnfGrammar"),
        (NoJson, "NoJson has no JSON schema: JSON does not have the type of 'call'; use another"),
        (Unfinished, "response_format class Unfinished has no JSON schema"),
        ({"type": "json", "jsonSchema": 5}, "structured output needs a JSON schema; got 5"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}, "got {'type': 'no'}: 'no' is not valid"),
        ({"type": "nothing"}, "got {'type': 'nothing'}: 'nothing' is not valid"),
        ({"properties": {1, 2}}, "structured output needs a JSON schema"),
    ],
)
async def test_an_invalid_response_format_is_rejected_before_sending(
    model: Any, response_format: Any, expected: str, server: Emulator
) -> None:
    before = len(server.predictions)
    with pytest.raises(lms.LMStudioValueError) as caught:
        await model.respond("good", response_format=response_format)
    assert expected in str(caught.value)
    assert len(server.predictions) == before


async def test_a_reference_that_leads_elsewhere_is_never_fetched(model: Any) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as elsewhere:
        elsewhere.socket.setblocking(False)
        reference = f"http://127.0.0.1:{elsewhere.server_address[1]}/other.json#/$defs/Missing"
        result = await model.respond("good", response_format={"type": "object", "$ref": reference})
        with pytest.raises(BlockingIOError):
            elsewhere.socket.accept()
    assert result.parsed == GOOD


async def test_a_reference_to_the_schema_of_schemas_is_known(model: Any) -> None:
    schema = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert (await model.respond("good", response_format=schema)).parsed == GOOD
