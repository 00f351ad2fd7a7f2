"""The models over HTTP, which is the only place where a server lists their efforts (docs/protocol.md#efforts)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lmstudio_integrations.emulator.models.catalog import ModelEntry
from lmstudio_integrations.emulator.server.context import ServerState

_FORMATS = {"safetensors": "mlx", "yuzu": "splash"}
"""The formats that have another name here than on the WebSockets (docs/protocol.md#formats)."""


async def list_models(state: ServerState) -> dict[str, Any]:
    """Return the models on this machine, with the loaded instances of each."""
    registry = state.registry
    entries = [entry for _, entry in registry.downloaded([registry.local])]
    await registry.read_metadata(entries)
    loaded = registry.instances(devices=[registry.local])
    listed: list[dict[str, Any]] = []
    for entry in entries:
        instances = [
            {"id": each.identifier, "config": {"context_length": each.request.context_length}}
            for each in loaded
            if each.entry is entry
        ]
        listed.append({**_describe(entry, registry.info(entry)), "loaded_instances": instances})
    return {"models": listed}


def _describe(entry: ModelEntry, info: Mapping[str, Any]) -> dict[str, Any]:
    quantization = info.get("quantization")
    described = {
        "type": entry.kind,
        "publisher": info["publisher"],
        "key": entry.key,
        "display_name": info["displayName"],
        "quantization": quantization and {"name": quantization["name"], "bits_per_weight": quantization["bits"]},
        "size_bytes": info["sizeBytes"],
        "params_string": info.get("paramsString"),
        "max_context_length": info.get("maxContextLength"),
        "format": _FORMATS.get(info["format"], info["format"]),
    }
    if entry.kind != "llm":
        return described
    abilities: dict[str, Any] = {"vision": info["vision"], "trained_for_tool_use": info["trainedForToolUse"]}
    if allowed := entry.reasoning_options:
        abilities["reasoning"] = {"allowed_options": allowed, "default": entry.reasoning_default or allowed[-1]}
    return {**described, "architecture": info.get("architecture"), "capabilities": abilities, "description": None}


GETS: Mapping[str, Callable[[ServerState], Awaitable[dict[str, Any]]]] = {"/api/v1/models": list_models}
"""The handlers of requests without a body, by path."""
