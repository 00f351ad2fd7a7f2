"""What a response reports besides its text does not depend on how it is requested: the same keys on every path."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio

MODEL = "model"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
MODELS = [
    ModelEntry(
        key=MODEL,
        rules=(
            {"when": {"tools": ["look"]}, "then": [{"tool": "look"}]},
            {"when": {"last": "^think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done."}]},
        ),
    )
]
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("Hello", {}),
    "reasoning": ("think", {}),
    "cut off": ("Hello there", {"max_tokens": 1}),
    "stop text": ("Hello", {"stop": [" "]}),
    "log probabilities": ("Hello", {"logprobs": True, "top_logprobs": 1}),
    "tools": ("Hello", {"tools": [TOOL]}),
}
LOAD_TIME = "model_load_time_sec"

Keys = frozenset[str]
Path = Callable[[Any, str, dict[str, Any]], Mapping[str, Any]]
"""Makes a request; returns what the response reports, in a stream what its last chunk reports."""


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator(MODELS) as running:
        yield running


def unload(server: Emulator) -> None:
    if server.loaded():
        server.unload(MODEL)


def keys_of(reported: Mapping[str, Any], prefix: str = "") -> Keys:
    """Return the keys of a nested mapping, as paths."""
    found: set[str] = set()
    for name, value in reported.items():
        inner = keys_of(value, f"{prefix}{name}.") if isinstance(value, Mapping) else ()
        found |= {f"{prefix}{name}", *inner}
    return frozenset(found)


async def _drain(stream: Any) -> list[Any]:
    return [each async for each in stream]


# LangChain's chat model -----------------------------------------------------------------------------------------------


def _of_message(message: Any) -> dict[str, Any]:
    return {"response_metadata": message.response_metadata, "usage_metadata": message.usage_metadata}


def _of_chunks(chunks: list[Any]) -> dict[str, Any]:
    """Return what the last chunk reports. Log probabilities are on the chunk of their token, and on the sum."""
    last, whole = chunks[-1], sum(chunks[1:], chunks[0])
    logprobs = {"response_metadata.logprobs", "response_metadata.logprobs.content"}
    assert keys_of(_of_message(whole)) - logprobs == keys_of(_of_message(last))
    return _of_message(whole)


CHAT: dict[str, Path] = {
    "invoke": lambda llm, text, given: _of_message(llm.invoke(text, **given)),
    "ainvoke": lambda llm, text, given: _of_message(asyncio.run(llm.ainvoke(text, **given))),
    "stream": lambda llm, text, given: _of_chunks(list(llm.stream(text, **given))),
    "astream": lambda llm, text, given: _of_chunks(asyncio.run(_drain(llm.astream(text, **given)))),
    "streaming invoke": lambda llm, text, given: _of_message(llm.invoke(text, stream=True, **given)),
    "streaming ainvoke": lambda llm, text, given: _of_message(asyncio.run(llm.ainvoke(text, stream=True, **given))),
    "batch": lambda llm, text, given: _of_message(llm.batch([text], **given)[0]),
    "abatch": lambda llm, text, given: _of_message(asyncio.run(llm.abatch([text], **given))[0]),
    "generate": lambda llm, text, given: _of_message(
        llm.generate([[HumanMessage(text)]], **given).generations[0][0].message
    ),
}

# LangChain's completion -----------------------------------------------------------------------------------------------


def _of_generation(result: Any) -> dict[str, Any]:
    info: dict[str, Any] = result.generations[0][0].generation_info
    return info


TEXT: dict[str, Path] = {
    "generate": lambda llm, text, given: _of_generation(llm.generate([text], **given)),
    "agenerate": lambda llm, text, given: _of_generation(asyncio.run(llm.agenerate([text], **given))),
    "streaming generate": lambda llm, text, given: _of_generation(llm.generate([text], streaming=True, **given)),
    "stream": lambda llm, text, given: list(llm._stream(text, **given))[-1].generation_info,
    "astream": lambda llm, text, given: asyncio.run(_drain(llm._astream(text, **given)))[-1].generation_info,
}

# LlamaIndex -----------------------------------------------------------------------------------------------------------


def _messages(text: str) -> list[Any]:
    from llama_index.core.base.llms.types import ChatMessage

    return [ChatMessage(role="user", content=text)]


def _of_response(response: Any) -> dict[str, Any]:
    return {"raw": response.raw, "additional_kwargs": response.additional_kwargs}


async def _streamed(stream: Any) -> Any:
    return (await _drain(await stream))[-1]


LLAMA_CHAT: dict[str, Path] = {
    "chat": lambda llm, text, given: _of_response(llm.chat(_messages(text), **given)),
    "achat": lambda llm, text, given: _of_response(asyncio.run(llm.achat(_messages(text), **given))),
    "stream_chat": lambda llm, text, given: _of_response(list(llm.stream_chat(_messages(text), **given))[-1]),
    "astream_chat": lambda llm, text, given: _of_response(
        asyncio.run(_streamed(llm.astream_chat(_messages(text), **given)))
    ),
}
LLAMA_TEXT: dict[str, Path] = {
    "complete": lambda llm, text, given: _of_response(llm.complete(text, **given)),
    "acomplete": lambda llm, text, given: _of_response(asyncio.run(llm.acomplete(text, **given))),
    "stream_complete": lambda llm, text, given: _of_response(list(llm.stream_complete(text, **given))[-1]),
    "astream_complete": lambda llm, text, given: _of_response(
        asyncio.run(_streamed(llm.astream_complete(text, **given)))
    ),
}

ADAPTERS: dict[str, tuple[Any, dict[str, Path]]] = {
    "ChatLMStudio": (ChatLMStudio, CHAT),
    "LMStudioLLM": (LMStudioLLM, TEXT),
    "LMStudio, chat": (LMStudio, LLAMA_CHAT),
    "LMStudio, complete": (LMStudio, LLAMA_TEXT),
}


CASES = [
    (adapter, request)
    for adapter in ADAPTERS
    for request, (_, given) in REQUESTS.items()
    if adapter != "LMStudioLLM" or given.keys() <= {"max_tokens", "stop"}
]


@pytest.mark.parametrize(("adapter", "request_name"), CASES)
def test_every_path_reports_the_same_keys(server: Emulator, adapter: str, request_name: str) -> None:
    kind, paths = ADAPTERS[adapter]
    text, given = REQUESTS[request_name]
    reported: dict[str, Keys] = {}
    for name, path in paths.items():
        unload(server)
        llm = kind(model=MODEL, host=server.address)
        first, second = keys_of(path(llm, text, given)), keys_of(path(llm, text, given))
        assert {key.rpartition(".")[2] for key in first ^ second} == {LOAD_TIME}, name
        reported[name] = second
    reference = next(iter(reported.values()))
    assert len(reference) > 10
    assert {name: sorted(keys ^ reference) for name, keys in reported.items() if keys != reference} == {}


def test_the_load_time_is_that_of_the_call_that_loaded(server: Emulator) -> None:
    unload(server)
    llm = ChatLMStudio(model=MODEL, host=server.address)
    assert llm.invoke("Hello").response_metadata[LOAD_TIME] > 0
    assert LOAD_TIME not in llm.invoke("Hello").response_metadata
    unload(server)
    again = LMStudio(model=MODEL, host=server.address).complete("Hello").raw
    assert isinstance(again, dict)
    assert again["stats"][LOAD_TIME] > 0
