"""`with_structured_output`: every kind of schema, every method, and responses that do not fit."""

import json
import re
from collections.abc import AsyncIterator
from enum import Enum
from functools import reduce
from operator import add, itemgetter
from typing import Annotated, Any, Literal, NewType, NotRequired, Required, TypedDict

import pytest
import typing_extensions
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, ToolCallChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from pydantic import BaseModel, RootModel, field_validator, model_validator
from pydantic.v1 import BaseModel as BaseModelV1

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.errors import LMStudioServerError, LMStudioStructuredOutputError, LMStudioValueError
from lmstudio_integrations.langchain._json_prefix import invalidator
from lmstudio_integrations.langchain._parsers import StrictParser, parser_of
from lmstudio_integrations.langchain._structured import bind_kwargs, with_parser
from lmstudio_integrations.langchain._tools import openai_tool
from tests._adapters.ways import UNREADABLE
from tests.langchain import replay
from tests.langchain.conftest import CHAT, Server
from tests.langchain.replay import Replay, end, text
from tests.support.adapters import covering
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


class Leaf(TypedDict, total=False):
    name: Required[str]
    age: int


class WithOptional(TypedDict):
    """Somebody."""

    name: Annotated[str, ..., "Who"]
    age: NotRequired[Annotated[int, ..., "Years"]]
    children: NotRequired[list[Leaf]]


class ExtendedOptional(typing_extensions.TypedDict):
    """Somebody."""

    name: Annotated[str, ..., "Who"]
    age: typing_extensions.NotRequired[Annotated[int, ..., "Years"]]
    children: typing_extensions.NotRequired[list[Leaf]]


