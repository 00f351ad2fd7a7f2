"""The layered key-value form of settings (docs/protocol.md#config-stacks), and LM Studio's defaults in it.

The fields in `types/config.py` name the keys. Used by `requests.py`, the client's flows and the emulator's handlers.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.types._config_base import Settings, unchecked, wire_keys
from lmstudio_integrations.types._wire_model import WireModel
from lmstudio_integrations.types.config import CUSTOM_FIELDS, LOAD_CONFIGS, LlmPredictionConfig, ModelKind

# The server rejects a request with any other name (docs/protocol.md#config-stacks).
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


_CATALOG_KEY = r"([^/@:]+)/([^/@:]+)(?:[@:].*)?"
"""The key of a model of LM Studio's catalog: `owner/name`, then `@` and the variant, or `:` and a number."""


class KvField(WireModel):
    """One setting."""

    # Here null is a value: a setting that is not set has no field at all.
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
        """Return the settings that are in effect."""
        # Layers are merged by key; the values themselves are not merged (docs/protocol.md#config-stacks).
        return {field.key: field.value for layer in self.layers for field in layer.config.fields}


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the wire form of settings by their full keys."""
    return {"fields": [{"key": key, "value": value} for key, value in values.items()]}


def layer_of(name: LayerName, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the wire form of settings from one source."""
    return {"layerName": name, "config": fields_of(values)}


def stack_of(settings: Settings | None) -> Mapping[str, Any]:
    """Return the stack that a client sends: one layer, even if it is empty, as both official SDKs do."""
    if settings is None or not settings.model_fields_set:
        return _EMPTY_STACK
    return {"layers": [layer_of("apiOverride", settings.to_fields())]}


def stack_of_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stack that a client sends, of settings by their full keys."""
    return {"layers": [layer_of("apiOverride", fields)]}


def with_changes(stack: Mapping[str, Any], changes: Settings) -> dict[str, Any]:
    """Return a stack that this client has built with changes, of which an explicit `None` leaves a setting out."""
    by_name = wire_keys(type(changes))
    wire = [by_name[name] for name in changes.model_fields_set if name in by_name]
    replaced = {key for each in wire for key in (each.key, *each.copies)} | set(changes.raw or {})
    first, *others = [
        {**layer, "config": {"fields": [each for each in layer["config"]["fields"] if each["key"] not in replaced]}}
        for layer in stack["layers"]
    ]
    first["config"]["fields"] += fields_of(changes.to_fields())["fields"]
    return {"layers": [first, *others]}


def custom_fields_of(model_key: str | None) -> str | None:
    """Return how the keys of the custom fields of a model begin; `None` if it is none of LM Studio's catalog.

    Others have no such fields (docs/protocol.md#custom-fields).
    """
    match = re.fullmatch(_CATALOG_KEY, model_key or "")
    if match is None:
        return None
    owner, model = match.groups()
    in_camel_case = re.sub("-(.?)", lambda hyphenated: hyphenated[1].upper(), model)
    return f"{CUSTOM_FIELDS}.{owner}.{in_camel_case}"


def collapse(stack: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are in effect in a stack that this client has built; see `KvConfigStack.collapse`."""
    return {field["key"]: field["value"] for layer in stack["layers"] for field in layer["config"]["fields"]}


_EMPTY_STACK: Mapping[str, Any] = stack_of_fields({})


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
