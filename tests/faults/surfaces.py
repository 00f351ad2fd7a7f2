"""The ways in which programs use the package, behind one interface, so that one test body serves them all.

A surface opens a subject, which is called like a function. Async surfaces run the call in an event loop of their own.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from langchain_core.documents import Document
from langchain_core.exceptions import ModelError
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

import lmstudio_integrations as lms
from lmstudio_integrations import langchain, llama_index
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.support.adapters import classes

T = TypeVar("T")
Family = Literal["native", "LangChain", "LlamaIndex"]
Kind = Literal["chat", "embedding", "reranker"]
Timeouts = Mapping[str, float]
NO_TIMEOUTS: Timeouts = {}
ToolChoice = Literal["auto", "required"]
Way = Callable[..., Iterator[Any] | AsyncIterator[Any]]
"""Calls a model handle or an adapter with a text, and yields what it delivers, as it is delivered.

Keyword arguments go to the function. The tools that the response calls are run, and what they return is yielded last.
"""

DIMENSIONS = 8
"""Numbers of a vector."""

TEXTS = 3
"""How many texts each call of an embedding surface embeds, and of a reranker scores. The vectors of the former are its
first, middle and last packet.
"""

TIMEOUT_NAMES = frozenset(name for name in ChatLMStudio.model_fields if name.endswith("timeout"))


@dataclass(frozen=True, slots=True)
class Surface:
    """One way to call.

    Attributes:
        name: The function.
        family: Whose interface it is.
        kind: What it returns.
        way: How it is called.
    """

    name: str
    family: Family
    kind: Kind
    way: Way

    @property
    def is_async(self) -> bool:
        """Whether it is awaited."""
        return inspect.isasyncgenfunction(self.way)

    @property
    def streams(self) -> bool:
        """Whether it delivers a response in parts."""
        return "stream" in self.name

    def offer(self, choice: ToolChoice) -> dict[str, Any]:
        """Return the arguments that offer the tool, and that switch on what helps a call to come."""
        if self.family != "native":
            return {"tools": [TOOL], "tool_choice": choice}
        tools, wire_choice = {"type": "toolArray", "tools": [TOOL]}, {"type": "generic", "mode": choice}
        config = {"raw_tools": tools, "tool_choice": wire_choice}
        if self.way in {_act, _aact}:
            return {"config": config}
        return {"config": config, "rescue_tool_calls": True, "required_tool_fallback": True}

    @property
    def has_retries(self) -> bool:
        """Whether it has `max_retries`."""
        return self.family != "native"

    @property
    def has_hosts(self) -> bool:
        """Whether it takes several hosts."""
        return self.family != "native"

    @property
    def error_base(self) -> type[BaseException]:
        """The class of the framework that every error is an instance of, besides ours."""
        return ModelError if self.family == "LangChain" else lms.LMStudioError

    def __str__(self) -> str:
        return f"{self.family} {self.name}"


class Subject:
    """A client with a model handle, or an adapter; keeps its connection until it is closed."""

    def __init__(self, surface: Surface, host: str | list[str], model: str, retries: int = 0) -> None:
        self._surface = surface
        self._runner = asyncio.Runner() if surface.is_async else None
        self._client: Any = None
        if surface.family == "native":
            assert isinstance(host, str), "a native client has one host"
            self._client = lms.AsyncClient(host) if surface.is_async else lms.Client(host)
            namespace = self._client.embedding if surface.kind == "embedding" else self._client.llm
            self.model = namespace.lazy_model(model)
        else:
            (make,) = classes(surface.family, surface.kind)
            self.model = make(host=host, model=model, max_retries=retries)

    def survey_hosts(self) -> None:
        """Ask several hosts what they have; otherwise the first call goes to the one that responds first."""
        self.model.hosts()

    def call(self, text: str, timeouts: Timeouts, received: list[Any], tool_choice: ToolChoice | None = None) -> None:
        """Ask about a text, with the tool if there is a choice; append what is delivered."""
        parts = self.parts(text, timeouts, tool_choice)
        if isinstance(parts, AsyncIterator):
            self.run(_collect(parts, received))
        else:
            for part in parts:
                received.append(part)  # noqa: PERF402 - what came before an error is kept

    def parts(self, text: str, timeouts: Timeouts = NO_TIMEOUTS, tool_choice: ToolChoice | None = None) -> Any:
        """Return an iterator over what a call delivers; an async one for an async surface."""
        offered = {} if tool_choice is None else self._surface.offer(tool_choice)
        return self._surface.way(self._limited(timeouts), text, **offered)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop of an async surface."""
        assert self._runner is not None, "an async surface has a runner"
        return self._runner.run(work)

    def _limited(self, timeouts: Timeouts) -> Any:
        if self._client is not None:
            return self.model.with_timeouts(**timeouts)
        for name, seconds in timeouts.items():
            setattr(self.model, name, seconds)
        return self.model

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is None:
            self.model.close()
        elif self._runner is None:
            self._client.close()
        else:
            self._runner.run(self._client.aclose())
        if self._runner is not None:
            self._runner.close()


