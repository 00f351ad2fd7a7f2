"""The state of an adapter at work: clients, model handles, and info about the loaded models.

Adapters are configuration, so none of this is copied or pickled: a copy starts with an empty `Runtime`. The process
shares its sockets, so that costs no connection.

Only this module makes native clients for adapters. It imports them with the first call, because they take half the time
of importing an adapter.
"""

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from lmstudio_integrations.errors import LMStudioError
from lmstudio_integrations.types.config import LoadSettings, ModelKind

if TYPE_CHECKING:
    from lmstudio_integrations.client._binding import Binding
    from lmstudio_integrations.client.asynchronous import AsyncClient
    from lmstudio_integrations.client.sync import Client

logger = logging.getLogger(__name__)

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")
ClientT = TypeVar("ClientT", "Client", "AsyncClient")

_KEEP_IDLE = 300.0
"""Seconds after which an idle connection is closed, if only adapters use it."""

_CACHE_SIZE = 64
"""Bounds the memory of a program whose every call has new settings."""


class Server(NamedTuple):
    """A server, the credentials for it, and the timeouts."""

    host: str | None
    token: str | None
    headers: tuple[tuple[str, str], ...]
    ca_file: str | None
    timeouts: tuple[tuple[str, float | None], ...]

    @property
    def identity(self) -> "ServerIdentity":
        """The server and the credentials; calls that differ in timeouts share a client."""
        return self.host, self.token, self.headers, self.ca_file

    def __repr__(self) -> str:
        return f"Server(host={self.host!r})"


ServerIdentity = tuple[str | None, str | None, tuple[tuple[str, str], ...], str | None]
"""Host, token, headers and file of trusted certificates."""


class ModelSpec(NamedTuple):
    """Which model, and how to load it. Hashable, because handles are cached by it: `config` is JSON text."""

    kind: ModelKind
    model: str | None
    ttl: float | None
    config: str | None
    load_policy: Any
    on_config_mismatch: Any
    on_load_progress: Callable[[float], Any] | None


@dataclass(slots=True)
class LoadedModelInfo:
    """What the server reported about a loaded model.

    Attributes:
        info: The instance, in wire form (`docs/protocol.md#model-info`).
        parallel: How many predictions it runs at once, if known.
        warned: Whether the user was warned that it was not trained for tools.
    """

    info: Mapping[str, Any]
    parallel: int | None = None
    warned: bool = False

    def is_of(self, info: Mapping[str, Any]) -> bool:
        """Whether `info` is of the same load; a model may be loaded again with another context length."""
        return all(self.info.get(name) == info.get(name) for name in ("instanceReference", "contextLength"))


class _BoundedCache(Generic[KeyT, ValueT]):
    """Keeps the values of the last keys. Thread-safe."""

    def __init__(self) -> None:
        self._values: dict[KeyT, ValueT] = {}
        self._lock = Lock()

    def get(self, key: KeyT) -> ValueT | None:
        """Return the value of a key, if it is cached."""
        return self._values.get(key)

    def put(self, key: KeyT, value: ValueT) -> ValueT:
        """Cache a value; the oldest one is dropped if there are too many."""
        with self._lock:
            return self._put(key, value)

    def get_or_make(self, key: KeyT, make: Callable[[], ValueT]) -> ValueT:
        """Return the value of a key; the first call makes it."""
        value = self._values.get(key)
        if value is not None:
            return value
        with self._lock:
            value = self._values.get(key)
            return self._put(key, make()) if value is None else value

    def pop_all(self) -> list[tuple[KeyT, ValueT]]:
        """Return all entries and drop them."""
        with self._lock:
            items, self._values = list(self._values.items()), {}
        return items

    def _put(self, key: KeyT, value: ValueT) -> ValueT:
        if key not in self._values and len(self._values) >= _CACHE_SIZE:
            del self._values[next(iter(self._values))]
        self._values[key] = value
        return value


_Bindings: TypeAlias = "_BoundedCache[tuple[ServerIdentity, ModelSpec], Binding]"


class _ClientPool(Generic[ClientT]):
    """The sync or the async clients of an adapter, and their handles.

    Args:
        make: Makes a client.
        bindings: The model of each handle. Both pools share them, so that `new_instance` loads only one instance.
    """

    def __init__(
        self, make: Callable[..., ClientT], bindings: "_BoundedCache[tuple[ServerIdentity, ModelSpec], Binding]"
    ) -> None:
        self._make: Callable[..., ClientT] = make
        self._bindings = bindings
        self._clients: _BoundedCache[ServerIdentity, ClientT] = _BoundedCache()
        self._handles: _BoundedCache[tuple[Server, ModelSpec], Any] = _BoundedCache()

    def client(self, server: Server) -> ClientT:
        """Return a client of a server."""
        timeouts: Any = dict(server.timeouts)
        return self._client_of(server.identity).with_timeouts(**timeouts)

    def _client_of(self, identity: "ServerIdentity") -> ClientT:
        return self._clients.get_or_make(identity, lambda: self._make(**_client_arguments(identity)))

    def handle(self, server: Server, spec: ModelSpec, config: LoadSettings | None) -> Any:
        """Return the handle of a model."""
        return self._handles.get_or_make((server, spec), lambda: self._new_handle(server, spec, config))

    def _new_handle(self, server: Server, spec: ModelSpec, config: LoadSettings | None) -> Any:
        client = self.client(server)
        namespace = _namespace(client, spec.kind)
        binding = self._bindings.get_or_make(
            (server.identity, spec),
            lambda: (
                namespace.lazy_model(
                    spec.model,
                    ttl=spec.ttl,
                    config=config,
                    load_policy=spec.load_policy,
                    on_config_mismatch=spec.on_config_mismatch,
                    on_load_progress=spec.on_load_progress,
                ).binding
            ),
        )
        return namespace.bound(binding)

    def bound(self, identity: "ServerIdentity", binding: "Binding") -> Any:
        """Return a handle to the model of a binding."""
        return _namespace(self._client_of(identity), binding.kind).bound(binding)

    def pop_clients(self) -> list[ClientT]:
        """Return the clients and drop them with their handles."""
        self._handles.pop_all()
        return [client for _, client in self._clients.pop_all()]


