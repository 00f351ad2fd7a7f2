"""LM Studio's default settings, by their wire keys (docs/protocol.md#load-keys, docs/protocol.md#prediction-keys)."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.types._config_base import Settings, unchecked, wire_keys
from lmstudio_integrations.types.config import LOAD_CONFIGS, LlmPredictionConfig, ModelKind

CONTEXT_LENGTH = 4096
"""The default context length of a load, in tokens, unless the model has a shorter one."""

PARALLEL_SESSIONS = 4
JIT_TTL_MS = 3_600_000
"""The default idle TTL of a model that is loaded just in time."""


def _defaults(settings: type[Settings]) -> dict[str, Any]:
    return {each.key: each.default for each in wire_keys(settings).values() if each.default is not None}


LOAD: dict[ModelKind, dict[str, Any]] = {
    kind: _defaults(settings) | {f"{settings.prefix}.llama.acceleration.offloadRatio": "max"}
    for kind, settings in LOAD_CONFIGS.items()
}
PREDICTION = _defaults(LlmPredictionConfig)


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
        return unchecked(default["value"] if is_object(default) else 0)
    if isinstance(value, float) and isinstance(default, int) and value.is_integer():
        return int(value)
    return value
