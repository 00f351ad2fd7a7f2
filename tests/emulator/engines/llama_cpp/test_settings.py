"""Each setting has its place in this engine, or is known to have none."""

import re
from pathlib import Path

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines import generation, llama_cpp
from lmstudio_integrations.emulator.engines.llama_cpp.request_body import SAMPLING
from lmstudio_integrations.types.config import LoadSettings

OF_THE_SERVER = {"context_length", "max_parallel_predictions", "raw_tools", "tool_choice"}
"""The server hands these over beside the settings."""

OF_MEMORY_AND_SPEED = {
    *("auto_fit_min_context_length", "cpu_thread_pool_size", "cpu_threads", "gpu_strict_vram_cap"),
    *("keep_model_in_memory", "offload_kv_cache_to_gpu", "physical_batch_size", "try_direct_io", "try_mmap"),
    "use_fp16_for_kv_cache",
}
"""The engine decides on these itself; they change no response."""

WITHOUT_EFFECT = {
    *("engine_config_file_contents", "engine_cwd"),
    *("ignore_model_preferred_max_image_dimension", "user_max_image_dimension_pixels"),
    *("mlx_disk_cache", "mlx_kv_cache_quantization", "num_experts", "reasoning_budget_message", "tool_naming"),
    *("speculative_decoding_min_continue_drafting_probability", "speculative_decoding_min_draft_length_to_consider"),
    *("speculative_decoding_num_draft_tokens_exact", "speculative_draft_max_tokens"),
    *("speculative_draft_min_continue_probability", "speculative_draft_min_tokens"),
}
"""Of other engines, or of drafts, which this one rejects."""


def used() -> set[str]:
    """Return the names of the settings that the engine reads."""
    files = [*Path(llama_cpp.__file__).parent.glob("*.py"), Path(generation.__file__)]
    read = (re.findall(r"\bconfig\.(\w+)", path.read_text(encoding="utf-8")) for path in files)
    return {name for names in read for name in names} | {ours for ours, _, _ in SAMPLING}


@pytest.mark.parametrize("kind", [lms.LlmPredictionConfig, lms.LlmLoadModelConfig, lms.EmbeddingLoadModelConfig])
def test_no_setting_is_forgotten(kind: type[lms.LlmPredictionConfig | LoadSettings]) -> None:
    known = OF_THE_SERVER | OF_MEMORY_AND_SPEED | WITHOUT_EFFECT
    unused = set(kind.model_fields) - used() - known
    assert unused == set(), "add a row of SAMPLING in request_body.py, or a name to a set of this file"
    assert used() & known == set()
