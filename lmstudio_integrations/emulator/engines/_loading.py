"""From what is asked for to what the worker is told: which file, which facts, which parameters."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.emulator import weights
from lmstudio_integrations.emulator.engines import _minilm
from lmstudio_integrations.emulator.engines._gguf import GgufError, GgufHeader, read_header, to_facts
from lmstudio_integrations.emulator.engines._refusals import INSTALL_HINT, not_loaded, unsupported, wrong_kind
from lmstudio_integrations.emulator.engines.base import LoadRequest, ModelFacts
from lmstudio_integrations.emulator.engines.worker import MOST_SLOTS, WorkerParameters
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, ModelKind

CONVERTED = "all-MiniLM-L6-v2.F32.gguf"

CONVERTED_SHA256 = "f69f5e0c8ca7bc6553635630e859585aa94d762c13f261f0d755b343d4db5cfa"
"""Of the converted file. Every release of `gguf` that the extra allows has written the same bytes."""

CACHE_BYTES = 1 << 30
"""Up to this size each slot has a window of its own, even if they are to share one: then no prediction can
take another's place."""

Announce = Callable[[str], None]


def facts_of(name: str | None) -> ModelFacts:
    """Return what the weights say: of a bundled model without having it, of a file from its header.

    Raises:
        EngineError: If there are no such weights.
    """
    bundle = weights.BUNDLES.get(name or "")
    if bundle is not None:
        return bundle.facts
    path = path_of(name)
    header = header_of(path)
    return to_facts(header, path.stat().st_size, vision=projector_of(path) is not None)


def path_of(name: str | None) -> Path:
    """Return the file that a name stands for.

    Raises:
        EngineError: If there is no name.
    """
    if not name:
        raise not_loaded(
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
        raise not_loaded(str(error), "Give the path of a complete GGUF file.") from error


def projector_of(path: Path) -> Path | None:
    """Return the file that lets a model see images: it lies beside the model and is named so."""
    return next((found for found in sorted(path.parent.glob("mmproj*.gguf")) if found.is_file()), None)


async def file_of(name: str | None, *, offline: bool, announce: Announce) -> Path:
    """Return the GGUF file of bundled weights, or of a path; fetches and converts what is missing.

    Raises:
        EngineError: If it cannot be had.
    """
    bundle = weights.BUNDLES.get(name or "")
    if bundle is None:
        return path_of(name)
    try:
        return await asyncio.to_thread(_ready, bundle, offline=offline, announce=announce)
    except weights.WeightsError as error:
        raise not_loaded(str(error)) from error
    except ImportError as error:
        raise not_loaded(f"the weights must be converted, which needs more packages: {INSTALL_HINT}") from error


def _ready(bundle: weights.Bundle, *, offline: bool, announce: Announce) -> Path:
    first, *others = weights.locate(bundle, offline=offline, announce=announce)
    if first.suffix == ".gguf":
        return first
    target = weights.bundle_directory(bundle).with_suffix(".converted") / CONVERTED
    # A writer of the format may one day write other bytes. Then this converts at each load, from verified weights.
    if not target.is_file() or weights.sha256_of(target) != CONVERTED_SHA256:
        _minilm.convert(first, others[0], target)
    return target


def parameters_of(
    request: LoadRequest, path: Path, header: GgufHeader, *, threads: int, memory: int
) -> WorkerParameters:
    """Return what the worker is told.

    Settings that only move work between memory, disk and processor are left to the engine.

    Raises:
        EngineError: If the model is of the other kind, or something is asked for that the engine cannot do.
    """
    actual: ModelKind = "embedding" if is_embedding(header) else "llm"
    if actual != request.kind:
        raise wrong_kind(request.key, actual, request.kind)
    window = min(request.context_length, header.of_architecture("context_length", request.context_length))
    common: dict[str, Any] = {
        "model": str(path),
        "context_length": window,
        "slots": min(request.slots, MOST_SLOTS),
        "threads": threads,
        "memory_bytes": memory,
    }
    if request.kind == "embedding":
        return WorkerParameters(**common, embedding=True, **_of_both(request.fields, header, EmbeddingLoadModelConfig))
    config = LlmLoadModelConfig.from_fields(request.fields)
    _refuse_drafts(config)
    projector = request.options.get("projector") or projector_of(path)
    return WorkerParameters(
        **common,
        **_of_both(request.fields, header, LlmLoadModelConfig),
        projector=str(projector or ""),
        chat_template=_template(config),
        cache_length=_cache_length(window, request.slots, header, shared=config.use_unified_kv_cache is not False),
        flash_attention=config.flash_attention or None,
        cache_types=(config.llama_k_cache_quantization_type or "f16", config.llama_v_cache_quantization_type or "f16"),
    )


def seed_of(request: LoadRequest) -> int | None:
    """Return the seed of every prediction that brings none of its own."""
    return LlmLoadModelConfig.from_fields(request.fields).seed or None


def is_embedding(header: GgufHeader) -> bool:
    """Whether the weights give vectors: they say how to pool, or are of an encoder's architecture."""
    return f"{header.architecture}.pooling_type" in header.metadata or "bert" in header.architecture


def spare_threads() -> int:
    """Return one thread less than there are cores: with all of them a second busy process makes both crawl."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 2) - 1)


def _of_both(
    fields: Mapping[str, Any], header: GgufHeader, kind: type[LlmLoadModelConfig | EmbeddingLoadModelConfig]
) -> dict[str, Any]:
    """Return the parameters that both kinds of model have."""
    config = kind.from_fields(fields)
    ratio = config.gpu.ratio if config.gpu else None
    base, scale = config.rope_frequency_base or 0.0, config.rope_frequency_scale or 0.0
    return {"gpu_layers": _layers(ratio, header), "rope_frequency": (base, scale)}


def _layers(ratio: float | str | None, header: GgufHeader) -> int | None:
    """Return how many layers go to graphics cards; `None` lets the engine take as many as fit."""
    if ratio is None or ratio == "max":
        return None
    if isinstance(ratio, str):
        return 0
    return round(ratio * header.of_architecture("block_count"))


def _cache_length(window: int, slots: int, header: GgufHeader, *, shared: bool) -> int:
    """Return how many tokens all slots together may hold; 0 for one window each."""
    affordable = window * slots * header.bytes_per_token <= CACHE_BYTES
    return window if shared and not affordable else 0


def _template(config: LlmLoadModelConfig) -> str:
    template = (config.prompt_template or {}).get("jinjaPromptTemplate")
    return str(template.get("template", "")) if is_object(template) else ""


def _refuse_drafts(config: LlmLoadModelConfig) -> None:
    if config.speculative_draft_simple or config.speculative_draft_mtp or config.speculative_draft_model:
        raise unsupported("speculativeDecoding", "speculative decoding", "Leave the speculativeDraft… settings out.")
