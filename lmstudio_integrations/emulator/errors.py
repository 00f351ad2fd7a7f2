"""Errors that are sent to clients: their texts and their machine-readable part (docs/protocol.md#errors).

`WireError` is the base of all errors of the emulator; `engines/base.py` has those of engines. A function for each that
several places raise, or whose words are many.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations.types.config import ModelKind

SAMPLE = 20
"""The most names that an error lists."""

Version = tuple[int, ...]
"""The numbers of a version of LM Studio or Bionic, such as `(0, 4, 20)`."""

NEWEST: Version = (0, 4, 24)
"""The version whose words an error has, unless the catalog plays another one."""

NEWEST_BIONIC: Version = (1, 1, 7)
"""The same of Bionic."""

Words = Mapping[Version, str]
"""What servers say, by the first version that says so; that of `()` is the oldest."""


class WireError(Exception):
    """A request fails; the client gets this error.

    Args:
        title: What is wrong, in one sentence; where versions of servers say it in other words, those of each.
        cause: The reason behind it.
        suggestion: What would help.
        display_data: The machine-readable part; its `code` is one of docs/protocol.md#error-codes.
        error_data: What an engine says besides.
        fatal: Whether the model has crashed.
        status: The status with which an HTTP request fails, instead of that of the code.
    """

    def __init__(
        self,
        title: str | Words,
        *,
        cause: str | None = None,
        suggestion: str | None = None,
        display_data: Mapping[str, Any] | None = None,
        error_data: Mapping[str, Any] | None = None,
        fatal: bool = False,
        status: int | None = None,
    ) -> None:
        self._words: Words = {(): title} if isinstance(title, str) else title
        self.title: str = self.title_in(NEWEST)
        super().__init__(self.title)
        self.cause = cause
        self.suggestion = suggestion
        self.display_data = display_data
        self.error_data = error_data
        self.fatal = fatal
        self.status = status

    def title_in(self, version: Version) -> str:
        """Return what a version says."""
        return self._words[max(since for since in self._words if since <= version)]

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form."""
        members = {
            "title": self.title,
            "rootTitle": self.title,
            "cause": self.cause,
            "suggestion": self.suggestion,
            "errorData": self.error_data,
            "displayData": self.display_data,
        }
        return {name: value for name, value in members.items() if value is not None}


def model_unloaded() -> WireError:
    """Return the error for a loaded model that was unloaded."""
    return WireError("Model is unloaded.", display_data={"code": "generic.specificModelUnloaded"})


def no_model_matching(query: Mapping[str, Any], loaded: Sequence[str]) -> WireError:
    """Return the error for a query that no loaded model matches."""
    title: str | Words = "No models loaded. Please load a model in the developer page or use the 'lms load' command."
    for name in ("path", "identifier"):
        if query.get(name):
            title = {
                (): "No model found that fits the query.",
                (0, 4): f'No loaded model matches the {name} "{query[name]}"',
            }
    return WireError(
        title,
        display_data={
            "code": "generic.noModelMatchingQuery",
            "query": dict(query),
            "loadedModelsSample": list(loaded[:SAMPLE]),
            "totalLoadedModels": len(loaded),
        },
    )


def path_not_found(path: str, available: Sequence[str]) -> WireError:
    """Return the error for a key or path that no downloaded model has."""
    return WireError(
        f'Cannot find a model with the key or path "{path}"',
        display_data={
            "code": "generic.pathNotFound",
            "path": path,
            "availablePathsSample": list(available[:SAMPLE]),
            "totalModels": len(available),
        },
    )


_KINDS: dict[ModelKind, str] = {"llm": "an LLM", "embedding": "an embedding model", "decision": "a decision model"}


def domain_mismatch(path: str, actual: ModelKind, expected: ModelKind) -> WireError:
    """Return the error for a model of the other kind."""
    return WireError(
        f'Model "{path}" is not {_KINDS[expected]}',
        cause=f"Model is not {expected}. Its kind is {actual}.",
        display_data={
            "code": "generic.domainMismatch",
            "path": path,
            "actualDomain": actual,
            "expectedDomain": expected,
        },
    )


def preset_not_found(name: str, presets: Sequence[tuple[str, str]]) -> WireError:
    """Return the error for an unknown preset; `presets` are identifiers and names."""
    return WireError(
        f'Cannot find a preset with the identifier "{name}"',
        display_data={
            "code": "generic.presetNotFound",
            "specifiedFuzzyPresetIdentifier": name,
            "availablePresetsSample": [
                {"identifier": identifier, "name": title} for identifier, title in presets[:SAMPLE]
            ],
            "totalAvailablePresets": len(presets),
        },
    )


def device_not_found(identifier: str, known: Mapping[str, bool]) -> WireError:
    """Return the error for a device that is unknown or away; `known` are identifiers, and whether each is connected."""
    listed = ", ".join(
        f"{shortened(name)}{'' if connected else ' (disconnected)'}" for name, connected in known.items()
    )
    return WireError(
        f'The device "{shortened(identifier)}" is not connected',
        cause=f"This server knows {listed or 'no linked devices'}.",
    )


def file_not_found(identifier: str) -> WireError:
    """Return the error for an unknown upload."""
    return WireError(
        f'Cannot find an uploaded file with the identifier "{identifier}"',
        suggestion="Upload it again: uploads are dropped when their client disconnects.",
    )
