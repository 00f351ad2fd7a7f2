"""From a load request to the worker's parameters: which file, its metadata, its settings."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.base import (
    EngineError,
    LoadRequest,
    ModelMetadata,
    Weights,
    guess_kind,
    load_failed,
)
from lmstudio_integrations.emulator.engines.llama_cpp import gguf, weights
from lmstudio_integrations.emulator.engines.llama_cpp.gguf import GgufError, GgufHeader, read_header, to_metadata
from lmstudio_integrations.emulator.engines.llama_cpp.responses import unsupported
from lmstudio_integrations.emulator.engines.llama_cpp.worker_main import MAX_SLOTS, PROMPT_STEP, WorkerParameters
from lmstudio_integrations.types.config import LOAD_CONFIGS, LlmLoadModelConfig, ModelKind

logger: logging.Logger = logging.getLogger(__name__)

CONVERTED = "all-MiniLM-L6-v2.F32.gguf"

CONVERTED_SHA256 = "f69f5e0c8ca7bc6553635630e859585aa94d762c13f261f0d755b343d4db5cfa"
"""The digest of the converted file. Every release of `gguf` that the extra allows writes the same bytes."""

CACHE_BYTES = 1 << 30
"""Up to this size each slot has a cache of its own, even with a unified one: then no prediction can run out of space
because of another."""

CONTEXT_CHECKPOINTS = 32
"""LM Studio's default."""

PROMPT_CACHE_BYTES = 1 << 30
"""The memory for prompts that are in no slot any more; at most one part in four of what the process may use."""


def metadata_of(name: str | None) -> ModelMetadata:
    """Return the metadata of weights; that of a bundled model is known before it is fetched.

    Raises:
        EngineError: If the weights do not exist.
    """
    bundle = weights.BUNDLES.get(name or "")
    if bundle is not None:
        return bundle.metadata
    path = path_of(name)
    header = header_of(path)
    return to_metadata(header, path.stat().st_size, vision=projector_of(path) is not None)


def identify(name: str) -> Weights:
    """Return what is known of weights before they are loaded. The header of a file says its kind, else its name."""
    bundle = weights.BUNDLES.get(name)
    if bundle is not None:
        return Weights(bundle.kind, bundle.path, bundle.title)
    try:
        return Weights("embedding" if is_embedding(header_of(path_of(name))) else "llm")
    except EngineError:
        return Weights(guess_kind(Path(name).name))


def find(folder: Path) -> list[Path]:
    """Return the models of a folder, which are all GGUF files but projectors."""
    found = sorted(path for path in folder.rglob("*.gguf") if not path.name.startswith("mmproj"))
    return [path for path in found if _is_usable(path)]


def _is_usable(path: Path) -> bool:
    reason: object = "it is not a regular file"
    try:
        if path.is_file():
            path.open("rb").close()
            return True
    except (OSError, ValueError) as error:
        reason = error
    logger.warning("skipped the model file %s: %s", path, reason)
    return False


def path_of(name: str | None) -> Path:
    """Return the path of weights that are not bundled.

    Raises:
        EngineError: If no weights are named.
    """
    if not name:
        raise load_failed(
            "no weights are named", f"Give the path of a GGUF file, or one of {', '.join(weights.BUNDLES)}."
        )
    return Path(name).expanduser()


def header_of(path: Path) -> GgufHeader:
    """Return the header of a GGUF file.

    Raises:
        EngineError: If the file cannot be used.
    """
    try:
        return read_header(path)
    except GgufError as error:
        raise load_failed(str(error), "Give the path of a complete GGUF file.") from error


def projector_of(path: Path) -> Path | None:
    """Return the projector, the file that lets a model see images: `mmproj*.gguf` in the same folder."""
    return next((found for found in sorted(path.parent.glob("mmproj*.gguf")) if found.is_file()), None)


async def file_of(name: str | None, *, offline: bool) -> Path:
    """Return the GGUF file of bundled weights, or of a path; fetch and convert it if it is missing.

    Args:
        name: A bundled name or a path.
        offline: Never fetch.

    Raises:
        EngineError: If that fails.
    """
    bundle = weights.BUNDLES.get(name or "")
    if bundle is None:
        return path_of(name)
    try:
        return await asyncio.to_thread(_ready, bundle, offline=offline)
    except weights.WeightsError as error:
        raise load_failed(error.problem, error.remedy) from error
    except OSError as error:
        raise load_failed(
            f"the weights cannot be read or stored: {error}",
            f"Set {weights.CACHE_VARIABLE} to a directory that the server can write.",
        ) from error
    except ImportError as error:
        raise load_failed(
            f"the weights must be converted, which needs more packages: {weights.install_hint()}"
        ) from error


