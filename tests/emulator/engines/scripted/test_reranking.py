"""Scripted rerankers: which part of a prompt a rule sees, and the scores that the client makes of the response."""

from collections.abc import Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import Rule
from lmstudio_integrations.emulator.engines.scripted.decisions import coverage, rerank_prompt
from tests.emulator.engines.scripted.models import respond

RULES: tuple[Any, ...] = (
    {"when": {"last": "ferr(y|ies)"}, "then": [{"relevance": 0.9}]},
    {"when": {"last": "^surely"}, "then": [{"relevance": 1}]},
    {"when": {"last": "^never"}, "then": [{"relevance": 0}]},
    {"when": {"last": "^prose"}, "then": [{"text": "Well"}]},
    {"when": {"last": "^think"}, "then": [{"reasoning": "Well"}, {"text": "yes"}]},
)
QUERY = "When does the ferry leave?"
QWEN3, CHAT = "qwen3-reranker-0.6b", "a-chat-model"


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """Models of both forms of prompts, with rules and without."""
    rules = {"": (), "-with-rules": RULES}
    models = [
        ModelEntry(key=f"{key}{name}", rules=rules[name], preload=True) for key in (QWEN3, CHAT) for name in rules
    ]
    with Emulator(models) as emulator:
        yield emulator


def scores(server: Emulator, key: str, texts: list[str], query: str = QUERY, **parameters: Any) -> list[float | None]:
    """Return the scores of texts in their order."""
    with lms.Client(server.address) as client:
        results = client.llm.model(key).rerank(query, texts, **parameters)
    return [each.score for each in sorted(results, key=lambda each: each.index)]


@pytest.mark.parametrize("key", [QWEN3, CHAT])
def test_the_score_of_a_text_is_the_relevance_of_its_rule(server: Emulator, key: str) -> None:
    texts = ["Ferries\n\nText: two ferries", "It rains.", "surely", "never", "prose", "think"]
    found = scores(server, f"{key}-with-rules", texts, instruction="Is it about a ferry?")
    assert found == [pytest.approx(0.9), pytest.approx(0.01), 1.0, 0.0, None, None]


@pytest.mark.parametrize("key", [QWEN3, CHAT])
def test_without_rules_the_score_is_what_the_text_has_of_the_query(server: Emulator, key: str) -> None:
    texts = ["It rains.", "The ferry leaves at nine.", f"Many ask: {QUERY} {'And so on. ' * 50}"]
    assert scores(server, key, texts) == [pytest.approx(coverage(QUERY, text)) for text in texts]
    assert sorted(texts, key=lambda text: coverage(QUERY, text)) == texts
    assert scores(server, key, texts, "!") == [0.0, 0.0, 0.0]


def test_another_prompt_is_no_prompt_of_a_reranker() -> None:
    question = "\n\nText: t\n\nIs the text relevant to the query?"
    for prompt in ("\n\nQuery: q\n\nText: t", "\n<Query>: q\n<Document>: d", question):
        assert rerank_prompt(prompt) is None


@pytest.mark.parametrize(("relevance", "word"), [(0.5, "yes"), (0.49, "no")])
async def test_the_more_probable_word_is_written_first(relevance: float, word: str) -> None:
    (fragment,) = (await respond([{"then": [{"relevance": relevance}]}], log_probs=10)).fragments
    assert fragment.content == word
    assert fragment.tokens is not None
    (token,) = fragment.tokens
    assert [each["text"] for each in token["candidates"]] == ["yes", "no"] if word == "yes" else ["no", "yes"]
    assert {name: token[name] for name in ("text", "id", "logProb")} == token["candidates"][0]


@pytest.mark.parametrize("relevance", [-0.1, 1.1])
def test_a_relevance_is_a_number_from_0_to_1(relevance: object) -> None:
    with pytest.raises(lms.LMStudioValueError, match="relevance"):
        Rule(then=[{"relevance": relevance}])
