"""Defects of a LangChain integration: one for each check that all integrations pass, to show that the check can fail.

A defect changes this package's classes in one place: the settings, the request, the response, or a method.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from inspect import isfunction
from typing import Any, ClassVar

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda

from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from tests.contract.langchain.integration import Integration, Person

Messages = list[BaseMessage]


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Defect:
    """A defect of an integration.

    Attributes:
        settings: Changes the settings of a new object.
        request: Changes the messages and arguments of a request.
        message: Changes the response of a non-streaming call.
        chunks: Changes the chunks of a stream.
        methods: Replaces methods of the chat model.
        embedding_methods: Replaces methods of the embedding model.
    """

    settings: Callable[[dict[str, Any]], dict[str, Any]] = _same
    request: Callable[[tuple[Messages, dict[str, Any]]], tuple[Messages, dict[str, Any]]] = _same
    message: Callable[[AIMessage], AIMessage] = _same
    chunks: Callable[[Iterable[ChatGenerationChunk]], Iterable[ChatGenerationChunk]] = _same
    methods: dict[str, Any] = field(default_factory=dict[str, Any])
    embedding_methods: dict[str, Any] = field(default_factory=dict[str, Any])

    def applied(self, integration: Integration) -> Integration:
        """Return this package's integration with the defect."""
        chat: Any = type("BrokenChat", (_BrokenChat,), {"_defect": self, **self.methods, "__module__": __name__})
        embeddings: Any = type("BrokenEmbeddings", (LMStudioEmbeddings,), self.embedding_methods)
        return replace(
            integration,
            chat=lambda **given: chat(**self.settings({**_settings(integration.chat()), **given})),
            unreachable=lambda **given: chat(**self.settings({**_settings(integration.unreachable()), **given})),
            embeddings=lambda **given: embeddings(**self.settings({**_settings(integration.embeddings()), **given})),
        )


def _settings(model: Any) -> dict[str, Any]:
    return {"model": model.model, "host": model.host}


