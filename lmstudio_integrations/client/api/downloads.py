"""What both clients share of `client.repository`: the models that a search found, and how to download them."""

from dataclasses import dataclass, field

from lmstudio_integrations.client.support.tracebacks import ShortTracebacks
from lmstudio_integrations.client.transport.client_context import ClientContext
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
