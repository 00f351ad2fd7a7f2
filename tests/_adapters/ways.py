"""Every way to generate a chat response, in both frameworks and natively: one test body serves all of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, convert_to_messages
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio

Turns = Sequence[tuple[str, str]]
"""The roles and texts of a conversation."""

Method = Callable[..., list[Any]]
"""Calls a model of a framework with messages and settings; returns the chunks of the response, or all of it as one."""


async def collected(stream: AsyncIterator[Any] | Awaitable[AsyncIterator[Any]]) -> list[Any]:
    """Read a stream, which LlamaIndex's methods return only when they are awaited."""
    return [each async for each in (await stream if isinstance(stream, Awaitable) else stream)]


LANGCHAIN: dict[str, Method] = {
    "invoke": lambda llm, messages, **given: [llm.invoke(messages, **given)],
    "ainvoke": lambda llm, messages, **given: [asyncio.run(llm.ainvoke(messages, **given))],
    "stream": lambda llm, messages, **given: [*llm.stream(messages, **given)],
    "astream": lambda llm, messages, **given: asyncio.run(collected(llm.astream(messages, **given))),
}
LLAMA_INDEX: dict[str, Method] = {
    "chat": lambda llm, messages, **given: [llm.chat(messages, **given)],
    "achat": lambda llm, messages, **given: [asyncio.run(llm.achat(messages, **given))],
    "stream_chat": lambda llm, messages, **given: [*llm.stream_chat(messages, **given)],
    "astream_chat": lambda llm, messages, **given: asyncio.run(collected(llm.astream_chat(messages, **given))),
}
METHODS: dict[str, tuple[Any, Method]] = {
    **{name: (ChatLMStudio, method) for name, method in LANGCHAIN.items()},
    **{name: (LMStudio, method) for name, method in LLAMA_INDEX.items()},
}


def _of_structured_llm(method: Method) -> Method:
    return lambda llm, kind, text, **given: [
        each.raw for each in method(llm.as_structured_llm(kind), said(text), **given)
    ]


STRUCTURED: dict[str, Method] = {
    "structured_predict": lambda llm, kind, text, **given: [llm.structured_predict(kind, PromptTemplate(text), given)],
    "astructured_predict": lambda llm, kind, text, **given: [
        asyncio.run(llm.astructured_predict(kind, PromptTemplate(text), given))
    ],
    "stream_structured_predict": lambda llm, kind, text, **given: [
        *llm.stream_structured_predict(kind, PromptTemplate(text), given)
    ],
    "astream_structured_predict": lambda llm, kind, text, **given: asyncio.run(
        collected(llm.astream_structured_predict(kind, PromptTemplate(text), given))
    ),
    **{name: _of_structured_llm(method) for name, method in LLAMA_INDEX.items()},
}
"""Requests an instance of a class of a model of LlamaIndex, with a text: the last one returned is complete."""


def whole(chunks: list[Any]) -> Any:
    """Return the message or the response of which these are the chunks."""
    return reduce(add, chunks) if isinstance(chunks[0], BaseMessage) else chunks[-1]


def messages_of(make: Any, turns: Turns) -> Any:
    """Return a conversation in the form of the framework of a class."""
    if make is ChatLMStudio:
        return convert_to_messages([*turns])
    return [ChatMessage(text, role=role) for role, text in turns]


def said(text: str) -> list[ChatMessage]:
    return [ChatMessage(text, role="user")]


def metadata_of(response: Any) -> Mapping[str, Any]:
    """Return what a message or a response of either framework reports of itself."""
    if isinstance(response, BaseMessage):
        metadata = response.response_metadata
        return {**metadata, **metadata.get("predictions", [{}])[-1]}
    return {**response.raw, **response.raw["stats"]}


AGENT_WARNINGS = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning", "ignore:is_running called from within a step"
)
"""LlamaIndex's agents look at every attribute of theirs, also at those that pydantic and workflows have deprecated."""

UNREADABLE = {"too deep": "[" * 100_000, "too many digits": '{"name": "Ann", "age": ' + "9" * 10_000 + "}"}
"""Responses that no JSON parser reads, the first with a `RecursionError`."""


# What a way delivers --------------------------------------------------------------------------------------------------


class Seen(dict[str, Any]):
    """What a way delivers: text, reasoning, calls, usage, confidence, what the client adds, and the parts."""


Way = Callable[[Any, str], Seen]

_ADDED = (
    *("stop_reason", "repetition_start", "predictions_count", "dropped_tokens"),
    *("rescued_tool_calls", "repaired_tool_calls", "forced_by_grammar"),
)


def seen_of(chunks: list[Any]) -> Seen:
    """Return what a method has delivered."""
    response = whole(chunks)
    reported = metadata_of(response)
    added = {name: reported.get(name) for name in ("confidence", *_ADDED)}
    if isinstance(response, BaseMessage):
        return Seen(
            text=response.text,
            reasoning=response.additional_kwargs.get("reasoning_content", ""),
            calls=[(call["name"], call["args"]) for call in getattr(response, "tool_calls", [])],
            prompt=(getattr(response, "usage_metadata", None) or {"input_tokens": None})["input_tokens"],
            parts=[chunk.text for chunk in chunks],
            **added,
        )
    text, blocks = response.message.content or "", response.message.blocks
    return Seen(
        text=text,
        reasoning="".join(block.content for block in blocks if block.block_type == "thinking"),
        calls=[(block.tool_name, block.tool_kwargs) for block in blocks if block.block_type == "tool_call"],
        prompt=response.raw["usage"]["prompt_tokens"],
        parts=[text] if response.delta is None else [chunk.delta or "" for chunk in chunks],
        **added,
    )


def seen_result(result: lms.PredictionResult, parts: list[str]) -> Seen:
    confidence = None if result.confidence is None else {path: asdict(each) for path, each in result.confidence.items()}
    return Seen(
        text=result.content,
        reasoning=result.reasoning_content,
        calls=[(call.name, call.arguments) for call in result.tool_call_requests],
        prompt=result.stats.prompt_tokens_count,
        confidence=confidence,
        parts=parts,
        **{name: getattr(result.stats, name) for name in _ADDED},
    )


def ways(request: Mapping[str, Any], native: Mapping[str, Any]) -> dict[str, Way]:
    """Return the ways to generate.

    Args:
        request: The arguments of a call in the frameworks; read anew by each call.
        native: The arguments of a native call.
    """

    def of_framework(make: Any, method: Method) -> Way:
        return lambda host, text: seen_of(
            method(make(model="m", host=host), messages_of(make, [("user", text)]), **request)
        )

    def native_stream(host: Any, text: str) -> Seen:
        with lms.Client(host) as client:
            stream = client.llm.model("m").respond_stream(text, **native)
            parts = [fragment.content for fragment in stream if fragment.reasoning_type == "none"]
            return seen_result(stream.result(), parts)

    async def native_async(host: Any, text: str) -> Seen:
        async with lms.AsyncClient(host) as client:
            result = await (await client.llm.model("m")).respond(text, **native)
            return seen_result(result, [result.content])

    return {
        **{name: of_framework(*each) for name, each in METHODS.items()},
        "native stream": native_stream,
        "native async": lambda host, text: asyncio.run(native_async(host, text)),
    }
