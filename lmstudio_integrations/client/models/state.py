"""What is known of models: which one a handle means, its loaded instance, and what this process knows of its server's.

`loading.py` records instances. There is one `ServerModels` per server, shared by all clients and new after a fork. Any
thread may call it: each function changes one dict with one operation, which is atomic with and without the GIL.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import lmstudio_integrations as lms
from lmstudio_integrations._support.suggestions import FIT_BOTH, KEEP_LOADED
from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.admission import ConcurrencyLimiter, SingleFlight
from lmstudio_integrations.client.support.progress_bars import ShowProgress
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.errors import LMStudioEvictionWarning, LMStudioProtocolError, LMStudioValueError
from lmstudio_integrations.protocol.requests import OnDevice, UnloadModel
from lmstudio_integrations.types.config import LoadPolicy, LoadSettings, ModelKind, OnConfigMismatch
from lmstudio_integrations.types.models import by_identifier
from lmstudio_integrations.types.reasoning import REJECTED_REASONING, Tags, Thought, Treatment

WireInfo: TypeAlias = Mapping[str, Any]
"""The info of a loaded instance, in [wire form](docs/protocol.md#model-info)."""
Specifier: TypeAlias = Mapping[str, Any]
"""Which model a request is for, in [wire form](docs/protocol.md#model-specifiers)."""
OnProgress = Callable[[float], Any]


_NAMES = ("modelKey", "path", "selectedVariant", "indexedModelIdentifier")
"""Fields of a model's info that contain a name of it."""


class ContextWindow(NamedTuple):
    """The context window of an instance in tokens, and the longest that its model can have, if it is known."""

    length: int
    maximum: int | None = None


@dataclass(slots=True, eq=False)
class KnownReasoning:
    """What is known of an instance and thoughts. All handles of a server share it.

    Attributes:
        written: The tags that it has written around its thoughts, first ones first.
        configured: The settings of a prediction that sends none, by their wire keys, once they were asked.
        replays: What its chat template does with thoughts, by their tags and the settings that change the template
            (empty for its own), as far as it was asked.
        is_rejected: Whether it has rejected a conversation with thoughts.
        thinks_first: Whether the grammar of a response format leaves no thought, so that it must come first; `None` if
            that is not known, false also if it did not help.
        missed_thoughts: How many responses without a format in a row had no thought that was asked for.
        ignores_budget: Whether it has reasoned far beyond a budget.
    """

    written: dict[Tags, None] = field(default_factory=dict[Tags, None])
    configured: Mapping[str, Any] | None = None
    replays: dict[tuple[Tags, str], "lms.ReasoningReplay"] = field(
        default_factory=dict[tuple[Tags, str], "lms.ReasoningReplay"]
    )
    is_rejected: bool = False
    thinks_first: bool | None = None
    missed_thoughts: int = 0
    ignores_budget: bool = False

    @property
    def by_place(self) -> Mapping[str, Treatment] | None:
        """What was found out last about its own template; `None` if nothing was."""
        of_own_template = [replay.by_place for (_, template), replay in [*self.replays.items()] if not template]
        return REJECTED_REASONING if self.is_rejected else of_own_template[-1] if of_own_template else None

    def add(self, thoughts: Iterable[Thought]) -> None:
        """Record thoughts that it has written."""
        self.written |= dict.fromkeys(tags for thought in thoughts if all(tags := thought.tags))


@dataclass(slots=True, eq=False)
class Instance:
    """A loaded instance.

    Attributes:
        identifier: Its identifier.
        reference: Its reference; each load has its own.
        is_gone: Whether a call has found that it is not loaded any more.
        context_window: Its context window, once it is known.
        sees_images: Whether it has vision, if the server has reported it.
        dimensions: The length of its vectors, once one was received.
        takes_late_system_messages: Whether its chat template takes system messages after the first turn, once it was
            asked.
        takes_parallel_calls: Whether its chat template takes two calls in one message, once it was asked.
        reasoning: What is known of it and thoughts.
        missed_calls: How many required tool calls in a row it did not make.
        device: How requests name the device that it is on; empty if the server has reported none.
        names_device: Whether requests name the device: the identifier may also match an instance on another one.
        by_reference: Whether requests name it by its reference, because the device may go away.
        info: What the server has reported of it last.
        load_config: How it was loaded, in wire form, as the last response said; empty before one has.
    """

    identifier: str
    reference: str | None = None
    is_gone: bool = False
    context_window: ContextWindow | None = None
    sees_images: bool | None = None
    dimensions: int | None = None
    takes_late_system_messages: bool | None = None
    takes_parallel_calls: bool | None = None
    reasoning: KnownReasoning = field(default_factory=KnownReasoning)
    missed_calls: int = 0
    device: OnDevice = field(default_factory=OnDevice)
    names_device: bool = False
    by_reference: bool = False
    info: WireInfo = field(default_factory=dict[str, Any])
    load_config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, info: WireInfo) -> "Instance":
        """Return an instance that the server has reported.

        Raises:
            TypeError: If it has no identifier.
        """
        length = info.get("contextLength")
        vision = info.get("vision")
        return cls(
            identifier_of(info),
            reference_of(info),
            context_window=ContextWindow(length, max_context_length(info)) if is_count(length) else None,
            sees_images=vision if isinstance(vision, bool) else None,
            device=device_of(info),
            info=info,
        )

    @property
    def specifier(self) -> Specifier:
        """Stands for it in requests. All callers get the same dict and must not change it.

        Raises:
            LMStudioProtocolError: If no request can have this identifier.
        """
        if self.by_reference and self.reference is not None:
            return {"type": "instanceReference", "instanceReference": self.reference}
        return self.query

    @property
    def query(self) -> Specifier:
        """Stands for it by its identifier.

        Raises:
            LMStudioProtocolError: If no request can have this identifier.
        """
        specifier = _specifier(self.identifier)
        return {**specifier, "query": {**specifier["query"], **self.device}} if self.names_device else specifier


