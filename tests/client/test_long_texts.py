"""Texts that are too long for an embedding model: how they are counted and cut."""

from collections.abc import Generator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstudio_integrations.client._binding import ContextWindow
from lmstudio_integrations.client._long_texts import SPECIAL_TOKENS, overflow_error, truncate_or_reject, utf8_length
from lmstudio_integrations.errors import LMStudioContextOverflowError
from lmstudio_integrations.types.embedding_request import EmbeddingRequest, LengthPolicy

Fitting = Generator[Sequence[str], list[int], list[str]]


def start(request: EmbeddingRequest, context_window: int) -> Fitting:
    """Start to fit texts; the generator yields the texts whose tokens it needs counted."""

    def count(texts: Sequence[str]) -> Generator[Sequence[str], list[int], list[int]]:
        return (yield texts)

    return truncate_or_reject(request, count, ContextWindow(context_window))  # type: ignore[arg-type,return-value]  # yields texts, not calls


def count_words(fitting: Fitting) -> list[str]:
    """Return the texts that are embedded if each word is one token."""
    try:
        question = next(fitting)
        while True:
            question = fitting.send([len(text.split()) for text in question])
    except StopIteration as done:
        texts: list[str] = done.value
        return texts


@given(st.lists(st.text("ab é\n", max_size=80), max_size=5), st.integers(3, 20))
def test_truncation_ends_with_beginnings_that_fit_the_context_window(texts: list[str], context_window: int) -> None:
    fitting = count_words(start(EmbeddingRequest(texts, "truncate", "chunk_size"), context_window))
    assert len(fitting) == len(texts)
    for before, after in zip(texts, fitting, strict=True):
        assert before.startswith(after)
        assert len(after.split()) <= context_window - SPECIAL_TOKENS
        if len(before.split()) <= context_window - SPECIAL_TOKENS:
            assert after == before


@pytest.mark.parametrize("policy", ["error", "truncate"])
def test_the_tokens_of_short_texts_are_not_counted(policy: LengthPolicy) -> None:
    with pytest.raises(StopIteration) as done:
        next(start(EmbeddingRequest(["a", "é" * 200, "b" * 510], policy, "chunk_size"), 512))
    assert done.value.value == ["a", "é" * 200, "b" * 510]
    assert next(start(EmbeddingRequest(["b" * 511], policy, "chunk_size"), 512)) == ["b" * 511]
    assert [utf8_length("a" * 4), utf8_length("€€"), utf8_length("\ud835")] == [4, 6, 3]


@pytest.mark.parametrize("context_window", [-5, 0, SPECIAL_TOKENS])
def test_a_text_of_which_nothing_fits_is_an_error(context_window: int) -> None:
    steps = start(EmbeddingRequest(["word " * 20], "truncate", "chunk_size"), context_window)
    next(steps)
    with pytest.raises(LMStudioContextOverflowError, match="text 0 has 9 tokens"):
        list(map(steps.send, [[7]] * 100))


def test_a_text_without_tokens_fits_any_context_window() -> None:
    steps = start(EmbeddingRequest(["word"], "truncate", "chunk_size"), -5)
    next(steps)
    with pytest.raises(StopIteration) as done:
        steps.send([0])
    assert done.value.value == ["word"]


@pytest.mark.parametrize("maximum", [None, 9])
def test_advice_does_not_repeat_what_was_done(maximum: int | None) -> None:
    request = EmbeddingRequest(["b"], "truncate", "chunk_size", given=["a", "b"])
    message = str(overflow_error(request, 0, 7, ContextWindow(2, maximum)))
    assert "text 1 has 7 tokens" in message
    assert "or load the model with a context_length of 7 or more" in message
    assert "length_policy" not in message
