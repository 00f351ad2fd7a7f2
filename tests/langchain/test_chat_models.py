"""`ChatLMStudio` on a scripted server."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import LLMResult

from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from tests._adapters.ways import LANGCHAIN
from tests.langchain.conftest import CHAT, COUNTED, Invoke, Server

# Responses ------------------------------------------------------------------------------------------------------------


def test_a_response_has_text_usage_and_metadata(server: Server, generate: Invoke) -> None:
    message = generate(server.chat(), "count please")
    assert message.content == COUNTED
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == 31
    assert message.usage_metadata["input_tokens"] > 0
    metadata = message.response_metadata
    assert metadata["model_name"] == CHAT
    assert metadata["model_provider"] == "lmstudio"
    assert metadata["instance_identifier"] == CHAT
    assert metadata["finish_reason"] == "stop"
    assert metadata["stop_reason"] == "eosFound"
    assert metadata["context_length"] == 4096
    assert metadata["tokens_per_second"] > 0
    assert metadata["time_to_first_token_ms"] >= 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_generating_for_several_conversations_sums_their_tokens(server: Server, asynchronous: bool) -> None:
    llm = server.chat()

    def generate(*questions: str, **given: Any) -> tuple[LLMResult, list[AIMessage]]:
        conversations: list[Any] = [[HumanMessage(question)] for question in questions]
        result = (
            asyncio.run(llm.agenerate(conversations, **given)) if asynchronous else llm.generate(conversations, **given)
        )
        return result, [generations[0].message for generations in result.generations]  # type: ignore[union-attr,misc]

    result, messages = generate("count", "think", "count")
    assert result.llm_output is not None
    assert result.llm_output["model_name"] == CHAT
    usages = [
        message.usage_metadata or UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0) for message in messages
    ]
    assert result.llm_output["token_usage"] == {
        "prompt_tokens": sum(usage["input_tokens"] for usage in usages),
        "completion_tokens": sum(usage["output_tokens"] for usage in usages),
        "total_tokens": sum(usage["total_tokens"] for usage in usages),
        "prompt_tokens_details": {"cached_tokens": sum(usage["input_token_details"]["cache_read"] for usage in usages)},
        "completion_tokens_details": {"reasoning_tokens": usages[1]["output_token_details"]["reasoning"]},
    }
    assert result.llm_output["token_usage"]["prompt_tokens"] > 0
    assert messages[0].response_metadata["token_usage"]["completion_tokens"] == 31
    assert generate("count", stream=True)[0].llm_output == {
        "token_usage": {},
        "model_name": CHAT,
        "model_provider": "lmstudio",
    }


def test_chunks_of_a_stream_share_the_identifier_of_the_run(server: Server) -> None:
    chunks = list(server.chat(max_tokens=3).stream("count"))
    (identifier,) = {chunk.id for chunk in chunks}
    assert str(identifier).startswith("lc_run-")
    assert all(isinstance(chunk.content, str) for chunk in chunks)


def test_reasoning_is_separate(server: Server, generate: Invoke) -> None:
    message = generate(server.chat(), "think")
    assert message.text.strip() == "Done."
    assert message.additional_kwargs["reasoning_content"].strip() == "Let me see."
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]


def test_v1_output_is_blocks(server: Server, generate: Invoke) -> None:
    message = generate(server.chat(output_version="v1"), "think")
    assert isinstance(message.content, list)
    assert [block["type"] for block in message.content if isinstance(block, dict)] == ["reasoning", "text"]


# Callbacks, of `LMStudioLLM` as well ----------------------------------------------------------------------------------


class Counter(BaseCallbackHandler):
    """Records the callbacks that it receives."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.ends: list[LLMResult] = []

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(str(token))

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        self.ends.append(response)


class AsyncCounter(AsyncCallbackHandler):
    """Records tokens, in an event loop."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(str(token))


async def _v3(llm: Any, question: str, **given: Any) -> Any:
    return await (await llm.astream_events(question, given["config"], version="v3"))


CALLS: dict[str, Callable[..., Any]] = {
    **LANGCHAIN,
    "v3": lambda llm, question, config: llm.stream_events(question, config, version="v3").output,
    "av3": lambda *given, **more: asyncio.run(_v3(*given, **more)),
}


@pytest.mark.parametrize(
    ("way", "settings", "tokens"),
    [
        ("invoke", {}, 0),
        ("ainvoke", {}, 0),
        ("invoke", {"streaming": True}, 4),
        ("ainvoke", {"streaming": True}, 4),
        ("stream", {}, 4),
        ("astream", {}, 4),
        ("v3", {}, 4),
        ("av3", {}, 4),
    ],
)
def test_callbacks_fire_once_on_every_path(server: Server, way: str, settings: dict[str, Any], tokens: int) -> None:
    """Three words and the last chunk; a non-streaming call reports no tokens. Handlers read `llm_output`."""
    check_callbacks(server.chat(max_tokens=3, **settings), way, tokens)
    if "v3" not in way:  # core has these events for chat models only
        check_callbacks(server.llm(max_tokens=3, **settings), way, tokens)


def check_callbacks(llm: Any, way: str, tokens: int) -> None:
    counter, in_loop = Counter(), AsyncCounter()
    config: Any = {"callbacks": [counter, in_loop] if way in {"astream", "av3"} else [counter]}
    CALLS[way](llm, "count", config=config)
    assert counter.tokens == ["0", " 1", " 2", ""][:tokens]
    assert in_loop.tokens == (counter.tokens if len(config["callbacks"]) == 2 else [])
    (end,) = counter.ends
    if not tokens:
        assert end.llm_output is not None
        assert end.llm_output["model_name"] == CHAT
        assert end.llm_output["token_usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("kind", [ChatLMStudio, LMStudioLLM])
def test_a_call_may_choose_whether_it_streams(server: Server, kind: Any, way: str) -> None:
    def tokens(llm: Any, **given: Any) -> int:
        counter = Counter()
        CALLS[way](llm, "count", config={"callbacks": [counter]}, **given)
        return len(counter.tokens)

    settings: dict[str, Any] = {"model": CHAT, "host": server.address, "max_tokens": 3}
    llm, streaming = kind(**settings), kind(**settings, streaming=True)
    assert [tokens(llm), tokens(llm, streaming=True), tokens(llm.bind(stream=True))] == [0, 4, 4]
    assert [tokens(streaming), tokens(streaming, streaming=False), tokens(streaming, stream=False)] == [4, 0, 0]
    if kind is ChatLMStudio:
        whole = [chunk.content for chunk in kind(**settings, streaming=False).stream("count")]
        assert [text for text in whole if text] == ["0 1 2"]
        assert [chunk.content for chunk in kind(**settings).stream("count", stream=True)] == ["0", " 1", " 2", ""]
