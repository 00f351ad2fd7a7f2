"""`rerank` on scripted models: the order, failures, limits, and what models cannot do."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry, PredictionRecord
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.types.reranking import QWEN3_RERANKER
from tests.support.gate import AT_THE_GATE, Gate

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


async def test_all_are_asked_at_once_if_only_the_engine_knows_how_many_it_runs(gate: Gate) -> None:
    rules = ({"when": {"last": "^pool"}, "then": [AT_THE_GATE, {"relevance": 0.9}]}, *RULES)
    model = entry("m", rules=rules, format="torch_safetensors", slots=2)
    with Emulator([model], engines=gate.engines()) as server:
        async with lms.AsyncClient(server.address) as client:
            llm = await client.llm.model("m", config={"engine_config_file_contents": "max-num-seqs: 2"})
            ranking = asyncio.create_task(llm.rerank(QUERY, ["ferry", *["pool"] * 9]))
            await asyncio.to_thread(server.wait_for, lambda: len(server.predictions) == 10)
            gate.open()
            assert len(await ranking) == 10


def is_running(prediction: PredictionRecord) -> bool:
    return prediction.state == "running"


def scores(results: list[lms.RerankResult]) -> list[tuple[int, float | None]]:
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


async def test_prompts_have_what_was_given(model: Any, server: Emulator) -> None:
    assert await model.rerank(QUERY, []) == []
    assert not server.predictions
    await model.rerank(QUERY, ["pool"], instruction="Find prices.")
    await model.rerank(QUERY, ["pool"], template="{instruction} | {query} | {text}")
    await model.rerank(QUERY, ["</s>pool"], template=lms.RerankTemplate("{query}\n\nText: {text}", yes="1", no="0"))
    asked, plain, own = dict.fromkeys(str(each.prompt) for each in server.predictions)
    assert "yes or no. Find prices.\n\nQuery: What" in asked
    assert plain == f"{QWEN3_RERANKER.instruction} | {QUERY} | pool"
    assert own == f"{QUERY}\n\nText: < /s>pool"


async def test_a_text_that_fails_is_marked_and_comes_last(model: Any) -> None:
    steps: list[float] = []
    results = await model.rerank(QUERY, ["broken", "pool", "ferry", "train"], errors="mark", on_progress=steps.append)
    assert scores(results) == [(1, 0.9), (2, 0.4), (3, 0.01), (0, None)]
    assert steps == [0.25, 0.5, 0.75, 1.0]
    assert isinstance(results[-1].error, lms.LMStudioError)
    assert [each.error for each in results[:-1]] == [None] * 3
    with pytest.raises(lms.LMStudioError, match="the engine gave up"):
        await model.rerank(QUERY, ["pool", "broken", "ferry"])


async def test_a_text_about_which_the_model_would_say_neither_word_has_no_score() -> None:
    """What yes and no share of two thousandths says nothing."""
    rest = {f"w{number}": 0.0998 for number in range(10)}
    rules = [
        {"when": {"last": "^pool"}, "then": [{"probabilities": {"yes": 0.0015, "no": 0.0005, **rest}}]},
        {"when": {"last": "^ferry"}, "then": [{"probabilities": {"yes": 0.03, "no": 0.09, **rest}}]},
    ]
    with Emulator([{"key": "vague", "rule": rules}]) as server:
        async with lms.AsyncClient(server.address) as client:
            results = await (await client.llm.model("vague")).rerank(QUERY, ["pool", "ferry"])
    assert scores(results) == [(1, 0.25), (0, None)]


async def test_one_failure_stops_the_others(model: Any, server: Emulator) -> None:
    with pytest.raises(lms.LMStudioError, match="the engine gave up"):
        await model.rerank(QUERY, ["pool", "for ever", "for ever", "broken"])
    server.wait_for(lambda: not any(map(is_running, server.predictions)), 600)


async def test_cancelling_stops_all(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        task = asyncio.create_task((await client.llm.model("chat")).rerank(QUERY, ["pool", *["for ever"] * 6]))
        await asyncio.to_thread(server.wait_for, lambda: sum(map(is_running, server.predictions)) == 3, 600)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    server.wait_for(lambda: not any(map(is_running, server.predictions)), 600)
    assert len(server.predictions) == 4


@pytest.mark.parametrize(
    ("key", "remedy"),
    [("chat", "; shorten them, or load the model with a larger context_length"), ("small", "; shorten them")],
)
async def test_a_query_that_fills_the_window_is_an_error_whose_remedy_can_help(
    client: Any, key: str, remedy: str
) -> None:
    with pytest.raises(lms.LMStudioContextOverflowError, match=r"leave no room for a text.*of 400 tokens") as caught:
        await client.llm.lazy_model(key).rerank("word " * 500, ["pool"])
    assert caught.value.limit == 400
    assert str(caught.value).endswith(remedy)


async def test_a_long_text_is_cut_and_marked(model: Any, server: Emulator) -> None:
    long = "pool " * 1000
    results = await model.rerank(QUERY, ["ferry", long])
    assert [(each.index, each.truncated) for each in results] == [(1, True), (0, False)]
    assert "pool pool\n\nRelevant:" in str(server.predictions[-1].prompt)


@pytest.mark.parametrize(
    ("key", "error"),
    [("vectors", lms.LMStudioWrongModelKindError), ("bge-reranker-v2-m3", lms.LMStudioUnsupportedError)],
)
async def test_models_that_cannot_are_told_which_can(client: Any, key: str, error: type[lms.LMStudioError]) -> None:
    with pytest.raises(error, match="Qwen3-Reranker"):
        await client.llm.lazy_model(key).rerank(QUERY, ["pool"])


@pytest.mark.parametrize("token", [{"id": 5}, {"logProb": None, "candidates": [{"text": "yes"}]}])
async def test_a_server_without_log_probabilities_is_an_error(
    model: Any, token: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "log_probs", lambda *_: {"text": "yes", **token})
    with pytest.raises(
        lms.LMStudioUnsupportedError, match=r"no log-probabilities for the response '(yes|no)' of 'chat'"
    ):
        await model.rerank(QUERY, ["pool"], errors="mark")