SCHEMA = {"title": "person", "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
BARE = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
OPENAI = {"name": "person", "description": "Somebody.", "parameters": BARE}
ANN = {"name": "Ann", "age": 7}


def parser_for(schema: Any, method: str = "json_schema") -> StrictParser:
    return parser_of(schema, bind_kwargs(schema, method, strict=None))


def replayed(schema: Any, method: str, written: str, *, include_raw: bool = False) -> Runnable[Any, Any]:
    """Return the chain of a model that writes this, as text or as the arguments of the call."""
    parser, events = parser_for(schema, method), text(*(written[at : at + 5] for at in range(0, len(written), 5)))
    if method == "function_calling":
        name = openai_tool(schema)["function"]["name"]
        try:
            events = replay.call("c1", name, json.loads(written), written)
        except (ValueError, RecursionError):
            events = [*replay.opened("c1", name, written), replay.failed()]
    return with_parser(Replay(events=[*events, end()]), parser, include_raw=include_raw)


async def parts_of(chain: Runnable[Any, Any], way: str, question: Any = "q") -> list[Any]:
    """Return the parts of a stream."""
    return [part async for part in chain.astream(question)] if way == "astream" else list(chain.stream(question))


async def result_of(chain: Runnable[Any, Any], way: str, question: Any = "Who?") -> Any:
    """Return the result of a call path, or the last part of a stream."""
    if "stream" in way:
        return (await parts_of(chain, way, question))[-1]
    if "batch" in way:
        return (await chain.abatch([question]) if way == "abatch" else chain.batch([question]))[0]
    return await chain.ainvoke(question) if way == "ainvoke" else chain.invoke(question)


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
    assert structured["jsonSchema"].get("description") == (
        schema.get("description") if is_object(schema) else "A person."
    )
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


REQUIRED = {**BARE, "required": ["name", "age"]}


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize(
    "schema",
    [
        {"name": "person", "strict": True, "schema": REQUIRED},
        {"type": "json_schema", "json_schema": {"name": "person", "schema": REQUIRED}},
    ],
)
def test_a_schema_in_openais_form_is_enforced(server: Server, method: Any, schema: Any) -> None:
    assert server.chat().with_structured_output(schema, method=method).invoke("Who?") == {"name": "", "age": 0}


def test_json_mode_sends_any_object(server: Server) -> None:
    assert server.chat().with_structured_output(None, method="json_mode").invoke("json") == ANN
    assert server.last_request.config.structured == {"type": "json", "jsonSchema": {"type": "object"}}
    assert server.chat().with_structured_output(Person, method="json_mode").invoke("json") == Person(name="Ann", age=7)


def test_the_parts_of_raw_streams_add_up_to_their_errors_and_to_those_of_the_last(server: Server) -> None:
    raw: Any = server.chat().with_structured_output(Person, include_raw=True)
    whole = reduce(add, raw.stream("half"))
    assert list((raw | itemgetter("parsed")).stream("half")) == [None]  # core adds up what a function reads
    assert isinstance(whole["parsing_error"], LMStudioStructuredOutputError)
    assert whole["parsed"] is None
    assert whole["raw"].text == '{"name": "Ann", "ag'
    twice = reduce(add, [*raw.stream("half"), *raw.stream("json")])
    assert (twice["parsed"], twice["parsing_error"]) == (Person(name="Ann", age=7), None)
    assert twice["raw"].text == '{"name": "Ann", "ag{"name": "Ann", "age": 7}'


@pytest.mark.parametrize(("schema", "way"), [(SCHEMA, "stream"), (Person, "astream")])
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_raw_responses_stream_in_the_form_of_cores_composition(method: str, schema: Any, way: str) -> None:
    fragments = ('{"name"', ': "An', 'n", "age"', ": 7", "}")
    name = openai_tool(schema)["function"]["name"]
    by_call = method == "function_calling"
    parser = parser_for(schema, method)
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
    chain = with_parser(Replay(events=[*text('{"a": "x', "y", '"}'), end()]), parser_for({}), include_raw=True)
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
    chain = with_parser(Replay(events=[*text("nu", "ll"), end()]), parser_for({}), include_raw=include_raw)
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


METHODS = pytest.mark.parametrize("method", ["json_schema", "function_calling"])


@METHODS
@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_validator_that_fails_over_half_a_response_does_not_break_the_stream(method: str, way: str) -> None:
    assert await parts_of(replayed(Hasty, method, json.dumps(ANN)), way) == [Hasty(name="Ann", age=7)]


class Picky(BaseModel):
    """A person with a validator that always fails."""

    name: str

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return {"Bob": "Robert"}[name]


@METHODS
def test_whatever_a_validator_raises_is_raised_as_a_parsing_error(method: str) -> None:
    error = replayed(Picky, method, json.dumps(ANN), include_raw=True).invoke("q")["parsing_error"]
    assert isinstance(error, LMStudioStructuredOutputError)
    assert "does not fit Picky: KeyError('Ann')" in str(error)
    assert error.text == '{"name": "Ann", "age": 7}'
    with pytest.raises(LMStudioStructuredOutputError, match="does not fit Picky"):
        list(replayed(Picky, method, json.dumps(ANN)).stream("q"))


EVERY_WAY = ["invoke", "ainvoke", "stream", "astream"]
WROTE_HALF = r"""; the model wrote '\{"name": "Ann", "ag'"""
UNFIT: list[tuple[Any, Any, str, str]] = [
    (Person, "json_schema", "half", WROTE_HALF),
    (SCHEMA, "json_schema", "half", WROTE_HALF),
    (Person, "json_schema", "odd", r"""does not fit Person: .*; the model wrote '\{"name": "Ann", "age": "old"\}'"""),
    (PersonV1, "json_mode", "odd", "does not fit PersonV1"),
    (None, "json_mode", "half", WROTE_HALF),
]


@pytest.mark.parametrize(("way", "case"), covering(EVERY_WAY, UNFIT))
async def test_a_text_that_does_not_fit_is_an_error_that_shows_it(
    server: Server, way: str, case: tuple[Any, Any, str, str]
) -> None:
    schema, method, question, shown = case
    with pytest.raises(LMStudioStructuredOutputError, match=f"(?s){shown}"):
        await result_of(server.chat().with_structured_output(schema, method=method), way, question)


NO_CALLS: list[tuple[dict[str, Any], str, str]] = [
    ({"text": "I will not."}, r"no complete tool call .*; the model wrote 'I w", "I will not."),
    ({"tool": "{}", "malformed": '{"name": "A'}, r"no complete tool call .*; the model wrote '\{", '{"name": "A'),
    ({"tool": "Invented", "arguments": {"a": 1}}, "called 'Invented' instead of '[Pp]erson'", '{"a": 1}'),
]


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize(("step", "problem", "written"), NO_CALLS)
@pytest.mark.parametrize("schema", [Person, SCHEMA])
async def test_a_response_without_the_call_is_an_error_that_shows_it(
    schema: Any, step: dict[str, Any], problem: str, written: str, way: str
) -> None:
    named = step | ({"tool": openai_tool(schema)["function"]["name"]} if step.get("tool") == "{}" else {})
    with scripted(named) as server:
        llm = server.chat(required_tool_fallback=False)
        with pytest.raises(LMStudioStructuredOutputError, match=problem) as caught:
            await result_of(llm.with_structured_output(schema, method="function_calling"), way)
    assert isinstance(caught.value, OutputParserException)
    if not ("malformed" in step and "stream" in way):  # a stream ends them so that no parser reads them
        assert caught.value.llm_output == caught.value.text == written


@pytest.mark.parametrize("written", UNREADABLE.values(), ids=UNREADABLE)
async def test_arguments_that_no_parser_reads_are_a_parsing_error(written: str) -> None:
    for way in EVERY_WAY:
        with pytest.raises(OutputParserException) as caught:
            await result_of(replayed(Person, "function_calling", written), way)
        assert str(caught.value.llm_output).startswith(written)
    result = replayed(SCHEMA, "function_calling", written, include_raw=True).invoke("q")
    assert (type(result["raw"]), result["parsed"]) == (AIMessage, None)
    assert isinstance(result["parsing_error"], OutputParserException)


@pytest.mark.slow
@METHODS
def test_long_responses_are_not_read_again_for_every_fragment(method: str) -> None:
    """Each reading yields what is new."""
    written = json.dumps({"name": "word " * 8_000})
    fragments = [written[at : at + 10] for at in range(0, len(written), 10)]
    by_text = [AIMessageChunk(content=fragment) for fragment in fragments]
    chunks = [*(by_text if method == "json_schema" else calling(*fragments)), LAST]
    parts = list(parser_for(SCHEMA, method).transform(iter(chunks)))
    assert parts[-1] == json.loads(written)
    assert 400 < len(parts) < 1000
    assert len(fragments) > 4_000


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
    assert list(parser_for(SCHEMA, "function_calling").transform(iter(chunks))) == [
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
    parts = list(parser_for(SCHEMA, "function_calling").transform(iter(chunks)))
    assert parts == [{"name": "Bob"}, {"name": "Ann"}]


async def test_bare_texts_are_read_once_they_are_whole() -> None:
    async def halves() -> AsyncIterator[str]:
        for half in ('{"name": "Ann"', ', "age": 7}'):
            yield half

    assert [part async for part in parser_for(Person).atransform(halves())] == [Person(name="Ann", age=7)]


def test_strict_needs_no_title(server: Server) -> None:
    nested = {"type": "object", "properties": {"inner": BARE}}
    server.chat().with_structured_output(nested, strict=True).invoke("Who?")
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


def test_an_error_shows_only_the_beginning_of_a_long_text() -> None:
    with pytest.raises(LMStudioStructuredOutputError, match=r"; the model wrote '(x{200})…'") as caught:
        parser_for(Person).invoke("x" * 5000)
    assert caught.value.text == "x" * 5000


class Color(Enum):
    """A color."""

    RED = "red"


def nested(levels: int) -> dict[str, Any]:
    """Return the schema of an object with lists in lists."""
    items: dict[str, Any] = {}
    for _ in range(levels):
        items = {"items": items}
    return {"title": "deep", "type": "object", "properties": {"a": items}}


class Unfinished(BaseModel):
    """A thing with a part that is never defined."""

    part: "Missing"  # type: ignore[name-defined] # noqa: F821 - the point


@pytest.mark.parametrize(
    ("schema", "method", "match"),
    [
        (Person, "xml", "method must be one of"),
        (None, "json_schema", "needs a schema"),
        (3, "json_schema", "3 is not a valid schema"),
        (Color, "json_schema", "Color'> is not a valid schema .*: it is an enum; make it the type of a field"),
        (Color, "function_calling", "Color'> is not a valid schema .*: it is an enum"),
        (int, "function_calling", "'int'> is not a valid schema"),
        (
            Literal["a"],
            "function_calling",
            "'a'.* is not a valid schema .*: it is no class; make it the type of a field",
        ),
        (list[int], "json_schema", "int.* is not a valid schema"),
        (NewType("Name", str), "json_schema", "Name is not a valid schema"),
        (Person | PersonV1, "function_calling", "Person.* is not a valid schema"),
        (BARE, "function_calling", "is not a valid schema .*has no name.* with a title"),
        (COLOR, "function_calling", "'red'.* is not a valid schema .* needs an object schema"),
        (Unfinished, "json_schema", "Unfinished'> is not a valid schema"),
        (nested(300), "json_schema", "^the schema of the response is nested more than"),
        (nested(300), "function_calling", "^the schema of tool 'deep' is nested more than"),
    ],
)
def test_impossible_wishes_are_rejected(server: Server, schema: Any, method: Any, match: str) -> None:
    with pytest.raises(LMStudioValueError, match=match):
        server.chat().with_structured_output(schema, method=method)


# Validation by the schema ---------------------------------------------------------------------------------------------

GROWN = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 18}}}
NESTED = {"title": "family", "type": "object", "properties": {"people": {"type": "array", "items": GROWN}}}
PATTERN = {"title": "word", "type": "object", "properties": {"word": {"type": "string", "pattern": r"^\p{L}+$"}}}
TENTHS = {"title": "tenths", "type": "object", "properties": {"number": {"type": "number", "multipleOf": 0.1}}}
OUTSIDE = {"title": "far", "type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/schema"}}}
UNKNOWN = {"title": "unknown", "type": "object", "properties": {"a": {"type": "any"}}}
OLD: dict[str, Any] = {"name": "Ann", "age": "old"}
HALF = '{"name": "Ann", "ag'
REJECTED = {"last": "^Your response was rejected: "}


