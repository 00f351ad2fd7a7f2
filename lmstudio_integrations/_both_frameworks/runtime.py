"""The state of an adapter at work: clients, model handles, and info about the loaded models.

Adapters are configuration, so none of this is copied or pickled: a copy starts with an empty `Runtime`. The process
shares its sockets, so that costs no connection.

Only this module makes native clients for adapters.
"""

import json
import logging
import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from lmstudio_integrations._both_frameworks.specs import HandleSpec, ModelSpec, ServerSpec
from lmstudio_integrations.client.api.asynchronous import AsyncClient
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.client.hosts.handles import on_hosts, pool_of
from lmstudio_integrations.client.models.binding import Binding
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.connect.certificates import context_trusting
from lmstudio_integrations.client.transport.flows import arun, run
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioError
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.hosts import HostStatus

logger = logging.getLogger(__name__)

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")
ClientT = TypeVar("ClientT", "Client", "AsyncClient")

_KEEP_IDLE = 300.0
"""Seconds after which an idle connection is closed, if only adapters use it."""

_CACHE_SIZE = 64
"""Bounds the memory of a program whose every call has new settings."""


@dataclass(slots=True)
class LoadedModelInfo:
    """What the servers reported about a loaded model.

    Attributes:
        instances: The instances that responded last, by host, in wire form (`docs/protocol.md#model-info`).
        load_config: How the last one was loaded, in wire form; empty if it has not responded yet.
    """

    instances: Mapping[str | None, Mapping[str, Any]]
    load_config: Mapping[str, Any]

    @property
    def info(self) -> Mapping[str, Any]:
        """The instance with the smallest context length, in which every prompt fits."""
        return min(self.instances.values(), key=lambda info: info.get("contextLength") or math.inf)

    def has(self, host: str | None, info: Mapping[str, Any]) -> bool:
        """Whether `info` is of the same load; a model may be loaded again with another context length."""
        get, known = info.get, self.instances.get(host, {}).get
        return known("instanceReference") == get("instanceReference") and known("contextLength") == get("contextLength")


class _BoundedCache(Generic[KeyT, ValueT]):
    """Keeps the values of the last keys. Thread-safe without a lock: a signal handler may interrupt its holder."""

    def __init__(self) -> None:
        self._values: dict[KeyT, ValueT] = {}

    def get(self, key: KeyT) -> ValueT | None:
        """Return the value of a key, if it is cached."""
        return self._values.get(key)

    def put(self, key: KeyT, value: ValueT) -> ValueT:
        """Cache a value; the oldest one is dropped if there are too many."""
        self._make_room(key)
        self._values[key] = value
        return value

    def get_or_make(self, key: KeyT, make: Callable[[], ValueT]) -> ValueT:
        """Return the value of a key; the first call makes it. Of several at once, all return the value of one."""
        value = self._values.get(key)
        if value is None:
            made = make()
            self._make_room(key)
            value = self._values.setdefault(key, made)
        return value

    def pop_all(self) -> list[tuple[KeyT, ValueT]]:
        """Return all entries and drop them."""
        values, self._values = self._values, {}
        return list(values.items())

    def _make_room(self, key: KeyT) -> None:
        if key not in self._values and len(self._values) >= _CACHE_SIZE:
            oldest, *_ = list(self._values)  # in one step, like the next one
            self._values.pop(oldest, None)


_Bindings: TypeAlias = _BoundedCache[ModelSpec, list[Binding]]
"""The model of each handle, on each of its servers."""


class _ClientPool(Generic[ClientT]):
    """The sync or the async clients of an adapter, and their handles.

    Args:
        make: Makes a client.
        bindings: The model of each handle. Both pools share them, so that `new_instance` loads only one instance.
    """

    def __init__(self, make: Callable[..., ClientT], bindings: _Bindings) -> None:
        self._make: Callable[..., ClientT] = make
        self._bindings = bindings
        self._clients: _BoundedCache[ServerSpec, ClientT] = _BoundedCache()
        self._handles: _BoundedCache[HandleSpec, Any] = _BoundedCache()

    def handle(self, spec: HandleSpec) -> Any:
        """Return the handle of a model."""
        return self._handles.get_or_make(spec, lambda: self._new_handle(spec))

    def _new_handle(self, spec: HandleSpec) -> Any:
        model, timeouts = spec.model, dict[str, Any](spec.timeouts)
        namespaces = [
            _namespace(self._client(server).with_timeouts(**timeouts), model.kind) for server in model.servers
        ]
        bindings = self._bindings.get_or_make(model, lambda: [_binding_of(each, model) for each in namespaces])
        handles = [namespace.bound(binding) for namespace, binding in zip(namespaces, bindings, strict=True)]
        if len(handles) == 1:
            return handles[0].with_retries(spec.max_retries)
        return on_hosts(handles, spec.max_retries)

    def bound(self, server: ServerSpec, binding: Binding) -> Any:
        """Return a handle to the model of a binding."""
        return _namespace(self._client(server), binding.kind).bound(binding)

    def pop_clients(self) -> list[ClientT]:
        """Return the clients and drop them with their handles."""
        self._handles.pop_all()
        return [client for _, client in self._clients.pop_all()]

    def _client(self, server: ServerSpec) -> ClientT:
        return self._clients.get_or_make(server, lambda: self._make(**_client_arguments(server)))


