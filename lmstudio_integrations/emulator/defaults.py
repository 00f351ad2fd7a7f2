"""LM Studio's default settings, by their wire keys (docs/protocol.md#load-keys, docs/protocol.md#prediction-keys)."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.types.config import ModelKind

CONTEXT_LENGTH = 4096
"""The default context length of a load, in tokens, unless the model has a shorter one."""

PARALLEL_SESSIONS = 4
JIT_TTL_MS = 3_600_000
"""The default idle TTL of a model that is loaded just in time."""


def _off(value: Any) -> dict[str, Any]:
    return {"checked": False, "value": value}


def _on(value: Any) -> dict[str, Any]:
    return {"checked": True, "value": value}


LOAD: dict[ModelKind, dict[str, Any]] = {
    "llm": {
        "llm.load.seed": _off(-1),
        "llm.load.numExperts": 0,
        "llm.load.offloadKVCacheToGpu": True,
        "llm.load.useUnifiedKvCache": True,
        "llm.load.autoFitMinContextLength": 0,
        "llm.load.llama.acceleration.offloadRatio": "max",
        "llm.load.llama.evalBatchSize": 2048,
        "llm.load.llama.flashAttention": True,
        "llm.load.llama.ropeFrequencyBase": _off(0),
        "llm.load.llama.ropeFrequencyScale": _off(0),
        "llm.load.llama.keepModelInMemory": True,
        "llm.load.llama.useFp16ForKVCache": True,
        "llm.load.llama.tryMmap": True,
        "llm.load.llama.kCacheQuantizationType": _off("f16"),
        "llm.load.llama.vCacheQuantizationType": _off("f16"),
    },
    "embedding": {
        "embedding.load.seed": _off(-1),
        "embedding.load.llama.acceleration.offloadRatio": "max",
        "embedding.load.llama.evalBatchSize": 2048,
        "embedding.load.llama.ropeFrequencyBase": _off(0),
        "embedding.load.llama.ropeFrequencyScale": _off(0),
        "embedding.load.llama.keepModelInMemory": True,
        "embedding.load.llama.tryMmap": True,
    },
}

PREDICTION: dict[str, Any] = {
    "llm.prediction.temperature": 0.8,
    "llm.prediction.maxPredictedTokens": _off(1000),
    "llm.prediction.contextOverflowPolicy": "truncateMiddle",
    "llm.prediction.stopStrings": [],
    "llm.prediction.toolCallStopStrings": [],
    "llm.prediction.structured": {"type": "none"},
    "llm.prediction.tools": {"type": "none"},
    "llm.prediction.toolChoice": {"type": "generic", "mode": "auto"},
    "llm.prediction.toolNaming": "removeSpecial",
    "llm.prediction.topKSampling": 40,
    "llm.prediction.topPSampling": _on(0.95),
    "llm.prediction.minPSampling": _on(0.05),
    "llm.prediction.repeatPenalty": _on(1.1),
    "llm.prediction.logProbs": _off(0),
    "llm.prediction.seed": _off(-1),
    "llm.prediction.reasoning.parsing": {"enabled": True, "startString": "<think>", "endString": "</think>"},
    "llm.prediction.speculativeDecoding.draftModel": "",
    "llm.prediction.llama.cpuThreads": 4,
}


def effective(defaults: Mapping[str, Any], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults with settings merged over them, later ones last, each in wire form."""
    merged = dict(defaults)
    for layer in layers:
        for key, value in layer.items():
            merged[key] = _normalized(value, defaults.get(key))
    return merged


def _normalized(value: Any, default: Any) -> Any:
    """Return the wire form of the official Python SDK's own spellings: `False` for "off", and floats for integers."""
    if is_object(value) and value.get("checked") is True and value.get("value") is False:
        return _off(default["value"] if is_object(default) else 0)
    if isinstance(value, float) and isinstance(default, int) and value.is_integer():
        return int(value)
    return value
