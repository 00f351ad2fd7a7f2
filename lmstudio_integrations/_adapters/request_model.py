"""The state of an adapter at work: its models, on which servers, and what these reported of them.

Adapters are configuration, so none of this is copied or pickled: a copy starts with an empty `Runtime`. The process
shares its sockets, so that costs no connection. Only this module and `settings_toolkit.py` use the native client.
"""

import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from pydantic import SecretStr

import lmstudio_integrations as lms
from lmstudio_integrations._adapters.settings_checks import HostTokens, secret_for, tokens_of
from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations.client.api.base import hosts_of_model, model_on_hosts, new_state
from lmstudio_integrations.client.concurrency.flows import arun, run
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox, Mailbox, ThreadMailbox
from lmstudio_integrations.client.models.kinds import model_class
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.state import ModelState
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.client.support.progress_bars import ShowProgress
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.client.transport.connect.addresses import Target, context_trusting
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioError, LMStudioValueError
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.reasoning import WORST_FIRST

if TYPE_CHECKING:
    from lmstudio_integrations.client.hosts.hosts import Hosts

logger = logging.getLogger(__name__)

AdapterNames: TypeAlias = tuple[tuple[ModelKind, str], ...]
"""The adapter of each kind of model."""

Calling: TypeAlias = tuple[tuple[tuple[str, float | None], ...], int]
"""How a model is called: the timeouts, and how often a call is retried."""

KEEP_IDLE = 300.0
"""Seconds after which an idle connection is closed, if only adapters use it."""

_CACHE_SIZE = 64
"""Bounds the memory of a program whose every call has new settings."""


class ModelSpec(NamedTuple):
    """Which model, in which places, and how to load it. A key of caches, so all of it is hashable.

    Attributes:
        places: The servers, each with the device of it that is meant; `None` leaves that to the server.
        load_config: The load settings as JSON text; `None` if there are none.
        adapters: The adapter of each kind of model, which errors name.
    """

    places: tuple[tuple[Target, str | None], ...]
    kind: ModelKind
    key: str | None
    ttl: float | None
    load_config: str | None
    load_policy: Any
    on_config_mismatch: Any
    on_load_progress: Callable[[float], Any] | None
    show_progress: ShowProgress
    adapters: AdapterNames

    @classmethod
    def of(cls, values: Mapping[str, Any], kind: ModelKind, load_config: str | None, adapters: AdapterNames) -> Self:
        """Return the model of a call.

        Args:
            values: The settings of the call.
            kind: The kind of its model.
            load_config: See `ModelSpec`.
            adapters: See `ModelSpec`.

        Raises:
            LMStudioValueError: If a setting is invalid.
        """
        places, on_load_progress = places_of(values), values["on_load_progress"]
        if len(places) > 1 and values["model"] is None:
            raise LMStudioValueError("several hosts need a model; otherwise each of them would use another one")
        return cls(
            places,
            kind,
            values["model"],
            values["ttl"],
            load_config,
            values["load_policy"],
            values["on_config_mismatch"],
            None if on_load_progress is None else _hashable(on_load_progress),
            values["show_progress"],
            adapters,
        )

    def new_state(self, device: str | None) -> ModelState:
        """Return the state of the model on a server, or on a device of it."""
        state = new_state(
            self.kind,
            self.key,
            {
                "ttl": self.ttl,
                "config": None if self.load_config is None else json.loads(self.load_config),
                "load_policy": self.load_policy,
                "device": device,
                "on_config_mismatch": self.on_config_mismatch,
                "on_load_progress": self.on_load_progress,
                "show_progress": self.show_progress,
            },
        )
        state.adapters = dict(self.adapters)
        return state


def places_of(values: Mapping[str, Any]) -> tuple[tuple[Target, str | None], ...]:
    """Return the servers of a call, each with the device that is meant.

    Args:
        values: The settings of the call.

    Raises:
        LMStudioValueError: If a host is no address, or a token is for none of them.
    """
    hosts, token = addresses.hosts_of(values["host"]), values["api_token"]
    headers: Mapping[str, SecretStr] = values["headers"] or {}
    is_default = not values["host"]
    if isinstance(token, HostTokens):
        tokens = tokens_of(hosts, token)
    else:
        tokens = [secret_for(token, host, is_default=is_default) for host in hosts]
    ca_file = values["ca_file"]
    trusted = None if ca_file is None else context_trusting(ca_file)
    targets: dict[str | None, Target] = {}
    for host, text in zip(hosts, tokens, strict=True):
        sent = {name: secret_for(value, host, is_default=is_default) for name, value in headers.items()}
        own_headers = {name: value for name, value in sent.items() if value is not None}
        targets[host] = Target.of(host, text, own_headers, trusted)
    own, places = values.get("device"), addresses.places_of(values["host"])
    return tuple([(targets[host], own if device is None else device) for host, device in places])


