"""The error codes that a rule may raise, and the error of scripted models alone."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.emulator.engines.base import EngineError

ENGINE = "scripted"
_VERSION = "1.0.0"

MEMBERS: Mapping[str, Mapping[str, Any]] = {
    "generic.specificModelUnloaded": {},
    "generic.noModelMatchingQuery": {"query": {}, "loadedModelsSample": [], "totalLoadedModels": 0},
    "generic.pathNotFound": {"path": "", "availablePathsSample": [], "totalModels": 0},
    "generic.identifierNotFound": {"identifier": "", "loadedModelsSample": [], "totalLoadedModels": 0},
    "generic.domainMismatch": {"path": "", "actualDomain": "embedding", "expectedDomain": "llm"},
    "generic.engineDoesNotSupportFeature": {
        "feature": "",
        "engineName": ENGINE,
        "engineType": ENGINE,
        "installedVersion": _VERSION,
        "supportedVersion": None,
    },
    "generic.missingRuntimeExtension": {},
    "generic.presetNotFound": {
        "specifiedFuzzyPresetIdentifier": "",
        "availablePresetsSample": [],
        "totalAvailablePresets": 0,
    },
}
"""Every code of docs/protocol.md#error-codes, with harmless values for the members that clients require beside it."""


def display_data(code: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the machine-readable part of an error, with every member that its code requires."""
    return {"code": code, **MEMBERS[code], **members}


def unsupported(feature: str) -> EngineError:
    """Return the error for a feature that a scripted model does not have."""
    return EngineError(
        f"The {ENGINE} engine does not support {feature}",
        suggestion="Write a rule for this request, or use a model with real weights.",
        display_data=display_data("generic.engineDoesNotSupportFeature", {"feature": feature}),
    )
