"""Every way to generate a chat response, in both frameworks and natively: one test body serves all of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from typing import Any

from langchain_core.messages import HumanMessage
from llama_index.core.llms import ChatMessage

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio


class Seen(dict[str, Any]):
    """What a way delivers: text, reasoning, calls, usage, confidence, what the client adds, and the parts."""


Way = Callable[[Any, str], Seen]

_ADDED = (
    *("stop_reason", "repetition_start", "predictions_count", "dropped_tokens"),
    *("rescued_tool_calls", "repaired_tool_calls", "forced_by_grammar"),
)


def seen_message(message: Any, parts: list[str]) -> Seen:
    return Seen(
        text=message.text,
        reasoning=message.additional_kwargs.get("reasoning_content", ""),
        calls=[(call["name"], call["args"]) for call in message.tool_calls],
        prompt=message.usage_metadata["input_tokens"],
        confidence=message.response_metadata.get("confidence"),
        parts=parts,
        **{name: message.response_metadata.get(name) for name in _ADDED},
    )


def seen_chunks(chunks: list[Any]) -> Seen:
    return seen_message(sum(chunks[1:], chunks[0]), [chunk.text for chunk in chunks if chunk.text])


def seen_response(response: Any, parts: list[str]) -> Seen:
    blocks = response.message.blocks
    return Seen(
        text=response.message.content or "",
        reasoning="".join(block.content for block in blocks if block.block_type == "thinking"),
        calls=[(block.tool_name, block.tool_kwargs) for block in blocks if block.block_type == "tool_call"],
        prompt=response.raw["usage"]["prompt_tokens"],
        confidence=response.raw.get("confidence"),
        parts=parts,
        **{name: response.raw["stats"].get(name) for name in _ADDED},
    )


def seen_responses(chunks: list[Any]) -> Seen:
    return seen_response(chunks[-1], [chunk.delta for chunk in chunks if chunk.delta])


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


async def collected(stream: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in stream]


async def collected_later(stream: Any) -> list[Any]:
    return await collected(await stream)


def said(text: str) -> list[ChatMessage]:
    return [ChatMessage(text, role="user")]


def ways(request: Mapping[str, Any], native: Mapping[str, Any]) -> dict[str, Way]:
    """Return the ways to generate.

    Args:
        request: The arguments of a call in the frameworks; read anew by each call.
        native: The arguments of a native call.
    """

    def chain(host: Any) -> Any:
        return ChatLMStudio(model="m", host=host).bind(**request)

    def llama(host: Any) -> LMStudio:
        return LMStudio(model="m", host=host)

    def native_stream(host: Any, text: str) -> Seen:
        with lms.Client(host) as client:
            stream = client.llm.model("m").respond_stream(text, **native)
            parts = [fragment.content for fragment in stream if fragment.reasoning_type == "none"]
            return seen_result(stream.result(), parts)

    async def native_async(host: Any, text: str) -> Seen:
        async with lms.AsyncClient(host) as client:
            return seen_result(await (await client.llm.model("m")).respond(text, **native), [])

    return {
        "invoke": lambda host, text: seen_message(chain(host).invoke([HumanMessage(text)]), []),
        "ainvoke": lambda host, text: seen_message(asyncio.run(chain(host).ainvoke([HumanMessage(text)])), []),
        "stream": lambda host, text: seen_chunks(list(chain(host).stream([HumanMessage(text)]))),
        "astream": lambda host, text: seen_chunks(asyncio.run(collected(chain(host).astream([HumanMessage(text)])))),
        "chat": lambda host, text: seen_response(llama(host).chat(said(text), **request), []),
        "achat": lambda host, text: seen_response(asyncio.run(llama(host).achat(said(text), **request)), []),
        "stream_chat": lambda host, text: seen_responses(list(llama(host).stream_chat(said(text), **request))),
        "astream_chat": lambda host, text: seen_responses(
            asyncio.run(collected_later(llama(host).astream_chat(said(text), **request)))
        ),
        "native stream": native_stream,
        "native async": lambda host, text: asyncio.run(native_async(host, text)),
    }
