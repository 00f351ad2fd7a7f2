"""What an adapter needs while it works and must never carry along: clients, model handles, what it has learnt.

The only place where adapters make native clients, whose modules are loaded when the first call needs one: they are half
of what importing an adapter would take.

Adapters are configuration. A copy, a pickle or a deep copy of one begins with an empty `Runtime`; sockets are shared by
the whole process, so that costs no connection.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from lmstudio_integrations.types.config import LoadSettings, ModelKind

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncClient, AsyncEmbeddingModel, AsyncLLM
    from lmstudio_integrations.client.sync import LLM, Client, EmbeddingModel

ClientT = TypeVar("ClientT", "Client", "AsyncClient")

_KEEP_IDLE = 300.0
"""Seconds for which a connection that only adapters hold stays open while idle."""

_MOST_HANDLES = 64
"""Handles that are kept; a program that makes up a new configuration for every call must not fill the memory."""


class Server(NamedTuple):
    """Which server, as whom, and how patiently."""

    host: str | None
    token: str | None
    clocks: tuple[tuple[str, float | None], ...]

    def __repr__(self) -> str:
        return f"Server(host={self.host!r})"


class Wanted(NamedTuple):
    """Which model, and how to load it. `config` is JSON text, so that the whole can be a key."""

    kind: ModelKind
    model: str | None
    ttl: float | None
    config: str | None
    load_policy: Any
    on_config_mismatch: Any
    on_load_progress: Callable[[float], Any] | None


@dataclass(slots=True)
class Facts:
    """What the server has told of a loaded model.

    Attributes:
        info: The instance, in wire form (protocol §6.6).
        parallel: Predictions that it runs at once.
        warned: Whether the user knows that it was not trained for tools.
    """

    info: Mapping[str, Any]
    parallel: int | None = None
    warned: bool = False


class _Side(Generic[ClientT]):
    """The clients of one kind, sync or async, and their handles."""

    def __init__(self, make: Callable[..., ClientT]) -> None:
        self._make: Callable[..., ClientT] = make
        self._clients: dict[Server, ClientT] = {}
        self._handles: dict[tuple[Server, Wanted], Any] = {}

    def client(self, server: Server) -> ClientT:
        """Return the client of a server, made when it is first asked for."""
        client = self._clients.get(server)
        if client is None:
            clocks: Any = dict(server.clocks)
            client = self._clients.setdefault(
                server, self._make(server.host, server.token, keep_idle=_KEEP_IDLE, **clocks)
            )
        return client

    def handle(self, server: Server, wanted: Wanted, config: LoadSettings | None) -> Any:
        """Return the handle of a model, made when it is first asked for."""
        key = server, wanted
        handle = self._handles.get(key)
        if handle is None:
            if len(self._handles) >= _MOST_HANDLES:
                self._handles.pop(next(iter(self._handles)), None)
            handle = self._handles.setdefault(key, self._lazy_model(server, wanted, config))
        return handle

    def _lazy_model(self, server: Server, wanted: Wanted, config: LoadSettings | None) -> Any:
        client = self.client(server)
        namespace: Any = client.llm if wanted.kind == "llm" else client.embedding
        return namespace.lazy_model(
            wanted.model,
            ttl=wanted.ttl,
            config=config,
            load_policy=wanted.load_policy,
            on_config_mismatch=wanted.on_config_mismatch,
            on_load_progress=wanted.on_load_progress,
        )

    def take(self) -> list[ClientT]:
        """Return the clients and forget them."""
        clients = list(self._clients.values())
        self._clients, self._handles = {}, {}
        return clients


class Runtime:
    """The clients of one adapter. Threads may share it; nothing in it is bound to an event loop."""

    def __init__(self) -> None:
        self._sync: _Side[Client] = _Side(_make_client)
        self._async: _Side[AsyncClient] = _Side(_make_async_client)
        self._facts: dict[tuple[Server, Wanted], Facts] = {}
        self.profiled: Facts | None = None
        """What the adapter's own description of its model was completed with."""
        self.lost_token = False
        """Whether the adapter was pickled, which drops its API token."""

    def facts(self, server: Server, wanted: Wanted) -> Facts | None:
        """Return what is known of a model."""
        return self._facts.get((server, wanted))

    def learn(self, server: Server, wanted: Wanted, facts: Facts) -> Facts:
        """Keep what the server has told of a model."""
        if len(self._facts) >= _MOST_HANDLES:
            self._facts.clear()
        return self._facts.setdefault((server, wanted), facts)

    def client(self, server: Server) -> "Client":
        """Return the client for threads."""
        return self._sync.client(server)

    def async_client(self, server: Server) -> "AsyncClient":
        """Return the client for coroutines."""
        return self._async.client(server)

    def llm(self, server: Server, wanted: Wanted, config: LoadSettings | None) -> "LLM":
        """Return the language model, for threads."""
        return cast("LLM", self._sync.handle(server, wanted, config))

    def async_llm(self, server: Server, wanted: Wanted, config: LoadSettings | None) -> "AsyncLLM":
        """Return the language model, for coroutines."""
        return cast("AsyncLLM", self._async.handle(server, wanted, config))

    def embedding(self, server: Server, wanted: Wanted, config: LoadSettings | None) -> "EmbeddingModel":
        """Return the embedding model, for threads."""
        return cast("EmbeddingModel", self._sync.handle(server, wanted, config))

    def async_embedding(self, server: Server, wanted: Wanted, config: LoadSettings | None) -> "AsyncEmbeddingModel":
        """Return the embedding model, for coroutines."""
        return cast("AsyncEmbeddingModel", self._async.handle(server, wanted, config))

    def close(self) -> None:
        """Stop what is running and let go of the connections; the next use makes new clients."""
        for client in self._sync.take():
            client.close()
        for async_client in self._async.take():
            async_client._link.close()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - closing never waits

    def __eq__(self, other: object) -> bool:
        """Adapters with equal settings are equal, whatever they have open."""
        return isinstance(other, Runtime)

    def __hash__(self) -> int:
        return hash(Runtime)

    def __deepcopy__(self, _memo: object) -> "Runtime":
        return Runtime()

    def __copy__(self) -> "Runtime":
        return Runtime()

    def __reduce__(self) -> tuple[type["Runtime"], tuple[()]]:
        return Runtime, ()


def _make_client(*args: Any, **options: Any) -> "Client":
    from lmstudio_integrations.client.sync import Client  # noqa: PLC0415 - with the first call

    return Client(*args, **options)


def _make_async_client(*args: Any, **options: Any) -> "AsyncClient":
    from lmstudio_integrations.client.asynchronous import AsyncClient  # noqa: PLC0415 - with the first call

    return AsyncClient(*args, **options)