class _BrokenChat(ChatLMStudio):
    _defect: ClassVar[Defect]

    def _generate(self, messages: Messages, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        messages, kwargs = self._defect.request((messages, {"stop": stop, **kwargs}))
        return self._changed(super()._generate(messages, run_manager=run_manager, **kwargs))

    async def _agenerate(
        self, messages: Messages, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        messages, kwargs = self._defect.request((messages, {"stop": stop, **kwargs}))
        return self._changed(await super()._agenerate(messages, run_manager=run_manager, **kwargs))

    def _changed(self, result: ChatResult) -> ChatResult:
        (generation,) = result.generations
        assert isinstance(generation.message, AIMessage)
        generation.message = self._defect.message(generation.message)
        return result

    def _stream(
        self, messages: Messages, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        messages, kwargs = self._defect.request((messages, {"stop": stop, **kwargs}))
        yield from self._defect.chunks(super()._stream(messages, run_manager=run_manager, **kwargs))


# Settings and requests ------------------------------------------------------------------------------------------------


def _without(name: str, given: dict[str, Any]) -> dict[str, Any]:
    return {each: value for each, value in given.items() if each != name}


def _without_setting(name: str) -> Defect:
    """Ignore a setting."""
    return Defect(settings=lambda given: _without(name, given))


def _requesting(change: Callable[[BaseMessage], BaseMessage]) -> Defect:
    """Change each message of a request."""
    return Defect(request=lambda request: ([change(message) for message in request[0]], request[1]))


def _without_argument(name: str) -> Defect:
    """Ignore an argument of a call."""
    return Defect(request=lambda request: (request[0], _without(name, request[1])))


def _without_blocks(kind: str) -> Callable[[BaseMessage], BaseMessage]:
    def change(message: BaseMessage) -> BaseMessage:
        if isinstance(message.content, str):
            return message
        kept = [block for block in message.content if isinstance(block, dict) and block["type"] != kind]
        return message.model_copy(update={"content": kept})

    return change


def _as_human(message: BaseMessage) -> BaseMessage:
    return HumanMessage(message.text)


def _with_reasoning(message: BaseMessage) -> BaseMessage:
    reasoning = message.additional_kwargs.get("reasoning_content", "")
    return message.model_copy(update={"content": f"{reasoning}{message.text}"}) if reasoning else message


def _without_tags(message: BaseMessage) -> BaseMessage:
    return message.model_copy(update={"content": message.text.replace("<think>", "").replace("</think>", "")})


# Responses ------------------------------------------------------------------------------------------------------------


def _responding(change: Callable[[AIMessage], dict[str, Any]]) -> Defect:
    """Change fields of each response, streaming or not."""

    def changed(message: AIMessage) -> AIMessage:
        return message.model_copy(update=change(message))

    def chunks(stream: Iterable[ChatGenerationChunk]) -> Iterator[ChatGenerationChunk]:
        for chunk in stream:
            assert isinstance(chunk.message, AIMessageChunk)
            message = changed(chunk.message)
            assert isinstance(message, AIMessageChunk)
            yield ChatGenerationChunk(message=message, generation_info=chunk.generation_info)

    return Defect(message=changed, chunks=chunks)


def _metadata(**changes: Any) -> Defect:
    """Change members of `response_metadata`, where they are."""
    return _responding(
        lambda message: {
            "response_metadata": {name: changes.get(name, value) for name, value in message.response_metadata.items()}
        }
    )


def _joined(stream: Iterable[ChatGenerationChunk]) -> Iterator[ChatGenerationChunk]:
    first, *others = stream
    for chunk in others:
        first += chunk
    yield first


def _repeated(stream: Iterable[ChatGenerationChunk]) -> Iterator[ChatGenerationChunk]:
    for chunk in stream:
        yield chunk
        message = chunk.message
        if isinstance(message, AIMessageChunk) and message.usage_metadata:
            yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=message.usage_metadata))


def _call_ids(call_id: str | None) -> Defect:
    return _responding(
        lambda message: {
            "tool_calls": [{**call, "id": call_id} for call in message.tool_calls],
            "tool_call_chunks": [{**call, "id": call_id} for call in getattr(message, "tool_call_chunks", ())],
        }
    )


def _without_tool_chunks(stream: Iterable[ChatGenerationChunk]) -> Iterator[ChatGenerationChunk]:
    return (chunk for chunk in stream if not getattr(chunk.message, "tool_call_chunks", None))


def _without_reasoning(stream: Iterable[ChatGenerationChunk]) -> Iterator[ChatGenerationChunk]:
    return (chunk for chunk in stream if not chunk.message.additional_kwargs)


# Methods --------------------------------------------------------------------------------------------------------------

_KEPT: list[Any] = []
"""Streams that are never closed."""


def _kept_stream(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    source = ChatLMStudio._stream(self, *args, **kwargs)
    _KEPT.append(source)
    for chunk in source:  # noqa: UP028 - `yield from` would close the source
        yield chunk


async def _kept_astream(self: Any, *args: Any, **kwargs: Any) -> Any:
    source = ChatLMStudio._astream(self, *args, **kwargs)
    _KEPT.append(source)
    async for chunk in source:
        yield chunk


async def _shielded(self: Any, *args: Any, **kwargs: Any) -> ChatResult:
    call = asyncio.ensure_future(ChatLMStudio._agenerate(self, *args, **kwargs))
    _KEPT.append(call)
    return await asyncio.shield(call)


async def _blocking(self: Any, messages: Messages, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
    return ChatLMStudio._generate(self, messages, stop, **kwargs)


def _silent_error(*_: Any, **__: Any) -> ChatResult:
    raise RuntimeError("failed")


def _one_at_a_time() -> Any:
    running: set[int] = set()

    async def agenerate(self: Any, *args: Any, **kwargs: Any) -> ChatResult:
        assert not running, "another call runs"
        running.add(1)
        try:
            return await ChatLMStudio._agenerate(self, *args, **kwargs)
        finally:
            running.clear()

    return agenerate


def _one_thread() -> Any:
    threads: set[int] = set()

    def generate(self: Any, *args: Any, **kwargs: Any) -> ChatResult:
        threads.add(threading.get_ident())
        assert len(threads) == 1, "another thread has used the object"
        return ChatLMStudio._generate(self, *args, **kwargs)

    return generate


def _without_config(name: str) -> Defect:
    """Call a method without its configuration, which includes the callbacks."""
    method = getattr(ChatLMStudio, name)
    return Defect(methods={name: lambda self, given, config=None, **kwargs: method(self, given, **kwargs)})


def _functions_only(self: Any, tools: Iterable[Any], **kwargs: Any) -> Any:
    return ChatLMStudio.bind_tools(self, [tool for tool in tools if isfunction(tool)], **kwargs)


def _structuring(**changes: Any) -> Defect:
    """Change arguments of `with_structured_output`."""

    def with_structured_output(self: Any, schema: Any, **kwargs: Any) -> Any:
        return ChatLMStudio.with_structured_output(self, **{"schema": schema, **kwargs, **changes})

    return Defect(methods={"with_structured_output": with_structured_output})


def _at_once(self: Any, schema: Any, **kwargs: Any) -> Any:
    return ChatLMStudio.with_structured_output(self, schema, **kwargs) | RunnableLambda(_same)


def _itself(self: Any, *_: Any, **__: Any) -> Any:
    return self


def _loading(self: Any, **settings: Any) -> None:
    ChatLMStudio.__init__(self, **settings)
    self.load()


def _reversed_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
    return ChatLMStudio.batch(self, *args, **kwargs)[::-1]


def _raising_batch(self: Any, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
    return ChatLMStudio.batch(self, inputs, config, **{**kwargs, "return_exceptions": False})


def _first_only(self: Any, *args: Any, **kwargs: Any) -> Any:
    return ((0, message) for _, message in ChatLMStudio.batch_as_completed(self, *args, **kwargs))


def _embedding(**methods: Any) -> Defect:
    return Defect(embedding_methods=methods)


def _reversed_vectors(self: Any, texts: list[str]) -> Any:
    return LMStudioEmbeddings.embed_documents(self, texts)[::-1]


def _first_vectors(self: Any, texts: list[str]) -> Any:
    return LMStudioEmbeddings.embed_documents(self, texts[:2048])


def _never_empty(self: Any, texts: list[str]) -> Any:
    return LMStudioEmbeddings.embed_documents(self, texts or [""])[: len(texts)]


def _on_one_line(self: Any, texts: list[str]) -> Any:
    return LMStudioEmbeddings.embed_documents(self, [text.replace("\n", " ") for text in texts])


def _cut(self: Any, text: str) -> Any:
    return LMStudioEmbeddings.embed_query(self, text[:1000])


async def _blocking_query(self: Any, text: str) -> Any:
    return LMStudioEmbeddings.embed_query(self, text)


DEFECTS: dict[str, Defect] = {
    "`invoke` and `ainvoke` return a response": _responding(lambda message: {"content": ""}),
    "`stream` and `astream` deliver the text in several chunks, which add up to the response": Defect(chunks=_joined),
    "a stream adds up to the same text, reasoning and tool calls as `invoke`": Defect(chunks=_without_reasoning),
    "an empty response is an empty message, streaming or not": _responding(lambda m: {"content": m.content or "None"}),
    "`usage_metadata` of `invoke` contains the token counts": _responding(lambda _: {"usage_metadata": None}),
    "`usage_metadata` of a stream counts each token exactly once": Defect(chunks=_repeated),
    "`UsageMetadataCallbackHandler` adds up the token counts of all calls, by model": Defect(chunks=_repeated),
    "`response_metadata` contains `model_name`, streaming or not": _metadata(model_name=None),
    "`response_metadata` says whether the response is complete or was cut off, streaming or not": _metadata(
        finish_reason="stop"
    ),
    "every response has an id of its own, which all chunks of a stream share": _responding(lambda _: {"id": "same"}),
    'with `output_version="v1"`, `content` is a list of standard blocks, streaming or not': _without_setting(
        "output_version"
    ),
    "system, human and AI messages are sent with their roles, in order": _requesting(_as_human),
    "a response can be sent back, and the reasoning of a finished turn is not sent as text of the answer": _requesting(
        _with_reasoning
    ),
    "`text` and `get_buffer_string`, from which titles and summaries are made, have no reasoning": _responding(
        lambda message: {"content": f"{message.additional_kwargs.get('reasoning_content', '')}{message.text}"}
    ),
    "tags of reasoning in a user's text are sent as they are": _requesting(_without_tags),
    "images in standard content blocks are sent": _requesting(_without_blocks("image")),
    "images in OpenAI's `image_url` blocks, as data URLs, are sent": _requesting(_without_blocks("image_url")),
    "unsupported content raises an error instead of being dropped": _requesting(_without_blocks("audio")),
    "making an object needs no server": Defect(methods={"__init__": _loading}),
    "`temperature` is sent, also above 1": _without_setting("temperature"),
    "`max_tokens` is sent": _without_setting("max_tokens"),
    "`seed` is sent": _without_setting("seed"),
    "stop strings are sent, from the constructor, from `bind` and from the call": _without_argument("stop"),
    "`model` of a call overrides that of the constructor": _without_argument("model"),
    "`configurable_fields` makes a setting configurable per call": Defect(methods={"configurable_fields": _itself}),
    "`bind_tools` accepts functions, pydantic classes, `TypedDict`s, LangChain tools and OpenAI dicts": Defect(
        methods={"bind_tools": _functions_only}
    ),
    "tool calls have a name, arguments and an id": _call_ids(None),
    "`tool_call_chunks` of a stream add up to the tool call": Defect(chunks=_without_tool_chunks),
    "two identical tool calls have distinct ids, streaming or not": _call_ids("same"),
    "an image in a `ToolMessage` is sent": _requesting(_without_blocks("image")),
    "`create_agent`: the agent calls a tool and responds to its result, sync and async": _without_argument("tools"),
    "`create_agent`: a streaming agent delivers tokens and tool calls": Defect(chunks=_without_tool_chunks),
    "`create_agent`: with `response_format`, the agent returns an instance of the class": Defect(
        methods={"bind_tools": _functions_only}
    ),
    "`with_structured_output` returns an instance of a pydantic class": _structuring(schema=Person.model_json_schema()),
    "`with_structured_output` returns a dict for a `TypedDict` or a JSON schema": _structuring(schema=Person),
    '`method="json_schema"`: the server enforces the schema': _structuring(method="function_calling"),
    "structured output streams growing dicts, and ends with the complete one": Defect(
        methods={"with_structured_output": _at_once}
    ),
    "reasoning before a structured response is not parsed": _responding(
        lambda message: {"content": f"{message.additional_kwargs.get('reasoning_content', '')}{message.text}"}
    ),
    "callbacks get the start, each token and the end of a stream, in one run": _without_config("stream"),
    "`on_llm_error` gets the error of a failed call, streaming or not": _without_config("invoke"),
    "`astream_events` reports the start, each chunk and the end of a stream, in one run": _without_config("astream"),
    "tags and metadata of `with_config` reach the callbacks": Defect(methods={"with_config": _itself}),
    "`model_provider` of a response is the provider of its trace": _metadata(model_provider="other"),
    "`batch` and `abatch` return the responses in the order of the inputs": Defect(methods={"batch": _reversed_batch}),
    "`batch_as_completed` and `abatch_as_completed` yield each response with the index of its input": Defect(
        methods={"batch_as_completed": _first_only}
    ),
    "with `return_exceptions=True`, a failed input does not affect the others of its batch": Defect(
        methods={"batch": _raising_batch}
    ),
    "`max_concurrency` limits the predictions that a batch runs at once": _without_config("batch"),
    "50 parallel calls of one object all return their responses": Defect(methods={"_agenerate": _one_at_a_time()}),
    "`ainvoke` and `astream` do not block the event loop": Defect(methods={"_agenerate": _blocking}),
    "one object works in several threads at once": Defect(methods={"_generate": _one_thread()}),
    "closing a stream cancels the prediction on the server": Defect(methods={"_stream": _kept_stream}),
    "closing an async stream cancels the prediction on the server": Defect(methods={"_astream": _kept_astream}),
    "cancelling the task of `ainvoke` cancels the prediction on the server": Defect(methods={"_agenerate": _shielded}),
    "errors contain the server's message, also in streams": Defect(methods={"_generate": _silent_error}),
    "`with_retry` retries a failed call, and then raises its error": Defect(methods={"with_retry": _itself}),
    "`with_fallbacks` falls back to another model if the server is unreachable, streaming or not": Defect(
        methods={"with_fallbacks": _itself}
    ),
    "`timeout` bounds a call whose response stalls, streaming or not": _without_setting("timeout"),
    "`InMemoryCache`: an equal call sends no request": _without_setting("cache"),
    "embeddings: texts and queries return vectors, in order, sync and async": _embedding(
        embed_documents=_reversed_vectors
    ),
    "embeddings: thousands of texts in one call return their vectors, in order": _embedding(
        embed_documents=_first_vectors
    ),
    "embeddings: no texts return no vectors, without a request": _embedding(embed_documents=_never_empty),
    "embeddings: texts are sent unchanged": _embedding(embed_documents=_on_one_line),
    "embeddings: a long text is sent whole or raises an error": _embedding(embed_query=_cut),
    "embeddings: async calls do not block the event loop": _embedding(aembed_query=_blocking_query),
    "embeddings: a misspelled setting raises an error or emits a warning": _without_setting("dimensoins"),
}
"""A defect for each check that all integrations pass, by its requirement."""
