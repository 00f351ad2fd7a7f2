"""What LlamaIndex and its users may expect of any integration of a local model: one check for each sentence.

LlamaIndex has no such suite. A check gets a `Subject`, which makes models on a scripted server and tells what that
server was asked, so it runs on this package's classes and on those of others alike. A check that fails raises.
"""

import asyncio
import copy
import inspect
import json
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import LLM
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.prompts import PromptTemplate
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from tests.llama_index.listening import silence
from tests.llama_index.server import WINDOW
from tests.requested import Requested, digest

NUMBERS = "0 1 2 3 4 5 6 7 8 9"
SECRET = "a-secret-of-mine"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63fccfc0500f000485018084a98c21"
    "0000000049454e44ae426082"
)
T = TypeVar("T")


class Asked(Protocol):
    """A server that tells what it was asked."""

    @property
    def last_request(self) -> Requested:
        """The last request."""
        ...

    @property
    def asked_times(self) -> int:
        """How many predictions were requested."""
        ...

    @property
    def embedded(self) -> list[str]:
        """The texts that were embedded."""
        ...


@dataclass(frozen=True)
class Subject:
    """An integration on a scripted server.

    Attributes:
        llm: Makes a language model; takes LlamaIndex's own settings, `temperature` and `api_key`.
        unreachable: Makes one on a server that is not there.
        embedding: Makes an embedding model; takes `instructed=True`. `None` if the integration has none.
        server: What was asked.
        left: Whether an answer was left by its reader, within two seconds.
    """

    llm: Callable[..., Any]
    unreachable: Callable[[], Any]
    embedding: Callable[..., Any] | None
    server: Asked
    left: Callable[[], bool]


Check = Callable[[Subject], Awaitable[None] | None]
CHECKS: dict[str, Check] = {}
"""Every check by its sentence."""

EMBEDDING_CHECKS: set[str] = set()


class UnsupportedError(Exception):
    """The integration has no such thing at all."""


def contract(sentence: str) -> Callable[[Check], Check]:
    """Add a check of language models."""

    def add(check: Check) -> Check:
        CHECKS[sentence] = check
        return check

    return add


def of_embeddings(sentence: str) -> Callable[[Callable[[Any, Asked], Awaitable[None] | None]], Any]:
    """Add a check of embedding models, which gets the way to make one."""

    def add(check: Callable[[Any, Asked], Awaitable[None] | None]) -> Any:
        def checked(subject: Subject) -> Awaitable[None] | None:
            if subject.embedding is None:
                raise UnsupportedError("no embedding model")
            return check(subject.embedding, subject.server)

        CHECKS[sentence] = checked
        EMBEDDING_CHECKS.add(sentence)
        return check

    return add


def run(check: Check, subject: Subject) -> None:
    """Run a check, awaited if need be."""
    found = check(subject)
    if inspect.isawaitable(found):

        async def wait() -> None:
            await asyncio.wait_for(found, 20)

        asyncio.run(wait())


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


class Box(BaseModel, Generic[T]):
    """Something in a box."""

    value: T


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"rain in {city}"


WEATHER = FunctionTool.from_defaults(weather)
PROMPT = PromptTemplate("{x}")


def asking(text: str, *blocks: Any) -> list[ChatMessage]:
    """Return a conversation of one question."""
    return [ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text=text), *blocks])]