@dataclass(slots=True, eq=False)
class KeptWarm:
    """A prefix that is processed again on each new instance of a model.

    Attributes:
        process: Processes it, as a part of an operation.
        reference: The instance that has it in its prompt cache; `None` if none has.
    """

    process: Callable[[ClientContext], Flow[None]]
    reference: str | None = None


@dataclass(slots=True, eq=False)
class ModelState:
    """Which model a handle means, and the instance once there is one. Several handles may share it.

    Attributes:
        kind: Language model or embedding model.
        key: The model key or identifier that the user gave; `None` is any loaded model.
        policy: How the instance is found or loaded.
        ttl: Unload after this many idle seconds, if this handle loads the model; `None` sends none.
        config: Load settings, if this handle loads the model.
        on_config_mismatch: What to do if it is loaded with other settings.
        on_load_progress: Called with the progress of a load, 0.0 to 1.0.
        show_progress: Whether a bar shows it, or a line if it takes long.
        requested_identifier: The identifier of a new instance.
        device: The machine that it is used on: `local`, or the name or identifier of a linked one; `None` leaves the
            choice to the server.
        adapters: The adapter of each kind of model, which errors name; empty for the native client.
        instance: The instance that was found or loaded last, even if it is not loaded any more.
        loaded_here: The reference of the instance that was loaded last with this state.
        unloaded_by_user: Whether the user has unloaded it with this handle.
        kept_warm: The prefix that new instances process before their first call; `None` for none.
        running_loads: The running load of a new instance, if there is one; other callers wait for it.
    """

    kind: ModelKind
    key: str | None = None
    policy: LoadPolicy = "get_or_load"
    ttl: float | None = None
    config: LoadSettings | None = None
    on_config_mismatch: OnConfigMismatch = "warn"
    on_load_progress: OnProgress | None = None
    show_progress: ShowProgress = False
    requested_identifier: str | None = None
    device: str | None = None
    adapters: Mapping[ModelKind, str] = field(default_factory=dict[ModelKind, str])
    instance: Instance | None = None
    loaded_here: str | None = None
    unloaded_by_user: bool = False
    kept_warm: KeptWarm | None = None
    running_loads: dict[Hashable, SingleFlight] = field(default_factory=dict[Hashable, SingleFlight], repr=False)

    @property
    def reloadable(self) -> bool:
        """Whether the model may be loaded again after it was unloaded, or another one take its place.

        Any language model takes the place of one without a key. Vectors of two models must not be mixed.
        """
        if self.unloaded_by_user:
            return False
        return self.kind == "llm" if self.key is None else self.policy in {"get_or_load", "explicit"} or self.fits

    @property
    def fits(self) -> bool:
        """Whether a load first evicts what must go for the model."""
        return self.policy in {"fit", "fit_any"}

    @property
    def reference(self) -> str | None:
        """The reference of the instance, if it is known."""
        return None if self.instance is None else self.instance.reference

    @property
    def context_window(self) -> ContextWindow | None:
        """The context window of the instance, if it is known."""
        return None if self.instance is None else self.instance.context_window

    @property
    def name(self) -> str:
        """The identifier if it is known, else what the user gave."""
        known = self.instance and self.instance.identifier
        return known or self.key or "any loaded model"


