"""What is index of a host's prompt cache."""

from typing import Any

import pytest

from lmstudio_integrations.client.hosts import prompt_index as module
from lmstudio_integrations.client.hosts.prompt_index import PromptIndex
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult


def fingerprint(parts: str) -> PromptFingerprint:
    """The fingerprint of tools, a system message and turns, each a letter."""
    return PromptFingerprint(tuple(map(ord, parts)), 2)


def result(prompt: int, cached: int | None = 0, *, first_token: float = 2.0, total: float = 3.0) -> PredictionResult:
    stats: Any = {
        "promptTokensCount": prompt,
        "totalTokensCount": prompt + 10,
        "timeToFirstTokenSec": first_token,
        "totalTimeSec": total,
    }
    return PredictionResult("", "", PredictionEnd(stats, {}, {}, {}), cached_tokens=cached)


@pytest.fixture
def index() -> PromptIndex:
    """A host that has processed 100 tokens of a conversation in two seconds."""
    index = PromptIndex()
    index.record_request(fingerprint("TSab"))
    index.record_response(fingerprint("TSab"), result(100))
    return index


@pytest.mark.parametrize(
    ("parts", "seconds"),
    [("TSab", 2.2), ("TSabcd", 2.2), ("TSx", 0.0), ("TSa", 0.0), ("tSab", 0.0), ("TS", 0.0)],
    ids=["again", "one that goes on", "another one", "shorter", "other tools", "no turn yet"],
)
def test_the_seconds_that_the_cache_saves_are_those_of_the_tokens_it_has(
    index: PromptIndex, parts: str, seconds: float
) -> None:
    assert index.seconds_saved(fingerprint(parts)) == pytest.approx(seconds)


def test_averages_follow_the_latest_calls(index: PromptIndex) -> None:
    index.record_request(fingerprint("TSabc"))
    index.record_response(fingerprint("TSabc"), result(200, first_token=2.0, total=1.0))
    assert index.call_seconds == pytest.approx(3.0 - 0.3 * 2.0)
    # From 0.02 seconds for a token to nearly 0.01, with 210 tokens in the cache.
    assert index.seconds_saved(fingerprint("TSabcd")) == pytest.approx(210 * (0.02 - 0.3 * 0.01))


def test_a_prompt_that_was_mostly_cached_does_not_tell_how_long_a_token_takes(index: PromptIndex) -> None:
    for _ in range(6):
        index.record_response(fingerprint("TSab"), result(100, cached=99, first_token=0.1))
    assert index.seconds_saved(fingerprint("TSab")) == pytest.approx(2.2)


def test_a_response_to_something_else_tells_how_long_a_call_takes() -> None:
    index = PromptIndex()
    index.record_response(None, result(100))
    assert (index.call_seconds, index.active()) == (3.0, 0)


def test_a_response_that_reports_nothing_changes_nothing(index: PromptIndex) -> None:
    index.record_response(fingerprint("TSz"), PredictionResult("", "", PredictionEnd({}, {}, {}, {})))
    assert index.seconds_saved(fingerprint("TSab")) == pytest.approx(2.2)
    assert index.call_seconds == 3.0


def test_a_conversation_is_active_for_a_while_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    index = PromptIndex()
    for parts in ("TSa", "TSabc", "TSabcde"):
        now[0] += 20
        index.record_request(fingerprint(parts))
        index.record_response(fingerprint(parts), result(100))
    assert index.active() == 1
    index.record_request(fingerprint("TSx"))
    assert 1 < index.active() < 2, "it may go on, too"
    now[0] += module._ACTIVE + 1
    assert index.active() == 0


def test_calls_that_are_no_conversations_hardly_count_and_are_forgotten() -> None:
    index, before = PromptIndex(), 0.0
    for number in range(module._MOST):
        index.record_request(PromptFingerprint((0, number)))
        assert before < index.active() < 1
        before = index.active()
    index.record_request(PromptFingerprint((0, -1)))
    assert index.active() == before
    index.clear()
    assert index.active() == 0
