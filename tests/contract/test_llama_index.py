"""A conformance suite for LlamaIndex, which has none: what its users and its own code rely on, on our adapters."""

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    VideoBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from lmstudio_integrations.errors import LMStudioServerError, LMStudioValueError
from lmstudio_integrations.llama_index import LlamaIndexToolCallError, LMStudio, LMStudioEmbedding
from tests._adapters.ways import AGENT_WARNINGS, STRUCTURED, collected
from tests.llama_index.scripted_server import CHAT, CONTEXT_LENGTH, NUMBERS, Server, raw
from tests.support.listening import silence
from tests.support.served import served

T = TypeVar("T")


class Person(BaseModel):
    """A person."""

    name: str
    age: int


ANN = Person(name="Ann Lee", age=7)


class Box(BaseModel, Generic[T]):
    """A generic model, whose class name contains brackets."""

    value: T


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"rain in {city}"


WEATHER = FunctionTool.from_defaults(weather)

server = served(make=Server)


@pytest.fixture
def llm(server: Server) -> Iterator[LMStudio]:
    with server.llm() as model:
        yield model


@pytest.fixture
def embedding(server: Server) -> Iterator[LMStudioEmbedding]:
    with server.embedding() as model:
        yield model


def said(text: str, *blocks: Any) -> list[ChatMessage]:
    """Return a conversation with one user message."""
    return [ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text=text), *blocks])]


def texts(server: Server) -> list[tuple[str, str]]:
    """Return role and text of each message of the last request."""
    return [(role, "".join(part.get("text", "") for part in parts)) for role, parts in server.conversation]


# Responses ------------------------------------------------------------------------------------------------------------


async def test_each_method_returns_the_response(llm: LMStudio) -> None:
    for response in (llm.chat(said("count")), await llm.achat(said("count"))):
        assert (response.message.role, response.message.content) == (MessageRole.ASSISTANT, NUMBERS)
    for completion in (llm.complete("count"), await llm.acomplete("count"), llm.complete("count", formatted=True)):
        assert completion.text == NUMBERS


async def test_the_deltas_of_a_stream_add_up_to_what_each_chunk_has_so_far(llm: LMStudio) -> None:
    for chunks in (list(llm.stream_chat(said("count"))), await collected(llm.astream_chat(said("count")))):
        deltas = [chunk.delta or "" for chunk in chunks]
        assert [chunk.message.content for chunk in chunks] == ["".join(deltas[:at]) for at in range(1, len(deltas) + 1)]
        assert chunks[-1].message.content == NUMBERS
        assert len(chunks) > 10
    for found in (list(llm.stream_complete("count")), await collected(llm.astream_complete("count"))):
        assert "".join(chunk.delta or "" for chunk in found) == found[-1].text == NUMBERS


def test_an_empty_response_is_one_chunk(llm: LMStudio) -> None:
    (chunk,) = llm.stream_chat(said("nothing"))
    assert chunk.message.content == ""


def test_an_error_has_the_servers_message_and_is_not_tried_again(server: Server, llm: LMStudio) -> None:
    before = server.prediction_count
    with pytest.raises(LMStudioServerError, match="the engine gave up"):
        llm.chat(said("fail"))
    with pytest.raises(LMStudioServerError, match="the engine gave up"):
        list(llm.stream_chat(said("fail")))
    assert server.prediction_count == before + 2


def test_every_method_reports_token_counts_once(server: Server) -> None:
    counter = TokenCountingHandler()
    with server.llm(callback_manager=CallbackManager([counter])) as llm:
        calls: tuple[Callable[[], Any], ...] = (
            lambda: llm.chat(said("count")),
            lambda: list(llm.stream_chat(said("count"))),
            lambda: llm.complete("count"),
            lambda: list(llm.stream_complete("count")),
        )
        for call in calls:
            counter.reset_counts()
            call()
            counts = [(each.prompt_token_count, each.completion_token_count) for each in counter.llm_token_counts]
            assert counts == [(4, 11)]


