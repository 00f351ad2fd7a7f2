"""The state of an adapter at work: clients, model handles, and info about the loaded models.

Adapters are configuration, so none of this is copied or pickled: a copy starts with an empty `Runtime`. The process
shares its sockets, so that costs no connection.

Only this module and `toolkit_settings.py` make native clients for adapters.
"""

import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeAlias, TypeVar

from lmstudio_integrations._adapters.specs import HandleSpec, ModelSpec, Place, ServerSpec
from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations.client.api.asynchronous import AsyncClient
from lmstudio_integrations.client.api.base import BaseModelHandle, BaseModelNamespace, new_state
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.client.hosts.models import hosts_of_model
from lmstudio_integrations.client.models.state import ModelState
from lmstudio_integrations.client.support.tracebacks import warn_user
from lmstudio_integrations.client.transport.connect.addresses import context_trusting
from lmstudio_integrations.client.transport.flows import arun, run
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioError
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.hosts import HostStatus
from lmstudio_integrations.types.reasoning import WORST_FIRST

logger = logging.getLogger(__name__)

ClientT = TypeVar("ClientT", "Client", "AsyncClient")
HandleT = TypeVar("HandleT", bound=BaseModelHandle)

_KEEP_IDLE = 300.0
"""Seconds after which an idle connection is closed, if only adapters use it."""

_CACHE_SIZE = 64
"""Bounds the memory of a program whose every call has new settings."""


@dataclass(slots=True)
class LoadedModelInfo:
    """What the servers reported about a loaded model.

    Attributes:
        instances: The instances that responded last, by host, in wire form (`docs/protocol.md#model-info`). If several
            are used, by host, device and identifier.
        load_config: How the last one was loaded, in wire form; empty if it has not responded yet.
    """

    instances: Mapping[Hashable, Mapping[str, Any]]
    load_config: Mapping[str, Any]

    @property
    def info(self) -> Mapping[str, Any]:
        """The instance with the smallest context length, in which every prompt fits."""
        return min(self.instances.values(), key=lambda info: info.get("contextLength") or math.inf)

    def has(self, place: Hashable, info: Mapping[str, Any]) -> bool:
        """Whether `info` is of the same load; a model may be loaded again with another context length."""
        get, known = info.get, self.instances.get(place, {}).get
        return known("instanceReference") == get("instanceReference") and known("contextLength") == get("contextLength")


_States: TypeAlias = BoundedCache[ModelSpec, list[ModelState]]
"""The model of each handle, on each of its servers."""


class _ClientPool(Generic[ClientT]):
    """The sync or the async clients of an adapter, and their handles.

    Args:
        make: Makes a client.
        states: The model of each handle. Both pools share them, so that `new_instance` loads only one instance.
    """

    def __init__(self, make: Callable[..., ClientT], states: _States) -> None:
        self._make: Callable[..., ClientT] = make
        self._states = states
        self._clients: BoundedCache[ServerSpec, ClientT] = BoundedCache(_CACHE_SIZE)
        self._handles: BoundedCache[HandleSpec, BaseModelHandle] = BoundedCache(_CACHE_SIZE)

    def handle(self, kind: type[HandleT], spec: HandleSpec) -> HandleT:
        """Return the handle of a model, which is of this kind."""
        handle = self._handles.get_or_make(spec, lambda: self._new_handle(spec))
        assert isinstance(handle, kind), "the kind of a handle follows from the kind of its model"
        return handle

    def _new_handle(self, spec: HandleSpec) -> BaseModelHandle:
        model, timeouts = spec.model, dict[str, Any](spec.timeouts)
        clients = [self._client(place.server).with_timeouts(**timeouts) for place in model.places]
        namespaces = [_namespace(client, model.kind) for client in clients]
        states = self._states.get_or_make(model, lambda: [_state_of(model, place) for place in model.places])
        handles: list[BaseModelHandle] = [
            namespace.handle_for(state) for namespace, state in zip(namespaces, states, strict=True)
        ]
        if len(handles) == 1:
            return handles[0].with_retries(spec.max_retries)
        return handles[0].on_hosts(handles, spec.max_retries)

    def bound(self, server: ServerSpec, state: ModelState) -> BaseModelHandle:
        handle: BaseModelHandle = _namespace(self._client(server), state.kind).handle_for(state)
        return handle

    def pop_clients(self) -> list[ClientT]:
        """Return the clients and drop them with their handles."""
        self._handles.pop_all()
        return [client for _, client in self._clients.pop_all()]

    def _client(self, server: ServerSpec) -> ClientT:
        return self._clients.get_or_make(server, lambda: self._make(**client_arguments(server)))


