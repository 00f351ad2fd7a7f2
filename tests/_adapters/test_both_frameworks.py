"""What holds in both frameworks alike: leaving a call early, event loops, tools, formats, images, texts, attempts."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from inspect import iscoroutine
from typing import Any

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from pydantic import BaseModel

from lmstudio_integrations.emulator import Emulator, ModelEntry, PredictionRecord
from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioError,
    LMStudioStructuredOutputError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LlamaIndexToolCallError, LMStudio, LMStudioEmbedding
from tests._adapters.ways import LANGCHAIN, METHODS, STRUCTURED, UNREADABLE, Method, messages_of, seen_of
from tests.support.adapters import ADAPTERS, DECIDES, EMBEDDING_MODELS, LANGUAGE_MODELS, Adapter
from tests.support.endless import ENDLESS
from tests.support.gate import AT_THE_GATE, Gate
from tests.support.listening import silence
from tests.support.served import served
from tests.support.web import PIXEL

ENDLESSLY = ModelEntry(
    key="m", rules=(DECIDES, {"when": {"last": "^count"}, "then": [{"text": "1 2"}]}, {"then": ENDLESS})
)
VECTORS = ModelEntry(key="v", kind="embedding", context_length=512, max_context_length=512)

server = served([ENDLESSLY, VECTORS], auto_evict=False)


def made(adapter: Adapter, host: str, **settings: Any) -> Any:
    return adapter.make(model="v" if adapter.kind == "embedding" else "m", host=host, **settings)


# Streams that nobody reads to their end -------------------------------------------------------------------------------

STREAMS: dict[str, tuple[Any, str, Any]] = {
    "ChatLMStudio": (ChatLMStudio, "{}stream", "for ever"),
    "LMStudioLLM": (LMStudioLLM, "{}stream", "for ever"),
    "LMStudio.stream_chat": (LMStudio, "{}stream_chat", [ChatMessage("for ever")]),
    "LMStudio.stream_complete": (LMStudio, "{}stream_complete", "for ever"),
}


@pytest.fixture(params=STREAMS)
def streams(request: pytest.FixtureRequest, server: Emulator) -> Callable[[str], Any]:
    """Begins a stream without an end: of threads, or, with the prefix `a`, of an event loop."""
    make, method, given = STREAMS[request.param]
    return lambda prefix: getattr(make(model="m", host=server.address), method.format(prefix))(given)


async def begun(stream: Any) -> AsyncGenerator[Any]:
    """Return an async stream of which the first part has been read."""
    opened: AsyncGenerator[Any] = await stream if iscoroutine(stream) else stream
    await anext(opened)
    return opened


def is_stopped(server: Emulator) -> bool:
    return server.predictions[-1].stop_reason == "userStopped"


def test_closing_a_stream_stops_the_server(server: Emulator, streams: Any) -> None:
    stream = streams("")
    next(stream)
    stream.close()
    server.wait_for(lambda: is_stopped(server))


async def test_closing_an_async_stream_stops_the_server(server: Emulator, streams: Any) -> None:
    stream = await begun(streams("a"))
    await stream.aclose()
    await asyncio.to_thread(server.wait_for, lambda: is_stopped(server))


async def test_cancelling_the_task_that_reads_a_stream_stops_the_server(server: Emulator, streams: Any) -> None:
    has_begun = asyncio.Event()

    async def read() -> None:
        stream = await begun(streams("a"))
        has_begun.set()
        async for _ in stream:
            pass

    task = asyncio.create_task(read())
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(server.wait_for, lambda: is_stopped(server))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stream_whose_event_loop_is_closed_stops_the_server_when_it_is_dropped(
    server: Emulator, streams: Any
) -> None:
    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(begun(streams("a")))
    loop.close()
    del stream
    gc.collect()
    server.wait_for(lambda: is_stopped(server))


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
async def test_cancelling_the_task_of_a_call_stops_the_server(server: Emulator, name: str) -> None:
    adapter, before = ADAPTERS[name], len(server.predictions)
    task = asyncio.create_task(adapter.acall(made(adapter, server.address), "for ever"))
    await asyncio.to_thread(server.wait_for, lambda: any(each.fragments for each in server.predictions[before:]))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(server.wait_for, lambda: is_stopped(server))


@pytest.mark.parametrize(("make", "method", "given"), STREAMS.values(), ids=STREAMS)
def test_closing_an_object_stops_its_streams_and_it_works_again_after_it(
    server: Emulator, make: Any, method: str, given: Any
) -> None:
    with make(model="m", host=server.address) as model:
        stream = getattr(model, method.format(""))(given)
        next(stream)
    with pytest.raises(LMStudioError):
        list(stream)
    server.wait_for(lambda: server.predictions[-1].state == "ended")
    question: Any = [ChatMessage("count")] if "chat" in method else "count"
    assert list(getattr(model, method.format(""))(question))


# Event loops ----------------------------------------------------------------------------------------------------------

COUNTING = {name: each for name, each in ADAPTERS.items() if each.kind != "reranker"}


@pytest.mark.parametrize("name", COUNTING)
def test_one_object_serves_one_event_loop_after_the_other_and_threads_at_once(server: Emulator, name: str) -> None:
    adapter = ADAPTERS[name]
    model = made(adapter, server.address)
    first, second = (asyncio.run(adapter.acall(model, "count")) for _ in range(2))

    async def at_once() -> list[Any]:
        calls = [adapter.acall(model, "count"), *(asyncio.to_thread(adapter.call, model, "count") for _ in range(4))]
        return await asyncio.gather(*calls)

    assert {str(getattr(each, "content", each)) for each in asyncio.run(at_once())} == {
        str(getattr(each, "content", each)) for each in (first, second)
    }


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
async def test_the_event_loop_runs_while_a_call_waits(name: str, gate: Gate) -> None:
    """It runs the rest of this test, which opens the gate."""
    rules = ({"then": [AT_THE_GATE, {"text": "Done."}]},)
    with Emulator([ModelEntry(key="m", rules=rules)], engines=gate.engines()) as server:
        task = asyncio.create_task(ADAPTERS[name].acall(made(ADAPTERS[name], server.address), "x"))
        await asyncio.to_thread(gate.reached.wait, 600)
        assert not task.done()
        gate.open()
        assert await task


@pytest.mark.parametrize("name", COUNTING)
def test_a_used_object_is_collected_without_a_warning(server: Emulator, name: str) -> None:
    adapter = ADAPTERS[name]
    gc.collect()
    with silence():
        model = made(adapter, server.address)
        adapter.call(model, "count")
        asyncio.run(adapter.acall(model, "count"))
        del model
        gc.collect()


# Tools and formats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  \n"])
@pytest.mark.parametrize("way", METHODS)
def test_an_empty_message_is_the_servers_to_handle(way: str, text: str) -> None:
    make, method = METHODS[way]
    with Emulator(["m"]) as server:
        assert seen_of(method(make(model="m", host=server.address), messages_of(make, [("user", text)])))["text"]
        assert [each["content"] for each in server.predictions[-1].messages] == [text]


TURNS_WITH_IMAGE: dict[Any, Any] = {
    ChatLMStudio: [
        HumanMessage([{"type": "text", "text": "Look:"}, {"type": "image", "data": PIXEL}]),
        HumanMessage("What is it?"),
    ],
    LMStudio: [
        ChatMessage(blocks=[TextBlock(text="Look:"), ImageBlock(image=PIXEL)]),
        ChatMessage("What is it?"),
    ],
}


@pytest.mark.parametrize("way", METHODS)
def test_an_image_stays_in_a_message_that_another_one_of_the_user_is_added_to(way: str) -> None:
    make, method = METHODS[way]
    with Emulator([ModelEntry(key="m", vision=True)]) as server:
        method(make(model="m", host=server.address), TURNS_WITH_IMAGE[make])
        (message,) = server.predictions[-1].messages
    parts = [(part["type"], part.get("text")) for part in message["content"]]
    assert parts == [("text", "Look:"), ("file", None), ("text", "What is it?")]


class Street(BaseModel):
    """A street."""

    name: str


in_both = pytest.mark.parametrize("way", ["astream", "chat"])

N = {"type": "object", "properties": {"n": {"type": "integer"}}}
GRAMMAR = {"type": "gbnf", "gbnfGrammar": "root ::= 'a'"}
FORMATS: list[tuple[Any, dict[str, Any] | None]] = [
    ({"type": "json_object"}, {"type": "object"}),
    (N, N),
    ({"type": "json_schema", "json_schema": {"name": "N", "schema": N}}, N),
    ({"type": "json_schema", "name": "N", "schema": N}, N),
    ({"type": ["object", "null"]}, {"type": ["object", "null"]}),
    ({"type": "json", "jsonSchema": N}, N),
    (Street, Street.model_json_schema()),
    (None, None),
    ({"type": "text"}, None),
]
"""Response formats in every form, and the schema that they are."""


def requested(way: str, **given: Any) -> PredictionRecord:
    """Make a call; return what the server got, though a required call may be missing and no engine have a grammar."""
    make, method = METHODS[way]
    with Emulator([ModelEntry(key="m")]) as server:
        with suppress(LlamaIndexToolCallError, LMStudioUnsupportedError):
            method(make(model="m", host=server.address), messages_of(make, [("user", "Hi")]), **given)
        return server.predictions[-1]


@in_both
@pytest.mark.parametrize(("given", "schema"), FORMATS)
def test_a_format_of_every_form_is_a_schema(way: str, given: Any, schema: dict[str, Any] | None) -> None:
    sent = None if schema is None else {"type": "json", "jsonSchema": schema}
    assert requested(way, response_format=given).config.get("structured") == sent


@in_both
def test_a_format_may_be_a_grammar_and_is_nothing_else(way: str) -> None:
    assert requested(way, response_format=GRAMMAR).config["structured"] == GRAMMAR
    for wrong in ("json", 3, int, {"type": "json_schema", "schema": "N"}):
        with pytest.raises(LMStudioValueError, match="response_format must be"):
            requested(way, response_format=wrong)


WEATHER, NOW = ({"type": "function", "function": {"name": name}} for name in ("weather", "now"))
CHOICES: list[tuple[Any, str, list[str]]] = [
    ("auto", "auto", ["weather", "now"]),
    ("none", "none", ["weather", "now"]),
    *((choice, "required", ["weather", "now"]) for choice in ("any", "required", True, {"type": "any"})),
    ("now", "required", ["now"]),
    ({"type": "function", "function": {"name": "now"}}, "required", ["now"]),
    ({"type": "tool", "name": "now"}, "required", ["now"]),
    ({"name": "now"}, "required", ["now"]),
]
"""Choices of tools in every form, the mode that they are, and the tools that are offered."""


@in_both
@pytest.mark.parametrize(("choice", "mode", "names"), CHOICES)
def test_a_choice_is_a_mode_and_a_named_tool_is_offered_alone(
    way: str, choice: Any, mode: str, names: list[str]
) -> None:
    record = requested(way, tools=[WEATHER, NOW], tool_choice=choice, required_tool_fallback=False)
    assert (record.tool_choice, [each["function"]["name"] for each in record.tools]) == (mode, names)


@in_both
@pytest.mark.parametrize(
    ("tools", "choice", "match"),
    [
        ([WEATHER, NOW], "later", "'later' is none of the tools: weather, now"),
        ([], "required", "there are no tools; pass some"),
        *(([WEATHER], choice, "tool_choice must be") for choice in (3, {"type": "somehow"}, {"type": ["auto"]}, ["x"])),
    ],
)
def test_a_choice_that_cannot_be_made_is_rejected(way: str, tools: Any, choice: Any, match: str) -> None:
    with pytest.raises(LMStudioValueError, match=match):
        requested(way, tools=tools, tool_choice=choice)


# Lists of texts -------------------------------------------------------------------------------------------------------

MANY: dict[str, tuple[Any, str]] = {
    "LMStudioEmbeddings": (LMStudioEmbeddings, "embed_documents"),
    "LMStudioEmbedding": (LMStudioEmbedding, "get_text_embedding_batch"),
}
CHUNK_SIZE = {
    "LMStudioEmbeddings": "the text splitter's chunk size",
    "LMStudioEmbedding": "Settings.chunk_size, or the node parser's chunk_size,",
}
OFFLINE = "127.0.0.1:1"


async def rejected(model: Any, method: str, given: Any) -> list[LMStudioError]:
    """Return the errors of a method and of its async twin."""
    with pytest.raises(LMStudioError) as caught:
        getattr(model, method)(given)
    with pytest.raises(LMStudioError) as awaited:
        await getattr(model, f"a{method}")(given)
    return [caught.value, awaited.value]


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize(
    ("texts", "error"),
    [
        ("abc", "texts must be a list; got 'abc'; write ['abc']"),
        *((texts, "texts must be a list; got") for texts in (None, b"ab", {"a": 1})),
        (["a", None], "text 1 must be a string; got None"),
    ],
)
async def test_what_is_no_list_of_strings_is_an_error_that_names_it(name: str, texts: Any, error: str) -> None:
    make, method = MANY[name]
    for each in await rejected(make(model="v", host=OFFLINE), method, texts):
        assert isinstance(each, LMStudioValueError)
        assert error in str(each)
        assert isinstance(each, ModelError) == (make is LMStudioEmbeddings)


@pytest.mark.parametrize("name", EMBEDDING_MODELS)
@pytest.mark.parametrize("text", [None, ["a"]])
async def test_a_text_that_is_no_string_is_an_error_that_names_the_method_for_several(name: str, text: Any) -> None:
    adapter = EMBEDDING_MODELS[name]
    first, second = await rejected(made(adapter, OFFLINE), adapter.method, text)
    for error, method in ((first, MANY[name][1]), (second, f"a{MANY[name][1]}")):
        remedy = f"; for several texts use {method}" if text else ""
        assert str(error).endswith(f"must be a string; got {text!r}{remedy}")


@pytest.mark.parametrize("name", MANY)
async def test_a_text_that_is_too_long_is_an_error_that_names_it(server: Emulator, name: str) -> None:
    make, method = MANY[name]
    model = make(model="v", host=server.address, length_policy="error")
    for error in await rejected(model, method, ["short", "word " * 600]):
        assert isinstance(error, LMStudioContextOverflowError)
        assert str(error) == (
            f"text 1 has 603 tokens, and the model takes at most 512; lower {CHUNK_SIZE[name]} below 512, "
            "or set length_policy='average' to embed it in parts, or 'truncate' to embed its beginning"
        )
        assert (error.used, error.limit) == (603, 512)


# Structured output ----------------------------------------------------------------------------------------------------


class Person(BaseModel):
    """A person."""

    name: str
    age: int


ANN = Person(name="Ann", age=7)
OLD, HALF = '{"name": "Ann", "age": "old"}', '{"name": "Ann'
Structured = Callable[..., Any]


def chain(host: str, settings: dict[str, Any], **given: Any) -> Any:
    return ChatLMStudio(model="m", host=host, max_retries=0, **settings).with_structured_output(Person, **given)


def of_chain(method: Method) -> Structured:
    return lambda host, settings, **given: method(chain(host, settings, **given), "x")[-1]


def of_class(method: Method) -> Structured:
    return lambda host, settings, **given: method(
        LMStudio(model="m", host=host, max_retries=0, **settings), Person, "x", **given
    )[-1]


EVERY: dict[str, Structured] = {
    **{name: of_chain(method) for name, method in LANGCHAIN.items()},
    "batch": lambda *at, **given: chain(*at, **given).batch(["x"])[0],
    **{name: of_class(method) for name, method in STRUCTURED.items()},
}
STREAMED = {name: way for name, way in EVERY.items() if "stream" in name}
WHOLE = {name: way for name, way in EVERY.items() if name not in STREAMED}
pytestmark = pytest.mark.filterwarnings("ignore:The `json` method is deprecated")


def writing(written: str, *corrected: dict[str, Any]) -> Emulator:
    """Return a server whose model writes a text, and takes another step if it is asked for a correction."""
    rules = [{"when": {"last": "^Your response was rejected: "}, "then": [step]} for step in corrected]
    return Emulator([ModelEntry(key="m", rules=(*rules, {"when": {"last": ""}, "then": [{"text": written}]}))])


@pytest.mark.parametrize("way", EVERY)
def test_a_value_may_be_in_a_code_block(way: str) -> None:
    with writing(f"Here it is:\n\n```json\n{ANN.model_dump_json(indent=1)}\n```\n") as server:
        assert EVERY[way](server.address, {}) == ANN


@pytest.mark.parametrize("way", EVERY)
def test_what_does_not_fit_is_an_error_with_the_whole_text_and_a_stream_is_never_corrected(way: str) -> None:
    with writing(OLD, {"text": ANN.model_dump_json()}) as server:
        given = {"max_attempts": 2} if way in STREAMED else {}
        with pytest.raises(LMStudioStructuredOutputError, match="age") as caught:
            EVERY[way](server.address, {}, **given)
        assert caught.value.text == OLD
        with pytest.raises(LMStudioStructuredOutputError, match="raise max_tokens"):
            EVERY[way](server.address, {"max_tokens": 2}, **given)
        assert len(server.predictions) == 2


@pytest.mark.parametrize("written", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("way", [*WHOLE, "stream", "stream_structured_predict"])
def test_what_no_parser_reads_is_an_error_with_the_whole_text(way: str, written: str) -> None:
    with writing(written) as server:
        with pytest.raises(LMStudioStructuredOutputError) as caught:
            EVERY[way](server.address, {})
        assert caught.value.text == written


@pytest.mark.parametrize("way", WHOLE)
def test_a_model_sees_every_attempt_and_why_it_was_rejected_and_the_last_one_counts(way: str) -> None:
    with writing(OLD, {"text": HALF}) as server:
        with pytest.raises(LMStudioStructuredOutputError) as caught:
            WHOLE[way](server.address, {}, max_attempts=3)
        assert caught.value.text == HALF
        first, second, third = server.predictions
    assert [message["role"] for message in first.messages] == ["user"]
    *asked, written, correction = second.messages
    assert asked == first.messages
    assert written == {"role": "assistant", "content": OLD}
    assert "age" in correction["content"]
    assert correction["content"].endswith("\n\nRespond again with a corrected response.")
    assert third.messages[:3] == second.messages
    assert first.config == second.config == third.config


@pytest.mark.parametrize("way", WHOLE)
def test_an_attempt_that_fits_is_the_response_and_one_that_fails_leaves_the_error(way: str) -> None:
    with writing(OLD, {"text": ANN.model_dump_json()}) as server:
        assert WHOLE[way](server.address, {}, max_attempts=3) == ANN
        assert len(server.predictions) == 2
    with writing(OLD, {"error": "the engine gave up"}) as server:
        problem = r"(?s)age.*correction failed: .*engine gave up"
        with pytest.raises(LMStudioStructuredOutputError, match=problem) as caught:
            WHOLE[way](server.address, {}, max_attempts=3)
        assert caught.value.text == OLD
        assert len(server.predictions) == 2


@pytest.mark.parametrize("way", WHOLE)
@pytest.mark.parametrize("max_attempts", [0, True, 1.5, None])
def test_the_number_of_attempts_is_a_positive_integer(way: str, max_attempts: Any) -> None:
    with pytest.raises(LMStudioValueError, match=f"max_attempts must be an integer of at least 1; got {max_attempts}"):
        WHOLE[way](OFFLINE, {}, max_attempts=max_attempts)
