"""From a load request to the worker's parameters."""

from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator.engines.base import LoadRequest
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, load_parameters
from lmstudio_integrations.emulator.engines.llama_cpp.gguf import (
    read_header,
)
from lmstudio_integrations.types.config import LlmLoadModelConfig
from tests.emulator.engines.llama_cpp.gguf_files import METADATA, TENSORS, gguf, parameters, write


def test_a_projector_beside_a_model_gives_it_vision(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    projector = write(tmp_path / "mmproj-model.gguf", b"")
    assert LlamaCppEngine(threads=1).metadata(str(path), "llm").vision
    assert parameters(path).projector == str(projector)


@pytest.mark.parametrize("name", ["missing.gguf", "", None, "."])
def test_missing_weights_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match="Failed to load model") as caught:
        LlamaCppEngine(threads=1).metadata(name, "llm")
    assert caught.value.cause
    assert caught.value.suggestion


def test_load_settings_reach_the_worker(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    config = LlmLoadModelConfig.parse(
        {
            "gpu": {"ratio": 0.5},
            "flashAttention": True,
            "evalBatchSize": 32,
            "ropeFrequencyBase": 5000.0,
            "llamaKCacheQuantizationType": "q8_0",
            "llamaVCacheQuantizationType": False,
            "promptTemplate": {"type": "jinja", "jinjaPromptTemplate": {"template": "T"}},
            "contextCheckpoints": 0,
            "seed": 5,
        }
    )
    reported = parameters(path, fields=config.to_fields())
    assert (reported.model, reported.context_length, reported.slots, reported.threads) == (str(path), 1024, 2, 3)
    assert reported.gpu_layers == 2
    assert reported.flash_attention is True
    assert reported.prompt_step == 32
    assert reported.rope_frequency == (5000.0, 0.0)
    assert reported.cache_types == ("q8_0", "f16")
    assert reported.chat_template == "T"
    assert reported.context_checkpoints == 0
    assert parameters(path).context_checkpoints == 32
    assert load_parameters.seed_of(LoadRequest("m", "llm", fields=config.to_fields())) == 5


@pytest.mark.parametrize(
    ("given", "values", "used"),
    [(None, None, None), (True, None, True), (False, None, False), (False, "q8_0", True), (None, "f32", None)],
)
def test_flash_attention_is_as_set_unless_the_cache_needs_it(
    tmp_path: Path, given: bool | None, values: str | None, used: bool | None
) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    config = LlmLoadModelConfig.parse({"flashAttention": given, "llamaVCacheQuantizationType": values})
    assert parameters(path, fields=config.to_fields()).flash_attention is used


@pytest.mark.parametrize(("ratio", "layers"), [("max", None), ("off", 0), (1, 4), (None, None)])
def test_layers_are_offloaded_by_ratio(tmp_path: Path, ratio: Any, layers: int | None) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    fields = {} if ratio is None else {"llm.load.llama.acceleration.offloadRatio": ratio}
    assert parameters(path, fields=fields).gpu_layers == layers


def test_the_context_length_of_a_worker_is_at_most_that_of_the_model(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    assert parameters(path, context_length=200_000_000).context_length == 8192


def test_slots_are_no_more_than_the_engine_knows(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    assert parameters(path, slots=1023).slots == 256


def test_slots_share_a_cache_only_if_necessary(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    assert read_header(path).bytes_per_token == 4 * 2 * (8 + 8) * 2
    assert parameters(path).cache_length == 0
    large = write(tmp_path / "large.gguf", gguf(METADATA | {"llama.embedding_length": 1 << 20}, TENSORS))
    assert parameters(large).cache_length == 1024
    assert parameters(large, fields={"llm.load.useUnifiedKvCache": False}).cache_length == 0


@pytest.mark.parametrize(("memory", "mebibytes"), [(0, 1024), (64 << 30, 1024), (2 << 30, 512)])
def test_earlier_prompts_take_at_most_a_quarter_of_the_memory(tmp_path: Path, memory: int, mebibytes: int) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    assert parameters(path, memory=memory).prompt_cache_mib == mebibytes


@pytest.mark.parametrize(
    ("settings", "fits"),
    [({}, True), ({"autoFit": True}, True), ({"autoFit": False}, False), ({"contextLength": 512}, False)],
)
def test_the_engine_fits_a_model_unless_that_is_switched_off(
    tmp_path: Path, settings: dict[str, Any], fits: bool
) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    assert parameters(path, fields=LlmLoadModelConfig.parse(settings).to_fields()).auto_fit is fits


ARGUMENTS = {"disabledParameters": [], "overrideParameters": [], "excludeAllConfig": False}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"speculativeDraftMtp": True}, "speculative decoding"),
        ({"speculativeDraftSimple": True, "speculativeDraftModel": "small"}, "speculative decoding"),
        ({"llamaCppArgumentsOverride": {"enabled": True, **ARGUMENTS}}, "arguments of llama.cpp's command line"),
    ],
)
def test_a_setting_that_the_engine_cannot_apply_is_rejected(
    tmp_path: Path, settings: dict[str, Any], text: str
) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    fields = LlmLoadModelConfig.parse(settings).to_fields()
    with pytest.raises(EngineError, match=text):
        parameters(path, fields=fields)


def test_arguments_that_are_not_enabled_are_no_obstacle(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    fields = LlmLoadModelConfig(llama_cpp_arguments_override={"enabled": False, **ARGUMENTS}).to_fields()
    assert parameters(path, fields=fields).model == str(path)


def test_one_core_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert load_parameters.spare_threads() == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert load_parameters.spare_threads() == 1
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert load_parameters.spare_threads() == 1
