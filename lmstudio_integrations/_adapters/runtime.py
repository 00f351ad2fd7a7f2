"""What an adapter needs while it works and must never carry along: clients, model handles, what it has learnt.

The only place where adapters make native clients, whose modules are loaded when the first call needs one: they are half
of what importing an adapter would take.

Adapters are configuration. A copy, a pickle or a deep copy of one begins with an empty `Runtime`; sockets are shared by
the whole process, so that costs no connection.
"""

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from lmstudio_integrations.errors import LMStudioError
from lmstudio_integrations.types.config import LoadSettings, ModelKind

if TYPE_CHECKING:
    from lmstudio_integrations.client._binding import Binding
    from lmstudio_integrations.client.asynchronous import AsyncClient, AsyncEmbeddingModel, AsyncLLM
    from lmstudio_integrations.client.sync import LLM, Client, EmbeddingModel

logger = logging.getLogger(__name__)

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")
ClientT = TypeVar("ClientT", "Client", "AsyncClient")

_KEEP_IDLE = 300.0
"""Seconds for which a connection that only adapters hold stays open while idle."""

_MOST = 64
"""Things that are kept; a program that makes up new settings for every call must not fill the memory."""


class Server(NamedTuple):
    """Which server, as whom, and how patiently."""

    host: str | None
    token: str | None
    headers: tuple[tuple[str, str], ...]
    ca_file: str | None
    timeouts: tuple[tuple[str, float | None], ...]

    @property
    def place(self) -> "Place":
        """Which server, as whom."""
        return self.host, self.token, self.headers, self.ca_file

    def __repr__(self) -> str:
        return f"Server(host={self.host!r})"


Place = tuple[str | None, str | None, tuple[tuple[str, str], ...], str | None]
"""Host, token, headers and file of trusted certificates."""


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

    def fits(self, info: Mapping[str, Any]) -> bool:
        """Whether this is of the same instance; a model may have been loaded again, with another window."""
        return all(self.info.get(name) == info.get(name) for name in ("instanceReference", "contextLength"))


class _BoundedCache(Generic[KeyT, ValueT]):
    """What was made for the last keys. Threads may share it."""

    def __init__(self) -> None:
        self._values: dict[KeyT, ValueT] = {}
        self._lock = Lock()

    def get(self, key: KeyT) -> ValueT | None:
        """Return what is kept for a key."""
        return self._values.get(key)

    def put(self, key: KeyT, value: ValueT) -> ValueT:
        """Keep a value, and let go of the oldest if there are too many."""
        with self._lock:
            return self._put(key, value)

    def get_or_make(self, key: KeyT, make: Callable[[], ValueT]) -> ValueT:
        """Return what is kept for a key, made when it is first asked for."""
        value = self._values.get(key)
        if value is not None:
            return value
        with self._lock:
            value = self._values.get(key)
            return self._put(key, make()) if value is None else value

    def take(self) -> list[tuple[KeyT, ValueT]]:
        """Return all that is kept, and forget it."""
        with self._lock:
            items, self._values = list(self._values.items()), {}
        return items

    def _put(self, key: KeyT, value: ValueT) -> ValueT:
        if key not in self._values and len(self._values) >= _MOST:
            del self._values[next(iter(self._values))]
        self._values[key] = value
        return value


class _ClientPool(Generic[ClientT]):
    """The clients of one kind, sync or async, and their handles.

    Args:
        make: Makes a client.
        bindings: Which model each handle means; both sides share them, so that an instance of one's own is loaded once.
    """

    def __init__(self, make: Callable[..., ClientT], bindings: "_BoundedCache[tuple[Place, Wanted], Binding]") -> None:
        self._make: Callable[..., ClientT] = make
        self._bindings = bindings
        self._clients: _BoundedCache[Place, ClientT] = _BoundedCache()
        self._handles: _BoundedCache[tuple[Server, Wanted], Any] = _BoundedCache()

    def client(self, server: Server) -> ClientT:
        """Return a client of a server."""
        timeouts: Any = dict(server.timeouts)
        return self._at(server.place).with_timeouts(**timeouts)

    def _at(self, place: "Place") -> ClientT:
        return self._clients.get_or_make(place, lambda: self._make(**_client_options(place)))

    def handle(self, server: Server, wanted: Wanted, config: LoadSettings | None) -> Any:
        """Return the handle of a model."""
        return self._handles.get_or_make((server, wanted), lambda: self._new_handle(server, wanted, config))

    def _new_handle(self, server: Server, wanted: Wanted, config: LoadSettings | None) -> Any:
        client = self.client(server)
        namespace = _namespace(client, wanted.kind)
        binding = self._bindings.get_or_make(
            (server.place, wanted),
            lambda: (
                namespace.lazy_model(
                    wanted.model,
                    ttl=wanted.ttl,
                    config=config,
                    load_policy=wanted.load_policy,
                    on_config_mismatch=wanted.on_config_mismatch,
                    on_load_progress=wanted.on_load_progress,
                ).binding
            ),
        )
        return namespace.bound(binding)

    def bound(self, place: "Place", binding: "Binding") -> Any:
        """Return a handle to the model of a binding."""
        return _namespace(self._at(place), binding.kind).bound(binding)

    def take(self) -> list[ClientT]:
        """Return the clients and forget them."""
        self._handles.take()
        return [client for _, client in self._clients.take()]


