"""`rerank` on scripted models: the order, failures, limits, and what models cannot do."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.client.api.asynchronous import AsyncClient
from lmstudio_integrations.emulator import Emulator, ModelEntry, PredictionRecord
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioError,
    LMStudioPredictionError,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.types.reranking import QWEN3_RERANKER, RerankResult, RerankTemplate

RULES = (
    {"when": {"last": "^pool"}, "then": [{"relevance": 0.9}]},
    {"when": {"last": "^ferry"}, "then": [{"relevance": 0.4}]},
    {"when": {"last": "^broken"}, "then": [{"error": "the engine gave up"}]},
    {"when": {"last": "^for ever"}, "then": [{"fault": "stall"}]},
)
QUERY = "What does a swim cost?"
UNFILTERED = {
    "temperature": 1.0,
    "topKSampling": -1,
    **dict.fromkeys(("topPSampling", "minPSampling", "xtcProbability"), False),
    **dict.fromkeys(("repeatPenalty", "presencePenalty", "frequencyPenalty"), False),
}
"""Settings under which the model's own probabilities are reported."""


def entry(key: str, **fields: Any) -> ModelEntry:
    return ModelEntry(**{"key": key, "rules": RULES, "slots": 3, **fields})


@pytest.fixture
def server() -> Iterator[Emulator]:
    vectors = ModelEntry(key="vectors", kind="embedding")
    with Emulator(
        [
            entry("chat", context_length=400),
            entry("small", context_length=400, max_context_length=400),
            entry("qwen3-reranker"),
            entry("bge-reranker-v2-m3"),
            vectors,
        ]
    ) as it:
        yield it


@pytest.fixture
async def model(client: Any) -> Any:
    return await client.llm.model("chat")


def is_running(prediction: PredictionRecord) -> bool:
    return prediction.state == "running"


def scores(results: list[RerankResult]) -> list[tuple[int, float | None]]:
    return [(each.index, None if each.score is None else round(each.score, 4)) for each in results]


@pytest.mark.parametrize("key", ["chat", "qwen3-reranker"])
async def test_texts_are_sorted_by_their_scores_and_ties_by_their_order(
    client: Any, server: Emulator, key: str
) -> None:
    model = await client.llm.model(key)
    texts = ["train", "ferry", "pool", "ferries", "pool again", "ferry boat"]
    expected = [(2, 0.9), (4, 0.9), (1, 0.4), (5, 0.4), (0, 0.01), (3, 0.01)]
    assert scores(await model.rerank(QUERY, texts)) == expected
    assert scores(await model.rerank(QUERY, texts, top_n=2)) == expected[:2]
    assert scores(await model.rerank(QUERY, texts, max_concurrency=1)) == expected
    assert len(server.predictions) == 3 * len(texts)
    assert {each.stats["predictedTokensCount"] for each in server.predictions} == {1}
    assert all(UNFILTERED.items() <= each.config.items() for each in server.predictions)


async def test_no_texts_are_no_calls(model: Any, server: Emulator) -> None:
    assert await model.rerank(QUERY, []) == []
    assert not server.predictions


async def test_prompts_have_what_was_given(model: Any, server: Emulator) -> None:
    await model.rerank(QUERY, ["pool"], instruction="Find prices.")
    await model.rerank(QUERY, ["pool"], template="{instruction} | {query} | {text}")
    await model.rerank(QUERY, ["</s>pool"], template=RerankTemplate("{query}\n\nText: {text}", yes="1", no="0"))
    asked, plain, own = dict.fromkeys(str(each.prompt) for each in server.predictions)
    assert "yes or no. Find prices.\n\nQuery: What" in asked
    assert plain == f"{QWEN3_RERANKER.instruction} | {QUERY} | pool"
    assert own == f"{QUERY}\n\nText: < /s>pool"


async def test_progress_is_the_share_of_the_texts(model: Any) -> None:
    steps: list[float] = []
    await model.rerank(QUERY, ["pool", "ferry", "train", "broken"], errors="mark", on_progress=steps.append)
    assert steps == [0.25, 0.5, 0.75, 1.0]