def scripted(*steps: dict[str, Any]) -> Server:
    """Return a server whose model performs the first step, and the second one if it is asked for a correction."""
    first, *corrected = steps
    rules = [{"when": REJECTED, "then": [step]} for step in corrected]
    return Server([ModelEntry(key=CHAT, rules=(*rules, {"when": {"last": ""}, "then": [first]}))])


def writing(value: Any, tool: str | None = None) -> dict[str, Any]:
    """Return the step in which a model writes a value: as text, or as a call of a tool."""
    return {"text": json.dumps(value)} if tool is None else {"tool": tool, "arguments": value}


CHECKED: dict[str, tuple[Any, Any, str | None]] = {
    "JSON schema": (SCHEMA, OLD, r"age: 'old' is not of type 'integer'"),
    "TypedDict": (PersonDict, {"name": "Ann"}, r"the value: 'age' is a required property"),
    "an optional key": (WithOptional, {"name": "Ann"}, None),
    "the value of an optional key": (WithOptional, {"name": "Ann", "age": "x"}, r"age: 'x' is not of type 'integer'"),
    "OpenAI": (OPENAI, {"name": 7}, r"name: 7 is not of type 'string'"),
    "nested": (NESTED, {"people": [{"age": 18}, {"age": 7}]}, r"people\.1\.age: 7 is less than the minimum of 18"),
    "pattern": (PATTERN, {"word": "Zoë"}, None),
    "tenths": (TENTHS, {"number": 0.3}, None),
    "a reference to elsewhere": (OUTSIDE, {"a": 1}, None),
    "an unknown version": (UNKNOWN, {"a": 1}, None),
}


