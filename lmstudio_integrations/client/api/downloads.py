"""Search and download models, for both clients: `client.repository`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations.client.api.base import BaseNamespace
from lmstudio_integrations.client.models import repository
from lmstudio_integrations.client.models.repository import OnDownload
from lmstudio_integrations.client.support.progress_bars import ShowProgress
from lmstudio_integrations.client.support.tracebacks import ShortTracebacks
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.flows import arun, run
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.types.models import DownloadOptionInfo, SearchResultInfo


@dataclass(frozen=True, eq=False, slots=True)
class BaseAvailableModel(ShortTracebacks):
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
class BaseDownloadOption(ShortTracebacks):
    """One way to download a model, such as a quantization."""

    info: DownloadOptionInfo
    """Its info, from the server."""
    _context: ClientContext = field(repr=False)

    def __repr__(self) -> str:
        shown = {"name": self.info.name, "quantization": self.info.quantization, "size_bytes": self.info.size_bytes}
        set_values = (f"{name}={value!r}" for name, value in shown.items() if value is not None)
        return f"{self.__class__.__name__}({', '.join(set_values)})"


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
            repository.download(
                Operation(self._context), self.info, on_progress, on_finalize, show_progress=show_progress
            )
        )


class AvailableModel(BaseAvailableModel):
    """A model that a search found."""

    def get_download_options(self) -> list[DownloadOption]:
        """Return its download options."""
        options = run(repository.download_options(Operation(self._context), self.search_result))
        return [DownloadOption(option, self._context) for option in options]


class RepositoryNamespace(BaseNamespace):
    """Models to download: `client.repository`."""

    def search_models(
        self, search_term: str | None = None, limit: int | None = None, compatibility_types: Sequence[str] | None = None
    ) -> list[AvailableModel]:
        """Return the models that match a search term; without one, those that the server recommends."""
        results = run(repository.search(self._operation(), search_term, limit, compatibility_types))
        return [AvailableModel(each, self._context) for each in results]


class AsyncDownloadOption(BaseDownloadOption):
    """One way to download a model, such as a quantization."""

    async def download(
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
        return await arun(
            repository.download(
                Operation(self._context), self.info, on_progress, on_finalize, show_progress=show_progress
            )
        )


class AsyncAvailableModel(BaseAvailableModel):
    """A model that a search found."""

    async def get_download_options(self) -> list[AsyncDownloadOption]:
        """Return its download options."""
        options = await arun(repository.download_options(Operation(self._context), self.search_result))
        return [AsyncDownloadOption(option, self._context) for option in options]


class AsyncRepositoryNamespace(BaseNamespace):
    """Models to download: `client.repository`."""

    async def search_models(
        self,
        search_term: str | None = None,
        limit: int | None = None,
        compatibility_types: Sequence[str] | None = None,
    ) -> list[AsyncAvailableModel]:
        """Return the models that match a search term; without one, those that the server recommends."""
        results = await arun(repository.search(self._operation(), search_term, limit, compatibility_types))
        return [AsyncAvailableModel(each, self._context) for each in results]
