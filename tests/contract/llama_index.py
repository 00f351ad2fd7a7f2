"""A conformance suite for LlamaIndex integrations: one check for each requirement.

LlamaIndex has no such suite.
"""

import asyncio
import copy
import json
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    ChatResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import LLM
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.prompts import PromptTemplate
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from tests.contract.engine import RecordingEngine
from tests.contract.models import CONTEXT_LENGTH, NEEDED, NEXT, PONDERED
from tests.contract.suite import (
    NUMBERS,
    PNG,
    SECRET,
    Suite,
    UnsupportedError,
    error_of,
    is_structured,
    texts_of,
    written,
)
from tests.support.event_loop import ticks_during
from tests.support.listening import silence
from tests.support.requested import digest

T = TypeVar("T")


@dataclass(frozen=True)
class Integration:
    """An integration, connected to a scripted server.

    Attributes:
        llm: Creates a language model; accepts LlamaIndex's own settings, `temperature` and `api_key`.
        unreachable: Creates a language model whose server is not reachable.
        embedding: Creates an embedding model; accepts `instructed=True`. `None` if the integration has none.
        server: The engine of the server.
    """

    llm: Callable[..., Any]
    unreachable: Callable[[], Any]
    embedding: Callable[..., Any] | None
    server: RecordingEngine


SUITE: Suite[Integration] = Suite()
contract = SUITE.check


def with_instruction(given: dict[str, Any]) -> dict[str, Any]:
    """Replace `instructed` by a query instruction, under the name that most integrations use."""
    instructed = given.pop("instructed", False)
    return {**given, "query_instruction": "search: "} if instructed else given


def embedding_contract(requirement: str) -> Callable[[Callable[[Any, RecordingEngine], Any]], Any]:
    """Register a check of embedding models; it gets a factory for one."""

    def add(check: Callable[[Any, RecordingEngine], Any]) -> Any:
        @contract(requirement)
        def checked(integration: Integration) -> Awaitable[None] | None:
            if integration.embedding is None:
                raise UnsupportedError("no embedding model")
            result: Awaitable[None] | None = check(integration.embedding, integration.server)
            return result

        return checked

    return add


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class Box(BaseModel, Generic[T]):
    """A generic model, whose class name contains brackets."""

    value: T


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"rain in {city}"


def population(city: str) -> str:
    """Return the population of a city."""
    return f"{len(city)} million"


WEATHER = FunctionTool.from_defaults(weather)
PROMPT = PromptTemplate("{x}")


def user_messages(text: str, *blocks: Any) -> list[ChatMessage]:
    """Return a conversation with one user message."""
    return [ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text=text), *blocks])]


def llm_of(integration: Integration, **settings: Any) -> LLM:
    """Create a language model."""
    model: LLM = integration.llm(**settings)
    return model


# Responses ------------------------------------------------------------------------------------------------------------


@contract("`chat` and `achat` return a response")
async def _chat(integration: Integration) -> None:
    llm = llm_of(integration)
    assert llm.chat(user_messages("count")).message.content == NUMBERS
    assert (await llm.achat(user_messages("count"))).message.content == NUMBERS


@contract("`complete` and `acomplete` return a response, also with `formatted=True`")
async def _complete(integration: Integration) -> None:
    llm = llm_of(integration)
    assert llm.complete("count").text == NUMBERS
    assert (await llm.acomplete("count")).text == NUMBERS
    assert llm.complete("count", formatted=True).text == NUMBERS


@contract("`stream_chat`: deltas add up to the cumulative message")
def _stream_chat(integration: Integration) -> None:
    text = ""
    for chunk in llm_of(integration).stream_chat(user_messages("count")):
        text += chunk.delta or ""
        assert (chunk.message.content or "") == text
    assert text == NUMBERS


