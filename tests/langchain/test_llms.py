"""`LMStudioLLM` on a scripted server."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.outputs import GenerationChunk, LLMResult

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import LMStudioLLM
from tests.langchain.conftest import CHAT, COUNTED, OTHER, Server

Complete = Callable[..., str]


def _invoke(llm: Any, prompt: str, **given: Any) -> str:
    return str(llm.invoke(prompt, **given))


def _ainvoke(llm: Any, prompt: str, **given: Any) -> str:
    return str(asyncio.run(llm.ainvoke(prompt, **given)))


def _stream(llm: Any, prompt: str, **given: Any) -> str:
    return "".join(llm.stream(prompt, **given))


def _astream(llm: Any, prompt: str, **given: Any) -> str:
    async def collect() -> str:
        return "".join([fragment async for fragment in llm.astream(prompt, **given)])

    return asyncio.run(collect())


@pytest.fixture(params=[_invoke, _ainvoke, _stream, _astream], ids=["invoke", "ainvoke", "stream", "astream"])
def complete(request: pytest.FixtureRequest) -> Complete:
    """Each way to continue a text."""
    way: Complete = request.param
    return way


class Counter(BaseCallbackHandler):
    """Records the callbacks that it receives."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.ends: list[LLMResult] = []

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        self.ends.append(response)


class AsyncCounter(AsyncCallbackHandler):
    """Counts tokens."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(token)


def test_a_text_is_continued_without_a_template(server: Server, complete: Complete) -> None:
    assert complete(server.llm(), "count") == COUNTED
    assert server.last_request.prompt == "count"
    assert server.predictions[0].raw


def test_settings_and_stops_reach_the_model(server: Server, complete: Complete) -> None:
    assert complete(server.llm(max_tokens=4, stop=["x"]), "count", stop=[" 3"]) == "0 1 2"
    assert server.last_request.config.max_tokens == 4
    assert server.last_request.config.stop_strings == [" 3"]
    complete(server.llm().bind(model=OTHER, temperature=0.5), "count")
    assert server.last_request.config.temperature == 0.5
    assert server.predictions[-1].model == OTHER


@pytest.mark.parametrize("way", [_invoke, _ainvoke])
def test_a_call_may_choose_whether_it_streams(server: Server, way: Complete) -> None:
    def tokens(llm: Any, **given: Any) -> int:
        counter = Counter()
        way(llm, "count", config={"callbacks": [counter]}, **given)
        return len(counter.tokens)

    llm, streaming = server.llm(max_tokens=3), server.llm(max_tokens=3, streaming=True)
    assert [tokens(llm), tokens(llm, streaming=True), tokens(llm.bind(stream=True))] == [0, 4, 4]
    assert [tokens(streaming), tokens(streaming, streaming=False), tokens(streaming, stream=False)] == [4, 0, 0]


def test_unknown_settings_and_several_responses_are_rejected(server: Server, complete: Complete) -> None:
    with pytest.raises(LMStudioValueError, match="did you mean 'temperature'"):
        complete(server.llm(), "count", temprature=1)
    with pytest.raises(LMStudioValueError, match="unknown setting 'n'"):
        complete(server.llm(), "count", n=2)
    with pytest.raises(ValueError, match="unknown setting"):
        LMStudioLLM(model="m", best_of=2)  # type: ignore[call-arg]


async def test_a_batch_runs_prompts_beside_each_other_and_keeps_their_order(server: Server) -> None:
    prompts: list[Any] = [f"say {n}" for n in range(9)]
    result = server.llm().generate(prompts)
    texts = [generations[0].text for generations in result.generations]
    assert all(prompt in text for prompt, text in zip(prompts, texts, strict=True))
    assert server.llm().batch(prompts) == texts == await server.llm().abatch(prompts)
    assert result.llm_output is not None
    each = [generations[0].generation_info or {} for generations in result.generations]
    assert result.llm_output["model_name"] == CHAT
    assert result.llm_output["token_usage"]["total_tokens"] == sum(
        info["usage_metadata"]["total_tokens"] for info in each
    )


def test_metadata_is_on_the_last_chunk_only(server: Server) -> None:
    chunks = list(server.llm(max_tokens=2)._stream("count"))
    assert [chunk.text for chunk in chunks] == ["0", " 1", ""]
    assert [chunk.generation_info for chunk in chunks[:-1]] == [None, None]
    info = chunks[-1].generation_info
    assert info is not None
    assert info["finish_reason"] == "length"
    assert info["model_name"] == CHAT
    assert info["usage_metadata"]["output_tokens"] == 2
    whole = GenerationChunk(text="")
    for chunk in chunks:
        whole += chunk
    assert whole.text == "0 1"
    assert whole.generation_info == info
    for chunk in server.llm(max_tokens=3)._stream("count"):
        whole += chunk
    assert whole.text == "0 10 1 2"
    assert whole.generation_info is not None
    assert whole.generation_info["usage_metadata"]["output_tokens"] == 5
    assert isinstance(whole.generation_info["tokens_per_second"], float)
    assert whole.generation_info["finish_reason"] == "length"


@pytest.mark.parametrize("streaming", [False, True])
def test_cached_and_reasoning_tokens_are_counted(server: Server, streaming: bool) -> None:
    llm = server.llm(streaming=streaming)
    llm.invoke("think")
    info = llm.generate(["think"]).generations[0][0].generation_info
    assert info is not None
    assert info["usage_metadata"]["input_token_details"]["cache_read"] >= 0
    assert info["usage_metadata"]["output_token_details"]["reasoning"] > 0


@pytest.mark.parametrize(
    ("way", "settings", "tokens"),
    [
        (_stream, {}, 3),
        (_astream, {}, 3),
        (_invoke, {}, 0),
        (_ainvoke, {}, 0),
        (_invoke, {"streaming": True}, 3),
        (_ainvoke, {"streaming": True}, 3),
    ],
)
def test_callbacks_fire_once_on_every_path(
    server: Server, way: Complete, settings: dict[str, Any], tokens: int
) -> None:
    counter = Counter()
    way(server.llm(max_tokens=2, **settings), "count", config={"callbacks": [counter]})
    assert len(counter.tokens) == tokens
    (end,) = counter.ends
    info = end.generations[0][0].generation_info
    assert info is not None
    assert info["stop_reason"] == "maxPredictedTokensReached"


async def test_an_async_callback_gets_every_token(server: Server) -> None:
    counter = AsyncCounter()
    llm = server.llm(max_tokens=2)
    assert [fragment async for fragment in llm.astream("count", {"callbacks": [counter]})] == ["0", " 1", ""]
    assert counter.tokens == ["0", " 1", ""]


def test_closing_a_stream_stops_the_server(server: Server) -> None:
    for fragment in server.llm().stream("for ever"):
        if fragment:
            break
    server.wait_for(lambda: server.predictions[0].state == "ended")
    assert server.predictions[0].stop_reason == "userStopped"