async def _collect(parts: AsyncIterator[Any], received: list[Any]) -> None:
    async for part in parts:
        received.append(part)  # noqa: PERF401 - as above


def texts_of(text: str) -> list[str]:
    """Return what an embedding surface embeds."""
    return [f"{text} {number}" for number in range(TEXTS)]


def ranked_texts_of(text: str) -> list[str]:
    """Return what a reranker compares with a text, best first."""
    return [text.rsplit(" ", number)[0] for number in range(TEXTS)]


def expected(kind: Kind, text: str) -> list[Any]:
    """Return the right response: the words of the prompt, the vectors of the texts, or the texts in their order."""
    if kind == "chat":
        return list(words.split(text))
    return [words.embed(each, DIMENSIONS) for each in texts_of(text)] if kind == "embedding" else ranked_texts_of(text)


def joined(kind: Kind, parts: list[Any]) -> Any:
    """Return parts of a response as one."""
    return "".join(parts) if kind == "chat" else parts


# The tool -----------------------------------------------------------------------------------------------------------


def population(city: Literal["Oslo"]) -> int:
    """Return how many people live in a city."""
    return 709_037


_FUNCTION = lms.ToolFunctionDef.from_callable(population)
TOOL = _FUNCTION.to_tool().to_dict()
CALL: dict[str, Any] = {"name": "population", "arguments": {"city": "Oslo"}}
"""The one call that fits."""


def run_tool(name: str, arguments: dict[str, Any]) -> str:
    """Run the tool of a call, as a program does."""
    assert name == _FUNCTION.name, "no other tool was offered"
    return str(population(**_FUNCTION.check(arguments)))


TOOL_RESULT = run_tool(**CALL)


def _results(response: lms.PredictionResult) -> list[str]:
    return [run_tool(call.name, call.arguments or {}) for call in response.tool_call_requests]


def _results_of_message(message: Any) -> list[str]:
    return [run_tool(call["name"], call["args"]) for call in message.tool_calls]


def _results_of_chunks(chunks: list[Any]) -> list[str]:
    return _results_of_message(reduce(add, chunks))


def _results_of_response(response: Any) -> list[str]:
    blocks = response.message.blocks
    return [run_tool(each.tool_name, each.tool_kwargs) for each in blocks if each.block_type == "tool_call"]


# The ways -----------------------------------------------------------------------------------------------------------


def _respond(model: Any, text: str, **offered: Any) -> Iterator[str]:
    response = model.respond(text, check_context=True, **offered)
    yield from (response.content, *_results(response))


def _respond_stream(model: Any, text: str, **offered: Any) -> Iterator[str]:
    stream = model.respond_stream(text, check_context=True, **offered)
    for fragment in stream:
        yield fragment.content
    yield from _results(stream.result())


async def _arespond(model: Any, text: str, **offered: Any) -> AsyncIterator[str]:
    response = await model.respond(text, check_context=True, **offered)
    for part in (response.content, *_results(response)):
        yield part


async def _arespond_stream(model: Any, text: str, **offered: Any) -> AsyncIterator[str]:
    stream = model.respond_stream(text, check_context=True, **offered)
    async for fragment in stream:
        yield fragment.content
    for result in _results(stream.result()):
        yield result


# In the second round the model has no tools, and repeats what the tool has returned.
_ACT: dict[str, Any] = {"tools": [population], "max_prediction_rounds": 2, "check_context": True}


def _act(model: Any, text: str, **offered: Any) -> Iterator[str]:
    rounds: list[lms.PredictionResult] = []
    model.act(text, on_prediction_completed=rounds.append, **_ACT, **offered)
    yield from (each.content for each in rounds)


async def _aact(model: Any, text: str, **offered: Any) -> AsyncIterator[str]:
    rounds: list[lms.PredictionResult] = []
    await model.act(text, on_prediction_completed=rounds.append, **_ACT, **offered)
    for each in rounds:
        yield each.content


def _invoke(model: ChatLMStudio, text: str, **offered: Any) -> Iterator[str]:
    message = model.invoke(text, **offered)
    yield from (message.text, *_results_of_message(message))


def _stream(model: ChatLMStudio, text: str, **offered: Any) -> Iterator[str]:
    chunks: list[Any] = []
    for chunk in model.stream(text, **offered):
        chunks.append(chunk)
        yield chunk.text
    yield from _results_of_chunks(chunks)


async def _ainvoke(model: ChatLMStudio, text: str, **offered: Any) -> AsyncIterator[str]:
    message = await model.ainvoke(text, **offered)
    for part in (message.text, *_results_of_message(message)):
        yield part


async def _astream(model: ChatLMStudio, text: str, **offered: Any) -> AsyncIterator[str]:
    chunks: list[Any] = []
    async for chunk in model.astream(text, **offered):
        chunks.append(chunk)
        yield chunk.text
    for result in _results_of_chunks(chunks):
        yield result


