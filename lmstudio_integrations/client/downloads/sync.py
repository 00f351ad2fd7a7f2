# Written by `python -m tools.sync_client` from asynchronous.py.
"""Models to download for threads: `client.repository` of an `Client`.

`python -m tools.sync_client` writes `sync.py`, which is the same for threads, from `asynchronous.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.downloads import downloading
from lmstudio_integrations.client.downloads.downloading import BaseAvailableModel, BaseDownloadOption, OnDownload
from lmstudio_integrations.client.support.progress_bars import ShowProgress
from lmstudio_integrations.client.transport.base_namespace import BaseNamespace
from lmstudio_integrations.client.transport.operation import Operation


class DownloadOption(BaseDownloadOption):
    """One way to download a model, such as a quantization."""

    def download(
        self,
        on_progress: OnDownload | None = None,
        on_finalize: Callable[[], Any] | None = None,
        *,
        show_progress: ShowProgress = "auto",
    ) -> str:
        """Download it; return the key to load it with.

        Args:
            on_progress: Called with the progress.
            on_finalize: Called when all bytes have arrived.
            show_progress: Whether to show a progress bar, which needs tqdm. By default, `"auto"`, a download of more
                than two seconds shows a line on a terminal, unless there is an `on_progress`.
        """
        return run(
            downloading.download(
                Operation(self._context), self.info, on_progress, on_finalize, show_progress=show_progress
            )
        )


class AvailableModel(BaseAvailableModel):
    """A model that a search found."""

    def get_download_options(self) -> list[DownloadOption]:
        """Return its download options."""
        options = run(downloading.download_options(Operation(self._context), self.search_result))
        return [DownloadOption(option, self._context) for option in options]


class RepositoryNamespace(BaseNamespace):
    """Models to download: `client.repository`."""

    def search_models(
        self,
        search_term: str | None = None,
        limit: int | None = None,
        compatibility_types: Sequence[str] | None = None,
    ) -> list[AvailableModel]:
        """Return the models that match a search term; without one, those that the server recommends."""
        results = run(downloading.search(self._operation(), search_term, limit, compatibility_types))
        return [AvailableModel(each, self._context) for each in results]
