"""Which models commands take when the user named none, and how they write sizes, times and long lines."""

import pytest

from lmstudio_integrations.cli._formatting import duration, model_size, wrapped
from lmstudio_integrations.cli._ls import SIZE_LIMIT, Choice, choose, choose_for_trial
from lmstudio_integrations.types.models import LlmInfo, LlmInstanceInfo


def downloaded(key: str, size: int) -> LlmInfo:
    return LlmInfo(
        type="llm",
        model_key=key,
        format="gguf",
        display_name=key,
        path=f"somebody/{key}",
        size_bytes=size,
        max_context_length=4096,
    )


def loaded(identifier: str, *, size: int = 100, used: float | None = None) -> LlmInstanceInfo:
    return LlmInstanceInfo(
        **downloaded("some-key", size).model_dump(),
        identifier=identifier,
        instance_reference=f"reference of {identifier}",
        context_length=2048,
        last_used_time=used,
    )


@pytest.mark.parametrize(
    ("instances", "models", "choice"),
    [
        ([loaded("mine", size=10 * SIZE_LIMIT)], [downloaded("small", 1)], Choice("mine", loaded=True)),
        ([loaded("never"), loaded("early", used=1.0), loaded("late", used=2.0)], [], Choice("late", loaded=True)),
        ([], [downloaded("b", 30), downloaded("a", 10), downloaded("c", 20)], Choice("a", loaded=False)),
        ([], [downloaded("large", SIZE_LIMIT)], None),
        ([], [], None),
    ],
    ids=["loaded, however large", "the last used", "the smallest", "a large one is not loaded unasked", "nothing"],
)
def test_a_loaded_model_is_taken_else_a_small_one(
    instances: list[LlmInstanceInfo], models: list[LlmInfo], choice: Choice | None
) -> None:
    assert choose(instances, models) == choice


def test_a_trial_prefers_a_model_for_tools_then_a_loaded_one_then_a_small_one() -> None:
    tools, plain = downloaded("tools", 30).model_copy(update={"trained_for_tool_use": True}), downloaded("plain", 1)
    instance = loaded("loaded")
    assert choose_for_trial([], [plain, tools]) is tools
    assert choose_for_trial([instance], [plain]) is instance
    assert choose_for_trial([instance], [plain, tools]) is tools
    assert choose_for_trial([instance, loaded("late", used=1)], []) == loaded("late", used=1)
    assert choose_for_trial([], []) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "-"), (999, "999 B"), (1000, "1.00 kB"), (2_500_000, "2.50 MB"), (4_683_073_184, "4.68 GB")],
)
def test_the_size_of_a_model_is_shown_in_the_unit_that_fits(count: int, text: str) -> None:
    assert model_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0s"),
        (0.4, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599.6, "1h"),
        (3661, "1h 1m"),
        (3601, "1h 1s"),
        (90_000, "25h"),
    ],
)
def test_a_time_has_its_two_largest_units(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_a_line_is_wrapped_between_words_unless_its_width_is_unknown() -> None:
    assert wrapped("one two three", 8) == "one two\n    three"
    assert wrapped("one two three", None) == "one two three"