class Runtime:
    """The clients of one adapter. Thread-safe, and bound to no event loop."""

    def __init__(self, dropped_secrets: frozenset[str] = frozenset()) -> None:
        bindings: _Bindings = _BoundedCache()
        self._bindings = bindings
        self._sync: _ClientPool[Client] = _ClientPool(Client, bindings)
        self._async: _ClientPool[AsyncClient] = _ClientPool(AsyncClient, bindings)
        self._model_info: _BoundedCache[ModelSpec, LoadedModelInfo] = _BoundedCache()
        self.resolved: tuple[tuple[Any, ...], Any] | None = None
        """A resolved call without arguments, with the values that it was resolved from."""
        self._warnings: set[str] = set()
        self.dropped_secrets = dropped_secrets
        """The secrets that were left out when the adapter was pickled."""

    def model_info(self, spec: ModelSpec) -> LoadedModelInfo | None:
        """Return what the server last reported about a model."""
        return self._model_info.get(spec)

    def record_info(
        self, spec: ModelSpec, host: str | None, info: Mapping[str, Any], load_config: Mapping[str, Any]
    ) -> LoadedModelInfo:
        """Record what a server reported about a model.

        Args:
            spec: The model.
            host: The server.
            info: The instance, in wire form.
            load_config: How it was loaded, in wire form; empty if that is not known.
        """
        known = self.model_info(spec)
        if known is not None and known.has(host, info):
            return known
        loaded = LoadedModelInfo({**(known.instances if known else {}), host: info}, load_config)
        self._model_info.put(spec, loaded)
        self.resolved = None  # what is sent for `reasoning_effort` depends on the model's key
        return loaded

    def warn_once(self, text: str) -> None:
        """Warn about a setting, unless this adapter has said so before."""
        if text not in self._warnings:
            self._warnings.add(text)
            warn_user(text, LMStudioConfigWarning)

    def takes_late_system_messages(self, spec: ModelSpec) -> bool | None:
        """Return whether the model's chat template takes system messages after the first turn; `None` if not known."""
        known = [each.takes_late_system_messages for each in self._bindings.get(spec) or ()]
        answers = [each[1] for each in known if each is not None]
        return all(answers) if answers else None

    def model(self, spec: HandleSpec) -> Any:
        """Return the handle of a model of either kind, for threads."""
        return self._sync.handle(spec)

    def async_model(self, spec: HandleSpec) -> Any:
        """Return the handle of a model of either kind, for coroutines."""
        return self._async.handle(spec)

    def parallel(self, spec: HandleSpec) -> int | None:
        """Return how many calls several hosts run at once, as far as it is known; `None` for one host."""
        hosts = self.model(spec).hosts if len(spec.model.servers) > 1 else None
        return None if hosts is None else hosts.parallel

    def hosts(self, spec: HandleSpec) -> list[HostStatus]:
        """Ask the hosts of a model what they have."""
        return run(pool_of(self.model(spec)).refreshed())

    async def ahosts(self, spec: HandleSpec) -> list[HostStatus]:
        """Ask the hosts of a model what they have."""
        return await arun(pool_of(self.async_model(spec)).refreshed())

    def unload(self) -> None:
        """Unload the models that this adapter loaded."""
        for server, binding in self._pop_bindings():
            with _logging_errors(binding):
                self._sync.bound(server, binding).unload_if_loaded_here()

    async def aunload(self) -> None:
        """Unload the models that this adapter loaded."""
        for server, binding in self._pop_bindings():
            with _logging_errors(binding):
                await self._async.bound(server, binding).unload_if_loaded_here()

    def _pop_bindings(self) -> list[tuple[ServerSpec, Binding]]:
        entries = self._bindings.pop_all()
        return [pair for spec, bindings in entries for pair in zip(spec.servers, bindings, strict=True)]

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

    def __reduce__(self) -> tuple[type["Runtime"], tuple[frozenset[str]]]:
        return Runtime, (self.dropped_secrets,)


@contextmanager
def _logging_errors(binding: Binding) -> Generator[None]:
    """Log the error of an unload: the caller of `close` could not handle it."""
    try:
        yield
    except LMStudioError as error:
        logger.warning("model %r could not be unloaded: %s", binding.name, error)


def _namespace(client: Client | AsyncClient, kind: ModelKind) -> Any:
    return client.llm if kind == "llm" else client.embedding


def _binding_of(namespace: Any, model: ModelSpec) -> Binding:
    binding: Binding = namespace.lazy_model(
        model.key,
        ttl=model.ttl,
        config=model.load_config and json.loads(model.load_config),
        load_policy=model.load_policy,
        on_config_mismatch=model.on_config_mismatch,
        on_load_progress=model.on_load_progress,
        show_progress=model.show_progress,
    ).binding
    binding.counterpart = model.counterpart
    return binding


def _client_arguments(server: ServerSpec) -> dict[str, Any]:
    given: dict[str, Any] = {
        "api_host": server.host,
        "api_token": server.token,
        "headers": dict(server.headers) or None,
        "keep_idle": _KEEP_IDLE,
        "max_message_bytes": server.max_message_bytes,
    }
    if server.ca_file is not None:
        given["ssl_context"] = context_trusting(server.ca_file)
    return given