@pytest.mark.parametrize(("way", "name"), covering(EVERY_WAY, CHECKED))
async def test_a_dict_fits_the_schema_if_jsonschema_can_check_it(way: str, name: str) -> None:
    schema, value, problem = CHECKED[name]
    method: Any = "function_calling" if way in {"ainvoke", "astream"} else "json_schema"
    tool = openai_tool(schema)["function"]["name"] if method == "function_calling" else None
    with scripted(writing(value, tool)) as server:
        chain = server.chat().with_structured_output(schema, method=method)
        if problem is None:
            assert await result_of(chain, way) == value
            return
        with pytest.raises(LMStudioStructuredOutputError, match=f"does not fit the schema: {problem}") as caught:
            await result_of(chain, way)
    assert isinstance(caught.value, OutputParserException)
    assert json.loads(caught.value.text or "") == value


def test_a_value_in_a_code_block_is_streamed_as_it_grows() -> None:
    parser = parser_for(SCHEMA)
    chunks = [AIMessageChunk(content=each) for each in ("```", "json\n", '{"name": "A', 'nn"', "}", "\n`", "``")]
    assert list(parser.transform(iter([*chunks, AIMessageChunk(content="", chunk_position="last")]))) == [
        {"name": "A"},
        {"name": "Ann"},
    ]


