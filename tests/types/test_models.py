"""What is known of models: read leniently, shown as the server sent it."""

import json
from typing import Any

import pytest
from pydantic.alias_generators import to_snake

import lmstudio_integrations as lms
from lmstudio_integrations.types.models import (
    INFO_TYPES,
    INSTANCE_INFO_TYPES,
    by_identifier,
    read_info,
)

INSTANCE: dict[str, Any] = {
    "type": "llm",
    "modelKey": "qwen2.5-0.5b-instruct",
    "format": "gguf",
    "displayName": "Qwen2.5 0.5B Instruct",
    "publisher": "lmstudio-community",
    "path": "lmstudio-community/Qwen2.5-0.5B-Instruct-GGUF/Qwen2.5-0.5B-Instruct-Q4_K_M.gguf",
    "sizeBytes": 397807936,
    "indexedModelIdentifier": "x",
    "deviceIdentifier": None,
    "paramsString": "0.5B",
    "architecture": "qwen2",
    "quantization": {"name": "Q4_K_M", "bits": 4},
    "vision": False,
    "trainedForToolUse": True,
    "maxContextLength": 32768,
    "identifier": "qwen2.5-0.5b-instruct",
    "instanceReference": "lpFZPBQjhSZPrFevGyY6Leq8",
    "ttlMs": 3600000,
    "lastUsedTime": None,
    "contextLength": 4096,
}
OLD = {
    "type": "embedding",
    "modelKey": "nomic",
    "format": "gguf",
    "displayName": "Nomic",
    "path": "p",
    "sizeBytes": 1,
    "maxContextLength": 2048,
}

DECISION = {name: value for name, value in OLD.items() if name != "maxContextLength"} | {"type": "decision"}
"""Of a decision model, a server need not know the longest context, nor any variants."""
LOADED_DECISION = {**DECISION, "identifier": "judge", "instanceReference": "a", "contextLength": 4096}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (lms.LlmInstanceInfo, INSTANCE),
        (lms.EmbeddingModelInfo, OLD),
        (lms.DecisionModelInfo, DECISION),
        (lms.DecisionModelInstanceInfo, LOADED_DECISION),
    ],
)
def test_an_info_holds_exactly_what_the_server_sent_of_it(
    kind: type[lms.LlmInstanceInfo | lms.EmbeddingModelInfo | lms.DecisionModelInfo], data: dict[str, Any]
) -> None:
    info = kind.from_dict({**data, "fromTheFuture": 1})
    assert info.to_dict() == data
    assert json.loads(info.to_json()) == data


@pytest.mark.parametrize("bits", [{}, {"bits": None}, {"bits": 4.5}])
def test_a_quantization_keeps_its_name_without_its_bits(bits: dict[str, Any]) -> None:
    info = read_info({**INSTANCE, "quantization": {"name": "Q4_K_M", **bits}})
    assert info is not None
    assert info.to_dict()["quantization"] == {"name": "Q4_K_M"}


def test_an_info_is_shown_in_the_form_from_which_it_can_be_built() -> None:
    info = lms.LlmInstanceInfo.from_dict(INSTANCE)
    shown = str(info)
    assert shown.startswith("LlmInstanceInfo.from_dict({\n")
    assert '"ttlMs": 3600000,' in shown, "whole numbers stay whole"
    assert json.loads(shown.removeprefix("LlmInstanceInfo.from_dict(").removesuffix(")")) == INSTANCE


def test_kinds_of_models_that_are_unknown_are_skipped_in_a_listing() -> None:
    infos = [info for info in map(read_info, [INSTANCE, {"type": "tts"}, OLD, DECISION]) if info]
    assert [type(info) for info in infos] == [lms.LlmInfo, lms.EmbeddingModelInfo, lms.DecisionModelInfo]
    assert (infos[-1].max_context_length, infos[-1].variants) == (0, None)


@pytest.mark.parametrize("name", ["", "x" * 1025, "__proto__", "line\nbreak", "bell\a", "unassigned\U000e0fff"])
def test_a_name_that_no_model_can_have_is_rejected_here(name: str) -> None:
    with pytest.raises(lms.LMStudioValueError) as caught:
        by_identifier(name)
    assert str(caught.value).startswith(repr(name)[:40])


@pytest.mark.parametrize(("used", "fits"), [(4095, True), (4096, False), (5000, False)])
def test_a_conversation_fits_when_there_is_room_for_a_response(used: int, fits: bool) -> None:
    assert lms.ContextUse(used=used, limit=4096).fits is fits


@pytest.mark.parametrize("kind", [*INFO_TYPES.values(), *INSTANCE_INFO_TYPES.values()])
def test_an_info_that_is_made_by_hand_needs_no_type(
    kind: type[lms.ModelInfo],
) -> None:
    data = {name: value for name, value in INSTANCE.items() if to_snake(name) in kind.model_fields and name != "type"}
    info = kind(**{to_snake(name): value for name, value in data.items()})
    expected = kind.model_fields["type"].default
    assert info.to_dict() == {**data, "type": expected}
    assert info == kind.from_dict({**data, "type": expected})