class BaseRuntime(ABC):
    """What an object with settings has open. Thread-safe, and bound to no event loop.

    Args:
        dropped_secrets: The secrets that were left out when the object was pickled.
    """

    def __init__(self, dropped_secrets: frozenset[str] = frozenset()) -> None:
        self.dropped_secrets: frozenset[str] = dropped_secrets

    @abstractmethod
    def close(self) -> None:
        """Close it. The next call opens it again."""

    def __eq__(self, other: object) -> bool:
        """Compare equal to any other one: objects are equal if their settings are."""
        return isinstance(other, BaseRuntime)

    def __hash__(self) -> int:
        return hash(BaseRuntime)

    def __reduce__(self) -> tuple[type[Self], tuple[frozenset[str]]]:
        return type(self), (self.dropped_secrets,)


class Runtime(BaseRuntime):
    """The clients of one adapter."""

    def __init__(self, dropped_secrets: frozenset[str] = frozenset()) -> None:
        super().__init__(dropped_secrets)
        states: _States = BoundedCache(_CACHE_SIZE)
        self._states = states
        self.clients: _ClientPool[Client] = _ClientPool(Client, states)
        self.async_clients: _ClientPool[AsyncClient] = _ClientPool(AsyncClient, states)
        self._model_info: BoundedCache[ModelSpec, LoadedModelInfo] = BoundedCache(_CACHE_SIZE)
        self.resolved: tuple[tuple[Any, ...], Any] | None = None
        """A resolved call without arguments, with the values that it was resolved from."""
        self.reported: tuple[tuple[object, object], Mapping[str, Any], ModelSpec] | None = None
        """What was reported last about the adapter's own model: its key and host, the info, and the model."""
        self._warned: dict[Hashable, object] = {}

    def model_info(self, spec: ModelSpec) -> LoadedModelInfo | None:
        """Return what the server last reported about a model."""
        return self._model_info.get(spec)

    def record_info(
        self, spec: ModelSpec, host: str | None, info: Mapping[str, Any], load_config: Mapping[str, Any]
    ) -> LoadedModelInfo:
        """Record what a server reported about a model.

        Args:
            spec: The model.
            host: The server; `None` for what several hosts have in common.
            info: The instance, in wire form.
            load_config: How it was loaded, in wire form; empty if that is not known.
        """
        known = self.model_info(spec)
        place = host if len(spec.places) == 1 else (host, info.get("deviceIdentifier"), info.get("identifier"))
        if known is not None and known.has(place, info):
            return known
        loaded = LoadedModelInfo({**(known.instances if known else {}), place: info}, load_config)
        self._model_info.put(spec, loaded)
        return loaded

    def warn_once(self, subject: Hashable, text: str) -> None:
        """Warn about a setting, unless this adapter has warned about that subject before."""
        token = object()
        if self._warned.setdefault(subject, token) is token:  # in one step: another thread may find the same
            warn_user(text, LMStudioConfigWarning)

    def template_info(self, spec: ModelSpec) -> dict[str, Any]:
        """Return what was found out about the model's chat template, by the names that its info would have for it.

        What is not known is absent. Of several hosts, those that are known count, and the worst in each respect:
        a conversation may be sent to any.

        Returns:
            `takesLateSystemMessages`, whether it takes system messages after the first turn; and `reasoningReplay`,
            what it does with earlier thoughts (`ReasoningReplay.by_place`).
        """
        instances = [state.instance for state in self._states.get(spec) or () if state.instance is not None]
        late = [takes for each in instances if (takes := each.takes_late_system_messages) is not None]
        replays = [replay.by_place for each in instances if (replay := each.reasoning.replay) is not None]
        facts: dict[str, Any] = {"takesLateSystemMessages": all(late)} if late else {}
        if replays:
            places = {place: [by_place[place] for by_place in replays] for place in replays[0]}
            worst = {place: min(treatments, key=WORST_FIRST.index) for place, treatments in places.items()}
            facts["reasoningReplay"] = worst
        return facts

    def parallel(self, spec: HandleSpec) -> int | None:
        """Return how many calls several hosts run at once, as far as it is known; `None` for one."""
        if len(spec.model.places) == 1:
            return None
        return hosts_of_model(self.clients.handle(BaseModelHandle, spec).model).parallel

    def hosts(self, spec: HandleSpec) -> list[HostStatus]:
        """Ask the hosts of a model what they have."""
        return run(hosts_of_model(self.clients.handle(BaseModelHandle, spec).model).refresh())

    async def ahosts(self, spec: HandleSpec) -> list[HostStatus]:
        """Ask the hosts of a model what they have."""
        return await arun(hosts_of_model(self.async_clients.handle(BaseModelHandle, spec).model).refresh())

    def unload(self) -> None:
        """Unload the models that this adapter loaded."""
        for server, state in self._pop_states():
            with _logging_errors(state):
                run(self.clients.bound(server, state).model.unload_if_loaded_here())

    async def aunload(self) -> None:
        """Unload the models that this adapter loaded."""
        for server, state in self._pop_states():
            with _logging_errors(state):
                await arun(self.async_clients.bound(server, state).model.unload_if_loaded_here())

    def _pop_states(self) -> list[tuple[ServerSpec, ModelState]]:
        entries = self._states.pop_all()
        return [
            (place.server, state) for spec, states in entries for place, state in zip(spec.places, states, strict=True)
        ]

    def close(self) -> None:
        """Close the clients, and with them all running calls. The next call makes new clients."""
        for client in self.clients.pop_clients():
            client.close()
        for async_client in self.async_clients.pop_clients():
            async_client._context.close()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - closing never waits