def refused(call: Callable[[], Any]) -> Exception:
    """Return the error that a call must end with."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - peers raise all kinds
        return error
    raise AssertionError("nothing was said")


def texts_of(request: Requested) -> list[tuple[str, str]]:
    """Return who said what in a request."""
    assert request.history is not None, "a raw completion was asked for"
    return [
        (message["role"], "".join(part.get("text", "") for part in message["content"]))
        for message in request.history.to_dict()["messages"]
    ]


def llm_of(subject: Subject, **settings: Any) -> LLM:
    """Return a language model."""
    model: LLM = subject.llm(**settings)
    return model


# Answers --------------------------------------------------------------------------------------------------------------


@contract("`chat` and `achat` answer")
async def _chat(subject: Subject) -> None:
    llm = llm_of(subject)
    assert llm.chat(asking("count")).message.content == NUMBERS
    assert (await llm.achat(asking("count"))).message.content == NUMBERS


@contract("`complete` and `acomplete` answer, formatted or not")
async def _complete(subject: Subject) -> None:
    llm = llm_of(subject)
    assert llm.complete("count").text == NUMBERS
    assert (await llm.acomplete("count")).text == NUMBERS
    assert llm.complete("count", formatted=True).text == NUMBERS


@contract("`stream_chat`: deltas add up to cumulative messages")
def _stream_chat(subject: Subject) -> None:
    so_far = ""
    for chunk in llm_of(subject).stream_chat(asking("count")):
        so_far += chunk.delta or ""
        assert (chunk.message.content or "") == so_far
    assert so_far == NUMBERS


@contract("`astream_chat`: deltas add up to cumulative messages")
async def _astream_chat(subject: Subject) -> None:
    so_far = ""
    async for chunk in await llm_of(subject).astream_chat(asking("count")):
        so_far += chunk.delta or ""
        assert (chunk.message.content or "") == so_far
    assert so_far == NUMBERS


@contract("`stream_complete` and `astream_complete`: deltas add up to cumulative texts")
async def _stream_complete(subject: Subject) -> None:
    llm = llm_of(subject)
    found = list(llm.stream_complete("count"))
    assert "".join(chunk.delta or "" for chunk in found) == found[-1].text == NUMBERS
    awaited = [chunk async for chunk in await llm.astream_complete("count")]
    assert "".join(chunk.delta or "" for chunk in awaited) == awaited[-1].text == NUMBERS


@contract("an empty answer is one chunk at least")
def _empty(subject: Subject) -> None:
    found = list(llm_of(subject).stream_chat(asking("nothing")))
    assert found
    assert not found[-1].message.content


@contract("the server's words are kept in its errors, also in streams")
def _errors(subject: Subject) -> None:
    llm = llm_of(subject)
    assert "the engine gave up" in str(refused(lambda: llm.chat(asking("fail"))))
    assert "the engine gave up" in str(refused(lambda: list(llm.stream_chat(asking("fail")))))


@contract("a prediction that failed is not repeated")
def _no_repetition(subject: Subject) -> None:
    refused(lambda: llm_of(subject).chat(asking("fail")))
    assert subject.server.asked_times == 1


# Loops, cancelling ----------------------------------------------------------------------------------------------------


async def _ticks_during(work: Awaitable[Any]) -> int:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    await work
    ticker.cancel()
    return ticks


@contract("`achat` and `astream_chat` leave the event loop free")
async def _native_async(subject: Subject) -> None:
    llm = llm_of(subject)

    async def stream() -> None:
        async for _ in await llm.astream_chat(asking("slow")):
            pass

    assert await _ticks_during(llm.achat(asking("slow"))) > 20
    assert await _ticks_during(stream()) > 20


@contract("one object serves one event loop after the other")
def _loops(subject: Subject) -> None:
    llm = llm_of(subject)
    for _ in range(2):
        assert asyncio.run(llm.achat(asking("count"))).message.content == NUMBERS


@contract("leaving a stream stops the server")
def _leave(subject: Subject) -> None:
    stream = llm_of(subject).stream_chat(asking("for ever"))
    next(stream)
    stream.close()
    assert subject.left()


@contract("leaving an awaited stream stops the server")
async def _aleave(subject: Subject) -> None:
    async for _ in await llm_of(subject).astream_chat(asking("for ever")):
        break
    assert await asyncio.to_thread(subject.left)


# What LlamaIndex is told ----------------------------------------------------------------------------------------------


@contract("`metadata` asks no server")
def _metadata(subject: Subject) -> None:
    metadata = subject.unreachable().metadata
    assert metadata.is_chat_model


@contract("`metadata` has the window of the loaded model, after a first answer at the latest")
def _window(subject: Subject) -> None:
    llm = llm_of(subject)
    llm.chat(asking("count"))
    assert llm.metadata.context_window == WINDOW


@contract("`class_name` is the integration's own")
def _class_name(subject: Subject) -> None:
    assert llm_of(subject).class_name() not in {"base_component", "custom_llm", "LLM"}


@contract("tokens are counted, and once, on every path")
def _tokens(subject: Subject) -> None:
    counter = TokenCountingHandler()
    llm = llm_of(subject, callback_manager=CallbackManager([counter]))
    ways: tuple[Callable[[], Any], ...] = (
        lambda: llm.chat(asking("count")),
        lambda: list(llm.stream_chat(asking("count"))),
        lambda: llm.complete("count"),
        lambda: list(llm.stream_complete("count")),
    )
    for way in ways:
        counter.reset_counts()
        way()
        counts = [(each.prompt_token_count, each.completion_token_count) for each in counter.llm_token_counts]
        assert counts == [(4, 11)], counts


@contract("settings arrive: temperature, and a `temperature` above 1")
def _settings(subject: Subject) -> None:
    llm_of(subject, temperature=0.25).chat(asking("count"))
    assert subject.server.last_request.config.temperature == 0.25
    llm_of(subject, temperature=1.5).chat(asking("count"))
    assert subject.server.last_request.config.temperature == 1.5


@contract("an unknown setting is refused")
def _unknown_setting(subject: Subject) -> None:
    refused(lambda: llm_of(subject, temprature=0.5))


# Thoughts -------------------------------------------------------------------------------------------------------------


@contract("thoughts are a block, apart from the answer")
def _thoughts(subject: Subject) -> None:
    message = llm_of(subject).chat(asking("think")).message
    assert message.content == "Done now."
    assert [block.content for block in message.blocks if isinstance(block, ThinkingBlock)] == ["Let me see."]


@contract("streamed thoughts come as `thinking_delta`, also where nothing follows them")
def _thinking_deltas(subject: Subject) -> None:
    for prompt, thoughts in (("think", "Let me see."), ("think only", "Hmm, well.")):
        found = list(llm_of(subject).stream_chat(asking(prompt)))
        assert "".join(chunk.additional_kwargs.get("thinking_delta") or "" for chunk in found) == thoughts
        assert "".join(chunk.delta or "" for chunk in found) in {"Done now.", ""}


# Tools ----------------------------------------------------------------------------------------------------------------


def _tool_llm(subject: Subject, **settings: Any) -> Any:
    llm: Any = llm_of(subject, **settings)
    if not hasattr(llm, "chat_with_tools"):
        raise UnsupportedError("no tools")
    return llm


@contract("tool calls come with name, arguments and identifier")
def _calls(subject: Subject) -> None:
    llm = _tool_llm(subject)
    (call,) = llm.get_tool_calls_from_response(llm.chat_with_tools([WEATHER], user_msg="weather please"))
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Oslo"})
    assert call.tool_id


@contract("streamed tool calls come as well")
def _streamed_calls(subject: Subject) -> None:
    llm = _tool_llm(subject)
    *_, last = llm.stream_chat_with_tools([WEATHER], user_msg="weather please")
    (call,) = llm.get_tool_calls_from_response(last)
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Oslo"})


@contract("two equal calls are two, with identifiers of their own, streamed or not")
def _equal_calls(subject: Subject) -> None:
    llm = _tool_llm(subject)
    given: Any = {"tools": [WEATHER], "user_msg": "both", "allow_parallel_tool_calls": True}
    *_, last = llm.stream_chat_with_tools(**given)
    for response in (llm.chat_with_tools(**given), last):
        assert len({call.tool_id for call in llm.get_tool_calls_from_response(response)}) == 2


@contract("where one call is allowed, one comes")
def _one_call(subject: Subject) -> None:
    llm = _tool_llm(subject)
    response = llm.chat_with_tools([WEATHER], user_msg="both", allow_parallel_tool_calls=False)
    assert len(llm.get_tool_calls_from_response(response)) == 1


@contract("`tool_required` is asked for")
def _required(subject: Subject) -> None:
    _tool_llm(subject).chat_with_tools([WEATHER], user_msg="weather please", tool_required=True)
    assert subject.server.last_request.tool_choice == "required"


@contract("a named `tool_choice` works")
def _named_choice(subject: Subject) -> None:
    llm = _tool_llm(subject)
    response = llm.chat_with_tools([WEATHER], user_msg="weather please", tool_choice="weather")
    assert llm.get_tool_calls_from_response(response)[0].tool_name == "weather"


@contract("a tool whose name the wire does not take is found again")
def _generic_names(subject: Subject) -> None:
    response = _tool_llm(subject).predict_and_call([get_function_tool(Box[int])], user_msg="box")
    assert response.sources[0].raw_output == Box[int](value=3)


@contract("the history that was given stays as it is")
def _history(subject: Subject) -> None:
    history = asking("hello")
    _tool_llm(subject).chat_with_tools([WEATHER], user_msg="weather please", chat_history=history)
    assert len(history) == 1


@contract("the answer of a tool goes back with its call's identifier")
def _results(subject: Subject) -> None:
    llm = _tool_llm(subject)
    response = llm.chat_with_tools([WEATHER], user_msg="weather please")
    (call,) = llm.get_tool_calls_from_response(response)
    result = ChatMessage(role=MessageRole.TOOL, content="rain", additional_kwargs={"tool_call_id": call.tool_id})
    llm.chat_with_tools([WEATHER], chat_history=[*asking("weather please"), response.message, result])
    history = subject.server.last_request.history
    assert history is not None
    last = history.messages[-1].to_dict()["content"][0]
    assert (last["content"], last.get("toolCallId")) == ("rain", call.tool_id)


@contract("a call that cannot be read is an error, not the agent's final answer")
async def _broken_call(subject: Subject) -> None:
    agent = FunctionAgent(tools=[weather], llm=_tool_llm(subject))
    try:
        answer = await agent.run("broken")
    except Exception:  # noqa: BLE001 - whatever is said is said
        return
    raise AssertionError(f"the agent answered {str(answer)!r}")


# Structured answers ---------------------------------------------------------------------------------------------------


@contract("structured answers are made to fit by the server")
def _by_schema(subject: Subject) -> None:
    assert llm_of(subject).structured_predict(Person, PROMPT, x="person") == Person(name="Ann Lee", age=7)
    assert subject.server.last_request.config.structured


@contract("structured answers keep the system prompt, awaited or not")
async def _system_prompt(subject: Subject) -> None:
    llm = llm_of(subject, system_prompt="Be terse.")
    llm.structured_predict(Person, PROMPT, x="person")
    assert texts_of(subject.server.last_request)[0] == ("system", "Be terse.")
    await llm.astructured_predict(Person, PROMPT, x="person")
    assert texts_of(subject.server.last_request)[0] == ("system", "Be terse.")


@contract("structured answers stream, and end with the instance")
async def _structured_stream(subject: Subject) -> None:
    llm = llm_of(subject)
    found = list(llm.stream_structured_predict(Person, PROMPT, x="person"))
    assert found[-1] == Person(name="Ann Lee", age=7)
    assert len(found) > 2
    awaited = [each async for each in await llm.astream_structured_predict(Person, PROMPT, x="person")]
    assert awaited[-1] == found[-1]


# Blocks, histories ----------------------------------------------------------------------------------------------------


@contract("pictures are sent")
def _pictures(subject: Subject) -> None:
    llm_of(subject).chat(asking("look", ImageBlock(image=PNG)))
    assert subject.server.last_request.images == [digest(PNG)]


@contract("what cannot be sent is refused, not dropped")
def _audio(subject: Subject) -> None:
    refused(lambda: llm_of(subject).chat(asking("listen", AudioBlock(audio=b"RIFF0000WAVE", format="wav"))))


@contract("cache points do no harm")
def _cache_points(subject: Subject) -> None:
    llm_of(subject).chat(asking("count", CachePoint(cache_control=CacheControl(type="ephemeral"))))
    assert texts_of(subject.server.last_request) == [("user", "count")]


@contract("an answer leaves nothing in its message's `additional_kwargs`, and is sent back clean")
def _clean(subject: Subject) -> None:
    llm = llm_of(subject)
    *_, last = llm.stream_chat(asking("count"))
    assert not last.message.additional_kwargs
    assert json.loads(last.model_dump_json())["message"]["role"] == "assistant"
    llm.chat([*asking("count"), last.message, *asking("count")])
    assert texts_of(subject.server.last_request) == [("user", "count"), ("assistant", NUMBERS), ("user", "count")]


# Travelling -----------------------------------------------------------------------------------------------------------


@contract("a used object can be pickled, without a warning")
def _pickle(subject: Subject) -> None:
    llm = llm_of(subject)
    llm.chat(asking("count"))
    with silence():
        other = pickle.loads(pickle.dumps(llm))  # our own bytes
    assert other.chat(asking("count")).message.content == NUMBERS


@contract("a used object can be copied")
def _deepcopy(subject: Subject) -> None:
    llm = llm_of(subject)
    llm.chat(asking("count"))
    assert copy.deepcopy(llm).chat(asking("count")).message.content == NUMBERS


@contract("`to_dict` holds no secret")
def _secrets(subject: Subject) -> None:
    assert SECRET not in repr(llm_of(subject, api_key=SECRET).to_dict())


# Embeddings -----------------------------------------------------------------------------------------------------------


def embedding_of(make: Callable[..., Any], **settings: Any) -> BaseEmbedding:
    """Return an embedding model."""
    model: BaseEmbedding = make(**settings)
    return model


@of_embeddings("embeddings: questions, texts and batches have vectors, in order")
async def _embed(make: Callable[..., Any], _server: Asked) -> None:
    model = embedding_of(make)
    texts = [f"text {number}" for number in range(25)]
    found = model.get_text_embedding_batch(texts)
    assert [len(vector) for vector in found] == [16] * 25
    assert all(type(number) is float for number in found[0])
    assert found[7] == model.get_text_embedding(texts[7])
    assert await model.aget_text_embedding_batch(texts) == found
    assert len(await model.aget_query_embedding("text")) == 16


@of_embeddings("embeddings: texts are embedded as they are")
def _as_they_are(make: Callable[..., Any], server: Asked) -> None:
    embedding_of(make).get_text_embedding("two\nlines")
    assert server.embedded == ["two\nlines"]


@of_embeddings("embeddings: awaiting one leaves the event loop free")
async def _free_loop(make: Callable[..., Any], _server: Asked) -> None:
    assert await _ticks_during(embedding_of(make).aget_text_embedding("slow rain")) > 20


@of_embeddings("embeddings: one object serves one event loop after the other")
def _embedding_loops(make: Callable[..., Any], _server: Asked) -> None:
    model = embedding_of(make)
    for _ in range(2):
        assert len(asyncio.run(model.aget_text_embedding("rain"))) == 16


@of_embeddings("embeddings: a cache keeps questions and texts apart")
def _cache(make: Callable[..., Any], _server: Asked) -> None:
    model = embedding_of(make, instructed=True, embeddings_cache=SimpleKVStore())
    assert model.get_text_embedding("rain") != model.get_query_embedding("rain")


@of_embeddings("embeddings: a used object can be pickled and copied, without a warning")
def _embedding_travel(make: Callable[..., Any], _server: Asked) -> None:
    model = embedding_of(make)
    vector = model.get_text_embedding("rain")
    with silence():
        others = pickle.loads(pickle.dumps(model)), copy.deepcopy(model)
    for other in others:
        assert other.get_text_embedding("rain") == vector
