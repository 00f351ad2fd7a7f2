"""The layered key/value form in which settings travel (protocol §5.3).

What the keys are is written at the fields in `types/config.py`.
"""

from collections.abc import Mapping
from functools import cache
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

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "KvConfig":
        """Build from a dict of full keys."""
        return cls(fields=[KvField(key=key, value=value) for key, value in values.items()])


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


def stack_of(settings: Settings | None) -> KvConfigStack:
    """Return the stack that a client sends: one layer, present even when it is empty."""
    fields = {} if settings is None else settings.to_fields()
    return _override(fields) if fields else _nothing()


def _override(fields: Mapping[str, Any]) -> KvConfigStack:
    return KvConfigStack(layers=[KvLayer(layer_name="apiOverride", config=KvConfig.from_mapping(fields))])


@cache
def _nothing() -> KvConfigStack:
    return _override({})