@contract("`astream_chat`: deltas add up to the cumulative message")
async def _astream_chat(integration: Integration) -> None:
    text = ""
    async for chunk in await llm_of(integration).astream_chat(user_messages("count")):
        text += chunk.delta or ""
        assert (chunk.message.content or "") == text
    assert text == NUMBERS


@contract("`stream_complete` and `astream_complete`: deltas add up to the cumulative text")
async def _stream_complete(integration: Integration) -> None:
    llm = llm_of(integration)
    found = list(llm.stream_complete("count"))
    assert "".join(chunk.delta or "" for chunk in found) == found[-1].text == NUMBERS
    awaited = [chunk async for chunk in await llm.astream_complete("count")]
    assert "".join(chunk.delta or "" for chunk in awaited) == awaited[-1].text == NUMBERS


@contract("an empty response yields at least one chunk")
def _empty(integration: Integration) -> None:
    found = list(llm_of(integration).stream_chat(user_messages("nothing")))
    assert found
    assert not found[-1].message.content


@contract("errors contain the server's message, also in streams")
def _errors(integration: Integration) -> None:
    llm = llm_of(integration)
    assert "the engine gave up" in str(error_of(lambda: llm.chat(user_messages("fail"))))
    assert "the engine gave up" in str(error_of(lambda: list(llm.stream_chat(user_messages("fail")))))


@contract("a failed prediction is not retried")
def _no_retry(integration: Integration) -> None:
    error_of(lambda: llm_of(integration).chat(user_messages("fail")))
    assert integration.server.prediction_count == 1


# Event loops, cancellation --------------------------------------------------------------------------------------------


@contract("`achat` and `astream_chat` do not block the event loop")
async def _native_async(integration: Integration) -> None:
    llm = llm_of(integration)

    async def stream() -> None:
        async for _ in await llm.astream_chat(user_messages("slow")):
            pass

    assert await ticks_during(llm.achat(user_messages("slow"))) > 20
    assert await ticks_during(stream()) > 20


@contract("one object works in several event loops in turn")
def _event_loops(integration: Integration) -> None:
    llm = llm_of(integration)
    for _ in range(2):
        assert asyncio.run(llm.achat(user_messages("count"))).message.content == NUMBERS


@contract("closing a stream cancels the prediction on the server")
def _close(integration: Integration) -> None:
    stream = llm_of(integration).stream_chat(user_messages("for ever"))
    next(stream)
    stream.close()
    assert integration.server.was_cancelled()


@contract("breaking out of an async stream cancels the prediction on the server")
async def _aclose(integration: Integration) -> None:
    async for _ in await llm_of(integration).astream_chat(user_messages("for ever")):
        break
    assert await asyncio.to_thread(integration.server.was_cancelled)


# Metadata, settings ---------------------------------------------------------------------------------------------------


@contract("reading `metadata` sends no request")
def _metadata(integration: Integration) -> None:
    metadata = integration.unreachable().metadata
    assert metadata.is_chat_model


@contract("`metadata` has the context window of the loaded model, at the latest after the first response")
def _context_window(integration: Integration) -> None:
    llm = llm_of(integration)
    llm.chat(user_messages("count"))
    assert llm.metadata.context_window == CONTEXT_LENGTH


@contract("a conversation that does not fit into the context window is an error, or the response says what was dropped")
def _overflow(integration: Integration) -> None:
    turns = [*user_messages("count"), ChatMessage("So far so good. " * 500, role="assistant")] * 8
    try:
        response = llm_of(integration).chat([*turns, *user_messages("count")])
    except Exception:  # noqa: BLE001 - of whatever class
        return
    assert "dropped_tokens" in str(response.raw)


@contract("`class_name` is specific to the integration")
def _class_name(integration: Integration) -> None:
    assert llm_of(integration).class_name() not in {"base_component", "custom_llm", "LLM"}