@pytest.mark.parametrize(
    ("prompt", "reasoning", "text"), [("think", "Let me see.", "Done now."), ("think only", "Hmm, well.", "")]
)
async def test_reasoning_is_a_block_and_a_delta_of_its_own(
    llm: LMStudio, prompt: str, reasoning: str, text: str
) -> None:
    response = llm.chat(said(prompt))
    message, tokens = response.message, [*reasoning.split(), "<think>", "</think>"]
    assert message.content == text
    assert raw(response)["usage"]["completion_tokens_details"] == {"reasoning_tokens": len(tokens)}
    assert [block.content for block in message.blocks if isinstance(block, ThinkingBlock)] == [reasoning]
    for chunks in (list(llm.stream_chat(said(prompt))), await collected(llm.astream_chat(said(prompt)))):
        assert "".join(chunk.additional_kwargs.get("thinking_delta") or "" for chunk in chunks) == reasoning
        assert "".join(chunk.delta or "" for chunk in chunks) == text


# Metadata, settings ---------------------------------------------------------------------------------------------------


def test_it_is_a_function_calling_model_of_its_own_name() -> None:
    assert issubclass(LMStudio, FunctionCallingLLM)
    assert (LMStudio.class_name(), LMStudioEmbedding.class_name()) == ("LMStudio", "LMStudioEmbedding")


def test_metadata_makes_no_request_and_has_the_context_window_after_a_response(server: Server, llm: LMStudio) -> None:
    metadata = LMStudio(model="m", host="127.0.0.1:9").metadata
    assert metadata.is_chat_model
    assert metadata.is_function_calling_model
    assert (metadata.model_name, metadata.context_window, metadata.num_output) == ("m", 3900, 256 + 64)
    llm.chat(said("count"))
    (info,) = [info for info in server.loaded() if info.identifier == CHAT]
    assert llm.metadata.context_window == info.context_length == CONTEXT_LENGTH < info.max_context_length


# Tools ----------------------------------------------------------------------------------------------------------------


def called(llm: LMStudio, response: ChatResponse) -> list[tuple[str, Any]]:
    calls = llm.get_tool_calls_from_response(response)
    assert len({call.tool_id for call in calls}) == len(calls)
    return [(call.tool_name, call.tool_kwargs) for call in calls]


OSLO = ("weather", {"city": "Oslo"})


@pytest.mark.parametrize(
    ("prompt", "settings", "calls"),
    [
        ("weather please", {}, [OSLO]),
        ("weather please", {"tool_choice": "weather"}, [OSLO]),
        ("same id", {"allow_parallel_tool_calls": True}, [OSLO, OSLO]),
        ("both", {"allow_parallel_tool_calls": False}, [OSLO]),
    ],
)
async def test_every_method_returns_the_calls_that_are_allowed(
    llm: LMStudio, prompt: str, settings: dict[str, Any], calls: list[Any]
) -> None:
    given: Any = {"tools": [WEATHER], "user_msg": prompt, **settings}
    assert called(llm, llm.chat_with_tools(**given)) == calls
    assert called(llm, await llm.achat_with_tools(**given)) == calls
    assert called(llm, list(llm.stream_chat_with_tools(**given))[-1]) == calls
    assert called(llm, (await collected(llm.astream_chat_with_tools(**given)))[-1]) == calls


def test_a_required_call_is_requested(server: Server, llm: LMStudio) -> None:
    llm.chat_with_tools([WEATHER], user_msg="weather please", tool_required=True)
    assert server.last_request.tool_choice == "required"


def test_a_tool_whose_name_is_not_valid_in_a_request_is_found_again(server: Server, llm: LMStudio) -> None:
    response = llm.predict_and_call([get_function_tool(Box[int])], user_msg="box")
    assert response.sources[0].raw_output == Box[int](value=3)
    assert [offer.function.name for offer in server.last_request.tools] == ["Box_int_"]


def test_the_result_of_a_tool_is_sent_with_the_id_of_its_call_and_the_history_stays(
    server: Server, llm: LMStudio
) -> None:
    history = said("hello")
    llm.chat_with_tools([WEATHER], user_msg="count", chat_history=history)
    assert len(history) == 1
    response = llm.chat_with_tools([WEATHER], user_msg="weather please")
    (call,) = llm.get_tool_calls_from_response(response)
    result = ChatMessage(role=MessageRole.TOOL, content="rain", additional_kwargs={"tool_call_id": call.tool_id})
    llm.chat_with_tools([WEATHER], chat_history=[*said("weather please"), response.message, result])
    (sent,) = server.conversation[-1][1]
    assert (sent["content"], sent["toolCallId"]) == ("rain", call.tool_id)


