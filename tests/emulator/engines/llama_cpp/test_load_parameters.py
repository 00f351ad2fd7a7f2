"""From a load request to the worker's parameters."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineError, LoadRequest
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, load_parameters
from tests.emulator.engines.llama_cpp.gguf_files import METADATA, TENSORS, gguf, parameters


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model with a context window of 8192 and four layers."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(METADATA, TENSORS))
    return path


def fields_of(settings: dict[str, Any]) -> dict[str, Any]:
    return lms.LlmLoadModelConfig.parse(settings).to_fields()


def test_a_projector_beside_a_model_gives_it_vision(path: Path) -> None:
    projector = path.with_name("mmproj-model.gguf")
    projector.write_bytes(b"")
    assert LlamaCppEngine(threads=1).metadata(str(path), "llm").vision
    assert parameters(path).projector == str(projector)
    deciding = parameters(path, kind="decision")
    assert (deciding.decision, deciding.projector, deciding.prompt_cache_mib) == (True, str(projector), 0)


@pytest.mark.parametrize("name", ["missing.gguf", None, "."])
def test_missing_weights_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match="Failed to load model") as caught:
        LlamaCppEngine(threads=1).metadata(name, "llm")
    assert caught.value.cause
    assert caught.value.suggestion


JINJA = {"type": "jinja", "jinjaPromptTemplate": {"template": "T"}}
NO_ARGUMENTS = {"enabled": False, "disabledParameters": [], "overrideParameters": [], "excludeAllConfig": False}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"context_length": 1024, "slots": 2, "threads": 3, "context_checkpoints": 32, "auto_fit": True}),
        ({"gpu": {"ratio": 0.5}}, {"gpu_layers": 2}),
        ({"gpu": {"ratio": "max"}}, {"gpu_layers": None}),
        ({"gpu": {"ratio": "off"}}, {"gpu_layers": 0}),
        ({"evalBatchSize": 32}, {"prompt_step": 32}),
        ({"ropeFrequencyBase": 5000.0}, {"rope_frequency": (5000.0, 0.0)}),
        ({"llamaKCacheQuantizationType": "q8_0"}, {"cache_types": ("q8_0", "f16"), "flash_attention": None}),
        ({"flashAttention": False, "llamaVCacheQuantizationType": "f32"}, {"flash_attention": False}),
        ({"flashAttention": False, "llamaVCacheQuantizationType": "q8_0"}, {"flash_attention": True}),
        ({"llamaVCacheQuantizationType": False}, {"cache_types": ("f16", "f16"), "flash_attention": None}),
        ({"promptTemplate": JINJA}, {"chat_template": "T"}),
        ({"contextCheckpoints": 0}, {"context_checkpoints": 0}),
        ({"autoFit": False}, {"auto_fit": False}),
        ({"contextLength": 512}, {"auto_fit": False}),
        ({"llamaCppArgumentsOverride": NO_ARGUMENTS}, {"cache_length": 0}),
    ],
)
def test_load_settings_reach_the_worker(path: Path, settings: dict[str, Any], expected: dict[str, Any]) -> None:
    assert asdict(parameters(path, fields=fields_of(settings))).items() >= expected.items()


def test_a_seed_is_the_default_of_predictions() -> None:
    assert load_parameters.seed_of(LoadRequest("m", "llm", fields=fields_of({"seed": 5}))) == 5


def test_no_more_is_requested_than_model_and_engine_have(path: Path) -> None:
    assert parameters(path, context_length=200_000_000).context_length == 8192
    assert parameters(path, slots=1023).slots == 256


def test_slots_share_a_cache_only_if_necessary(path: Path) -> None:
    assert parameters(path).cache_length == 0
    path.write_bytes(gguf(METADATA | {"llama.embedding_length": 1 << 20}, TENSORS))
    assert parameters(path).cache_length == 1024
    assert parameters(path, fields={"llm.load.useUnifiedKvCache": False}).cache_length == 0


@pytest.mark.parametrize(("memory", "mebibytes"), [(0, 1024), (64 << 30, 1024), (2 << 30, 512)])
def test_earlier_prompts_take_at_most_a_quarter_of_the_memory(path: Path, memory: int, mebibytes: int) -> None:
    assert parameters(path, memory=memory).prompt_cache_mib == mebibytes


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"speculativeDraftMtp": True}, "speculative decoding"),
        ({"speculativeDraftMtpSidecar": True}, "speculative decoding"),
        ({"speculativeDraftSimple": True, "speculativeDraftModel": "small"}, "speculative decoding"),
        ({"llamaCppArgumentsOverride": NO_ARGUMENTS | {"enabled": True}}, "arguments of llama.cpp's command line"),
    ],
)
def test_a_setting_that_the_engine_cannot_apply_is_rejected(path: Path, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(EngineError, match=text):
        parameters(path, fields=fields_of(settings))


@pytest.mark.parametrize(("cores", "threads"), [({0, 1, 2, 3}, 3), ({0}, 1)])
def test_one_core_stays_free(monkeypatch: pytest.MonkeyPatch, cores: set[int], threads: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: cores, raising=False)
    assert load_parameters.spare_threads() == threads
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert load_parameters.spare_threads() == 1
