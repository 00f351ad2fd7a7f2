"""`with_structured_output`: every kind of schema, every method, and responses that do not fit."""

import json
from collections.abc import AsyncIterator
from enum import Enum
from functools import reduce
from operator import add, itemgetter
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, ToolCallChunk
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from pydantic import BaseModel, RootModel, field_validator, model_validator
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic_core import from_json

from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.errors import LMStudioStructuredOutputError, LMStudioValueError
from lmstudio_integrations.langchain._json_prefix import invalidator
from lmstudio_integrations.langchain._structured import call_parser, text_parser, with_parser
from lmstudio_integrations.langchain._tools import openai_tool
from tests.langchain import replay
from tests.langchain.conftest import CHAT, MODELS, Server
from tests.langchain.replay import Replay, end, text
from tests.support.requested import Requested


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class PersonV1(BaseModelV1):
    """A person."""

    name: str
    age: int


class PersonDict(TypedDict):
    """A person."""

    name: Annotated[str, ..., "Who"]
    age: Annotated[int, ..., "Years"]


SCHEMA = {"title": "person", "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
BARE = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
OPENAI = {"name": "person", "description": "Somebody.", "parameters": BARE}
ANN = {"name": "Ann", "age": 7}
UNREADABLE = {"too deep": "[" * 100_000, "too many digits": '{"name": "Ann", "age": ' + "9" * 10_000 + "}"}
"""Responses that no JSON parser reads, the first with a `RecursionError`."""


@pytest.mark.parametrize("schema", [Person, PersonV1])
async def test_a_pydantic_class_gives_instances(server: Server, schema: Any) -> None:
    model = server.chat().with_structured_output(schema)
    expected = schema(**ANN)
    assert model.invoke("json") == expected
    assert await model.ainvoke("json") == expected
    assert list(model.stream("json"))[-1] == expected
    assert [each async for each in model.astream("json")][-1] == expected


@pytest.mark.parametrize("schema", [PersonDict, SCHEMA, BARE, OPENAI])
async def test_any_other_schema_gives_dicts(server: Server, schema: Any) -> None:
    model = server.chat().with_structured_output(schema)
    assert model.invoke("json") == ANN
    assert await model.ainvoke("json") == ANN
    parts = list(model.stream("json"))
    assert parts[-1] == ANN
    structured = server.last_request.config.structured
    assert structured is not None
    assert structured["type"] == "json"
    assert structured["jsonSchema"]["properties"].keys() == {"name", "age"}
    assert not server.last_request.tools


@pytest.mark.parametrize("schema", [Person, PersonV1, PersonDict, SCHEMA, OPENAI])
def test_function_calling_reads_the_arguments_of_one_required_call(server: Server, schema: Any) -> None:
    model = server.chat().with_structured_output(schema, method="function_calling")
    response = model.invoke("Who?")
    assert server.last_request.tool_choice == "required"
    assert len(server.last_request.tools) == 1
    found = response if isinstance(response, dict) else response.dict() if schema is PersonV1 else response.model_dump()
    assert found.keys() <= {"name", "age"}
    assert isinstance(response, schema if schema in (Person, PersonV1) else dict)


class Numbers(RootModel[list[int]]):
    """Some numbers."""


COLOR = {"title": "Color", "type": "string", "enum": ["red", "blue"]}


@pytest.mark.parametrize(("schema", "response"), [(Numbers, Numbers([])), (COLOR, "red")])
def test_a_response_need_not_be_an_object(server: Server, schema: Any, response: Any) -> None:
    """The emulator gives the smallest instance of the schema that it was sent."""
    assert server.chat().with_structured_output(schema).invoke("What is it?") == response


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_schema_in_openais_form_is_enforced(server: Server, method: Any) -> None:
    required = {**BARE, "required": ["name", "age"]}
    for schema in (
        {"name": "person", "strict": True, "schema": required},
        {"type": "json_schema", "json_schema": {"name": "person", "schema": required}},
    ):
        model = server.chat().with_structured_output(schema, method=method)
        assert model.invoke("Who?") == {"name": "", "age": 0}


def test_reasoning_does_not_disturb_the_response(server: Server) -> None:
    model = server.chat().with_structured_output(Person, include_raw=True)
    response = model.invoke("muse")
    assert response["parsed"] == Person(name="Ann", age=7)
    assert response["raw"].additional_kwargs["reasoning_content"] == "{Hm}"
    assert list(server.chat(output_version="v1").with_structured_output(Person).stream("muse"))[-1].age == 7


def test_json_mode_sends_any_object(server: Server) -> None:
    assert server.chat().with_structured_output(None, method="json_mode").invoke("json") == ANN
    assert server.last_request.config.structured == {"type": "json", "jsonSchema": {"type": "object"}}
    assert server.chat().with_structured_output(Person, method="json_mode").invoke("json") == Person(name="Ann", age=7)


def test_raw_responses_come_along_when_requested(server: Server) -> None:
    model = server.chat().with_structured_output(Person, include_raw=True)
    response = model.invoke("json")
    assert isinstance(response["raw"], AIMessage)
    assert response["parsed"] == Person(name="Ann", age=7)
    assert response["parsing_error"] is None
    broken = model.invoke("half")
    assert broken["parsed"] is None
    assert isinstance(broken["parsing_error"], LMStudioStructuredOutputError)
    assert broken["parsing_error"].text == '{"name": "Ann", "ag'


@pytest.mark.parametrize("schema", [Person, SCHEMA])
async def test_half_a_response_is_never_repaired(server: Server, schema: Any) -> None:
    model = server.chat().with_structured_output(schema)
    with pytest.raises(LMStudioStructuredOutputError, match="not the structured output") as caught:
        model.invoke("half")
    assert isinstance(caught.value, OutputParserException)
    with pytest.raises(LMStudioStructuredOutputError):
        await model.ainvoke("half")


def test_the_parsers_read_bare_text_too() -> None:
    assert text_parser(SCHEMA).invoke('{"a": 1}') == {"a": 1}
    with pytest.raises(LMStudioStructuredOutputError):
        text_parser(Person).invoke("{")


@pytest.mark.parametrize(("schema", "question"), [(Person, "half"), (SCHEMA, "half"), (Person, "odd")])
async def test_a_stream_ends_with_an_error_if_its_whole_does_not_fit(
    server: Server, schema: Any, question: str
) -> None:
    model = server.chat().with_structured_output(schema)
    with pytest.raises(LMStudioStructuredOutputError):
        list(model.stream(question))
    with pytest.raises(LMStudioStructuredOutputError):
        _ = [part async for part in model.astream(question)]


@pytest.mark.parametrize("schema", [Person, PersonV1, SCHEMA])
async def test_a_broken_call_is_an_error_on_every_path(server: Server, schema: Any) -> None:
    name = openai_tool(schema)["function"]["name"]
    broken = ModelEntry(key="broken", rules=({"then": [{"tool": name, "malformed": '{"name": "A'}]},))
    with Server([broken]) as own:
        model = own.chat(model="broken").with_structured_output(schema, method="function_calling")
        with pytest.raises(LMStudioStructuredOutputError, match="no complete tool call"):
            model.invoke("Who?")
        with pytest.raises(LMStudioStructuredOutputError, match="no complete tool call"):
            await model.ainvoke("Who?")
        with pytest.raises(LMStudioStructuredOutputError):
            list(model.stream("Who?"))
        with pytest.raises(LMStudioStructuredOutputError):
            _ = [part async for part in model.astream("Who?")]


def test_a_call_whose_arguments_do_not_fit_is_an_error() -> None:
    odd = {"tool": "Person", "arguments": {"name": "Ann", "age": "old"}}
    with Server([ModelEntry(key="odd", rules=({"then": [odd]},))]) as own:
        model = own.chat(model="odd").with_structured_output(Person, method="function_calling", include_raw=True)
        response = model.invoke("Who?")
        assert isinstance(response["parsing_error"], LMStudioStructuredOutputError)
        assert response["raw"].tool_calls


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_streams_yield_the_partial_object_and_raw_ones_their_errors(server: Server, method: Any) -> None:
    schema = {**SCHEMA, "required": ["name", "age"]}
    model = server.chat().with_structured_output(schema, method=method)
    parts = list(model.stream("json"))
    assert parts[-1].keys() == {"name", "age"}
    assert len(parts) > 1
    assert [part async for part in model.astream("json")] == parts
    raw: Any = server.chat().with_structured_output(Person, include_raw=True)
    whole = reduce(add, raw.stream("half"))
    assert list((raw | itemgetter("parsed")).stream("half")) == [None]  # core adds up what a function reads
    assert isinstance(whole["parsing_error"], LMStudioStructuredOutputError)
    assert whole["parsed"] is None
    assert whole["raw"].text == '{"name": "Ann", "ag'
    assert (await raw.ainvoke("json"))["parsed"] == Person(name="Ann", age=7)


async def parts_of(chain: Runnable[Any, Any], way: str) -> list[Any]:
    """Return the parts of a stream."""
    return [part async for part in chain.astream("q")] if way == "astream" else list(chain.stream("q"))


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("schema", [SCHEMA, Person])
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_raw_responses_stream_in_the_form_of_cores_composition(method: str, schema: Any, way: str) -> None:
    fragments = ('{"name"', ': "An', 'n", "age"', ": 7", "}")
    name = openai_tool(schema)["function"]["name"]
    by_call = method == "function_calling"
    parser = call_parser(schema, name) if by_call else text_parser(schema)
    model = Replay(events=[*(replay.call("c1", name, ANN, *fragments) if by_call else text(*fragments)), end()])
    parse = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    cores = await parts_of(RunnableMap(raw=model) | parse, way)
    ours = await parts_of(with_parser(model, parser, include_raw=True), way)

    def of(parts: list[Any], key: str) -> list[Any]:
        return [part[key] for part in parts if key in part]

    assert all(len(part) == 1 for part in ours)
    chunks = of(ours, "raw")
    assert [chunk.model_dump(exclude={"id"}) for chunk in chunks] == [
        chunk.model_dump(exclude={"id"}) for chunk in of(cores, "raw")
    ]
    assert len(chunks) >= len(fragments)
    assert of(ours, "parsed")[-1:] == of(cores, "parsed")
    assert of(ours, "parsed") == await parts_of(with_parser(model, parser, include_raw=False), way)
    assert of(ours, "parsing_error") == of(cores, "parsing_error") == [None]
    total = reduce(add, ours)
    assert total["parsed"] == of(cores, "parsed")[-1]
    assert (total["raw"].text, total["raw"].tool_calls) == (reduce(add, chunks).text, reduce(add, chunks).tool_calls)


def test_partial_values_arrive_with_the_chunks_that_they_come_from() -> None:
    chain = with_parser(Replay(events=[*text('{"a": "x', "y", '"}'), end()]), text_parser({}), include_raw=True)
    parts = [("raw", part["raw"].text) if "raw" in part else (*part.items(),)[0] for part in chain.stream("q")]
    assert parts == [
        ("raw", '{"a": "x'),
        ("parsed", {"a": "x"}),
        ("raw", "y"),
        ("parsed", {"a": "xy"}),
        ("raw", '"}'),
        ("raw", ""),
        ("parsing_error", None),
    ]


@pytest.mark.parametrize("include_raw", [True, False])
async def test_null_is_a_value_of_a_stream_as_well(include_raw: bool) -> None:
    chain = with_parser(Replay(events=[*text("nu", "ll"), end()]), text_parser({}), include_raw=include_raw)
    for way in ("stream", "astream"):
        total = reduce(add, parts) if len(parts := await parts_of(chain, way)) > 1 else parts[0]
        assert (total["parsed"] if include_raw else total) is None
    response = chain.invoke("q")
    assert (response["parsed"] if include_raw else response) is None


class Hasty(BaseModel):
    """A person with a validator that fails on partial responses."""

    name: str
    age: int

    @model_validator(mode="before")
    @classmethod
    def _strip(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "name": data["name"].strip(), "age": data["age"] + 0}


HASTY = ModelEntry(key="hasty", rules=({"then": [{"tool": "Hasty", "arguments": ANN}]},))


@pytest.mark.parametrize(("key", "method"), [("chatty", "json_schema"), ("hasty", "function_calling")])
async def test_a_validator_that_fails_over_half_a_response_does_not_break_the_stream(key: str, method: Any) -> None:
    with Server([*MODELS, HASTY]) as own:
        model = own.chat(model=key).with_structured_output(Hasty, method=method)
        assert list(model.stream("json")) == [Hasty(name="Ann", age=7)]
        assert [part async for part in model.astream("json")] == [Hasty(name="Ann", age=7)]


class Picky(BaseModel):
    """A person with a validator that always fails."""

    name: str

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return {"Bob": "Robert"}[name]


PICKY = ModelEntry(key="picky", rules=({"then": [{"tool": "Picky", "arguments": ANN}]},))


@pytest.mark.parametrize(("key", "method"), [("chatty", "json_schema"), ("picky", "function_calling")])
def test_whatever_a_validator_raises_is_raised_as_a_parsing_error(key: str, method: Any) -> None:
    with Server([*MODELS, PICKY]) as own:
        model = own.chat(model=key)
        response = model.with_structured_output(Picky, method=method, include_raw=True).invoke("json")
        error = response["parsing_error"]
        assert isinstance(error, LMStudioStructuredOutputError)
        assert "does not fit Picky: KeyError('Ann')" in str(error)
        assert error.text == '{"name": "Ann", "age": 7}'
        with pytest.raises(LMStudioStructuredOutputError, match="does not fit Picky"):
            list(model.with_structured_output(Picky, method=method).stream("json"))


@pytest.mark.parametrize("schema", [Person, PersonV1, SCHEMA])
def test_a_call_of_a_tool_that_was_not_offered_is_an_error(schema: Any) -> None:
    invented = ModelEntry(key="invents", rules=({"then": [{"tool": "Invented", "arguments": {"a": 1}}]},))
    with Server([invented]) as own:
        model = own.chat(model="invents").with_structured_output(schema, method="function_calling")
        with pytest.raises(LMStudioStructuredOutputError, match=r"called 'Invented' instead of '[Pp]erson") as caught:
            model.invoke("Who?")
        assert isinstance(caught.value, OutputParserException)
        assert caught.value.text == '{"a": 1}'
        with pytest.raises(LMStudioStructuredOutputError, match="called 'Invented'"):
            list(model.stream("Who?"))


def calling(*fragments: str, index: int = 0, name: str = "person") -> list[AIMessageChunk]:
    """Return a tool call in fragments."""
    names = [name, *[None] * (len(fragments) - 1)]
    return [
        AIMessageChunk(content="", tool_call_chunks=[ToolCallChunk(name=name, args=fragment, id=None, index=index)])
        for name, fragment in zip(names, fragments, strict=True)
    ]


LAST = AIMessageChunk(content="", chunk_position="last")


def test_a_streamed_call_reports_only_what_is_new() -> None:
    chunks = [AIMessageChunk(content="Well."), *calling('{"name"', ': "An', "", 'n", ', '"age": 7}'), LAST]
    assert list(call_parser(SCHEMA, "person").transform(iter(chunks))) == [
        {},
        {"name": "An"},
        {"name": "Ann"},
        {"name": "Ann", "age": 7},
    ]


def test_the_first_whole_call_of_the_tool_counts() -> None:
    """What the server took back is followed by what it understood; other tools and later calls are no response."""
    invented = calling('{"x": 1}', index=0, name="invented")
    invalid = calling(begun := '{"name": "Bob"', invalidator(begun), index=1)
    chunks = [*invented, *invalid, *calling('{"name": "Ann"}', index=2), *calling('{"name": "Eve"}', index=3), LAST]
    parts = list(call_parser(SCHEMA, "person").transform(iter(chunks)))
    assert parts == [{"name": "Bob"}, {"name": "Ann"}]


def test_the_parsers_parse_the_beginning_of_a_response() -> None:
    """Core's contract; what streams here does not need it."""
    begun = '{"name": "Ann", "age": 7, "so'
    assert text_parser(Person).parse_result([Generation(text=begun)], partial=True) == Person(name="Ann", age=7)
    by_call = call_parser(Person, "Person")
    (chunk,) = calling(begun, name="Person")
    assert by_call.parse_result([ChatGeneration(message=chunk)], partial=True) == Person(name="Ann", age=7)
    assert by_call.parse_result([Generation(text=begun)], partial=True) is None
    with pytest.raises(LMStudioStructuredOutputError, match="no complete tool call"):
        by_call.invoke(begun)


def test_tags_in_the_text_do_not_delay_partial_values() -> None:
    marker = "__LM_STUDIO_INTERNAL_LSEP_SYNTHETIC_REASONING_END_ab12__"
    chunks = [AIMessageChunk(content=text) for text in (marker, '{"name": "Ann"', ', "age": 7}')]
    assert list(text_parser(SCHEMA).transform(iter([*chunks, LAST]))) == [{"name": "Ann"}, ANN]


async def test_bare_texts_are_read_once_they_are_whole() -> None:
    async def halves() -> AsyncIterator[str]:
        for half in ('{"name": "Ann"', ', "age": 7}'):
            yield half

    assert [part async for part in text_parser(Person).atransform(halves())] == [Person(name="Ann", age=7)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_long_responses_are_not_read_again_for_every_fragment(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"name": "word " * 20_000})
    fragments = [text[at : at + 10] for at in range(0, len(text), 10)]
    by_text = [AIMessageChunk(content=fragment) for fragment in fragments]
    parser = text_parser(SCHEMA) if method == "json_schema" else call_parser(SCHEMA, "person")
    read: list[str] = []

    def counted(text: str, **parameters: Any) -> Any:
        read.append(text)
        return from_json(text, **parameters)

    monkeypatch.setattr("lmstudio_integrations.types.structured.from_json", counted)
    chunks = [*(by_text if method == "json_schema" else calling(*fragments)), LAST]
    assert list(parser.transform(iter(chunks)))[-1] == json.loads(text)
    assert 500 < len(read) < 1000
    assert len(fragments) > 10_000


def test_a_response_that_was_cut_off_is_an_error(server: Server) -> None:
    model = server.chat(max_tokens=2).with_structured_output(SCHEMA)
    with pytest.raises(LMStudioStructuredOutputError, match="raise max_tokens"):
        model.invoke("json")


def test_a_response_that_does_not_fit_the_class_is_rejected(server: Server) -> None:
    with pytest.raises(LMStudioStructuredOutputError, match="does not fit Person"):
        server.chat().with_structured_output(Person).invoke("odd")


def test_strict_forbids_further_members(server: Server) -> None:
    server.chat().with_structured_output(Person, strict=True).invoke("json")
    structured = server.last_request.config.structured
    assert structured is not None
    assert structured["jsonSchema"]["additionalProperties"] is False


def test_strict_needs_no_title(server: Server) -> None:
    nested = {"type": "object", "properties": {"inner": BARE}}
    server.chat().with_structured_output(nested, strict=True).invoke("json")
    structured = server.last_request.config.structured
    assert structured is not None
    assert structured["jsonSchema"] == {
        "type": "object",
        "properties": {"inner": {**BARE, "required": ["name", "age"], "additionalProperties": False}},
        "required": ["inner"],
        "additionalProperties": False,
    }
    assert nested == {"type": "object", "properties": {"inner": BARE}}
    server.chat().with_structured_output(SCHEMA, strict=True, method="function_calling").invoke("json")
    parameters = server.last_request.tools[0].function.parameters
    assert parameters is not None
    assert parameters["additionalProperties"] is False


def test_a_schema_that_core_cannot_trace_is_sent_all_the_same(server: Server) -> None:
    nullable = {"type": ["object", "null"]}
    assert server.chat().with_structured_output(nullable).invoke("json") == ANN
    structured = server.last_request.config.structured
    assert structured is not None
    assert structured["jsonSchema"] == nullable


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_settings_override_those_of_the_method(server: Server, method: Any) -> None:
    given: dict[str, Any] = {
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "ls_structured_output_format": {"mine": True},
    }
    chain: Any = server.chat().with_structured_output(Person, method=method, **given)
    assert chain.first.kwargs.items() >= given.items()


def test_further_tools_stand_beside_the_schema(server: Server) -> None:
    look: Any = {"type": "function", "function": {"name": "look"}}
    model = server.chat()
    by_call = model.with_structured_output(Person, method="function_calling", tools=[look], tool_choice="auto")
    with pytest.raises(LMStudioStructuredOutputError, match="no complete tool call"):
        by_call.invoke("silent")
    assert sorted(tool.function.name for tool in server.last_request.tools) == ["Person", "look"]
    assert model.with_structured_output(Person, tools=[look]).invoke("json") == Person(name="Ann", age=7)
    with_tools, by_grammar = map(Requested.of, server.predictions[-2:])
    assert [tool.function.name for tool in with_tools.tools] == ["look"]
    assert (with_tools.config.structured, by_grammar.tools) == (None, [])
    with pytest.raises(LMStudioValueError, match="tools must be a list"):
        model.with_structured_output(Person, tools=5)


def test_settings_go_along(server: Server) -> None:
    server.chat().with_structured_output(Person, temperature=0.25).invoke("json")
    assert server.last_request.config.temperature == 0.25


@pytest.mark.parametrize("schema", [Person, PersonV1, SCHEMA])
async def test_a_missing_call_is_a_parsing_error_that_shows_the_text(server: Server, schema: Any) -> None:
    llm = server.chat(required_tool_fallback=False)
    model = llm.with_structured_output(schema, method="function_calling")
    for call in (lambda: model.invoke("silent"), lambda: list(model.stream("silent"))):
        with pytest.raises(OutputParserException, match=r"no complete tool call .*; the model wrote 'I w") as caught:
            call()
        assert isinstance(caught.value, LMStudioStructuredOutputError)
        assert caught.value.llm_output == caught.value.text == "I will not."
    with pytest.raises(OutputParserException, match="I will not"):
        await model.ainvoke("silent")
    with pytest.raises(OutputParserException, match="I will not"):
        [each async for each in model.astream("silent")]


@pytest.mark.parametrize("schema", [Person, PersonV1, SCHEMA])
async def test_a_missing_call_is_the_parsing_error_of_a_raw_response(server: Server, schema: Any) -> None:
    llm = server.chat(required_tool_fallback=False)
    model: Any = llm.with_structured_output(schema, method="function_calling", include_raw=True)
    merged = reduce(add, model.stream("silent"))
    for response in (model.invoke("silent"), await model.ainvoke("silent"), merged):
        assert response.keys() == {"raw", "parsed", "parsing_error"}
        assert response["raw"].content == "I will not."
        assert response["parsed"] is None
        assert isinstance(response["parsing_error"], OutputParserException)


@pytest.mark.parametrize(
    ("question", "method", "shown"),
    [
        ("half", "json_schema", r"""; the model wrote '\{"name": "Ann", "ag'"""),
        ("odd", "json_schema", r"""does not fit Person: .*; the model wrote '\{"name": "Ann", "age": "old"\}'"""),
        ("half", "json_mode", r"""; the model wrote '\{"name": "Ann", "ag'"""),
    ],
)
def test_an_error_shows_what_the_model_wrote(server: Server, question: str, method: Any, shown: str) -> None:
    with pytest.raises(LMStudioStructuredOutputError, match=f"(?s){shown}"):
        server.chat().with_structured_output(Person, method=method).invoke(question)


def test_an_error_shows_only_the_beginning_of_a_long_text() -> None:
    with pytest.raises(LMStudioStructuredOutputError, match=r"; the model wrote '(x{200})…'") as caught:
        text_parser(Person).invoke("x" * 5000)
    assert caught.value.text == "x" * 5000


class Color(Enum):
    """A color."""

    RED = "red"


class Painted(BaseModel):
    """Something with a color."""

    color: Color


def test_an_enum_may_be_the_type_of_a_field(server: Server) -> None:
    assert server.chat().with_structured_output(Painted).invoke("What is it?") == Painted(color=Color.RED)


@pytest.mark.parametrize("given", [{"tools": [Color]}, {"response_format": Color}])
def test_an_enum_is_no_tool_and_no_response_format(server: Server, given: dict[str, Any]) -> None:
    with pytest.raises(LMStudioValueError, match="it is an enum"):
        server.chat().invoke("What is it?", **given)


class Unfinished(BaseModel):
    """A thing with a part that is never defined."""

    part: "Missing"  # type: ignore[name-defined] # noqa: F821 - the point


@pytest.mark.parametrize(
    ("schema", "method", "match"),
    [
        (Person, "xml", "method must be one of"),
        (None, "json_schema", "needs a schema"),
        (3, "json_schema", "3 is not a valid schema"),
        (3, "function_calling", "3 is not a valid schema"),
        (Color, "json_schema", "Color'> is not a valid schema .*: it is an enum; make it the type of a field"),
        (Color, "function_calling", "Color'> is not a valid schema .*: it is an enum"),
        (Color, "json_mode", "Color'> is not a valid schema .*: it is an enum"),
        (int, "function_calling", "'int'> is not a valid schema"),
        (Literal["a"], "json_schema", "'a'.* is not a valid schema"),
        (Literal["a"], "function_calling", "'a'.* is not a valid schema"),
        (Person | PersonV1, "function_calling", "Person.* is not a valid schema"),
        (BARE, "function_calling", "is not a valid schema .*has no name.* with a title"),
        (COLOR, "function_calling", "'red'.* is not a valid schema .* needs an object schema"),
        (Unfinished, "json_schema", "Unfinished'> is not a valid schema"),
        (Unfinished, "function_calling", "Unfinished'> is not a valid schema"),
    ],
)
def test_impossible_wishes_are_rejected(server: Server, schema: Any, method: Any, match: str) -> None:
    with pytest.raises(LMStudioValueError, match=match):
        server.chat().with_structured_output(schema, method=method)


@pytest.mark.parametrize("schema", [Person, PersonV1, SCHEMA])
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_response_that_no_parser_reads_is_a_parsing_error(text: str, method: Any, schema: Any) -> None:
    with Server([ModelEntry(key=CHAT, rules=({"then": [{"text": text}]},))]) as server:
        model = server.chat().with_structured_output(schema, method=method)
        for call in (lambda: model.invoke("hi"), lambda: list(model.stream("hi"))):
            with pytest.raises(OutputParserException) as caught:
                call()
            assert caught.value.llm_output == text
        with pytest.raises(OutputParserException):
            await model.ainvoke("hi")
        with pytest.raises(OutputParserException):
            [each async for each in model.astream("hi")]
        result = server.chat().with_structured_output(schema, method=method, include_raw=True).invoke("hi")
    assert (type(result["raw"]), result["parsed"]) == (AIMessage, None)
    assert isinstance(result["parsing_error"], OutputParserException)


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_arguments_that_no_parser_reads_are_a_parsing_error(value: str) -> None:
    call = {"tool": "Person", "malformed": f'{{"name": {value}'}
    with Server([ModelEntry(key=CHAT, rules=({"then": [call]},))]) as server:
        model = server.chat().with_structured_output(Person, method="function_calling")
        with pytest.raises(OutputParserException):
            model.invoke("hi")
        with pytest.raises(OutputParserException):
            list(model.stream("hi"))
        model = server.chat().with_structured_output(Person, method="function_calling", include_raw=True)
        assert isinstance(model.invoke("hi")["parsing_error"], OutputParserException)
