"""What a response reports besides its text does not depend on how it is requested: the same keys on every path."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import LANGCHAIN, LLAMA_INDEX, Method, collected, messages_of, whole
from tests.support.served import served

MODEL = "model"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
RULES = (
    {"when": {"tools": ["look"]}, "then": [{"tool": "look"}]},
    {"when": {"last": "^think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done."}]},
)
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cut off reasoning": ("think", {"max_tokens": 4, "stop": ["!"]}),
    "log probabilities": ("Hello", {"logprobs": True, "top_logprobs": 1}),
    "tools": ("Hello", {"tools": [TOOL]}),
}
LOAD_TIME = "model_load_time_ms"
EXACT_LOAD_TIME = "model_load_time_sec"

Keys = frozenset[str]
Path = Callable[[Any, str, dict[str, Any]], Mapping[str, Any]]
"""Makes a request; returns what the response reports, in a stream what its last chunk reports."""

server = served([ModelEntry(key=MODEL, rules=RULES)])


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


def _of_message(message: Any) -> dict[str, Any]:
    return {"response_metadata": message.response_metadata, "usage_metadata": message.usage_metadata}


def chatting(method: Method, **more: Any) -> Path:
    def path(llm: Any, text: str, given: dict[str, Any]) -> dict[str, Any]:
        """Return what the last chunk reports. Log probabilities are on the chunk of their token, and on the sum."""
        chunks = method(llm, messages_of(ChatLMStudio, [("user", text)]), **given, **more)
        logprobs = {"response_metadata.logprobs", "response_metadata.logprobs.content"}
        assert keys_of(_of_message(whole(chunks))) - logprobs == keys_of(_of_message(chunks[-1])) - logprobs
        return _of_message(whole(chunks))

    return path


def _of_generation(result: Any) -> dict[str, Any]:
    info: dict[str, Any] = result.generations[0][0].generation_info
    return info


def _of_response(response: Any) -> dict[str, Any]:
    return {"raw": response.raw, "additional_kwargs": response.additional_kwargs}


def responding(method: Method) -> Path:
    return lambda llm, text, given: _of_response(method(llm, messages_of(LMStudio, [("user", text)]), **given)[-1])


ADAPTERS: dict[str, tuple[Any, dict[str, Path]]] = {
    "ChatLMStudio": (
        ChatLMStudio,
        {
            **{name: chatting(method) for name, method in LANGCHAIN.items()},
            "streaming invoke": chatting(LANGCHAIN["invoke"], stream=True),
            "batch": lambda llm, text, given: _of_message(llm.batch([text], **given)[0]),
        },
    ),
    "LMStudioLLM": (
        LMStudioLLM,
        {
            "generate": lambda llm, text, given: _of_generation(llm.generate([text], **given)),
            "agenerate": lambda llm, text, given: _of_generation(asyncio.run(llm.agenerate([text], **given))),
            "streaming": lambda llm, text, given: _of_generation(llm.generate([text], streaming=True, **given)),
        },
    ),
    "LMStudio, chat": (LMStudio, {name: responding(method) for name, method in LLAMA_INDEX.items()}),
    "LMStudio, complete": (
        LMStudio,
        {
            "complete": lambda llm, text, given: _of_response(llm.complete(text, **given)),
            "acomplete": lambda llm, text, given: _of_response(asyncio.run(llm.acomplete(text, **given))),
            "stream_complete": lambda llm, text, given: _of_response([*llm.stream_complete(text, **given)][-1]),
            "astream_complete": lambda llm, text, given: _of_response(
                asyncio.run(collected(llm.astream_complete(text, **given)))[-1]
            ),
        },
    ),
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
        load_time = EXACT_LOAD_TIME if kind is LMStudio else LOAD_TIME
        assert {key.rpartition(".")[2] for key in first ^ second} == {load_time}, name
        reported[name] = second
    reference = next(iter(reported.values()))
    assert len(reference) > 10
    assert {name: sorted(keys ^ reference) for name, keys in reported.items() if keys != reference} == {}


def test_the_load_time_is_that_of_the_call_that_loaded(server: Emulator) -> None:
    unload(server)
    llm = ChatLMStudio(model=MODEL, host=server.address)
    metadata = llm.invoke("Hello").response_metadata
    assert round(metadata["predictions"][0][EXACT_LOAD_TIME] * 1000) == metadata[LOAD_TIME]
    assert LOAD_TIME not in llm.invoke("Hello").response_metadata
    unload(server)
    again = LMStudio(model=MODEL, host=server.address).complete("Hello").raw
    assert isinstance(again, dict)
    assert again["stats"][EXACT_LOAD_TIME] > 0
