"""Models to download: search results, download options and progress (docs/protocol.md#repository-endpoints)."""

from typing import Any

from lmstudio_integrations.types._wire_model import WireModel


class DownloadProgressUpdate(WireModel):
    """The progress of a download."""

    downloaded_bytes: int
    total_bytes: int
    speed_bytes_per_second: float


class SearchResultInfo(WireModel):
    """A search result; `identifier` identifies it to the server."""

    name: str
    identifier: dict[str, Any]
    exact: bool | None = None
    staff_pick: bool | None = None


class DownloadOptionInfo(WireModel):
    """A form in which a model can be downloaded."""

    name: str
    size_bytes: int
    fit_estimation: str
    download_identifier: str
    indexed_model_identifier: str | None = None
    quantization: str | None = None
    recommended: bool | None = None
    compatibility_type: str | None = None
