"""Tests of the pure parts of the benchmark `engine`. No test measures time."""

from collections.abc import Callable

import pytest

from benchmarks.engine_cases import (
    CASES,
    END_TOKENS,
    MOST_CALLERS,
    SETTINGS,
    TEXTS,
    TOKENS,
    conversation,
    measure,
    shares,
    texts,
)
from benchmarks.engine_table import Rounds, ratio, render


class Counting:
    """A backend that only counts; `missing` is by how much its results are too small."""

    def __init__(self, missing: int = 0) -> None:
        self.missing = missing
        self.prompts: list[tuple[str, str]] = []
        self.batches: list[list[str]] = []

    def generate(self, system: str, prompt: str, on_token: Callable[[], None]) -> int:
        self.prompts.append((system, prompt))
        on_token()
        return TOKENS - self.missing

    def embed(self, texts: list[str]) -> int:
        self.batches.append(texts)
        return len(texts) - self.missing


@pytest.mark.parametrize("name", CASES)
def test_a_case_makes_all_its_calls(name: str) -> None:
    backend, case = Counting(), CASES[name]
    measured = measure(backend, case, 3)
    assert all(value > 0 for value in measured.values())
    if case.work == "generate":
        assert set(measured) == {"tokens/s", "ms"}
        assert len(set(backend.prompts)) == case.callers <= MOST_CALLERS
    else:
        assert sorted(text for batch in backend.batches for text in batch) == sorted(texts(3))
        assert {len(batch) for batch in backend.batches} == {case.batch}


@pytest.mark.parametrize("name", CASES)
def test_a_side_that_loses_something_is_not_measured(name: str) -> None:
    with pytest.raises(ValueError, match="received"):
        measure(Counting(missing=1), CASES[name], 0)


def test_no_two_runs_have_a_prompt_or_a_text_in_common() -> None:
    starts = [system.split(maxsplit=1)[0] for system, _ in map(conversation, range(100))]
    assert len(set(starts)) == len(starts)
    assert not set(texts(1)) & set(texts(2))
    assert len(set(texts(1))) == TEXTS


def test_work_is_shared_in_batches() -> None:
    assert shares(["a", "b", "c", "d"], callers=2, batch=1) == [[["a"], ["c"]], [["b"], ["d"]]]
    assert shares(["a", "b", "c"], callers=1, batch=2) == [[["a", "b"], ["c"]]]


def test_no_response_ends_before_its_length() -> None:
    assert SETTINGS["llm.prediction.llama.logitBias"] == [[token, "-inf"] for token in END_TOKENS]


def test_the_table_has_the_median_of_the_ratios_and_not_of_the_sides() -> None:
    rounds: Rounds = {
        "generate_1": [
            {"direct": {"tokens/s": 100, "ms": 10}, "emulator": {"tokens/s": 98, "ms": 20}},
            {"direct": {"tokens/s": 50, "ms": 20}, "emulator": {"tokens/s": 49, "ms": 20}},
            {"direct": {"tokens/s": 10, "ms": 30}, "emulator": {"tokens/s": 5, "ms": 60}},
        ],
        "embed_1": [],
    }
    assert ratio(rounds["generate_1"], "tokens/s") == pytest.approx(0.98)
    assert ratio(rounds["generate_1"], "ms") == pytest.approx(0.5)
    lines = render(rounds).splitlines()
    assert lines[0].startswith("Medians of 3 rounds")
    assert lines[-2:] == [
        "| tokens: one response | tokens/s | 50.0 | 49.0 | 0.98 | yes |",
        "| first token: one response | ms | 20.0 | 20.0 | 0.50 | no |",
    ]