def identifier_of(info: WireInfo) -> str:
    """Return the identifier of an instance.

    Raises:
        TypeError: If the server sent none.
    """
    identifier: object = info["identifier"]
    if not isinstance(identifier, str) or not identifier:
        raise TypeError(f"a model without identifier: {info!r}")
    return identifier


def reference_of(info: WireInfo) -> str | None:
    """Return the reference of an instance; `None` if the server sent no valid one."""
    reference = info.get("instanceReference")
    return reference if isinstance(reference, str) else None


def device_of(info: WireInfo) -> OnDevice:
    """Return how requests name the device that an info is from; a server without LM Link reports none."""
    device = info.get("deviceIdentifier", 0)
    return OnDevice(deviceIdentifier=device) if device is None or isinstance(device, str) else OnDevice()


def matches(name: str, info: WireInfo) -> bool:
    """Whether a name matches a model: its identifier, its key, its path, or the first parts of its path."""
    lowered = name.lower().rstrip("/")
    if name == info.get("identifier") or lowered in {str(info[field]).lower() for field in _NAMES if info.get(field)}:
        return True
    return "/" in lowered and f"{info.get('path', '')}/".lower().startswith(f"{lowered}/")


def is_on(info: WireInfo, device: OnDevice) -> bool:
    """Whether an info is from the device that requests name; any is, if they name none."""
    return "deviceIdentifier" not in device or info.get("deviceIdentifier") == device["deviceIdentifier"]


def specifier_of_instance(info: WireInfo) -> Specifier:
    """Return what stands for an instance in requests: its reference, because another one may have its identifier."""
    reference = reference_of(info)
    if reference is None:
        return Instance.of(info).specifier
    return {"type": "instanceReference", "instanceReference": reference}


def max_context_length(info: WireInfo) -> int | None:
    """Return the longest context length that a model can have, if the server sent it."""
    maximum = info.get("maxContextLength")
    return maximum if is_count(maximum) else None


@lru_cache(maxsize=256)
def _specifier(identifier: str) -> Specifier:
    try:
        return by_identifier(identifier).to_dict()
    except LMStudioValueError as error:
        raise LMStudioProtocolError(f"the server reported an instance with an invalid identifier: {error}") from error


_MAX_RECORDED = 256
"""Instances, and names of models, that are recorded at most."""


