"""What only a scripted model refuses or plays; what every engine says is in `engines/_refusals.py`."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.emulator.engines._refusals import not_loaded
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
"""The codes of protocol §3.7, each with the members that must stand beside it, as harmless values."""


def display_data(code: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the machine-readable part of an error, with every member that its code needs."""
    return {"code": code, **MEMBERS[code], **members}


def unsupported(feature: str) -> EngineError:
    """Return the refusal of a feature that a scripted model does not have."""
    return EngineError(
        f"The {ENGINE} engine does not support {feature}",
        suggestion="Write a rule that answers this request, or use a model with real weights.",
        display_data=display_data("generic.engineDoesNotSupportFeature", {"feature": feature}),
    )


def out_of_memory() -> EngineError:
    """Return the refusal to load a model for want of memory."""
    return not_loaded(
        "Model loading was stopped due to insufficient system resources. Under the current settings, this model "
        "requires approximately 48.00 GB of memory.",
        "Load the model with a shorter context, load a smaller one, or unload others.",
    )
