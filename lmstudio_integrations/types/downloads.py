"""Models to download: what a search found, in which forms it can be had, how far it is (protocol §4.7)."""

from typing import Any

from lmstudio_integrations.types._base import WireModel


class DownloadProgressUpdate(WireModel):
    """How far a download is."""

    downloaded_bytes: int
    total_bytes: int
    speed_bytes_per_second: float


class SearchResultInfo(WireModel):
    """A model that a search found; `identifier` is for the server."""

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