@contract("every method reports token counts exactly once")
def _tokens(integration: Integration) -> None:
    counter = TokenCountingHandler()
    llm = llm_of(integration, callback_manager=CallbackManager([counter]))
    calls: tuple[Callable[[], Any], ...] = (
        lambda: llm.chat(user_messages("count")),
        lambda: list(llm.stream_chat(user_messages("count"))),
        lambda: llm.complete("count"),
        lambda: list(llm.stream_complete("count")),
    )
    for call in calls:
        counter.reset_counts()
        call()
        counts = [(each.prompt_token_count, each.completion_token_count) for each in counter.llm_token_counts]
        assert counts == [(4, 11)], counts


@contract("`temperature` is sent to the server, also above 1")
def _settings(integration: Integration) -> None:
    llm_of(integration, temperature=0.25).chat(user_messages("count"))
    assert integration.server.last_request.config.temperature == 0.25
    llm_of(integration, temperature=1.5).chat(user_messages("count"))
    assert integration.server.last_request.config.temperature == 1.5


@contract("an unknown setting raises an error")
def _unknown_setting(integration: Integration) -> None:
    error_of(lambda: llm_of(integration, temprature=0.5))


# Reasoning ------------------------------------------------------------------------------------------------------------


@contract("reasoning is a block of its own, separate from the text")
def _reasoning(integration: Integration) -> None:
    message = llm_of(integration).chat(user_messages("think")).message
    assert message.content == "Done now."
    assert [block.content for block in message.blocks if isinstance(block, ThinkingBlock)] == ["Let me see."]


@contract("streams deliver reasoning as `thinking_delta`, also if no text follows")
def _reasoning_deltas(integration: Integration) -> None:
    for prompt, reasoning in (("think", "Let me see."), ("think only", "Hmm, well.")):
        found = list(llm_of(integration).stream_chat(user_messages(prompt)))
        assert "".join(chunk.additional_kwargs.get("thinking_delta") or "" for chunk in found) == reasoning
        assert "".join(chunk.delta or "" for chunk in found) in {"Done now.", ""}


# Tools ----------------------------------------------------------------------------------------------------------------


def _tool_llm(integration: Integration, **settings: Any) -> Any:
    llm: Any = llm_of(integration, **settings)
    if not hasattr(llm, "chat_with_tools"):
        raise UnsupportedError("no tools")
    return llm


@contract("tool calls have a name, arguments and an id")
def _calls(integration: Integration) -> None:
    llm = _tool_llm(integration)
    (call,) = llm.get_tool_calls_from_response(llm.chat_with_tools([WEATHER], user_msg="weather please"))
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Oslo"})
    assert call.tool_id


@contract("streams deliver tool calls")
def _streamed_calls(integration: Integration) -> None:
    llm = _tool_llm(integration)
    *_, last = llm.stream_chat_with_tools([WEATHER], user_msg="weather please")
    (call,) = llm.get_tool_calls_from_response(last)
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Oslo"})


@contract("two identical tool calls have distinct ids, streaming or not")
def _equal_calls(integration: Integration) -> None:
    llm = _tool_llm(integration)
    given: Any = {"tools": [WEATHER], "user_msg": "both", "allow_parallel_tool_calls": True}
    *_, last = llm.stream_chat_with_tools(**given)
    for response in (llm.chat_with_tools(**given), last):
        assert len({call.tool_id for call in llm.get_tool_calls_from_response(response)}) == 2


@contract("`allow_parallel_tool_calls=False` returns one tool call")
def _one_call(integration: Integration) -> None:
    llm = _tool_llm(integration)
    response = llm.chat_with_tools([WEATHER], user_msg="both", allow_parallel_tool_calls=False)
    assert len(llm.get_tool_calls_from_response(response)) == 1


@contract("`tool_required` is sent to the server")
def _required(integration: Integration) -> None:
    _tool_llm(integration).chat_with_tools([WEATHER], user_msg="weather please", tool_required=True)
    assert integration.server.last_request.tool_choice == "required"


