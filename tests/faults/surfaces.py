"""The ways in which programs use the package, behind one interface, so that one test body serves them all.

A surface opens a subject, which is called like a function. Async surfaces run the call in an event loop of their own.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
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
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.emulator.engines.scripted import words
from tests.faults.conversations import Family, of_model, of_user
from tests.support.adapters import classes
from tools.leaves import has_leaf

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
        self.model.timeouts = timeouts
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

Arguments = Callable[[Any], tuple[Any, ...]]
"""Makes the arguments of a method from the prompt."""


def _whole(
    family: Family,
    kind: Kind,
    method: str,
    parts: Callable[[Any, Any], Iterable[Any]],
    arguments: Arguments = lambda prompt: (prompt,),
    **always: Any,
) -> tuple[Surface, Surface]:
    """Return the two ways to a method that returns all at once, of which, and of the prompt, the parts are made."""

    def call(model: Any, prompt: Any, **given: Any) -> Iterator[Any]:
        yield from parts(getattr(model, method)(*arguments(prompt), **always, **given), prompt)

    async def acall(model: Any, prompt: Any, **given: Any) -> AsyncIterator[Any]:
        result = await getattr(model, _async_name(family, method))(*arguments(prompt), **always, **given)
        for part in parts(result, prompt):
            yield part

    return _surfaces(family, kind, method, call, acall)


def _streamed(
    family: Family,
    method: str,
    text_of: Callable[[Any], str],
    response_of: Callable[[Any, list[Any]], Any],
    **always: Any,
) -> tuple[Surface, Surface]:
    """Return the two ways to a method that returns a stream; its chunks are texts, and it and they the response."""

    def call(model: Any, prompt: Any, **given: Any) -> Iterator[Any]:
        stream, chunks = getattr(model, method)(prompt, **always, **given), list[Any]()
        for chunk in stream:
            chunks.append(chunk)
            yield text_of(chunk)
        yield response_of(stream, chunks)

    async def acall(model: Any, prompt: Any, **given: Any) -> AsyncIterator[Any]:
        stream, chunks = getattr(model, _async_name(family, method))(prompt, **always, **given), list[Any]()
        if inspect.isawaitable(stream):
            stream = await stream
        async for chunk in stream:
            chunks.append(chunk)
            yield text_of(chunk)
        yield response_of(stream, chunks)

    return _surfaces(family, "chat", method, call, acall)


def _async_name(family: Family, method: str) -> str:
    """Return the name of the async method: the native clients have the same names."""
    return method if family == "native" else f"a{method}"


def _surfaces(family: Family, kind: Kind, method: str, call: Way, acall: Way) -> tuple[Surface, Surface]:
    async_name = f"async {method}" if family == "native" else _async_name(family, method)
    return Surface(method, family, kind, call), Surface(async_name, family, kind, acall)


def _text_of(fragment: lms.LlmPredictionFragment) -> str:
    return fragment.content if fragment.reasoning_type == "none" else ""


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


def _vectors(vectors: list[list[float]], _text: str) -> list[list[float]]:
    return vectors


def _texts(text: str) -> tuple[list[str]]:
    return (texts_of(text),)


def _worst_first(text: str) -> list[str]:
    return ranked_texts_of(text)[::-1]


RERANKERS = (
    *_whole(
        "native",
        "reranker",
        "rerank",
        lambda found, text: [_worst_first(text)[each.index] for each in found],
        lambda text: (text, _worst_first(text)),
    ),
    *_whole(
        "LangChain",
        "reranker",
        "compress_documents",
        lambda documents, _: [each.page_content for each in documents],
        lambda text: ([*map(Document, _worst_first(text))], text),
    ),
    *_whole(
        "LlamaIndex",
        "reranker",
        "postprocess_nodes",
        lambda nodes, _: [each.text for each in nodes],
        lambda text: ([NodeWithScore(node=TextNode(text=each)) for each in _worst_first(text)], QueryBundle(text)),
    ),
)

SURFACES = (
    *_whole("native", "chat", "respond", lambda found, _: (found.content, found), check_context=True),
    *_streamed("native", "respond_stream", _text_of, lambda stream, _: stream.result(), check_context=True),
    *(_surfaces("native", "chat", "act", _act, _aact) if has_leaf("tool_loop") else ()),
    *_whole("LangChain", "chat", "invoke", lambda message, _: (message.text, message)),
    *_streamed("LangChain", "stream", lambda chunk: chunk.text, lambda _, chunks: reduce(add, chunks)),
    *_whole("LlamaIndex", "chat", "chat", lambda response, _: (response.message.content or "", response)),
    *_streamed("LlamaIndex", "stream_chat", lambda chunk: chunk.delta or "", lambda _, chunks: chunks[-1]),
    *_whole("native", "embedding", "embed", _vectors, _texts),
    *_whole("LangChain", "embedding", "embed_documents", _vectors, _texts),
    *_whole("LlamaIndex", "embedding", "get_text_embedding_batch", _vectors, _texts),
    *(RERANKERS if has_leaf("decisions") else ()),
)
"""Every way, sync and async, whole and streamed; of leaves, if they are there."""