class UsedModel:
    """A model that an adapter uses: what is known of it, for all ways to call it.

    Args:
        spec: Which model.
        runtime: The adapter's.

    Attributes:
        states: The model on each of its servers, for threads and coroutines: `new_instance` loads only one instance.
        info_of_hosts: What several hosts have in common, once `load` has asked them; otherwise empty.
    """

    def __init__(self, spec: ModelSpec, runtime: "Runtime") -> None:
        self.spec = spec
        self.states: list[ModelState] = [spec.new_state(device) for _, device in spec.places]
        self.info_of_hosts: Mapping[str, Any] = {}
        self._runtime = runtime
        self._models: BoundedCache[tuple[Calling, type[Mailbox]], Model] = BoundedCache(_CACHE_SIZE)

    def model(self, calling: Calling, mailbox_type: type[Mailbox]) -> Model:
        """Return the native model, whose flows threads or coroutines run, as the type of mailbox says."""
        key = calling, mailbox_type
        model = self._models.get(key)
        if model is None or model.context.is_closed:
            model = self._models.put(key, self._new_model(*key))
        return model

    def _new_model(self, calling: Calling, mailbox_type: type[Mailbox]) -> Model:
        timeouts, max_retries = calling
        kind = model_class(self.spec.kind)
        contexts = [self._runtime.context(target, mailbox_type) for target, _ in self.spec.places]
        models = [
            kind(context.with_timeouts(dict(timeouts)), state)
            for context, state in zip(contexts, self.states, strict=True)
        ]
        return model_on_hosts(models, max_retries)

    def hosts(self, calling: Calling, mailbox_type: type[Mailbox]) -> "Hosts":
        """Return the hosts of the model."""
        return hosts_of_model(self.model(calling, mailbox_type))

    @property
    def info(self) -> Mapping[str, Any]:
        """What the servers reported last, in wire form: the instance with the smallest context, in which all fit.

        Empty before they have.
        """
        infos = [*(state.instance.info for state in self.states if state.instance is not None), self.info_of_hosts]
        return min(infos, key=lambda info: info.get("contextLength") or math.inf)

    @property
    def template_info(self) -> dict[str, Any]:
        """What was found out about the model's chat template, by the names that its info would have for it.

        What is not known is absent. Of several hosts, those that are known count, and the worst in each respect:
        a conversation may be sent to any. `takesLateSystemMessages` is whether it takes system messages after the
        first turn, `reasoningReplay` what it does with earlier thoughts (`ReasoningReplay.by_place`).
        """
        instances = [state.instance for state in self.states if state.instance is not None]
        late = [takes for each in instances if (takes := each.takes_late_system_messages) is not None]
        replays = [by_place for each in instances if (by_place := each.reasoning.by_place) is not None]
        facts: dict[str, Any] = {"takesLateSystemMessages": all(late)} if late else {}
        if replays:
            places = {place: [by_place[place] for by_place in replays] for place in replays[0]}
            worst = {place: min(treatments, key=WORST_FIRST.index) for place, treatments in places.items()}
            facts["reasoningReplay"] = worst
        return facts


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
    """The models of one adapter."""

    def __init__(self, dropped_secrets: frozenset[str] = frozenset()) -> None:
        super().__init__(dropped_secrets)
        self._used: BoundedCache[ModelSpec, UsedModel] = BoundedCache(_CACHE_SIZE)
        self._contexts: BoundedCache[tuple[Target, type[Mailbox]], ClientContext] = BoundedCache(_CACHE_SIZE)
        self.resolved: dict[tuple[str, ...], Any] = {}
        """Calls without settings of their own, as they were resolved last, by the names of their arguments."""
        self._warned: dict[Hashable, object] = {}

    def used(self, spec: ModelSpec) -> UsedModel:
        """Return a model that the adapter uses."""
        return self._used.get_or_make(spec, lambda: UsedModel(spec, self))

    def context(self, target: Target, mailbox_type: type[Mailbox]) -> ClientContext:
        """Return the context of calls of a server, for threads or for coroutines. `close` closes it."""
        return self._contexts.get_or_make(
            (target, mailbox_type), lambda: ClientContext(target, TIMEOUTS, mailbox_type, KEEP_IDLE)
        )

    def warn_once(self, subject: Hashable, text: str) -> None:
        """Warn about a setting, unless this adapter has warned about that subject before."""
        token = object()
        if self._warned.setdefault(subject, token) is token:  # in one step: another thread may find the same
            warn_user(text, LMStudioConfigWarning)

    def hosts(self, used: UsedModel, calling: Calling) -> "list[lms.HostStatus]":
        """Ask the hosts of a model what they have."""
        return run(used.hosts(calling, ThreadMailbox).refresh())

    async def ahosts(self, used: UsedModel, calling: Calling) -> "list[lms.HostStatus]":
        """Ask the hosts of a model what they have."""
        return await arun(used.hosts(calling, LoopMailbox).refresh())

    def unload(self) -> None:
        """Unload the models that this adapter loaded."""
        for target, state in self._pop_states():
            with _logging_errors(state):
                run(Model(self.context(target, ThreadMailbox), state).unload_if_loaded_here())

    async def aunload(self) -> None:
        """Unload the models that this adapter loaded."""
        for target, state in self._pop_states():
            with _logging_errors(state):
                await arun(Model(self.context(target, LoopMailbox), state).unload_if_loaded_here())

    def _pop_states(self) -> list[tuple[Target, ModelState]]:
        popped, self.resolved = self._used.pop_all(), {}
        return [
            (target, state)
            for spec, used in popped
            for (target, _), state in zip(spec.places, used.states, strict=True)
        ]

    def close(self) -> None:
        """Close all running calls. The next call connects again."""
        for _, context in self._contexts.pop_all():
            context.close()


@contextmanager
def _logging_errors(state: ModelState) -> Generator[None]:
    """Log the error of an unload: the caller of `close` could not handle it."""
    try:
        yield
    except LMStudioError as error:
        logger.warning("model %r could not be unloaded: %s", state.name, error)


class _ByIdentity:
    """Makes a callable hashable that is not, such as an instance of a dataclass."""

    def __init__(self, call: Callable[[float], Any]) -> None:
        self._call = call

    def __call__(self, progress: float) -> None:
        self._call(progress)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other._call is self._call

    def __hash__(self) -> int:
        return id(self._call)


def _hashable(call: Callable[[float], Any]) -> Callable[[float], Any]:
    """Return a callback that can be part of a `ModelSpec`."""
    try:
        hash(call)
    except TypeError:
        return _ByIdentity(call)
    return call