class Runtime:
    """The clients of one adapter. Thread-safe, and bound to no event loop."""

    def __init__(self) -> None:
        bindings: _Bindings = _BoundedCache()
        self._bindings = bindings
        self._sync: _ClientPool[Client] = _ClientPool(_make_client, bindings)
        self._async: _ClientPool[AsyncClient] = _ClientPool(_make_async_client, bindings)
        self._model_info: _BoundedCache[tuple[ServerIdentity, ModelSpec], LoadedModelInfo] = _BoundedCache()
        self.profiled: LoadedModelInfo | None = None
        """The info that the adapter's `profile` was completed with."""
        self.dropped_secrets: frozenset[str] = frozenset()
        """The secrets that were left out when the adapter was pickled."""

    def model_info(self, server: Server, spec: ModelSpec) -> LoadedModelInfo | None:
        """Return what the server last reported about a model."""
        return self._model_info.get((server.identity, spec))

    def record_info(
        self,
        server: Server,
        spec: ModelSpec,
        info: Mapping[str, Any],
        parallel: Callable[[], int | None] = lambda: None,
    ) -> LoadedModelInfo:
        """Record what the server reported about a model.

        Args:
            server: The server.
            spec: The model.
            info: The instance, in wire form.
            parallel: Returns how many predictions it runs at once; only called for an instance that is new.
        """
        known = self.model_info(server, spec)
        if known is not None and known.is_of(info):
            return known
        warned = known is not None and known.warned
        return self._model_info.put((server.identity, spec), LoadedModelInfo(info, parallel(), warned))

    def model(self, server: Server, spec: ModelSpec, config: LoadSettings | None) -> Any:
        """Return the handle of a model of either kind, for threads."""
        return self._sync.handle(server, spec, config)

    def async_model(self, server: Server, spec: ModelSpec, config: LoadSettings | None) -> Any:
        """Return the handle of a model of either kind, for coroutines."""
        return self._async.handle(server, spec, config)

    def unload(self) -> None:
        """Unload the models that this adapter loaded."""
        for (identity, _), binding in self._bindings.pop_all():
            with _logging_errors(binding):
                self._sync.bound(identity, binding).unload_if_loaded_here()

    async def aunload(self) -> None:
        """Unload the models that this adapter loaded."""
        for (identity, _), binding in self._bindings.pop_all():
            with _logging_errors(binding):
                await self._async.bound(identity, binding).unload_if_loaded_here()

    def close(self) -> None:
        """Close the clients, and with them all running calls. The next call makes new clients."""
        for client in self._sync.pop_clients():
            client.close()
        for async_client in self._async.pop_clients():
            async_client._dispatcher.close()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - closing never waits

    def __eq__(self, other: object) -> bool:
        """Compare equal to any runtime: adapters are equal if their settings are."""
        return isinstance(other, Runtime)

    def __hash__(self) -> int:
        return hash(Runtime)

    def __deepcopy__(self, _memo: object) -> "Runtime":
        return self.__copy__()

    def __copy__(self) -> "Runtime":
        fresh = Runtime()
        fresh.dropped_secrets = self.dropped_secrets
        return fresh

    def __reduce__(self) -> tuple[type["Runtime"], tuple[()]]:
        return Runtime, ()


@contextmanager
def _logging_errors(binding: "Binding") -> Generator[None]:
    """Log the error of an unload: the caller of `close` could not handle it."""
    try:
        yield
    except LMStudioError as error:
        logger.warning("model %r could not be unloaded: %s", binding.name, error)


def _namespace(client: "Client | AsyncClient", kind: ModelKind) -> Any:
    return client.llm if kind == "llm" else client.embedding


def _client_arguments(identity: ServerIdentity) -> dict[str, Any]:
    host, token, headers, ca_file = identity
    given: dict[str, Any] = {
        "api_host": host,
        "api_token": token,
        "headers": dict(headers) or None,
        "keep_idle": _KEEP_IDLE,
    }
    if ca_file is not None:
        from lmstudio_integrations.client.transport.certificates import context_trusting  # noqa: PLC0415 - with the first call

        given["ssl_context"] = context_trusting(ca_file)
    return given


def _make_client(**arguments: Any) -> "Client":
    from lmstudio_integrations.client.sync import Client  # noqa: PLC0415 - with the first call

    return Client(**arguments)


def _make_async_client(**arguments: Any) -> "AsyncClient":
    from lmstudio_integrations.client.asynchronous import AsyncClient  # noqa: PLC0415 - with the first call

    return AsyncClient(**arguments)