# Attempts -------------------------------------------------------------------------------------------------------------


MISFITS: list[tuple[Any, Any, dict[str, Any], str]] = [
    (Person, "json_schema", {"text": HALF}, "Unterminated string"),
    (Person, "json_schema", writing(OLD), "does not fit Person: .*age"),
    (PersonV1, "json_schema", writing(OLD), "does not fit PersonV1: .*age"),
    (SCHEMA, "json_schema", writing(OLD), "does not fit the schema: age: 'old' is not of type 'integer'$"),
    (None, "json_mode", {"text": HALF}, "Unterminated string"),
    (Person, "function_calling", writing(OLD, "Person"), "does not fit Person: .*age"),
    (SCHEMA, "function_calling", writing(OLD, "person"), "does not fit the schema: age"),
    (SCHEMA, "function_calling", {"tool": "person", "malformed": HALF}, "has no complete tool call"),
    (SCHEMA, "function_calling", {"text": "I will not."}, "has no complete tool call"),
    (SCHEMA, "function_calling", writing(OLD, "invented"), "the model called 'invented' instead of 'person'"),
]


@pytest.mark.parametrize(("way", "case"), covering(["invoke", "ainvoke", "batch", "abatch"], MISFITS))
async def test_a_model_corrects_its_response(way: str, case: tuple[Any, Any, dict[str, Any], str]) -> None:
    schema, method, rejected, problem = case
    is_class = schema in (Person, PersonV1)
    tool = (schema.__name__ if is_class else "person") if method == "function_calling" else None
    with scripted(rejected, writing(ANN, tool)) as server:
        llm = server.chat(required_tool_fallback=False)
        chain = llm.with_structured_output(schema, method=method, max_attempts=2)
        expected = schema(**ANN) if is_class else ANN
        assert await result_of(chain, way) == expected
        raw = llm.with_structured_output(schema, method=method, max_attempts=2, include_raw=True)
        response = await result_of(raw, way)
        first, second = server.predictions[2:]
    assert (response["parsed"], response["parsing_error"]) == (expected, None)
    _, written, correction = second.messages
    assert written["content"] == (rejected.get("text") or rejected.get("malformed") or json.dumps(OLD))
    assert re.search(f"{problem}.*\n\nRespond again", correction["content"], re.DOTALL | re.MULTILINE)
    metadata = response["raw"].response_metadata
    totals = [
        sum(record.stats[f"{kind}TokensCount"] for record in (first, second))
        for kind in ("prompt", "predicted", "total")
    ]
    assert metadata["attempts"] == 2
    assert [metadata["token_usage"][f"{kind}_tokens"] for kind in ("prompt", "completion", "total")] == totals
    assert [response["raw"].usage_metadata[f"{kind}_tokens"] for kind in ("input", "output", "total")] == totals


@pytest.mark.parametrize("way", ["invoke", "abatch"])
@pytest.mark.parametrize(
    ("correction", "problem"),
    [({"text": HALF}, "Unterminated string"), ({"error": "the engine gave up"}, "does not fit Person: ")],
)
async def test_a_raw_response_is_the_last_one_with_its_error_and_that_of_its_correction(
    way: str, correction: dict[str, Any], problem: str
) -> None:
    with scripted(writing(OLD), correction) as server:
        chain = server.chat(max_retries=0).with_structured_output(Person, max_attempts=2, include_raw=True)
        response = await result_of(chain, way)
    error, metadata = response["parsing_error"], response["raw"].response_metadata
    assert isinstance(error, LMStudioStructuredOutputError)
    assert problem in str(error)
    assert response["parsed"] is None
    if "error" in correction:
        assert "the engine gave up" in metadata["correction_error"]
        assert "\nThe request for a correction failed: Chat response error: " in str(error)
        assert "attempts" not in metadata, "one response is complete"
    else:
        assert (response["raw"].text, metadata["attempts"]) == (HALF, 2)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_first_response_that_fails_is_an_error(way: str) -> None:
    with scripted({"error": "the engine gave up"}, writing(ANN)) as server:
        chain = server.chat(max_retries=0).with_structured_output(Person, max_attempts=3, include_raw=True)
        with pytest.raises(LMStudioServerError, match="the engine gave up"):
            await result_of(chain, way)
        assert len(server.predictions) == 1


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_raw_stream_is_never_corrected_in_a_longer_chain_either(way: str) -> None:
    with scripted(writing(OLD), writing(ANN)) as server:
        chain = server.chat().with_structured_output(Person, max_attempts=2, include_raw=True)
        total = reduce(add, await parts_of(ChatPromptTemplate([("user", "{q}")]) | chain, way))
        assert isinstance(total["parsing_error"], LMStudioStructuredOutputError)
        assert "attempts" not in total["raw"].response_metadata
        assert len(server.predictions) == 1


