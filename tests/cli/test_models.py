"""Which models commands take when the user named none."""

from lmstudio_integrations.cli._models import SIZE_LIMIT, Choice, choose, choose_for_trial
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


def test_a_loaded_model_is_taken_by_its_identifier_however_large_it_is() -> None:
    assert choose([loaded("mine", size=10 * SIZE_LIMIT)], [downloaded("small", 1)]) == Choice("mine", loaded=True)


def test_of_several_loaded_models_the_last_used_is_taken() -> None:
    assert choose([loaded("never"), loaded("early", used=1.0), loaded("late", used=2.0)], []) == Choice(
        "late", loaded=True
    )


def test_without_a_loaded_model_the_smallest_downloaded_one_is_taken() -> None:
    assert choose([], [downloaded("b", 30), downloaded("a", 10), downloaded("c", 20)]) == Choice("a", loaded=False)


def test_a_large_model_is_never_loaded_unasked() -> None:
    assert choose([], [downloaded("large", SIZE_LIMIT)]) is None


def test_nothing_is_chosen_where_there_is_nothing() -> None:
    assert choose([], []) is None


def test_a_trial_prefers_a_model_for_tools_then_a_loaded_one_then_a_small_one() -> None:
    tools, plain = downloaded("tools", 30).model_copy(update={"trained_for_tool_use": True}), downloaded("plain", 1)
    instance = loaded("loaded")
    assert choose_for_trial([], [plain, tools]) is tools
    assert choose_for_trial([instance], [plain]) is instance
    assert choose_for_trial([instance], [plain, tools]) is tools
    assert choose_for_trial([instance, loaded("late", used=1)], []) == loaded("late", used=1)
    assert choose_for_trial([], []) is None