@contract("`tool_choice` accepts the name of a tool")
def _named_choice(integration: Integration) -> None:
    llm = _tool_llm(integration)
    response = llm.chat_with_tools([WEATHER], user_msg="weather please", tool_choice="weather")
    assert llm.get_tool_calls_from_response(response)[0].tool_name == "weather"


@contract("a tool works even if its name is not valid in a request")
def _generic_names(integration: Integration) -> None:
    response = _tool_llm(integration).predict_and_call([get_function_tool(Box[int])], user_msg="box")
    assert response.sources[0].raw_output == Box[int](value=3)


@contract("`chat_history` is not modified")
def _history(integration: Integration) -> None:
    history = user_messages("hello")
    _tool_llm(integration).chat_with_tools([WEATHER], user_msg="weather please", chat_history=history)
    assert len(history) == 1


@contract("a tool result is sent with the id of its call")
def _results(integration: Integration) -> None:
    llm = _tool_llm(integration)
    response = llm.chat_with_tools([WEATHER], user_msg="weather please")
    (call,) = llm.get_tool_calls_from_response(response)
    result = ChatMessage(role=MessageRole.TOOL, content="rain", additional_kwargs={"tool_call_id": call.tool_id})
    llm.chat_with_tools([WEATHER], chat_history=[*user_messages("weather please"), response.message, result])
    history = integration.server.last_request.history
    assert history is not None
    last = history.messages[-1].to_dict()["content"][0]
    assert (last["content"], last.get("toolCallId")) == ("rain", call.tool_id)


@contract("a malformed tool call raises an error instead of ending the agent")
async def _malformed_call(integration: Integration) -> None:
    agent = FunctionAgent(tools=[weather], llm=_tool_llm(integration))
    try:
        response = await agent.run("broken")
    except Exception:  # noqa: BLE001 - peers raise all kinds
        return
    raise AssertionError(f"the agent returned {str(response)!r}")


# Earlier reasoning ----------------------------------------------------------------------------------------------------


async def _ponderings(llm: Any) -> list[ChatMessage]:
    """Return responses with reasoning and a call, from all methods."""
    given: dict[str, Any] = {"tools": [WEATHER], "user_msg": "ponder"}
    *_, streamed = llm.stream_chat_with_tools(**given)
    *_, awaited = [chunk async for chunk in await llm.astream_chat_with_tools(**given)]
    responses = [llm.chat_with_tools(**given), streamed, await llm.achat_with_tools(**given), awaited]
    return [response.message for response in responses]


def _sent_back(integration: Integration, llm: Any, message: ChatMessage) -> str:
    """Send a message back, with the result of its call; return what was sent of it, as the model writes it."""
    (call,) = llm.get_tool_calls_from_response(ChatResponse(message=message))
    result = ChatMessage(
        role=MessageRole.TOOL, content="rain in Oslo", additional_kwargs={"tool_call_id": call.tool_id}
    )
    llm.chat_with_tools([WEATHER], chat_history=[*user_messages("ponder"), message, result])
    (sent,) = written(integration.server.last_request)
    return sent


@contract("in a tool loop, the reasoning before a call goes back to the model, streaming or not")
async def _sent_reasoning(integration: Integration) -> None:
    llm = _tool_llm(integration)
    for message in await _ponderings(llm):
        assert NEEDED.strip() in _sent_back(integration, llm, message)


@contract("in a tool loop, reasoning and text go back exactly as the server sent them, with their white space")
async def _sent_exactly(integration: Integration) -> None:
    llm = _tool_llm(integration)
    for message in await _ponderings(llm):
        assert _sent_back(integration, llm, message) == PONDERED[0]


@contract("a message that was pickled, or stored as JSON, goes back to the model with its reasoning")
async def _sent_after_storing(integration: Integration) -> None:
    llm = _tool_llm(integration)
    for message in await _ponderings(llm):
        pickled = pickle.loads(pickle.dumps(message))  # our own bytes
        for copied in (pickled, ChatMessage.model_validate_json(message.model_dump_json())):
            assert NEEDED.strip() in _sent_back(integration, llm, copied)