@pytest.mark.parametrize("max_attempts", [1, 2])
def test_a_response_that_fits_is_the_only_attempt(server: Server, max_attempts: int) -> None:
    chain = server.chat().with_structured_output(Person, max_attempts=max_attempts, include_raw=True)
    assert "attempts" not in chain.invoke("json")["raw"].response_metadata
    assert bool(chain.invoke("half")["raw"].response_metadata.get("attempts")) == (max_attempts == 2)
    assert len(server.predictions) == 2 + (max_attempts == 2)


def test_a_response_that_fills_the_context_window_stays_though_it_cannot_be_corrected() -> None:
    rules = ({"then": [writing({"name": "Ann " * 300})]},)
    with Server([ModelEntry(key=CHAT, rules=rules, context_length=512)]) as server:
        chain = server.chat().with_structured_output(Person, max_attempts=3, include_raw=True)
        response = chain.invoke("q")
        assert "context" in response["raw"].response_metadata["correction_error"]
        assert response["raw"].text.startswith('{"name": "Ann Ann')
        assert isinstance(response["parsing_error"], LMStudioStructuredOutputError)


class Runs(BaseCallbackHandler):
    """Keeps the parent of each run of the model."""

    def __init__(self) -> None:
        self.chains: list[Any] = []
        self.parents: list[Any] = []

    def on_chain_start(self, *_: Any, run_id: Any, parent_run_id: Any = None, **__: Any) -> None:
        if parent_run_id is None:
            self.chains.append(run_id)

    def on_chat_model_start(self, *_: Any, parent_run_id: Any = None, **__: Any) -> None:
        self.parents.append(parent_run_id)


@pytest.mark.parametrize("way", ["ainvoke", "batch"])
async def test_each_attempt_is_a_run_of_the_model(way: str) -> None:
    runs, usage = Runs(), UsageMetadataCallbackHandler()
    with scripted(writing(OLD), writing(ANN)) as server:
        prompt = ChatPromptTemplate([("system", "Be brief."), ("user", "{q}")])
        chain = prompt | server.chat().with_structured_output(Person, max_attempts=2, include_raw=True)
        response = await result_of(chain.with_config(callbacks=[runs, usage]), way, {"q": "Who?"})
        assert [message["role"] for message in server.predictions[1].messages] == [
            "system",
            "user",
            "assistant",
            "user",
        ]
    assert len(runs.chains) == 1
    assert runs.parents == runs.chains * 2
    assert list(usage.usage_metadata.values()) == [response["raw"].usage_metadata]


class Note(TypedDict):
    """A note."""

    text: str
    author: str | None


@pytest.mark.parametrize("schema", [WithOptional, ExtendedOptional])
def test_a_key_that_need_not_be_there_is_sent_as_such(schema: Any) -> None:
    sent = openai_tool(schema)["function"]
    assert sent == {
        "name": schema.__name__,
        "description": "Somebody.",
        "parameters": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "Who"},
                "age": {"type": "integer", "description": "Years"},
                "children": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                        "required": ["name"],
                    },
                },
            },
            "required": ["name"],
        },
    }


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_the_value_of_an_optional_key_may_be_null(method: Any) -> None:
    value = {"text": "x", "author": None}
    rules = (
        {"when": {"structured": True}, "then": [{"text": json.dumps(value)}]},
        {"then": [{"tool": "Note", "arguments": value}]},
    )
    with Server([ModelEntry(key=CHAT, rules=rules)]) as running:
        model = running.chat().with_structured_output(Note, method=method)
        assert model.invoke("x") == value


def test_a_call_of_another_tool_is_no_response_to_correct() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    with scripted({"tool": "look"}) as running:
        model = running.chat().with_structured_output(Person, include_raw=True, tools=[tool], max_attempts=2)
        assert [call["name"] for call in model.invoke("x")["raw"].tool_calls] == ["look"]
        assert len(running.predictions) == 1