@contextmanager
def _logging_errors(state: ModelState) -> Generator[None]:
    """Log the error of an unload: the caller of `close` could not handle it."""
    try:
        yield
    except LMStudioError as error:
        logger.warning("model %r could not be unloaded: %s", state.name, error)


def _namespace(client: Client | AsyncClient, kind: ModelKind) -> BaseModelNamespace[Any, Any]:
    return client.llm if kind == "llm" else client.embedding


def _state_of(model: ModelSpec, place: Place) -> ModelState:
    state = new_state(
        model.kind,
        model.key,
        {
            "ttl": model.ttl,
            "config": None if model.load_config is None else json.loads(model.load_config),
            "load_policy": model.load_policy,
            "evict": model.evict,
            "device": place.device,
            "on_config_mismatch": model.on_config_mismatch,
            "on_load_progress": model.on_load_progress,
            "show_progress": model.show_progress,
        },
    )
    state.adapters = dict(model.adapters)
    return state


def client_arguments(server: ServerSpec) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "api_host": server.host,
        "api_token": server.token,
        "headers": dict(server.headers) or None,
        "keep_idle": _KEEP_IDLE,
        "max_message_bytes": server.max_message_bytes,
    }
    if server.ca_file is not None:
        settings["ssl_context"] = context_trusting(server.ca_file)
    return settings