class ServerModels:
    """The models of one server as this process knows them."""

    def __init__(self) -> None:
        self.running_loads: dict[Hashable, SingleFlight] = {}
        """Explicit loads that are running."""
        self.explicit: BoundedCache[str, UnloadModel] = BoundedCache(_MAX_RECORDED)
        """The instances that this process loaded explicitly, by reference: what unloads each of them."""
        self._keys: BoundedCache[tuple[ModelKind, str | None], str] = BoundedCache(_MAX_RECORDED)
        self._instances: BoundedCache[str | None, str] = BoundedCache(_MAX_RECORDED)
        self._evicted: BoundedCache[str | None, str] = BoundedCache(_MAX_RECORDED)
        self._reasoning: BoundedCache[str, KnownReasoning] = BoundedCache(_MAX_RECORDED)
        self._pairs: dict[frozenset[str], None] = {}
        self._warned: dict[Hashable, object] = {}
        self.limiter: ConcurrencyLimiter = ConcurrencyLimiter()
        """How many batches of texts run at once on each model."""

    def record(self, kind: ModelKind, name: str | None, info: WireInfo) -> None:
        """Record an instance that this process uses.

        Args:
            kind: Its kind.
            name: What the caller gave: a model key, an identifier or a path.
            info: The info of the instance, from the server.
        """
        key, reference = info.get("modelKey"), reference_of(info)
        if isinstance(key, str):
            self._keys.put((kind, name), key)
            if reference is not None:
                self._instances.put(reference, key)
        if self.is_explicit(reference):
            self.record_explicit(info)  # the last report of its identifier counts

    def model_key(self, kind: ModelKind, name: str | None) -> str | None:
        """Return the model key that a name was resolved to, if it ever was."""
        return self._keys.get((kind, name))

    def record_explicit(self, info: WireInfo) -> None:
        """Record an instance that this process loaded explicitly."""
        reference = reference_of(info)
        if reference is not None:
            self.explicit.put(reference, UnloadModel(identifier=info["identifier"], **device_of(info)))

    def is_explicit(self, reference: str | None) -> bool:
        """Whether this process loaded an instance explicitly."""
        return reference is not None and self.explicit.get(reference) is not None

    def instance_of(self, info: WireInfo) -> Instance:
        """Return an instance that the server has reported, with what all handles know of it.

        Raises:
            TypeError: If it has no identifier.
            LMStudioProtocolError: If no request can have its identifier.
        """
        instance = Instance.of(info)
        _specifier(instance.identifier)  # checked before it is recorded: the next call asks the server again
        if instance.reference is not None:
            instance.reasoning = self._reasoning.get_or_make(instance.reference, KnownReasoning)
        return instance

    def record_eviction(self, model_key: str, evicted: WireInfo, *, for_memory: bool = False) -> None:
        """Record that a load of this process evicted an instance; warn once if this process uses that instance, too.

        Args:
            model_key: The model that was loaded.
            evicted: The info of the evicted instance, from the server.
            for_memory: Whether both do not fit into the memory; otherwise Auto-Evict keeps only one.
        """
        reference = reference_of(evicted)
        victim = self._instances.get(reference)
        if victim is None or victim == model_key:
            return
        self._evicted.put(reference, victim)
        self._pairs[frozenset((model_key, victim))] = None
        loading, evicted_key = shortened(model_key), shortened(victim)
        self.warn_once(
            frozenset((model_key, victim)),
            f"loading {loading!r} evicted {evicted_key!r}, which this program uses too: "
            f"{'both do not fit into the memory, so' if for_memory else 'with Auto-Evict,'} each of them costs a load "
            f"whenever the other was used in between; {FIT_BOTH if for_memory else KEEP_LOADED}",
        )

    def warn_once(self, subject: Hashable, text: str, category: type[Warning] = LMStudioEvictionWarning) -> None:
        """Warn about models of this server, once per subject."""
        token = object()
        if self._warned.setdefault(subject, token) is token:
            warn_user(text, category)

    def is_evicted(self, reference: str | None) -> bool:
        """Whether a load of this process evicted an instance."""
        return self._evicted.get(reference) is not None

    def why_unloaded(self, state: ModelState) -> str:
        """Return why a model is no longer loaded, as far as it is known."""
        if state.unloaded_by_user:
            return "this handle unloaded it"
        model_key = self._instances.get(state.reference) or self._keys.get((state.kind, state.key))
        pairs = list(self._pairs)  # in one step: another thread may add one
        partners = sorted(key for pair in pairs if model_key in pair for key in pair if key != model_key)
        if partners:
            return f"its loads and those of {', '.join(map(repr, partners))} evict each other; {KEEP_LOADED}"
        return "its TTL expired, or another program unloaded it, or loaded a model that evicted it"


class LoadObservers(dict[object, Callable[[WireInfo], None]]):
    """Called with each model that this process has loaded on a server. There is one per server, new after a fork."""