def _messages(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def _chat(model: LMStudio, text: str, **offered: Any) -> Iterator[str]:
    response = model.chat(_messages(text), **offered)
    yield from (response.message.content or "", *_results_of_response(response))


def _stream_chat(model: LMStudio, text: str, **offered: Any) -> Iterator[str]:
    chunk: Any = None
    for chunk in model.stream_chat(_messages(text), **offered):
        yield chunk.delta or ""
    yield from _results_of_response(chunk)


async def _achat(model: LMStudio, text: str, **offered: Any) -> AsyncIterator[str]:
    response = await model.achat(_messages(text), **offered)
    for part in (response.message.content or "", *_results_of_response(response)):
        yield part


async def _astream_chat(model: LMStudio, text: str, **offered: Any) -> AsyncIterator[str]:
    chunk: Any = None
    async for chunk in await model.astream_chat(_messages(text), **offered):
        yield chunk.delta or ""
    for result in _results_of_response(chunk):
        yield result


def _embed(model: Any, text: str) -> Iterator[list[float]]:
    yield from model.embed(texts_of(text))


async def _aembed(model: Any, text: str) -> AsyncIterator[list[float]]:
    for vector in await model.embed(texts_of(text)):
        yield vector


def _embed_documents(model: LMStudioEmbeddings, text: str) -> Iterator[list[float]]:
    yield from model.embed_documents(texts_of(text))


async def _aembed_documents(model: LMStudioEmbeddings, text: str) -> AsyncIterator[list[float]]:
    for vector in await model.aembed_documents(texts_of(text)):
        yield vector


def _get_text_embedding_batch(model: LMStudioEmbedding, text: str) -> Iterator[list[float]]:
    yield from model.get_text_embedding_batch(texts_of(text))


async def _aget_text_embedding_batch(model: LMStudioEmbedding, text: str) -> AsyncIterator[list[float]]:
    for vector in await model.aget_text_embedding_batch(texts_of(text)):
        yield vector


def _rerank(model: Any, text: str) -> Iterator[str]:
    texts = ranked_texts_of(text)[::-1]
    yield from (texts[each.index] for each in model.rerank(text, texts))


async def _arerank(model: Any, text: str) -> AsyncIterator[str]:
    texts = ranked_texts_of(text)[::-1]
    for each in await model.rerank(text, texts):
        yield texts[each.index]


def _documents(text: str) -> list[Document]:
    return [Document(each) for each in reversed(ranked_texts_of(text))]


def _compress_documents(model: langchain.LMStudioReranker, text: str) -> Iterator[str]:
    yield from (each.page_content for each in model.compress_documents(_documents(text), text))


async def _acompress_documents(model: langchain.LMStudioReranker, text: str) -> AsyncIterator[str]:
    for each in await model.acompress_documents(_documents(text), text):
        yield each.page_content


def _nodes(text: str) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=each)) for each in reversed(ranked_texts_of(text))]


def _postprocess_nodes(model: llama_index.LMStudioReranker, text: str) -> Iterator[str]:
    yield from (each.text for each in model.postprocess_nodes(_nodes(text), QueryBundle(text)))


async def _apostprocess_nodes(model: llama_index.LMStudioReranker, text: str) -> AsyncIterator[str]:
    for each in await model.apostprocess_nodes(_nodes(text), QueryBundle(text)):
        yield each.text


SURFACES = (
    Surface("respond", "native", "chat", _respond),
    Surface("respond_stream", "native", "chat", _respond_stream),
    Surface("async respond", "native", "chat", _arespond),
    Surface("async respond_stream", "native", "chat", _arespond_stream),
    Surface("act", "native", "chat", _act),
    Surface("async act", "native", "chat", _aact),
    Surface("invoke", "LangChain", "chat", _invoke),
    Surface("stream", "LangChain", "chat", _stream),
    Surface("ainvoke", "LangChain", "chat", _ainvoke),
    Surface("astream", "LangChain", "chat", _astream),
    Surface("chat", "LlamaIndex", "chat", _chat),
    Surface("stream_chat", "LlamaIndex", "chat", _stream_chat),
    Surface("achat", "LlamaIndex", "chat", _achat),
    Surface("astream_chat", "LlamaIndex", "chat", _astream_chat),
    Surface("embed", "native", "embedding", _embed),
    Surface("async embed", "native", "embedding", _aembed),
    Surface("embed_documents", "LangChain", "embedding", _embed_documents),
    Surface("aembed_documents", "LangChain", "embedding", _aembed_documents),
    Surface("get_text_embedding_batch", "LlamaIndex", "embedding", _get_text_embedding_batch),
    Surface("aget_text_embedding_batch", "LlamaIndex", "embedding", _aget_text_embedding_batch),
    Surface("rerank", "native", "reranker", _rerank),
    Surface("async rerank", "native", "reranker", _arerank),
    Surface("compress_documents", "LangChain", "reranker", _compress_documents),
    Surface("acompress_documents", "LangChain", "reranker", _acompress_documents),
    Surface("postprocess_nodes", "LlamaIndex", "reranker", _postprocess_nodes),
    Surface("apostprocess_nodes", "LlamaIndex", "reranker", _apostprocess_nodes),
)
"""Every way, sync and async, whole and streamed."""
