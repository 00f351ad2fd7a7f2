"""The ways in which programs use the package, behind one interface, so that one test body serves them all.

A surface opens a subject, which is called like a function. Async surfaces run the call in an event loop of their own.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from langchain_core.exceptions import ModelError
from llama_index.core.base.llms.types import ChatMessage

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.faults.units import TEXTS
from tests.support.adapters import classes

T = TypeVar("T")
Family = Literal["native", "LangChain", "LlamaIndex"]
Kind = Literal["chat", "embedding"]
Timeouts = Mapping[str, float]
NO_TIMEOUTS: Timeouts = {}
Way = Callable[[Any, str], Iterator[Any] | AsyncIterator[Any]]
"""Calls a model handle or an adapter, and yields what it delivers, as it is delivered."""

DIMENSIONS = 8
"""Numbers of a vector."""

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
            namespace = self._client.llm if surface.kind == "chat" else self._client.embedding
            self.model = namespace.lazy_model(model)
        else:
            (make,) = classes(surface.family, surface.kind)
            self.model = make(host=host, model=model, max_retries=retries)

    def survey_hosts(self) -> None:
        """Ask several hosts what they have; otherwise the first call goes to the one that responds first."""
        self.model.hosts()

    def call(self, text: str, timeouts: Timeouts, received: list[Any]) -> None:
        """Ask about a text; append what is delivered."""
        parts = self.parts(text, timeouts)
        if isinstance(parts, AsyncIterator):
            self.run(_collect(parts, received))
        else:
            for part in parts:
                received.append(part)  # noqa: PERF402 - what came before an error is kept

    def parts(self, text: str, timeouts: Timeouts = NO_TIMEOUTS) -> Any:
        """Return an iterator over what a call delivers; an async one for an async surface."""
        return self._surface.way(self._limited(timeouts), text)

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


def expected(kind: Kind, text: str) -> list[Any]:
    """Return the right response: the words of the prompt, or the vectors of the texts."""
    return list(words.split(text)) if kind == "chat" else [words.embed(each, DIMENSIONS) for each in texts_of(text)]


def joined(kind: Kind, parts: list[Any]) -> Any:
    """Return parts of a response as one."""
    return "".join(parts) if kind == "chat" else parts


# The ways -----------------------------------------------------------------------------------------------------------


def _respond(model: Any, text: str) -> Iterator[str]:
    yield model.respond(text, check_context=True).content


def _respond_stream(model: Any, text: str) -> Iterator[str]:
    for fragment in model.respond_stream(text, check_context=True):
        yield fragment.content


async def _arespond(model: Any, text: str) -> AsyncIterator[str]:
    yield (await model.respond(text, check_context=True)).content


async def _arespond_stream(model: Any, text: str) -> AsyncIterator[str]:
    async for fragment in model.respond_stream(text, check_context=True):
        yield fragment.content


def _invoke(model: ChatLMStudio, text: str) -> Iterator[str]:
    yield model.invoke(text).text


def _stream(model: ChatLMStudio, text: str) -> Iterator[str]:
    for chunk in model.stream(text):
        yield chunk.text


async def _ainvoke(model: ChatLMStudio, text: str) -> AsyncIterator[str]:
    yield (await model.ainvoke(text)).text


async def _astream(model: ChatLMStudio, text: str) -> AsyncIterator[str]:
    async for chunk in model.astream(text):
        yield chunk.text


def _messages(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def _chat(model: LMStudio, text: str) -> Iterator[str]:
    yield model.chat(_messages(text)).message.content or ""


def _stream_chat(model: LMStudio, text: str) -> Iterator[str]:
    for chunk in model.stream_chat(_messages(text)):
        yield chunk.delta or ""


async def _achat(model: LMStudio, text: str) -> AsyncIterator[str]:
    yield (await model.achat(_messages(text))).message.content or ""


async def _astream_chat(model: LMStudio, text: str) -> AsyncIterator[str]:
    async for chunk in await model.astream_chat(_messages(text)):
        yield chunk.delta or ""


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


SURFACES = (
    Surface("respond", "native", "chat", _respond),
    Surface("respond_stream", "native", "chat", _respond_stream),
    Surface("async respond", "native", "chat", _arespond),
    Surface("async respond_stream", "native", "chat", _arespond_stream),
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
)
"""Every way, sync and async, whole and streamed."""
