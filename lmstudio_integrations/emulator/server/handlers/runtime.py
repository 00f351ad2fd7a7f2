"""What the server says about the hardware (docs/protocol.md#survey-hardware)."""

import platform
import sys
from typing import Any

from lmstudio_integrations._support.version import __version__
from lmstudio_integrations.emulator.engines.llama_cpp import memory_of_machine
from lmstudio_integrations.emulator.models.memory import GIB
from lmstudio_integrations.emulator.server.context import Context
from lmstudio_integrations.protocol.requests import SurveyHardware

_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "ARM64", "aarch64": "ARM64"}


async def survey_hardware(context: Context, parameter: SurveyHardware | None) -> dict[str, Any]:
    """Survey this machine for each engine, or for those that are requested; the memory is that of the catalog."""
    capacity = context.registry.catalog.memory_gib
    memory = memory_of_machine() if capacity is None else round(capacity * GIB)
    engines = [_survey(name, memory) for name in context.registry.engine_names]
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
