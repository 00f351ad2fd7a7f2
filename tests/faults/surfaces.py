"""The ways in which programs use the package, behind one interface, so that one test body serves them all.

A surface opens a subject, which is called like a function. Async surfaces run the call in an event loop of their own.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from langchain_core.documents import Document
from langchain_core.exceptions import ModelError
from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

import lmstudio_integrations as lms
from lmstudio_integrations import langchain, llama_index
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.faults.conversations import Family, of_model, of_user
from tests.support.adapters import as_fields, classes

T = TypeVar("T")
Kind = Literal["chat", "embedding", "reranker"]
Timeouts = Mapping[str, float]
NO_TIMEOUTS: Timeouts = {}
ToolChoice = Literal["auto", "required"]
Way = Callable[..., Iterator[Any] | AsyncIterator[Any]]
"""Calls a model handle or an adapter with a prompt, and yields what it delivers, as it is delivered.

Keyword arguments go to the function. A prediction yields its response last.
"""

DIMENSIONS = 8
"""Numbers of a vector."""

TEXTS = 3
"""How many texts each call of an embedding surface embeds, and of a reranker scores. The vectors of the former are its
first, middle and last packet.
"""

TIMEOUT_NAMES = frozenset(name for name in TIMEOUTS if name.endswith("timeout"))


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
        return {
            "config": config,
            **dict.fromkeys(("rescue_tool_calls", "repair_tool_calls", "required_tool_fallback"), True),
        }

    def limit(self, max_tokens: int) -> dict[str, Any]:
        """Return the arguments that limit the response."""
        limit = {"max_tokens": max_tokens}
        return {"config": limit} if self.family == "native" else limit

    def prompt(self, text: str, earlier: Sequence[Any]) -> Any:
        """Return what it is called with: a text, or a conversation that ends with it."""
        if self.kind == "chat" and (earlier or self.family == "LlamaIndex"):
            return [*earlier, of_user(self.family, text)]
        return text

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
    """A client with a model handle, or an adapter; keeps its connection until it is closed.

    Attributes:
        earlier: The messages before the text of the next call.
        response: The response of the last prediction.
    """

    def __init__(
        self, surface: Surface, host: str | list[str], model: str, runner: Any, retries: int = 0, **settings: Any
    ) -> None:
        self._surface = surface
        self._runner = runner
        self._client: Any = None
        self.earlier: list[Any] = []
        self.response: Any = None
        if surface.family == "native":
            assert isinstance(host, str), "a native client has one host"
            self._client = lms.AsyncClient(host) if surface.is_async else lms.Client(host)
            namespace = self._client.embedding if surface.kind == "embedding" else self._client.llm
            self.model = namespace.lazy_model(model, **settings)
        else:
            (make,) = classes(surface.family, surface.kind)
            self.model = make(host=host, model=model, max_retries=retries, **settings)

    def survey_hosts(self) -> None:
        """Ask several hosts what they have; otherwise the first call goes to the one that responds first."""
        if self._surface.is_async:
            self._runner.run(self.model.ahosts())
        else:
            self.model.hosts()

    def call(self, text: str, timeouts: Timeouts, received: list[Any], **options: Any) -> None:
        """Ask about a text, with the options of `parts`; append what is delivered, and what called tools return."""
        parts = self.parts(text, timeouts, **options)
        if isinstance(parts, AsyncIterator):
            self.run(self._collect(parts, received))
        else:
            for part in parts:
                self._receive(part, received)

    async def _collect(self, parts: AsyncIterator[Any], received: list[Any]) -> None:
        async for part in parts:
            self._receive(part, received)

    def _receive(self, part: Any, received: list[Any]) -> None:
        """Take a part before the next comes: what came before an error is kept."""
        if isinstance(part, str | list):
            received.append(part)
        else:
            self.response = part
            received += _results(part)

    def continue_after(self, text: str) -> None:
        """Let the next call continue the conversation that the last one was about."""
        self.earlier += [of_user(self._surface.family, text), of_model(self.response)]

    def parts(
        self,
        text: str,
        timeouts: Timeouts = NO_TIMEOUTS,
        *,
        tool_choice: ToolChoice | None = None,
        max_tokens: int | None = None,
        **given: Any,
    ) -> Any:
        """Return an iterator over what a call delivers; an async one for an async surface.

        Args:
            text: The text.
            timeouts: The timeouts.
            tool_choice: The choice with which the tool is offered, if it is.
            max_tokens: The most tokens of the response.
            given: More arguments of the function.
        """
        if tool_choice is not None:
            given |= self._surface.offer(tool_choice)
        if max_tokens is not None:
            given |= self._surface.limit(max_tokens)
        return self._surface.way(self._limited(timeouts), self._surface.prompt(text, self.earlier), **given)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop of an async surface."""
        result: T = self._runner.run(work)
        return result

    def _limited(self, timeouts: Timeouts) -> Any:
        if self._client is not None:
            return self.model.with_timeouts(**timeouts)
        for name, value in as_fields(timeouts).items():
            setattr(self.model, name, value)
        return self.model

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        used = self._client or self.model
        if self._surface.is_async:
            self._runner.run(used.aclose())
        else:
            used.close()
        self._runner.close()


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

