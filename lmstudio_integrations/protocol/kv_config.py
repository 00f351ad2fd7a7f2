"""The layered key/value form in which settings travel (protocol §5.3).

What the keys are is written at the fields in `types/config.py`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from lmstudio_integrations.types._base import WireModel
from lmstudio_integrations.types._settings import Settings

LayerName = Literal[
    "currentlyEditing",
    "currentlyLoaded",
    "apiOverride",
    "conversationSpecific",
    "conversationGlobal",
    "preset",
    "serverSession",
    "httpServerRequestOverride",
    "completeModeFormatting",
    "instance",
    "userModelDefault",
    "virtualModel",
    "modelDefault",
    "hardware",
]


class KvField(WireModel):
    """One setting."""

    nullable: ClassVar[frozenset[str]] = frozenset({"value"})

    key: str
    value: Any = None


class KvConfig(WireModel):
    """Settings by their full keys."""

    fields: list[KvField]

    def as_mapping(self) -> dict[str, Any]:
        """Return the settings as a dict; the last of equal keys wins."""
        return {field.key: field.value for field in self.fields}


class KvLayer(WireModel):
    """Settings from one source."""

    layer_name: LayerName
    config: KvConfig


class KvConfigStack(WireModel):
    """Settings from several sources; a later layer overrides an earlier one, key by key."""

    layers: list[KvLayer]

    def collapse(self) -> dict[str, Any]:
        """Return what remains when every layer has overridden those before it."""
        merged: dict[str, Any] = {}
        for layer in self.layers:
            merged.update(layer.config.as_mapping())
        return merged


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their full keys, as they travel."""
    return {"fields": [{"key": key, "value": value} for key, value in values.items()]}


def layer_of(name: LayerName, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings from one source, as they travel."""
    return {"layerName": name, "config": fields_of(values)}


def stack_of(settings: Settings | None) -> dict[str, Any]:
    """Return the stack that a client sends, as it travels: one layer, present even when it is empty."""
    return {"layers": [layer_of("apiOverride", {} if settings is None else settings.to_fields())]}
