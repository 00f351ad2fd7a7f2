"""Texts that are too long for an embedding model: how they are counted and cut."""

from collections.abc import Callable, Generator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstudio_integrations.client.embeddings import (
    SPECIAL_TOKENS,
    EmbeddingRequest,
    LengthPolicy,
    Part,
    average_parts,
    fit_texts,
    overflow_error,
    split_text,
    utf8_length,
)
from lmstudio_integrations.client.models.state import ContextWindow
from lmstudio_integrations.errors import LMStudioContextOverflowError

Fitting = Generator[Sequence[str], list[int], list[Part]]


def start(request: EmbeddingRequest, context_window: int) -> Fitting:
    """Start to fit texts; the generator yields the texts whose tokens it needs counted."""

    def count(texts: Sequence[str]) -> Generator[Sequence[str], list[int], list[int]]:
        return (yield texts)

    return fit_texts(request, count, ContextWindow(context_window))  # type: ignore[arg-type,return-value]  # yields texts, not calls


def words(text: str) -> int:
    return len(text.split())


def counted(fitting: Fitting, count: Callable[[str], int] = words) -> list[Part]:
    """Return the parts that are embedded if texts have these numbers of tokens."""
    try:
        question = next(fitting)
        while True:
            question = fitting.send(list(map(count, question)))
    except StopIteration as done:
        parts: list[Part] = done.value
        return parts


TEXTS = st.lists(st.text("ab é\n", max_size=80), max_size=5)
PREFIXES = st.sampled_from(["", "search query: "])


@given(TEXTS, PREFIXES, st.integers(5, 20))
def test_truncation_ends_with_beginnings_that_fit_the_context_window(
    texts: list[str], prefix: str, context_window: int
) -> None:
    fitting = counted(start(EmbeddingRequest(texts, "truncate", "chunk_size", prefix), context_window))
    assert [part.number for part in fitting] == list(range(len(texts)))
    for before, (_, after, _) in zip(texts, fitting, strict=True):
        assert before.startswith(after)
        assert words(prefix + after) <= context_window - SPECIAL_TOKENS
        if words(prefix + before) <= context_window - SPECIAL_TOKENS:
            assert after == before


@pytest.mark.slow
@given(TEXTS, PREFIXES, st.integers(5, 20))
def test_the_parts_of_long_texts_fit_and_lack_nothing(texts: list[str], prefix: str, context_window: int) -> None:
    fitting = counted(start(EmbeddingRequest(texts, "average", "chunk_size", prefix), context_window))
    for index, text in enumerate(texts):
        parts = [part for part in fitting if part.number == index]
        assert sorted("".join(part.text for part in parts)) == sorted(text)
        assert all(part.text in text for part in parts)
        assert all(part.tokens == words(part.text) for part in parts[1:])
        assert all(words(prefix + part.text) <= context_window - SPECIAL_TOKENS for part in parts)
        if words(prefix + text) <= context_window - SPECIAL_TOKENS:
            assert len(parts) == 1


@pytest.mark.parametrize("text", [" " + "x" * 20, "xx x", "  ", "a b c d e f g"])
def test_no_part_of_a_text_is_empty(text: str) -> None:
    for count in (2, 3, 5):
        parts = split_text(text, count)
        assert all(parts)
        assert "".join(parts) == text


def test_words_stay_whole_in_parts() -> None:
    parts = counted(start(EmbeddingRequest(["rain " * 30, "sun"], "average", "chunk_size"), 12))
    assert {word for part in parts for word in part.text.split()} == {"rain", "sun"}
    assert [part.tokens for part in parts if part.number == 0] == [10, 10, 10]


def test_parts_are_as_long_as_the_prefix_of_each_allows() -> None:
    parts = counted(start(EmbeddingRequest(["rain " * 30], "average", "chunk_size", "search for: "), 12))
    assert [part.tokens for part in parts] == [len(part.text.split()) for part in parts]
    assert [part.tokens for part in parts] == [7, 8, 7, 8]


def test_a_prefix_that_leaves_no_room_is_one_error() -> None:
    request = EmbeddingRequest(["sun", "rain " * 30], "error", "chunk_size", "search for: ")
    with pytest.raises(LMStudioContextOverflowError) as caught:
        counted(start(request, 2 + SPECIAL_TOKENS))
    assert str(caught.value) == (
        "the prefix 'search for: ' leaves no room for a text: it has 4 tokens, and the model takes 4; shorten it"
    )
    with pytest.raises(LMStudioContextOverflowError, match="text 1 has 34 tokens with its prefix") as caught:
        counted(start(request, 12))
    assert "lower chunk_size below 10" in str(caught.value)


def test_the_tokens_of_short_texts_are_not_counted() -> None:
    with pytest.raises(StopIteration) as done:
        next(start(EmbeddingRequest(["a", "é" * 200, "b" * 510], "error", "chunk_size"), 512))
    assert [part.text for part in done.value.value] == ["a", "é" * 200, "b" * 510]
    assert next(start(EmbeddingRequest(["b" * 511], "error", "chunk_size"), 512)) == ["b" * 511]
    assert [utf8_length("a" * 4), utf8_length("€€"), utf8_length("\ud835")] == [4, 6, 3]


@pytest.mark.parametrize(("policy", "context_window"), [("truncate", -5), ("average", SPECIAL_TOKENS + 1)])
def test_a_text_of_which_nothing_fits_is_an_error(policy: LengthPolicy, context_window: int) -> None:
    steps = start(EmbeddingRequest(["word " * 20], policy, "chunk_size"), context_window)
    with pytest.raises(LMStudioContextOverflowError, match="text 0 has 9 tokens"):
        counted(steps, lambda _: 7)


def test_a_text_without_tokens_fits_any_context_window() -> None:
    steps = start(EmbeddingRequest(["word"], "truncate", "chunk_size"), -5)
    next(steps)
    with pytest.raises(StopIteration) as done:
        steps.send([0])
    assert done.value.value == [Part(0, "word")]


def test_the_average_is_weighted_by_tokens_and_as_long_as_the_vectors() -> None:
    parts = [Part(0, "a"), Part(1, "b", 3), Part(1, "c", 1), Part(2, "d")]
    unit = average_parts(parts, [[0.0, 2.0], [1.0, 0.0], [0.0, 1.0], [5.0, 0.0]])
    assert [unit[0], unit[2]] == [[0.0, 2.0], [5.0, 0.0]]
    assert unit[1] == pytest.approx([3 / 10**0.5, 1 / 10**0.5])
    assert average_parts(parts[1:3], [[8.0, 0.0], [8.0, 0.0]]) == [pytest.approx([8.0, 0.0])]
    assert average_parts(parts[1:3], [[0.0], [0.0]]) == [[0.0]]


@pytest.mark.parametrize("maximum", [None, 9])
def test_advice_does_not_repeat_what_was_done(maximum: int | None) -> None:
    request = EmbeddingRequest(["b"], "truncate", "chunk_size", all_texts=["a", "b"])
    message = str(overflow_error(request, 0, 7, ContextWindow(2, maximum)))
    assert "text 1 has 7 tokens" in message
    assert "or load the model with a context_length of 7 or more" in message
    assert "length_policy" not in message