MISFIT: dict[str, Any] = {"name": "population", "arguments": {"city": "Bergen"}}
"""A call that only the model can mend."""


def run_tool(name: str, arguments: dict[str, Any]) -> str:
    """Run the tool of a call, as a program does; return why it does not fit, if it does not."""
    assert name == _FUNCTION.name, "no other tool was offered"
    try:
        return str(population(**_FUNCTION.check(arguments)))
    except lms.LMStudioValueError as error:
        return str(error)


def _results(response: Any) -> list[str]:
    """Run the tools that a response calls."""
    match response:
        case lms.PredictionResult():
            return [run_tool(call.name, call.arguments or {}) for call in response.tool_call_requests]
        case ChatResponse():
            blocks: list[Any] = [each for each in response.message.blocks if each.block_type == "tool_call"]
            return [run_tool(each.tool_name, each.tool_kwargs) for each in blocks]
        case _:
            return [run_tool(call["name"], call["args"]) for call in response.tool_calls]


# The ways -----------------------------------------------------------------------------------------------------------


def _respond(model: Any, prompt: Any, **given: Any) -> Iterator[Any]:
    response = model.respond(prompt, check_context=True, **given)
    yield from (response.content, response)


def _text_of(fragment: lms.LlmPredictionFragment) -> str:
    return fragment.content if fragment.reasoning_type == "none" else ""


def _respond_stream(model: Any, prompt: Any, **given: Any) -> Iterator[Any]:
    stream = model.respond_stream(prompt, check_context=True, **given)
    for fragment in stream:
        yield _text_of(fragment)
    yield stream.result()


async def _arespond(model: Any, prompt: Any, **given: Any) -> AsyncIterator[Any]:
    response = await model.respond(prompt, check_context=True, **given)
    for part in (response.content, response):
        yield part


async def _arespond_stream(model: Any, prompt: Any, **given: Any) -> AsyncIterator[Any]:
    stream = model.respond_stream(prompt, check_context=True, **given)
    async for fragment in stream:
        yield _text_of(fragment)
    yield stream.result()


# In the second round the model has no tools, and repeats what the tool has returned.
_ACT: dict[str, Any] = {"tools": [population], "max_prediction_rounds": 2, "check_context": True}


def _act(model: Any, prompt: Any, **given: Any) -> Iterator[Any]:
    rounds: list[lms.PredictionResult] = []
    model.act(prompt, on_prediction_completed=rounds.append, **_ACT, **given)
    yield from (*(each.content for each in rounds), rounds[-1])


async def _aact(model: Any, prompt: Any, **given: Any) -> AsyncIterator[Any]:
    rounds: list[lms.PredictionResult] = []
    await model.act(prompt, on_prediction_completed=rounds.append, **_ACT, **given)
    for part in (*(each.content for each in rounds), rounds[-1]):
        yield part


def _invoke(model: ChatLMStudio, prompt: Any, **given: Any) -> Iterator[Any]:
    message = model.invoke(prompt, **given)
    yield from (message.text, message)


def _stream(model: ChatLMStudio, prompt: Any, **given: Any) -> Iterator[Any]:
    chunks: list[Any] = []
    for chunk in model.stream(prompt, **given):
        chunks.append(chunk)
        yield chunk.text
    yield reduce(add, chunks)


async def _ainvoke(model: ChatLMStudio, prompt: Any, **given: Any) -> AsyncIterator[Any]:
    message = await model.ainvoke(prompt, **given)
    for part in (message.text, message):
        yield part


async def _astream(model: ChatLMStudio, prompt: Any, **given: Any) -> AsyncIterator[Any]:
    chunks: list[Any] = []
    async for chunk in model.astream(prompt, **given):
        chunks.append(chunk)
        yield chunk.text
    yield reduce(add, chunks)


def _chat(model: LMStudio, prompt: Any, **given: Any) -> Iterator[Any]:
    response = model.chat(prompt, **given)
    yield from (response.message.content or "", response)


def _stream_chat(model: LMStudio, prompt: Any, **given: Any) -> Iterator[Any]:
    chunk: Any = None
    for chunk in model.stream_chat(prompt, **given):
        yield chunk.delta or ""
    yield chunk


async def _achat(model: LMStudio, prompt: Any, **given: Any) -> AsyncIterator[Any]:
    response = await model.achat(prompt, **given)
    for part in (response.message.content or "", response):
        yield part


async def _astream_chat(model: LMStudio, prompt: Any, **given: Any) -> AsyncIterator[Any]:
    chunk: Any = None
    async for chunk in await model.astream_chat(prompt, **given):
        yield chunk.delta or ""
    yield chunk


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
