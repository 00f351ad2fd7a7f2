"""Endpoints of memory, hardware and LM Link (docs/protocol.md#lm-link); a leaf with `models/devices.py`."""

import platform
import sys
from typing import Any

from lmstudio_integrations._support.environment import __version__, memory_of_machine
from lmstudio_integrations.emulator.models.devices import (
    GIB,
    OWN_IDENTIFIER,
    LinkedRegistry,
    MachineWithMemory,
    MemoryNeed,
)
from lmstudio_integrations.emulator.server.context import Context
from lmstudio_integrations.protocol.requests import EstimateModelUsage, SurveyHardware


async def estimate_model_usage(context: Context, parameter: EstimateModelUsage) -> dict[str, Any]:
    """Estimate the memory of a load: the weights and the context."""
    registry = context.registry
    device, entries = registry.find_entries(context.kind, parameter["modelKey"], registry.devices(parameter))
    await registry.read_metadata(entries[:1])
    request = registry.load_request(entries[0], parameter["loadConfigStack"].collapse(), device)
    need = MemoryNeed.of(entries[0], registry.info(entries[0])["sizeBytes"], request.context_length)
    estimate = need.estimate()
    return {
        "memory": {
            "confidence": "low",
            "modelVramBytes": 0,
            "contextVramBytes": 0,
            "totalVramBytes": 0,
            "modelBytes": estimate.weights,
            "contextBytes": estimate.context,
            "totalBytes": estimate.total,
        },
        "passesGuardrails": not isinstance(device, MachineWithMemory) or device.passes_guardrails(need),
    }


_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "ARM64", "aarch64": "ARM64"}


async def survey_hardware(context: Context, parameter: SurveyHardware | None) -> dict[str, Any]:
    """Survey this machine for each engine, or for those that are requested; the memory is that of the catalog."""
    capacity = context.registry.catalog.memory_gib
    memory = memory_of_machine() if capacity is None else round(capacity * GIB)
    engines = [_survey(name, memory) for name in context.registry.engines]
    if parameter is not None and parameter["type"] == "custom":
        requested = parameter.get("engines", [])
        engines = [each for each in engines if {"name": each["name"], "version": each["version"]} in requested]
    return {"status": "ok" if engines else "noCompatibleBackends", "engines": engines}


def _survey(name: str, memory: int) -> dict[str, Any]:
    success = {"code": "success", "message": ""}
    architecture = _ARCHITECTURES.get(platform.machine().lower(), "unknown")
    return {
        "name": name,
        "version": __version__,
        "engine": name,
        "platform": sys.platform,
        "compatibility": {"status": "compatible"},
        "supportedModelFormatNames": ["GGUF"],
        "hardwareSurvey": {
            "gpuSurveyResult": {"result": {"code": "noDevicesFound", "message": "No GPU is used."}, "gpuInfo": []},
            "cpuSurveyResult": {
                "result": success,
                "cpuInfo": {"architecture": architecture, "supportedInstructionSetExtensions": []},
            },
        },
        "memoryInfo": {"ramCapacity": memory, "vramCapacity": 0, "totalMemory": memory},
    }


async def lm_link_status(context: Context, _parameter: None) -> dict[str, Any]:
    """Return the linked devices; without any, LM Link is off."""
    registry = context.registry
    linked = registry.linked if isinstance(registry, LinkedRegistry) else []
    peers = [
        {
            "deviceIdentifier": device.identifier,
            "deviceName": device.name,
            "status": "connected" if device.connected else "disconnected",
        }
        for device in linked
    ]
    status: dict[str, Any] = {
        "status": "online" if linked else "offline",
        "issues": [] if linked else ["deviceDisabled"],
        "peers": peers,
        "deviceIdentifier": OWN_IDENTIFIER if linked else None,
        "deviceName": platform.node(),
    }
    preferred = [device.identifier for device in linked if device.preferred]
    return status | ({"preferredDeviceIdentifier": preferred[0]} if preferred else {})
