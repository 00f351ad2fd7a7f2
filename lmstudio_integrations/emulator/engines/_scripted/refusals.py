"""What a scripted model refuses or plays, in the words of a real server."""

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


def overflow(tokens: int, window: int) -> EngineError:
    """Return what a real server says of a prompt that is too long; the slip in its words is its own."""
    return EngineError(
        f"Trying to keep the first {tokens} tokens when context the overflows. However, the model is loaded with "
        f"context length of only {window} tokens, which is not enough. Try to load the model with a larger context "
        "length, or provide a shorter input"
    )


def crash(exit_code: int) -> EngineError:
    """Return the end of a model whose process died."""
    return EngineError(
        f"The model has crashed without additional information. (Exit code: {exit_code})",
        fatal=True,
    )


def not_loaded(cause: str, suggestion: str | None = None) -> EngineError:
    """Return the failure of a load."""
    return EngineError("Failed to load model", cause=cause, suggestion=suggestion)


def out_of_memory() -> EngineError:
    """Return the refusal to load a model for want of memory."""
    return not_loaded(
        "Model loading was stopped due to insufficient system resources. Under the current settings, this model "
        "requires approximately 48.00 GB of memory.",
        "Load the model with a shorter context, load a smaller one, or unload others.",
    )