@contract("a `ThinkingBlock` before a call, as other providers' messages have it, goes back as reasoning")
def _sent_foreign(integration: Integration) -> None:
    call = ToolCallBlock(tool_call_id="call-1", tool_name="weather", tool_kwargs={"city": "Oslo"})
    blocks: Any = [ThinkingBlock(content="Hmm, well."), TextBlock(text="I look."), call]
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
    head, _, text = _sent_back(integration, _tool_llm(integration), message).partition("</think>")
    assert head.removeprefix("<think>").strip() == "Hmm, well."
    assert text.strip() == "I look."


@contract("`FunctionAgent`: in each step, the model gets the reasoning before each of its calls, streaming or not")
async def _sent_by_agent(integration: Integration) -> None:
    llm = _tool_llm(integration)
    for streaming in (True, False):
        await FunctionAgent(tools=[weather, population], llm=llm, streaming=streaming).run("ponder")
        first, second = written(integration.server.last_request)
        assert [NEEDED.strip() in first, NEXT.strip() in second] == [True, True]


@contract("a response can be sent back, and the reasoning of a finished turn is not sent as text of the answer")
def _finished_turn(integration: Integration) -> None:
    llm = llm_of(integration)
    *_, streamed = llm.stream_chat(user_messages("think"))
    for response in (llm.chat(user_messages("think")), streamed):
        llm.chat([*user_messages("think"), response.message, *user_messages("count")])
        # The model's template has no notion of reasoning: what is sent as text would be shown to the model as text.
        assert texts_of(integration.server.last_request) == [
            ("user", "think"),
            ("assistant", "Done now."),
            ("user", "count"),
        ]


@contract("tags of reasoning in a user's text are sent as they are")
def _tags(integration: Integration) -> None:
    text = "count </think> now <think> and </think> on"
    llm_of(integration).chat(user_messages(text))
    assert texts_of(integration.server.last_request) == [("user", text)]


# Structured output ----------------------------------------------------------------------------------------------------


@contract("structured output is enforced by the server")
def _schema(integration: Integration) -> None:
    assert llm_of(integration).structured_predict(Person, PROMPT, x="person") == Person(name="Ann Lee", age=7)
    assert is_structured(integration.server.last_request)


@contract("structured output keeps the system prompt, sync and async")
async def _system_prompt(integration: Integration) -> None:
    llm = llm_of(integration, system_prompt="Be terse.")
    llm.structured_predict(Person, PROMPT, x="person")
    assert texts_of(integration.server.last_request)[0] == ("system", "Be terse.")
    await llm.astructured_predict(Person, PROMPT, x="person")
    assert texts_of(integration.server.last_request)[0] == ("system", "Be terse.")


@contract("structured output streams, and ends with the complete instance")
async def _structured_stream(integration: Integration) -> None:
    llm = llm_of(integration)
    found = list(llm.stream_structured_predict(Person, PROMPT, x="person"))
    assert found[-1] == Person(name="Ann Lee", age=7)
    assert len(found) > 2
    awaited = [each async for each in await llm.astream_structured_predict(Person, PROMPT, x="person")]
    assert awaited[-1] == found[-1]


# Content blocks, chat histories ---------------------------------------------------------------------------------------


@contract("images are sent")
def _images(integration: Integration) -> None:
    llm_of(integration).chat(user_messages("look", ImageBlock(image=PNG)))
    assert integration.server.last_request.images == [digest(PNG)]


@contract("unsupported content raises an error instead of being dropped")
def _unsupported_content(integration: Integration) -> None:
    error_of(lambda: llm_of(integration).chat(user_messages("listen", AudioBlock(audio=b"RIFF0000WAVE", format="wav"))))


