"""Which downloaded model a name means."""

from typing import Any

import pytest

from lmstudio_integrations.cli._model_names import find_models, listed
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.models import LlmInfo


def downloaded(key: str, **details: Any) -> LlmInfo:
    members: dict[str, Any] = {"format": "gguf", "display_name": key, "path": f"{key}/file.gguf", "size_bytes": 0}
    return LlmInfo(type="llm", model_key=key, max_context_length=1, **(members | details))


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("a/model", "a/model"),
        ("A/MODEL", "a/model"),
        ("a/model/FILE.gguf", "a/model/file.gguf"),
        ("a/model@Q4", "a/model@q4"),
        ("Nice", "a/model"),
        ("other-long", "b/other-long"),
    ],
)
def test_a_model_has_several_names(typed: str, name: str) -> None:
    models = [
        downloaded("b/other-long"),
        downloaded("a/model", variants=["a/model@q4", "a/model@q8"], display_name="Nice Name"),
        downloaded("b/other"),
    ]
    assert [each.name for each in find_models(typed, models)] == [name]


def test_a_full_name_is_found_although_others_contain_it() -> None:
    models = [downloaded("model-long"), downloaded("model")]
    assert [each.name for each in find_models("model", models)] == ["model"]


def test_all_models_that_contain_a_name_are_found() -> None:
    models = [downloaded("a/model"), downloaded("b/other"), downloaded("c/MODEL")]
    assert [each.name for each in find_models("model", models)] == ["a/model", "c/MODEL"]


def test_an_error_lists_ten_names_at_most() -> None:
    assert listed(f"model-{number}" for number in range(12)).endswith("model-9 and 2 more")


def test_without_downloaded_models_the_error_names_how_to_get_one() -> None:
    with pytest.raises(LMStudioValueError, match="none is downloaded; `lmsi get some` downloads one"):
        find_models("some", [])
