"""What both clients share of `client.repository`: searches, downloads, and what they find."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.support.arguments import (
    check_callbacks,
    list_of,
    optional_text,
    text_of,
    whole_number,
)
from lmstudio_integrations.client.support.progress_bars import ProgressBar, ShowProgress
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.operation import CallbackEffect, Operation, decode_errors, read_each
from lmstudio_integrations.protocol.requests import (
    DownloadModel,
    DownloadOptions,
    SearchModels,
    SearchParameters,
    SearchResultIdentifier,
)
from lmstudio_integrations.types.downloads import DownloadOptionInfo, DownloadProgressUpdate, SearchResultInfo

OnDownload = Callable[[DownloadProgressUpdate], Any]

MAX_RESULTS = 25


def search(
    operation: Operation, term: str | None, limit: int | None, compatibility_types: Sequence[str] | None
) -> Flow[list[SearchResultInfo]]:
    """Return the models that match a search term; without one, those that the server recommends."""
    formats = None
    if compatibility_types is not None:
        listed = list_of(compatibility_types, "compatibility_types")
        formats = [text_of(each, "compatibility_types") for each in listed]
    options = {
        "searchTerm": optional_text(term, "search_term"),
        "limit": whole_number(limit, "limit", most=MAX_RESULTS),
        "compatibilityTypes": formats,
    }
    parameters = cast("SearchParameters", {name: value for name, value in options.items() if value is not None})

    def read(result: Any) -> list[SearchResultInfo]:
        return read_each(result["results"], SearchResultInfo.read, "Model search")

    parameter = SearchModels(opts=parameters)
    return (yield from operation.call("repository", "searchModels", parameter, read, label="Model search"))


def download_options(operation: Operation, result: SearchResultInfo) -> Flow[list[DownloadOptionInfo]]:
    """Return the download options of a model."""
    with decode_errors("Download options"):
        identifier = SearchResultIdentifier(type=result.identifier["type"], identifier=result.identifier["identifier"])
    parameter = DownloadOptions(modelSearchResultIdentifier=identifier)

    def read(result: Any) -> list[DownloadOptionInfo]:
        return read_each(result["results"], DownloadOptionInfo.read, "Download options")

    return (
        yield from operation.call("repository", "getModelDownloadOptions", parameter, read, label="Download options")
    )


def download(
    operation: Operation,
    option: DownloadOptionInfo,
    on_progress: OnDownload | None,
    on_finalize: Callable[[], Any] | None,
    *,
    show_progress: ShowProgress,
) -> Flow[str]:
    """Download a model; return the key to load it with.

    Raises:
        LMStudioValueError: If a callback cannot be called.
    """
    check_callbacks(on_progress=on_progress, on_finalize=on_finalize)
    bar = ProgressBar(f"Downloading {option.name}", shown=show_progress, on_progress=on_progress)

    def read(packet: dict[str, Any]) -> CallbackEffect | str | None:
        match packet["type"]:
            case "success":
                return str(packet["defaultIdentifier"])
            case "downloadProgress" if bar.is_used:
                update = DownloadProgressUpdate.from_dict(packet["update"])
                return CallbackEffect(bar.report, fraction_of(update), update)
            case "startFinalizing" if on_finalize is not None:
                return CallbackEffect(on_finalize)
            case _:
                return None

    parameter = DownloadModel(downloadIdentifier=option.download_identifier)
    endpoint, label = "downloadModel", "Model download"
    with bar:
        key = yield from operation.read_channel("repository", endpoint, parameter, read, label=label)
        bar.draw(1.0)
    return key


def fraction_of(update: DownloadProgressUpdate) -> float:
    """Return how much of a download is done, 0.0 to 1.0, of sizes beyond a float as well."""
    total = max(update.total_bytes, 1)
    return min(max(update.downloaded_bytes, 0), total) / total


@dataclass(frozen=True, eq=False, slots=True)
class BaseAvailableModel:
    """A model that a search found."""

    search_result: SearchResultInfo
    """Its info, from the server."""
    _context: ClientContext = field(repr=False)

    @property
    def name(self) -> str:
        """Its display name."""
        return self.search_result.name

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(name={self.name!r})"


@dataclass(frozen=True, eq=False, slots=True)
class BaseDownloadOption:
    """One way to download a model, such as a quantization."""

    info: DownloadOptionInfo
    """Its info, from the server."""
    _context: ClientContext = field(repr=False)

    def __repr__(self) -> str:
        shown = {"name": self.info.name, "quantization": self.info.quantization, "size_bytes": self.info.size_bytes}
        set_values = (f"{name}={value!r}" for name, value in shown.items() if value is not None)
        return f"{self.__class__.__name__}({', '.join(set_values)})"
