"""`ChatLMStudio` on a scripted server."""

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.exceptions import (
    ModelError,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import LLMResult

from lmstudio_integrations.langchain import ChatLMStudio
from tests.langchain.conftest import CHAT, COUNTED, WAYS, Invoke, Server

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
    assert metadata["time_to_first_token_sec"] >= 0


def test_a_stream_reports_the_same_as_a_plain_call(server: Server) -> None:
    """Usage and metadata are the same on every call path; tracers attribute usage by `ls_provider`."""
    llm = server.chat()
    llm.invoke("count")
    plain, streamed = llm.invoke("count"), WAYS["stream"](llm, "count")
    assert plain.usage_metadata == streamed.usage_metadata
    assert plain.response_metadata.keys() == streamed.response_metadata.keys()
    assert plain.response_metadata["model_provider"] == llm._get_ls_params().get("ls_provider")


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
    }
    assert result.llm_output["token_usage"]["prompt_tokens"] > 0
    assert messages[0].response_metadata["token_usage"]["completion_tokens"] == 31
    assert generate("count", stream=True)[0].llm_output == {"token_usage": {}, "model_name": CHAT}


def test_a_callback_gets_model_and_token_counts(server: Server) -> None:
    """`OpenAICallbackHandler` and others read `llm_output`."""

    class Handler(BaseCallbackHandler):
        output: Any = None

        def on_llm_end(self, response: LLMResult, **_: Any) -> None:
            self.output = response.llm_output

    handler = Handler()
    server.chat().invoke("count", {"callbacks": [handler]})
    assert handler.output["model_name"] == CHAT
    assert handler.output["token_usage"]["completion_tokens"] == 31


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


# One object, many callers ---------------------------------------------------------------------------------------------


def test_one_object_serves_threads_and_successive_event_loops(server: Server) -> None:
    llm = server.chat()
    responses: list[Any] = []
    barrier = threading.Barrier(3, timeout=600)

    def work() -> None:
        barrier.wait()
        responses.append(llm.invoke("count").content)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    responses.append(asyncio.run(llm.ainvoke("count")).content)
    responses.append(asyncio.run(llm.ainvoke("count")).content)
    for thread in threads:
        thread.join(600)
    assert responses == [COUNTED] * 4


async def test_one_object_serves_the_sync_and_the_async_api_in_one_loop(server: Server) -> None:
    llm = server.chat()
    first, second = await asyncio.gather(llm.ainvoke("count"), asyncio.to_thread(llm.invoke, "count"))
    assert first.content == second.content == COUNTED


def test_closing_a_stream_stops_the_server(server: Server) -> None:
    for chunk in server.chat().stream("for ever"):
        if chunk.content:
            break
    server.wait_for(lambda: server.predictions[0].state == "ended")
    assert server.predictions[0].stop_reason == "userStopped"


async def test_closing_an_async_stream_stops_the_server(server: Server) -> None:
    async for chunk in server.chat().astream("for ever"):
        if chunk.content:
            break
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[0].state == "ended")
    assert server.predictions[0].stop_reason == "userStopped"


def test_closing_an_async_stream_whose_loop_is_closed_stops_the_server(server: Server) -> None:
    async def begin(llm: ChatLMStudio) -> None:
        async for chunk in llm.astream("for ever"):
            if chunk.content:
                break

    asyncio.run(begin(server.chat()))
    server.wait_for(lambda: server.predictions[0].state == "ended")


async def test_cancelling_the_task_stops_the_server(server: Server) -> None:
    task = asyncio.create_task(server.chat().ainvoke("for ever"))
    await asyncio.to_thread(server.wait_for, lambda: any(each.fragments for each in server.predictions))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[0].state == "ended")


def test_closing_stops_what_runs_and_the_object_works_again_after_it(server: Server) -> None:
    with server.chat() as llm:
        stream = llm.stream("for ever")
        next(stream)
    with pytest.raises(ModelError):
        list(stream)
    server.wait_for(lambda: server.predictions[0].state == "ended")
    assert llm.invoke("count").content == COUNTED


# Callbacks ------------------------------------------------------------------------------------------------------------


class Counter(BaseCallbackHandler):
    """Records the callbacks that it receives."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.events: list[str] = []

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.events.append("start")

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(str(token))

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.events.append("end")

    def on_llm_error(self, *_: Any, **__: Any) -> None:
        self.events.append("error")


class AsyncCounter(AsyncCallbackHandler):
    """Counts tokens."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(str(token))


@pytest.mark.parametrize(
    ("ways", "settings", "tokens"),
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
def test_callbacks_fire_once_on_every_path(server: Server, ways: str, settings: dict[str, Any], tokens: int) -> None:
    """Three words and the last chunk; a non-streaming call reports no tokens."""
    counter = Counter()
    llm = server.chat(max_tokens=3, **settings)
    config: Any = {"callbacks": [counter]}

    async def av3() -> None:
        stream = await llm.astream_events("count", config, version="v3")
        await stream

    match ways:
        case "v3":
            assert llm.stream_events("count", config, version="v3").output.text == "0 1 2"
        case "av3":
            asyncio.run(av3())
        case _:
            WAYS[ways](llm, "count", config=config)
    assert counter.events == ["start", "end"]
    assert len(counter.tokens) == tokens


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_call_may_choose_whether_it_streams(server: Server, way: str) -> None:
    def tokens(llm: Any, **given: Any) -> int:
        counter = Counter()
        WAYS[way](llm, "count", config={"callbacks": [counter]}, **given)
        return len(counter.tokens)

    llm, streaming = server.chat(max_tokens=3), server.chat(max_tokens=3, streaming=True)
    assert [tokens(llm), tokens(llm, streaming=True), tokens(llm.bind(stream=True))] == [0, 4, 4]
    assert [tokens(streaming), tokens(streaming, streaming=False), tokens(streaming, stream=False)] == [4, 0, 0]


async def test_an_async_callback_gets_every_token_of_v3_events(server: Server) -> None:
    counter = AsyncCounter()
    stream = await server.chat(max_tokens=3).astream_events("count", {"callbacks": [counter]}, version="v3")
    assert (await stream).text == "0 1 2"
    assert counter.tokens == ["0", " 1", " 2", ""]


def test_streaming_false_forbids_streams(server: Server) -> None:
    chunks = list(server.chat(streaming=False).stream("count"))
    assert [chunk.content for chunk in chunks if chunk.content] == [COUNTED]
    assert [chunk.content for chunk in server.chat(max_tokens=2).stream("count", stream=True)] == ["0", " 1", ""]
