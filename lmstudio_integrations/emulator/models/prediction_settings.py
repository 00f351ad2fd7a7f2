"""From the layers of a request to the settings of a prediction (docs/protocol.md#config-stacks)."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.errors import WireError, preset_not_found
from lmstudio_integrations.emulator.models.catalog import Catalog
from lmstudio_integrations.protocol import defaults
from lmstudio_integrations.protocol.kv_config import KvConfigStack
from lmstudio_integrations.types.tools import Tool

ToolMode = Literal["none", "auto", "required"]


def in_effect(of_model: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in effect: the defaults, then those of the model, then what was requested."""
    return defaults.effective(defaults.PREDICTION, of_model, fields)


def requested(catalog: Catalog, stack: KvConfigStack, preset_name: str | None) -> dict[str, Any]:
    """Return the requested settings: the preset, then the request's layers.

    Raises:
        WireError: If there is no such preset.
    """
    fields: Mapping[str, Any] = {}
    if preset_name is not None:
        preset = catalog.preset(preset_name)
        if preset is None:
            presets = [(each.identifier, each.name or each.identifier) for each in catalog.presets]
            raise preset_not_found(preset_name, presets)
        fields = preset.fields
    return {**fields, **stack.collapse()}


def tools_of(settings: Mapping[str, Any]) -> tuple[Tool, ...]:
    """Return the tools that may be called.

    Raises:
        WireError: If a tool is invalid.
    """
    use = settings["llm.prediction.tools"]
    tools = use.get("tools") if is_object(use) and use.get("type") == "toolArray" else None
    if not is_list(tools):
        return ()
    try:
        return tuple(Tool.model_validate(tool) for tool in tools)
    except ValidationError as error:
        raise WireError("The definition of a tool is invalid", cause=str(error)) from error


def tool_choice_of(settings: Mapping[str, Any]) -> ToolMode:
    """Return whether a tool must be called; older clients set this together with the tools."""
    choice, use = settings["llm.prediction.toolChoice"], settings["llm.prediction.tools"]
    if is_object(use) and use.get("force") is True:
        return "required"
    mode = choice.get("mode") if is_object(choice) else None
    return mode if mode in {"none", "required"} else "auto"