class Runtime:
    """The clients of one adapter. Threads may share it; nothing in it is bound to an event loop."""

    def __init__(self) -> None:
        bindings: _BoundedCache[tuple[Place, Wanted], Binding] = _BoundedCache()
        self._bindings = bindings
        self._sync: _ClientPool[Client] = _ClientPool(_make_client, bindings)
        self._async: _ClientPool[AsyncClient] = _ClientPool(_make_async_client, bindings)
        self._facts: _BoundedCache[tuple[Place, Wanted], Facts] = _BoundedCache()
        self.profiled: Facts | None = None
        """What the adapter's own description of its model was completed with."""
        self.lost: frozenset[str] = frozenset()
        """The secrets that were dropped when the adapter was pickled."""

    def facts(self, server: Server, wanted: Wanted) -> Facts | None:
        """Return what is known of a model."""
        return self._facts.get((server.place, wanted))

    def learn(
        self,
        server: Server,
        wanted: Wanted,
        info: Mapping[str, Any],
        parallel: Callable[[], int | None] = lambda: None,
    ) -> Facts:
        """Keep what the server has just told of a model; return what is known of it.

        Args:
            server: The server.
            wanted: The model.
            info: The instance, in wire form.
            parallel: Finds out how many predictions it runs at once; asked for an instance that is not known yet.
        """
        known = self.facts(server, wanted)
        if known is not None and known.fits(info):
            return known
        warned = known is not None and known.warned
        return self._facts.put((server.place, wanted), Facts(info, parallel(), warned))

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

    def unload(self) -> None:
        """Unload the models that were loaded here."""
        for (place, _), binding in self._bindings.take():
            with _logging_errors(binding):
                self._sync.bound(place, binding).unload_if_loaded_here()

    async def aunload(self) -> None:
        """Unload the models that were loaded here."""
        for (place, _), binding in self._bindings.take():
            with _logging_errors(binding):
                await self._async.bound(place, binding).unload_if_loaded_here()

    def close(self) -> None:
        """Stop what is running and let go of the connections; the next use makes new clients."""
        for client in self._sync.take():
            client.close()
        for async_client in self._async.take():
            async_client._dispatcher.close()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - closing never waits

    def __eq__(self, other: object) -> bool:
        """Adapters with equal settings are equal, whatever they have open."""
        return isinstance(other, Runtime)

    def __hash__(self) -> int:
        return hash(Runtime)

    def __deepcopy__(self, _memo: object) -> "Runtime":
        return self.__copy__()

    def __copy__(self) -> "Runtime":
        fresh = Runtime()
        fresh.lost = self.lost
        return fresh

    def __reduce__(self) -> tuple[type["Runtime"], tuple[()]]:
        return Runtime, ()


@contextmanager
def _logging_errors(binding: "Binding") -> Generator[None]:
    """Log that a model could not be unloaded: the caller of `close` can do nothing about it."""
    try:
        yield
    except LMStudioError as error:
        logger.warning("model %r could not be unloaded: %s", binding.name, error)


def _namespace(client: "Client | AsyncClient", kind: ModelKind) -> Any:
    return client.llm if kind == "llm" else client.embedding


def _client_options(place: Place) -> dict[str, Any]:
    host, token, headers, ca_file = place
    options: dict[str, Any] = {"api_host": host, "api_token": token, "headers": dict(headers), "keep_idle": _KEEP_IDLE}
    if ca_file is not None:
        from lmstudio_integrations.client.transport.certificates import context_trusting  # noqa: PLC0415 - with the first call

        options["ssl_context"] = context_trusting(ca_file)
    return options


def _make_client(**options: Any) -> "Client":
    from lmstudio_integrations.client.sync import Client  # noqa: PLC0415 - with the first call

    return Client(**options)


def _make_async_client(**options: Any) -> "AsyncClient":
    from lmstudio_integrations.client.asynchronous import AsyncClient  # noqa: PLC0415 - with the first call

    return AsyncClient(**options)