@contract("cache points are ignored")
def _cache_points(integration: Integration) -> None:
    llm_of(integration).chat(user_messages("count", CachePoint(cache_control=CacheControl(type="ephemeral"))))
    assert texts_of(integration.server.last_request) == [("user", "count")]


@contract("a response adds nothing to `additional_kwargs`, and can be sent back unchanged")
def _round_trip(integration: Integration) -> None:
    llm = llm_of(integration)
    *_, last = llm.stream_chat(user_messages("count"))
    assert not last.message.additional_kwargs
    assert json.loads(last.model_dump_json())["message"]["role"] == "assistant"
    llm.chat([*user_messages("count"), last.message, *user_messages("count")])
    assert texts_of(integration.server.last_request) == [("user", "count"), ("assistant", NUMBERS), ("user", "count")]


# Pickling, copying ----------------------------------------------------------------------------------------------------


@contract("a used object can be pickled, without a warning")
def _pickle(integration: Integration) -> None:
    llm = llm_of(integration)
    llm.chat(user_messages("count"))
    with silence():
        other = pickle.loads(pickle.dumps(llm))  # our own bytes
    assert other.chat(user_messages("count")).message.content == NUMBERS


@contract("a used object can be copied")
def _deepcopy(integration: Integration) -> None:
    llm = llm_of(integration)
    llm.chat(user_messages("count"))
    assert copy.deepcopy(llm).chat(user_messages("count")).message.content == NUMBERS


@contract("`to_dict` contains no secret")
def _secrets(integration: Integration) -> None:
    assert SECRET not in repr(llm_of(integration, api_key=SECRET).to_dict())


# Embeddings -----------------------------------------------------------------------------------------------------------


def embedding_of(create: Callable[..., Any], **settings: Any) -> BaseEmbedding:
    """Create an embedding model."""
    model: BaseEmbedding = create(**settings)
    return model


@embedding_contract("embeddings: queries, texts and batches return vectors, in order")
async def _embed(create: Callable[..., Any], _server: RecordingEngine) -> None:
    model = embedding_of(create)
    texts = [f"text {number}" for number in range(25)]
    found = model.get_text_embedding_batch(texts)
    assert [len(vector) for vector in found] == [16] * 25
    assert all(type(number) is float for number in found[0])
    assert found[7] == model.get_text_embedding(texts[7])
    assert await model.aget_text_embedding_batch(texts) == found
    assert len(await model.aget_query_embedding("text")) == 16


@embedding_contract("embeddings: texts are sent unchanged")
def _unchanged(create: Callable[..., Any], server: RecordingEngine) -> None:
    embedding_of(create).get_text_embedding("two\nlines")
    assert server.embedded == ["two\nlines"]


@embedding_contract("embeddings: async calls do not block the event loop")
async def _embedding_native_async(create: Callable[..., Any], _server: RecordingEngine) -> None:
    assert await ticks_during(embedding_of(create).aget_text_embedding("slow rain")) > 20


@embedding_contract("embeddings: one object works in several event loops in turn")
def _embedding_event_loops(create: Callable[..., Any], _server: RecordingEngine) -> None:
    model = embedding_of(create)
    for _ in range(2):
        assert len(asyncio.run(model.aget_text_embedding("rain"))) == 16


@embedding_contract("embeddings: a cache keeps queries and texts separate")
def _cache(create: Callable[..., Any], _server: RecordingEngine) -> None:
    model = embedding_of(create, instructed=True, embeddings_cache=SimpleKVStore())
    assert model.get_text_embedding("rain") != model.get_query_embedding("rain")


@embedding_contract("embeddings: a used object can be pickled and copied, without a warning")
def _embedding_pickle(create: Callable[..., Any], _server: RecordingEngine) -> None:
    model = embedding_of(create)
    vector = model.get_text_embedding("rain")
    with silence():
        others = pickle.loads(pickle.dumps(model)), copy.deepcopy(model)
    for other in others:
        assert other.get_text_embedding("rain") == vector
