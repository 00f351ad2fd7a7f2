"""What is known of a host's prompt cache."""

from typing import Any

import pytest

from lmstudio_integrations.client.hosts import conversations as module
from lmstudio_integrations.client.hosts.conversations import Conversations
from lmstudio_integrations.protocol.prompt_outline import PromptOutline
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult


def outline(parts: str) -> PromptOutline:
    """The outline of tools, a system message and turns, each a letter."""
    return PromptOutline(tuple(map(ord, parts)), 2)


def result(prompt: int, cached: int | None = 0, *, first_token: float = 2.0, total: float = 3.0) -> PredictionResult:
    stats: Any = {
        "promptTokensCount": prompt,
        "totalTokensCount": prompt + 10,
        "timeToFirstTokenSec": first_token,
        "totalTimeSec": total,
    }
    return PredictionResult("", "", PredictionEnd(stats, {}, {}, {}), cached_tokens=cached)


@pytest.fixture
def known() -> Conversations:
    """A host that has processed 100 tokens of a conversation in two seconds."""
    conversations = Conversations()
    conversations.begin(outline("TSab"))
    conversations.end(outline("TSab"), result(100))
    return conversations


@pytest.mark.parametrize(
    ("parts", "seconds"),
    [("TSab", 2.2), ("TSabcd", 2.2), ("TSx", 0.0), ("TSa", 0.0), ("tSab", 0.0), ("TS", 0.0)],
    ids=["again", "one that goes on", "another one", "shorter", "other tools", "no turn yet"],
)
def test_the_seconds_that_the_cache_saves_are_those_of_the_tokens_it_has(
    known: Conversations, parts: str, seconds: float
) -> None:
    assert known.seconds_saved(outline(parts)) == pytest.approx(seconds)


def test_averages_follow_the_latest_calls(known: Conversations) -> None:
    known.begin(outline("TSabc"))
    known.end(outline("TSabc"), result(200, first_token=2.0, total=1.0))
    assert known.call_seconds == pytest.approx(3.0 - 0.3 * 2.0)
    # From 0.02 seconds for a token to nearly 0.01, with 210 tokens in the cache.
    assert known.seconds_saved(outline("TSabcd")) == pytest.approx(210 * (0.02 - 0.3 * 0.01))


def test_a_prompt_that_was_mostly_cached_does_not_tell_how_long_a_token_takes(known: Conversations) -> None:
    for _ in range(6):
        known.end(outline("TSab"), result(100, cached=99, first_token=0.1))
    assert known.seconds_saved(outline("TSab")) == pytest.approx(2.2)


def test_a_response_to_something_else_tells_how_long_a_call_takes() -> None:
    conversations = Conversations()
    conversations.end(None, result(100))
    assert (conversations.call_seconds, conversations.active()) == (3.0, 0)


def test_a_response_that_reports_nothing_changes_nothing(known: Conversations) -> None:
    known.end(outline("TSz"), PredictionResult("", "", PredictionEnd({}, {}, {}, {})))
    assert known.seconds_saved(outline("TSab")) == pytest.approx(2.2)
    assert known.call_seconds == 3.0


def test_a_conversation_is_active_for_a_while_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    conversations = Conversations()
    for parts in ("TSa", "TSabc", "TSabcde"):
        now[0] += 20
        conversations.begin(outline(parts))
        conversations.end(outline(parts), result(100))
    assert conversations.active() == 1
    conversations.begin(outline("TSx"))
    assert 1 < conversations.active() < 2, "it may go on, too"
    now[0] += module._ACTIVE + 1
    assert conversations.active() == 0


def test_calls_that_are_no_conversations_hardly_count_and_are_forgotten() -> None:
    conversations, before = Conversations(), 0.0
    for number in range(module._MOST):
        conversations.begin(PromptOutline((0, number)))
        assert before < conversations.active() < 1
        before = conversations.active()
    conversations.begin(PromptOutline((0, -1)))
    assert conversations.active() == before
    conversations.forget()
    assert conversations.active() == 0
