"""Reranking on the real engine: its scores are those of the engine itself, asked directly."""

import asyncio
import math
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations import LLM, Client, LlmLoadModelConfig
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.emulator.engines.llama_cpp.models import load

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.leaf("decisions", "llama_cpp")]

WORDS = ["ferry", "pier", "dog", "ticket", "storm", "harbor", "price", "child", "bus", "beach", "leash", "free", "late"]
EXAMPLES = lms.RerankTemplate(
    "Say yes if the text is about the query, else no.\n\n"
    "Query: fruit\nText: An apple a day.\nAbout it: yes\n\n"
    "Query: music\nText: The train is late.\nAbout it: no\n\n"
    "Query: {query}\nText: {text}\nAbout it:"
)
"""With examples, even a small model nearly always says one of the words."""

STEADY = LlmLoadModelConfig(eval_batch_size=32)
"""In larger steps the engine rounds otherwise, so that a score depends on how much of the prompt was cached."""

CLOSE = 0.01


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    entry = ModelEntry(key="chat", weights="smollm2-135m-instruct", context_length=256, slots=2)
    with Emulator([entry]) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def model(server: Emulator) -> Iterator[LLM]:
    with Client(server.address) as client:
        yield client.llm.model("chat", config=STEADY)


async def asked_directly(prompts: Sequence[str], template: lms.RerankTemplate) -> list[float]:
    """Return the scores of prompts, from all tokens of the engine's vocabulary."""
    engine: Any = await load(context_length=256, slots=1, fields=STEADY.to_fields())
    scores: list[float] = []
    try:
        for prompt in prompts:
            body = {"prompt": prompt, "n_predict": 1, "n_probs": 60_000, "temperature": 1.0, "cache_prompt": False}
            response = await engine._worker.call("/completions", body)
            found = [0.0, 0.0]
            for each in response["completion_probabilities"][0]["top_logprobs"]:
                for number, word in enumerate((template.yes, template.no)):
                    if each["token"].strip().lower() == word:
                        found[number] += math.exp(each["logprob"])
            scores.append(found[0] / sum(found))
    finally:
        await engine.close()
    return scores


def test_scores_are_those_of_the_engine(model: LLM) -> None:
    chance = random.Random(7)
    query, *texts = (" ".join(chance.choices(WORDS, k=words)).capitalize() + "." for words in (5, 2, 9, 17))
    expected = asyncio.run(asked_directly([text.join(EXAMPLES.frame(query)) for text in texts], EXAMPLES))
    results = model.rerank(query, texts, template=EXAMPLES)
    ranked = [expected[result.index] for result in results]
    assert [result.score for result in results] == pytest.approx(ranked, abs=CLOSE)
    assert all(first > second - CLOSE for first, second in pairwise(ranked))


def test_a_text_that_is_too_long_is_cut_after_a_word(model: LLM, server: Emulator) -> None:
    (result,) = model.rerank("a ferry", ["ferries " * 400], template=EXAMPLES)
    assert result.truncated
    prompt = server.predictions[-1].prompt or ""
    before, after = EXAMPLES.frame("a ferry")
    assert prompt.startswith(f"{before}ferries ferries")
    assert prompt.endswith(f"ferries{after}")
    assert 200 < model.count_tokens(prompt) < 256