@AGENT_WARNINGS
async def test_a_malformed_call_is_an_error_instead_of_the_end_of_the_agent(llm: LMStudio) -> None:
    with pytest.raises(LlamaIndexToolCallError):
        await FunctionAgent(tools=[weather], llm=llm).run("broken")


# Structured output ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [name for name in STRUCTURED if "predict" in name])
def test_structured_output_is_enforced_and_keeps_the_system_prompt(server: Server, way: str) -> None:
    with server.llm(system_prompt="Be terse.") as llm:
        *earlier, last = STRUCTURED[way](llm, Person, "person")
    assert last == ANN
    assert ("Ann" in [getattr(each, "name", None) for each in earlier]) == ("stream" in way)
    assert server.last_request.config.structured == {"type": "json", "jsonSchema": Person.model_json_schema()}
    assert texts(server) == [("system", "Be terse."), ("user", "person")]


# Content blocks, chat histories ---------------------------------------------------------------------------------------


def test_unsupported_content_is_an_error_and_cache_points_are_ignored(server: Server, llm: LMStudio) -> None:
    for kind, block in (("audio", AudioBlock(audio=b"RIFF0000WAVE")), ("video", VideoBlock(video=b"0000ftyp"))):
        with pytest.raises(LMStudioValueError, match=f"does not accept {kind} in a user message"):
            llm.chat(said("listen", block))
    llm.chat(said("count", CachePoint(cache_control=CacheControl(type="ephemeral"))))
    assert texts(server) == [("user", "count")]


@pytest.mark.parametrize("prompt", ["count", "think", "nothing"])
def test_every_chunk_can_be_written_as_json_and_the_last_be_sent_back(
    server: Server, llm: LMStudio, prompt: str
) -> None:
    chunks = list(llm.stream_chat(said(prompt)))
    assert {json.loads(chunk.model_dump_json())["message"]["role"] for chunk in chunks} == {"assistant"}
    last = chunks[-1].message
    assert not last.additional_kwargs
    llm.chat([*said(prompt), last, *said("count")])
    assert texts(server) == [("user", prompt), ("assistant", last.content), ("user", "count")]


# Pickling, copying ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [lambda used: pickle.loads(pickle.dumps(used)), copy.deepcopy])
def test_used_objects_can_be_pickled_and_copied_without_a_warning(
    llm: LMStudio, embedding: LMStudioEmbedding, duplicate: Callable[[Any], Any]
) -> None:
    llm.chat(said("count"))
    vector = embedding.get_text_embedding("rain")
    with silence():
        others = duplicate(llm), duplicate(embedding)
    with others[0] as other_llm, others[1] as other_embedding:
        assert other_llm.chat(said("count")).message.content == NUMBERS
        assert other_embedding.get_text_embedding("rain") == vector


# Embeddings -----------------------------------------------------------------------------------------------------------


async def test_queries_texts_and_batches_have_vectors_in_order(embedding: LMStudioEmbedding) -> None:
    given = [f"text {number}" for number in range(250)]
    found = embedding.get_text_embedding_batch(given)
    assert {len(vector) for vector in found} == {16}
    assert all(type(number) is float for number in found[0])
    assert await embedding.aget_text_embedding_batch(given) == found
    assert [found[3], found[249]] == [embedding.get_text_embedding(given[3]), embedding.get_text_embedding(given[249])]
    assert embedding.get_query_embedding("a") == await embedding.aget_query_embedding("a")
    assert await embedding.aget_text_embedding(given[7]) == found[7]
    assert embedding.get_text_embedding_batch([]) == []


async def test_texts_are_sent_unchanged_after_their_instruction_and_a_cache_keeps_both_kinds_apart(
    server: Server,
) -> None:
    before = len(server.embedded)
    settings: Any = {"query_instruction": "search: ", "embeddings_cache": SimpleKVStore()}
    with server.embedding(**settings) as embedding:
        text, question = embedding.get_text_embedding("two\nlines"), embedding.get_query_embedding("two\nlines")
        assert text != question
        assert embedding.get_text_embedding_batch(["two\nlines"]) == [text]
        assert await embedding.aget_query_embedding("two\nlines") == question
    assert server.embedded[before:] == ["two\nlines", "search: two\nlines"]
