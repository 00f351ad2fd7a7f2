"""`LMStudioLLM` on a scripted server."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import GenerationChunk

from lmstudio_integrations.langchain import LMStudioLLM
from tests._adapters.ways import LANGCHAIN
from tests.langchain.conftest import CHAT, COUNTED, OTHER, Server

Complete = Callable[..., str]


@pytest.fixture(params=LANGCHAIN)
def complete(request: pytest.FixtureRequest) -> Complete:
    """Each way to continue a text."""
    method = LANGCHAIN[request.param]
    return lambda llm, prompt, **given: "".join(method(llm, prompt, **given))


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


class Chunks(BaseCallbackHandler):
    """Keeps the chunks of a stream."""

    def __init__(self) -> None:
        self.chunks: list[GenerationChunk] = []

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **_: Any) -> None:
        self.chunks.append(chunk)


def chunks_of(llm: LMStudioLLM) -> list[GenerationChunk]:
    kept = Chunks()
    assert list(llm.stream("count", {"callbacks": [kept]})) == [chunk.text for chunk in kept.chunks]
    return kept.chunks


def test_metadata_is_on_the_last_chunk_only(server: Server) -> None:
    chunks = chunks_of(server.llm(max_tokens=2))
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
    other = functools.reduce(operator.add, chunks_of(server.llm(max_tokens=3)))
    for total in (whole + other, functools.reduce(operator.add, [whole, *chunks_of(server.llm(max_tokens=3))])):
        assert type(total) is GenerationChunk
        assert total.text == "0 10 1 2"
        assert total.generation_info is not None
        assert total.generation_info["usage_metadata"]["output_tokens"] == 5
        assert len(total.generation_info["predictions"]) == 2


@pytest.mark.parametrize("streaming", [False, True])
def test_cached_and_reasoning_tokens_are_counted(server: Server, streaming: bool) -> None:
    llm = server.llm(streaming=streaming)
    llm.invoke("think")
    info = llm.generate(["think"]).generations[0][0].generation_info
    assert info is not None
    assert info["usage_metadata"]["input_token_details"]["cache_read"] >= 0
    assert info["usage_metadata"]["output_token_details"]["reasoning"] > 0