def _ready(bundle: weights.Bundle, *, offline: bool) -> Path:
    first, *others = weights.locate(bundle, offline=offline)
    if first.suffix == ".gguf":
        return first
    target = weights.bundle_directory(bundle).with_suffix(".converted") / CONVERTED
    # A later release of `gguf` may write other bytes. Then each load converts again, from verified weights.
    if not target.is_file() or weights.sha256_of(target) != CONVERTED_SHA256:
        gguf.convert(first, others[0], target)
    return target


def parameters_of(
    request: LoadRequest, path: Path, header: GgufHeader, *, threads: int, memory: int
) -> WorkerParameters:
    """Return the parameters of the worker.

    The engine decides on settings that only move work between memory, disk and processor.

    Raises:
        EngineError: If the model is of the other kind, or a setting is not supported.
    """
    actual: ModelKind = "embedding" if is_embedding(header) else "llm"
    if request.kind not in {actual, "decision"}:  # the header of a decision model does not say that it is one
        raise EngineError(
            "Failed to load model",
            cause=f"Model is not {request.kind}.",
            display_data={
                "code": "generic.domainMismatch",
                "path": request.key,
                "actualDomain": actual,
                "expectedDomain": request.kind,
            },
        )
    context_length = min(request.context_length, header.of_architecture("context_length", request.context_length))
    config = LOAD_CONFIGS[request.kind].from_fields(request.fields)
    common: dict[str, Any] = {
        "model": str(path),
        "context_length": context_length,
        "slots": min(request.slots, MAX_SLOTS),
        "threads": threads,
        "memory_bytes": memory,
        "gpu_layers": _layers(config.gpu.ratio if config.gpu else None, header),
        "rope_frequency": (config.rope_frequency_base or 0.0, config.rope_frequency_scale or 0.0),
    }
    if request.kind == "embedding":
        return WorkerParameters(**common, embedding=True)
    common["projector"] = str(projector_of(path) or "")
    if not isinstance(config, LlmLoadModelConfig):
        return WorkerParameters(**common, decision=True)
    drafts = (
        config.speculative_draft_simple,
        config.speculative_draft_mtp,
        config.speculative_draft_model,
        config.speculative_draft_mtp_sidecar,
        config.speculative_draft_dflash_sidecar,
        config.speculative_draft_dspark_sidecar,
    )
    if any(drafts):
        raise unsupported("speculativeDecoding", "speculative decoding", "Omit the speculativeDraft… settings.")
    if (config.llama_cpp_arguments_override or {}).get("enabled"):
        why = "arguments of llama.cpp's command line"
        raise unsupported("argumentsOverride", why, "Omit the setting llamaCppArgumentsOverride.")
    template = (config.prompt_template or {}).get("jinjaPromptTemplate")
    cache_types = config.llama_k_cache_quantization_type or "f16", config.llama_v_cache_quantization_type or "f16"
    is_affordable = context_length * request.slots * header.bytes_per_token <= CACHE_BYTES
    return WorkerParameters(
        **common,
        prompt_cache_mib=min(PROMPT_CACHE_BYTES, memory // 4 or PROMPT_CACHE_BYTES) >> 20,
        context_checkpoints=CONTEXT_CHECKPOINTS if config.context_checkpoints is None else config.context_checkpoints,
        chat_template=str(template.get("template", "")) if is_object(template) else "",
        prompt_step=min(config.eval_batch_size or PROMPT_STEP, PROMPT_STEP),
        auto_fit=config.auto_fit is not False,
        cache_length=0 if config.use_unified_kv_cache is False or is_affordable else context_length,
        # A quantized cache of values needs it.
        flash_attention=config.flash_attention if cache_types[1] in {"f32", "f16"} else True,
        cache_types=cache_types,
    )


def seed_of(request: LoadRequest) -> int | None:
    """Return the default seed of predictions."""
    return LlmLoadModelConfig.from_fields(request.fields).seed or None


def is_embedding(header: GgufHeader) -> bool:
    """Return whether the weights are an embedding model: they name a pooling type, or are a BERT architecture."""
    return f"{header.architecture}.pooling_type" in header.metadata or "bert" in header.architecture


def spare_threads() -> int:
    """Return one thread less than there are cores: with all cores, a second busy process slows both down a lot."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 2) - 1)


def _layers(ratio: float | str | None, header: GgufHeader) -> int | None:
    """Return how many layers are offloaded to the GPU; `None` lets the engine offload as many as fit."""
    if ratio is None or ratio == "max":
        return None
    if isinstance(ratio, str):
        return 0
    return round(ratio * header.of_architecture("block_count"))
