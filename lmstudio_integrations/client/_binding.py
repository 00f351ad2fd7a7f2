"""Which model a handle means, how it is got, and how it is got again after it has gone (design: one rule)."""

import inspect
import logging
import math
import threading
import warnings
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from lmstudio_integrations._narrow import is_object
from lmstudio_integrations.client._arguments import seconds_of
from lmstudio_integrations.client._flows import Flow, Tell, ask, follow, understanding
from lmstudio_integrations.client._link import Link
from lmstudio_integrations.client._waiters import Waiter
from lmstudio_integrations.errors import (
    LMStudioConfigMismatchError,
    LMStudioConfigWarning,
    LMStudioModelNotFoundError,
    LMStudioModelUnloadedError,
    LMStudioRuntimeError,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.kv_config import KvConfig, stack_of
from lmstudio_integrations.protocol.requests import GetOrLoad, LoadModel, Lookup, Specified
from lmstudio_integrations.types.config import LoadPolicy, LoadSettings, ModelKind, OnConfigMismatch
from lmstudio_integrations.types.models import ModelQuery, QuerySpecifier, by_identifier

logger = logging.getLogger(__name__)
_PACKAGE = __name__.partition(".")[0]

T = TypeVar("T")
Specifier: TypeAlias = Mapping[str, Any]
"""Which model a request is for, as it travels (protocol §5.1)."""
Operation: TypeAlias = Callable[[Link[Any], Specifier], Flow[T]]
"""What is done with a model, over a link whose total limit counts getting the model as well."""
OnProgress = Callable[[float], Any]
DEFAULT_TTL = 3600.0
"""Seconds of idle time after which a model goes that was loaded without saying how long it should stay."""


@dataclass(slots=True)
class Binding:
    """Which model a handle means.

    Attributes:
        kind: Language model or embedding model.
        key: The model key or identifier that the user named; `None` is any loaded model.
        identifier: The instance, once it is known.
        policy: What to do when it is not loaded.
        ttl: Seconds of idle time, if this loads; `None` sends none.
        config: Load settings, if this loads.
        on_config_mismatch: What to do when it is loaded with other settings.
        on_load_progress: Told how much is loaded, 0.0 to 1.0.
        wanted_identifier: The identifier asked for with a new instance.
        given_up: Whether the user has unloaded it.
        lock: Guards `queue`.
        queue: Who waits for the new instance to be loaded; the first of them loads it.
    """

    kind: ModelKind
    key: str | None = None
    identifier: str | None = None
    policy: LoadPolicy = "get_or_load"
    ttl: float | None = None
    config: LoadSettings | None = None
    on_config_mismatch: OnConfigMismatch = "warn"
    on_load_progress: OnProgress | None = None
    wanted_identifier: str | None = None
    given_up: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    queue: list[Waiter] = field(default_factory=list[Waiter], repr=False)

    @property
    def renewable(self) -> bool:
        """Whether the model may be loaded again when it has gone."""
        return self.policy == "get_or_load" and self.key is not None and not self.given_up

    @property
    def name(self) -> str:
        """The identifier, where it is known, else what the user named."""
        return self.identifier or self.key or "any loaded model"


@lru_cache(maxsize=256)
def _named(identifier: str) -> Specifier:
    return by_identifier(identifier).to_dict()


def on_model(link: Link[Any], binding: Binding, operation: Operation[T]) -> Flow[T]:
    """Run an operation on the model; get or load it first if the handle has never been used."""
    link = link.for_one()
    if binding.identifier is None:
        yield from _resolve_once(link, binding)
    return (yield from operation(link, _named(_known(binding))))


def with_model(link: Link[Any], binding: Binding, operation: Operation[T]) -> Flow[T]:
    """Run an operation that needs the model at work; get or load it once more if it has gone.

    The operation must not raise the errors that mean "gone" once it has delivered something.
    """
    link = link.for_one()
    if binding.identifier is None:
        yield from _resolve_once(link, binding)
    try:
        return (yield from operation(link, _named(_known(binding))))
    except (LMStudioModelNotFoundError, LMStudioModelUnloadedError):
        if not binding.renewable:
            raise
        logger.info("model %r has gone; getting it again", binding.identifier)
    yield from resolve(link, binding)
    return (yield from operation(link, _named(_known(binding))))


class _Turn:
    """Waiting for another caller of the same handle, as one waits for a call."""

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter


def _resolve_once(link: Link[Any], binding: Binding) -> Flow[None]:
    """Resolve a handle that several callers may use at once: one that stands for a new instance loads only one."""
    if binding.policy != "new_instance":
        yield from resolve(link, binding)
        return
    while binding.identifier is None:
        waiter = link.waiter()
        with binding.lock:
            queue, is_first = binding.queue, not binding.queue
            if not is_first and waiter.would_stop(queue[0]):
                raise LMStudioRuntimeError(
                    f"a task of this event loop loads {binding.key!r}, and a call that blocks the loop would wait for "
                    "it for ever; await the async call, or make this one in another thread"
                )
            queue.append(waiter)
        if not is_first:
            turn: Any = _Turn(waiter)
            yield turn
            continue
        error: Exception | None = None
        try:
            yield from resolve(link, binding)
        except Exception as failure:
            error = failure
            raise
        finally:
            with binding.lock:
                binding.queue = []
            for other in queue:
                link.finish(other, copy(error))


def resolve(link: Link[Any], binding: Binding) -> Flow[None]:
    """Find out which instance the binding means, loading it if the policy says so."""
    if binding.policy == "new_instance":
        binding.identifier = yield from _load_new(link, binding)
    elif binding.policy == "require_loaded" or binding.key is None:
        binding.identifier = yield from _look_up(link, binding)
    else:
        binding.identifier = yield from _get_or_load(link, binding)


def _look_up(link: Link[Any], binding: Binding) -> Flow[str]:
    query = ModelQuery() if binding.key is None else ModelQuery(identifier=binding.key)
    lookup = Lookup(specifier=QuerySpecifier(query=query).to_dict(), throwIfNotFound=True)
    info = yield from ask(link, binding.kind, "getModelInfo", lookup, doing="Model get")
    with understanding("Model get"):
        return _identifier(info)


def _get_or_load(link: Link[Any], binding: Binding) -> Flow[str]:
    assert binding.key is not None, "a model is got or loaded by its key"
    parameter = GetOrLoad(identifier=binding.key, loadConfigStack=stack_of(binding.config))
    if binding.ttl is not None:
        parameter["loadTtlMs"] = milliseconds(binding.ttl)
    packets = _LoadPackets(binding)
    identifier = yield from follow(link, binding.kind, "getOrLoad", parameter, packets, doing="Model get/load")
    packets.tell(1.0)
    if packets.was_loaded:
        yield from _check_config(link, binding, identifier)
    return identifier


def _load_new(link: Link[Any], binding: Binding) -> Flow[str]:
    assert binding.key is not None, "a new instance is loaded by its key"
    parameter = LoadModel(modelKey=binding.key, loadConfigStack=stack_of(binding.config))
    if binding.ttl is not None:
        parameter["ttlMs"] = milliseconds(binding.ttl)
    if binding.wanted_identifier is not None:
        parameter["identifier"] = binding.wanted_identifier
    packets = _LoadPackets(binding)
    identifier = yield from follow(link, binding.kind, "loadModel", parameter, packets, doing="Model load")
    packets.tell(1.0)
    return identifier


class _LoadPackets:
    """Follows a model being loaded; the callback gets strictly growing values that end with 1.0."""

    def __init__(self, binding: Binding) -> None:
        self._key = binding.key
        self._on_progress = binding.on_load_progress
        self._last = -1.0
        self.was_loaded = False
        """Whether the model was there already."""

    def __call__(self, packet: dict[str, Any]) -> Tell | str | None:
        match packet["type"]:
            case "startLoading":
                return Tell(self.tell, 0.0)
            case "loadProgress" | "progress":
                return Tell(self.tell, float(packet["progress"]))
            case "unloadingOtherJITModel":
                logger.info("loading %r unloads %r", self._key, packet["info"]["modelKey"])
            case "alreadyLoaded" | "loadSuccess" | "success" as kind:
                self.was_loaded = kind == "alreadyLoaded"
                return _identifier(packet["info"])
            case other:
                logger.debug("skipped a packet of unknown type %r while loading", other)
        return None

    def tell(self, progress: float) -> None:
        """Tell the caller how much is loaded, unless it has been told."""
        if self._on_progress is not None and progress > self._last:
            self._last = progress
            self._on_progress(progress)


def _check_config(link: Link[Any], binding: Binding, identifier: str) -> Flow[None]:
    """Compare what was asked for with what is; a loaded model keeps its settings whatever the call says."""
    if binding.config is None or binding.on_config_mismatch == "ignore":
        return
    asked = binding.config.to_fields()
    if not asked:
        return
    config = yield from ask(link, binding.kind, "getLoadConfig", Specified(specifier=_named(identifier)))
    with understanding("Load config"):
        actual = KvConfig.from_dict(config).as_mapping()
    differences = {
        key.rpartition(".")[2]: (value, actual[key])
        for key, value in asked.items()
        if key in actual and not _alike(actual[key], value)
    }
    if not differences:
        return
    listed = ", ".join(f"{name}: asked {value!r}, actual {real!r}" for name, (value, real) in differences.items())
    text = (
        f"model {identifier!r} is already loaded with other settings ({listed}); unload it first, "
        "load a new instance, or set on_config_mismatch"
    )
    if binding.on_config_mismatch == "raise":
        raise LMStudioConfigMismatchError(text, differences=differences)
    warnings.warn(text, LMStudioConfigWarning, stacklevel=_stacklevel())


def _alike(actual: object, asked: object) -> bool:
    """Whether two settings mean the same; one that is switched off may have any value beside it (protocol §5.4)."""
    return actual == asked or (is_object(actual) and is_object(asked) and _is_off(actual) and _is_off(asked))


def _is_off(value: dict[str, Any]) -> bool:
    return value.get("checked", value.get("enabled")) is False


def _stacklevel() -> int:
    """Return the `stacklevel` with which a warning of the calling function points to the user's program."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    return level


def milliseconds(ttl: float) -> int:
    """Return a time to live in the unit of the wire.

    Raises:
        LMStudioValueError: If it is no positive, finite number of seconds.
    """
    seconds_of(ttl, "ttl")
    if not math.isfinite(ttl):
        raise LMStudioValueError(f"ttl must be a positive number of seconds, or None; got {ttl!r}")
    return max(1, round(ttl * 1000))


def _identifier(info: object) -> str:
    if not is_object(info) or not isinstance(info.get("identifier"), str):
        raise TypeError(f"a model without identifier: {info!r}")
    identifier: str = info["identifier"]
    return identifier


def _known(binding: Binding) -> str:
    assert binding.identifier is not None, "resolving sets the identifier"
    return binding.identifier