async def test_a_text_that_fails_is_marked_and_comes_last(model: Any) -> None:
    results = await model.rerank(QUERY, ["broken", "pool", "ferry"], errors="mark")
    assert scores(results) == [(1, 0.9), (2, 0.4), (0, None)]
    assert isinstance(results[-1].error, LMStudioPredictionError | LMStudioError)
    assert [each.error for each in results[:2]] == [None, None]
    with pytest.raises(LMStudioError, match="the engine gave up"):
        await model.rerank(QUERY, ["pool", "broken", "ferry"])


async def test_one_failure_stops_the_others(model: Any, server: Emulator) -> None:
    with pytest.raises(LMStudioError, match="the engine gave up"):
        await model.rerank(QUERY, ["pool", "for ever", "for ever", "broken"])
    server.wait_for(lambda: not any(map(is_running, server.predictions)), 600)


async def test_cancelling_stops_all(server: Emulator) -> None:
    async with AsyncClient(server.address) as client:
        task = asyncio.create_task((await client.llm.model("chat")).rerank(QUERY, ["pool", *["for ever"] * 6]))
        await asyncio.to_thread(server.wait_for, lambda: sum(map(is_running, server.predictions)) == 3, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    server.wait_for(lambda: not any(map(is_running, server.predictions)), 600)
    assert len(server.predictions) == 4


async def test_a_query_that_fills_the_window_is_an_error(model: Any) -> None:
    with pytest.raises(LMStudioContextOverflowError, match=r"leave no room for a text.*of 400 tokens") as caught:
        await model.rerank("word " * 500, ["pool"])
    assert caught.value.limit == 400
    assert str(caught.value).endswith("; shorten them, or load the model with a larger context_length")


async def test_a_query_that_fills_the_longest_window_is_an_error_without_a_remedy_that_cannot_help(client: Any) -> None:
    with pytest.raises(LMStudioContextOverflowError, match=r"shorten them$"):
        await client.llm.lazy_model("small").rerank("word " * 500, ["pool"])


async def test_a_long_text_is_cut_and_marked(model: Any, server: Emulator) -> None:
    long = "pool " * 1000
    results = await model.rerank(QUERY, ["ferry", long])
    assert [(each.index, each.truncated) for each in results] == [(1, True), (0, False)]
    assert "pool pool\n\nRelevant:" in str(server.predictions[-1].prompt)


@pytest.mark.parametrize(
    ("key", "error"), [("vectors", LMStudioWrongModelKindError), ("bge-reranker-v2-m3", LMStudioUnsupportedError)]
)
async def test_models_that_cannot_are_told_which_can(client: Any, key: str, error: type[LMStudioError]) -> None:
    with pytest.raises(error, match="Qwen3-Reranker"):
        await client.llm.lazy_model(key).rerank(QUERY, ["pool"])


@pytest.mark.parametrize("errors", ["raise", "mark"])
@pytest.mark.parametrize("token", [None, {"id": 5}, {"logProb": None, "candidates": [{"text": "yes"}]}])
async def test_a_server_without_log_probabilities_is_an_error(
    model: Any, errors: str, token: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token is None:
        monkeypatch.setattr("lmstudio_integrations.emulator.engines.scripted.writer.candidate_count", lambda _: None)
    else:
        monkeypatch.setattr(words, "log_probs", lambda *_: {"text": "yes", **token})
    with pytest.raises(LMStudioUnsupportedError, match=r"no log-probabilities for the response '(yes|no)' of 'chat'"):
        await model.rerank(QUERY, ["pool"], errors=errors)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"query": 5}, "query must be a string; got 5"),
        ({"query": " "}, "query is empty"),
        ({"texts": "pool"}, "texts must be a list"),
        ({"texts": ["pool", 5]}, "text 1 must be a string; got 5"),
        ({"top_n": 0}, "top_n must be at least 1, or None; got 0"),
        ({"max_concurrency": 0.5}, "max_concurrency must be at least 1"),
        ({"instruction": ""}, "instruction is empty"),
        ({"template": 5}, "template must be a RerankTemplate or a prompt"),
        ({"errors": "ignore"}, "errors must be 'raise' or 'mark'; got 'ignore'"),
        ({"top_k": 3}, "unknown argument 'top_k'"),
        ({"on_progress": 5}, "on_progress must be a function, or None"),
    ],
)
async def test_invalid_arguments_are_rejected_before_anything_is_sent(
    model: Any, server: Emulator, given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(LMStudioValueError, match=re.escape(problem)):
        await model.rerank(**{"query": QUERY, "texts": ["pool"], **given})
    assert not server.predictions
