"""Search for models of the catalog, and download them (docs/protocol.md#repository-endpoints)."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations.emulator.engines.base import WeightsEngine, without_directories
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.models.catalog import ModelEntry
from lmstudio_integrations.emulator.server.context import USER_STOPPED, Context, OpenChannel
from lmstudio_integrations.protocol.requests import (
    ARTIFACT,
    Artifact,
    ArtifactTarget,
    CreateDownloadPlan,
    DownloadModel,
    DownloadOptions,
    SearchModels,
    StaffPicks,
)

DEFAULT_LIMIT = 10
"""The default number of search results."""

DOWNLOAD_CANCELLED = "The download was cancelled."


def _artifact_of(entry: ModelEntry) -> tuple[str, str] | None:
    """Return owner and name on the hub, from the key or with the publisher; `None` if the hub allows no such name."""
    key = entry.key if "/" in entry.key else f"{entry.publisher or entry.full_path.partition('/')[0]}/{entry.key}"
    match = re.fullmatch(ARTIFACT, key.lower())
    return match and (match["owner"], match["name"])


async def search_models(context: Context, parameter: SearchModels) -> dict[str, Any]:
    """Return the first entries of the catalog that match a term, the exact one first; without a term, all match."""
    term = (parameter["opts"].get("searchTerm") or "").casefold()
    entries = await _search(context, term, parameter["opts"].get("compatibilityTypes"))
    return {"results": [_result(entry, term) for entry in entries[: parameter["opts"].get("limit") or DEFAULT_LIMIT]]}


async def _search(context: Context, term: str, compatible: Sequence[str] | None) -> list[ModelEntry]:
    """Return the entries of the catalog that match a term, the exact one first."""
    await context.registry.read_metadata(context.registry.catalog.models if compatible else ())
    entries = [
        entry
        for entry in context.registry.catalog.models
        if term in f"{entry.key} {entry.display_name or ''} {entry.full_path}".casefold()
        and (not compatible or context.registry.info(entry)["format"] in compatible)
    ]
    entries.sort(key=lambda entry: entry.key.casefold() != term)  # the limit must not cut it off
    return entries


def _result(entry: ModelEntry, term: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": entry.display_name or entry.key,
        "identifier": {"type": "catalog", "identifier": entry.key},
    }
    return result | ({"exact": True} if entry.key.casefold() == term else {})


async def fuzzy_find_staff_picks(context: Context, parameter: StaffPicks) -> dict[str, Any]:
    """Return the first entries that match a term, as artifacts of the hub; the whole catalog is recommended."""
    term = (parameter.get("searchTerm") or "").casefold()
    entries = await _search(context, term, parameter.get("compatibilityTypes"))
    picks = [
        {
            "owner": owner,
            "name": name,
            "revisionNumber": 1,
            "createdAtTimestamp": 0,  # the catalog has no dates
            "description": entry.display_name or entry.key,
            "exact": term in {entry.key.casefold(), name, f"{owner}/{name}"},
        }
        for entry in entries
        if (artifact := _artifact_of(entry)) is not None
        for owner, name in [artifact]
    ]
    return {"results": picks[: parameter.get("limit") or DEFAULT_LIMIT]}


async def get_model_catalog(context: Context, _parameter: None) -> dict[str, Any]:
    """Return all entries of the catalog that can be artifacts of the hub."""
    entries = [entry for entry in context.registry.catalog.models if _artifact_of(entry) is not None]
    await context.registry.read_metadata(entries)
    return {"models": [_recommended(entry, context.registry.info(entry)) for entry in entries]}


def _recommended(entry: ModelEntry, info: Mapping[str, Any]) -> dict[str, Any]:
    artifact = _artifact_of(entry)
    assert artifact is not None, "only artifacts are listed"
    metadata: dict[str, Any] = {
        "type": entry.kind,
        "architectures": [info["architecture"]] if "architecture" in info else [],
        "compatibilityTypes": [info["format"]],
        "paramsStrings": [info["paramsString"]] if "paramsString" in info else [],
        "minMemoryUsageBytes": info["sizeBytes"],
        "contextLengths": [info["maxContextLength"]],
    }
    if entry.kind == "llm":
        metadata |= {"trainedForToolUse": info["trainedForToolUse"], "vision": info["vision"], "reasoning": False}
    owner, name = artifact
    return {
        "type": "model",
        "owner": owner,
        "name": name,
        "description": info["displayName"],
        "downloads": 0,
        "likeCount": 0,
        "metadata": metadata,
    }


async def get_model_download_options(context: Context, parameter: DownloadOptions) -> dict[str, Any]:
    """Return the only download option of an entry."""
    # The type, `catalog` or `hf`, is ignored: all models are in the catalog.
    entry = _entry(context, parameter["modelSearchResultIdentifier"]["identifier"])
    await context.registry.read_metadata([entry])
    info = context.registry.info(entry)
    option: dict[str, Any] = {
        "name": info["displayName"],
        "sizeBytes": info["sizeBytes"],
        "fitEstimation": FIT_ESTIMATION,
        "recommended": True,
        "downloadIdentifier": entry.key,
        "indexedModelIdentifier": info["indexedModelIdentifier"],
        "compatibilityType": info["format"],
    }
    if "quantization" in info:
        option["quantization"] = info["quantization"]["name"]
    return {"results": [option]}


async def download_model(context: Context, channel: OpenChannel, parameter: DownloadModel) -> None:
    """Download the weights of an entry, so that it can be loaded."""
    entry = _entry(context, parameter["downloadIdentifier"])
    with channel.cancellable(DOWNLOAD_CANCELLED):
        await _download(context, channel, entry)
    channel.send({"type": "startFinalizing"})
    channel.send({"type": "success", "defaultIdentifier": entry.key})


async def create_download_plan(context: Context, channel: OpenChannel, parameter: CreateDownloadPlan) -> None:
    """Find out what a download would fetch, let the client choose, and download it when the client commits."""
    target, models = parameter["target"], context.registry.catalog.models
    formats = parameter.get("opts", {}).get("compatibilityTypes")
    if target["type"] == "artifact":
        artifact = (target["owner"], target["name"])
        name = "/".join(artifact)
        entries = [entry for entry in models if _artifact_of(entry) == artifact]
    else:
        artifact = None
        name = f"{target['source']['user']}/{target['source']['repo']}"
        entries = [entry for entry in models if f"{entry.full_path}/".casefold().startswith(f"{name}/".casefold())]
    await context.registry.read_metadata(entries)
    entries = [entry for entry in entries if not formats or context.registry.info(entry)["format"] in formats]
    if not entries:
        raise _nothing_to_download(name)
    await _offer(context, channel, entries[0], artifact)


async def create_artifact_download_plan(context: Context, channel: OpenChannel, parameter: Artifact) -> None:
    """Plan the download of an artifact, as older clients request it."""
    target = ArtifactTarget(type="artifact", **parameter)
    await create_download_plan(context, channel, CreateDownloadPlan(target=target))


async def _offer(context: Context, channel: OpenChannel, entry: ModelEntry, artifact: tuple[str, str] | None) -> None:
    """Send the plan of a download, and carry it out when the client commits."""
    owned = entry.key in context.registry.local.downloaded
    plan = DownloadPlan(context.registry.info(entry), owned, artifact)
    committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_packet(packet: Mapping[str, Any]) -> None:
        if packet["type"].startswith("cancel"):
            channel.scope.cancel(USER_STOPPED)
        elif committed.done():
            pass  # the client has committed, so the plan no longer changes
        elif packet["type"] == "commit":
            committed.set_result(None)
        else:
            try:
                plan.select(packet)
            except WireError as error:
                committed.set_exception(error)
            else:
                channel.send({"type": "planUpdated", "plan": plan.to_dict()})

    channel.on_packet = on_packet
    with channel.cancellable(DOWNLOAD_CANCELLED):
        channel.send({"type": "planReady", "plan": plan.to_dict()})
        await committed
        if plan.selected:
            await _download(context, channel, entry)
    channel.send({"type": "startFinalizing"})
    channel.send({"type": "success"})


async def _download(context: Context, channel: OpenChannel, entry: ModelEntry) -> None:
    """Download the weights of an entry, so that it can be loaded, and send the progress.

    Raises:
        WireError: If that fails.
    """
    clock = context.state.clock
    started = clock.now()

    def on_bytes(downloaded: int, total: int) -> None:
        seconds = clock.now() - started
        update = {
            "downloadedBytes": downloaded,
            "totalBytes": total,
            "speedBytesPerSecond": downloaded / seconds if seconds else 0,
        }
        channel.send({"type": "downloadProgress", "update": update})

    registry = context.registry
    engine = registry.engine_of(entry)
    try:
        if entry.weights and isinstance(engine, WeightsEngine):
            # Cancelling does not stop the package manager: its thread continues.
            await engine.download(entry.weights, on_bytes)
        else:
            size = registry.info(entry)["sizeBytes"]
            on_bytes(0, size)
            on_bytes(size, size)
    except OSError as error:
        cause = without_directories(str(error))
        raise WireError(f'The weights of "{entry.key}" cannot be downloaded', cause=cause) from error
    registry.local.downloaded.add(entry.key)
    registry.metadata_by_key.pop(entry.key, None)
    context.state.request_log.notify()


def _entry(context: Context, identifier: str) -> ModelEntry:
    entries = context.registry.catalog.find(identifier)
    if not entries:
        raise _nothing_to_download(identifier)
    return entries[0]  # the best match


def _nothing_to_download(identifier: str) -> WireError:
    return WireError(f'Cannot find a model to download with the identifier "{identifier}"')


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
