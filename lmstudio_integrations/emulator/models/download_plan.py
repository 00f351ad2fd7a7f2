"""What a client may choose before a download, in wire form (docs/protocol.md#create-download-plan)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations.emulator.errors import WireError

FIT_ESTIMATION = "fitWithoutGPU"
"""Not estimated; the engines need no GPU."""


@dataclass(slots=True)
class DownloadPlan:
    """The download of one model, in the only form that the catalog has.

    Attributes:
        info: The model in wire form.
        owned: Whether it is downloaded already.
        artifact: Owner and name of the artifact that was requested; `None` if the model itself was.
        version: The number of the client's last change.
        selected: Whether it will be downloaded; that is possible even if it is downloaded already.
    """

    info: Mapping[str, Any]
    owned: bool
    artifact: tuple[str, str] | None = None
    version: int = 0
    selected: bool = field(init=False)

    def __post_init__(self) -> None:
        self.selected = not self.owned

    def select(self, packet: Mapping[str, Any]) -> None:
        """Change what will be downloaded.

        Raises:
            WireError: If the plan has no such node or option.
        """
        node, choice, version = (
            packet.get(name) for name in ("nodeIndex", "selectedDownloadOptionIndex", "requestedPlanVersion")
        )
        if node != len(self._artifact_nodes()) or not (choice == 0 or (choice is None and self.owned)):
            raise WireError(f"The plan has no download option {choice!r} at the node {node!r}")
        if not isinstance(version, int):
            raise WireError(f"The version of a plan must be an integer, not {version!r}")
        self.selected, self.version = choice is not None, version

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form."""
        return {
            "nodes": [*self._artifact_nodes(), self._model_node()],
            "downloadSizeBytes": self.info["sizeBytes"] if self.selected else 0,
            "downloadAction": "startNewDownload" if self.selected else "none",
            "version": self.version,
        }

    @property
    def _state(self) -> str:
        return "completed" if self.selected else "satisfied"

    def _artifact_nodes(self) -> list[dict[str, Any]]:
        if self.artifact is None:
            return []
        owner, name = self.artifact
        node = {"type": "artifact", "owner": owner, "name": name, "artifactType": "model", "dependencyNodes": [1]}
        return [node | {"state": self._state}]

    def _model_node(self) -> dict[str, Any]:
        form = {
            "displayName": self.info["displayName"],
            "sizeBytes": self.info["sizeBytes"],
            "compatibilityType": self.info["format"],
            **({"quantName": self.info["quantization"]["name"]} if "quantization" in self.info else {}),
        }
        availability = {
            "fitEstimation": FIT_ESTIMATION,
            "availability": "downloaded" if self.owned else "notDownloaded",
            "recommended": True,
        }
        model = form | {"modelKey": self.info["modelKey"]}
        return {
            "type": "model",
            "state": self._state,
            "dependencyLabel": self.info["indexedModelIdentifier"],
            "resolvedSources": 1,
            "totalSources": 1,
            "downloadOptions": [form | availability],
            "selectedDownloadOptionIndex": 0 if self.selected else None,
            "recommendedDownloadOptionIndex": 0,
            **({"selected": model} if self.selected else {}),
            **({"alreadyOwned": model} if self.owned else {}),
        }
