"""Search for models of the catalog and download them (docs/protocol.md#repository-endpoints)."""

from typing import Any

from lmstudio_integrations.emulator.catalog import ModelEntry
from lmstudio_integrations.emulator.context import Context, OpenChannel
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.protocol.requests import DownloadModel, DownloadOptions, SearchModels

DEFAULT_LIMIT = 10
"""The default number of search results."""


async def search_models(context: Context, parameter: SearchModels) -> dict[str, Any]:
    """Return the first entries of the catalog that match a term, the exact one first; without a term, all match."""
    term = (parameter["opts"].get("searchTerm") or "").casefold()
    compatible = parameter["opts"].get("compatibilityTypes")
    await context.registry.read_metadata(context.registry.catalog.models if compatible else ())
    found = [
        entry
        for entry in context.registry.catalog.models
        if term in f"{entry.key} {entry.display_name or ''} {entry.full_path}".casefold()
        and (not compatible or context.registry.metadata(entry).format in compatible)
    ]
    found.sort(key=lambda entry: entry.key.casefold() != term)  # the limit must not cut it off
    return {"results": [_result(entry, term) for entry in found[: parameter["opts"].get("limit") or DEFAULT_LIMIT]]}


def _result(entry: ModelEntry, term: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": entry.display_name or entry.key,
        "identifier": {"type": "catalog", "identifier": entry.key},
    }
    return result | ({"exact": True} if entry.key.casefold() == term else {})


async def get_model_download_options(context: Context, parameter: DownloadOptions) -> dict[str, Any]:
    """Return the only download option of an entry."""
    # The type, `catalog` or `hf`, is ignored: all models are in the catalog.
    entry = _entry(context, parameter["modelSearchResultIdentifier"]["identifier"])
    await context.registry.read_metadata([entry])
    info = context.registry.info(entry)
    option: dict[str, Any] = {
        "name": info["displayName"],
        "sizeBytes": info["sizeBytes"],
        "fitEstimation": "fitWithoutGPU",  # not estimated; the engines need no GPU
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

    with channel.cancellable("The download was cancelled."):
        # Cancelling does not stop the package manager: its thread continues.
        await context.registry.download(entry, on_bytes)
    channel.send({"type": "startFinalizing"})
    channel.send({"type": "success", "defaultIdentifier": entry.key})


def _entry(context: Context, identifier: str) -> ModelEntry:
    found = context.registry.catalog.find(identifier)
    if not found:
        raise WireError(f'Cannot find a model to download with the identifier "{identifier}"')
    return found[0]  # the best match
