"""How each load policy finds or loads the instance that a handle means."""

import time
from collections.abc import Callable
from typing import Any

from lmstudio_integrations.client._binding import Binding
from lmstudio_integrations.client._loading import (
    Info,
    bind,
    check_config,
    get_or_load,
    list_all_loaded,
    list_loaded,
    load,
    milliseconds,
)
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, ask, understanding, wait_for
from lmstudio_integrations.client.transport.single_flight import run_or_wait
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioConfigMismatchError,
    LMStudioInsufficientResourcesError,
    LMStudioModelLoadError,
    LMStudioRuntimeError,
    LMStudioServerError,
    LMStudioTimeoutError,
)
from lmstudio_integrations.protocol.endpoints import channel
from lmstudio_integrations.protocol.kv_config import stack_of
from lmstudio_integrations.protocol.requests import LoadModel, Lookup, UnloadModel
from lmstudio_integrations.protocol.session import closed_early
from lmstudio_integrations.types.config import LoadPolicy
from lmstudio_integrations.types.models import ModelQuery, QuerySpecifier

DEFAULT_TTL = 3600.0
"""Seconds without use after which a model is unloaded that was loaded without a time to live of its own."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two looks at a load of another process, doubled each time, and the most."""


def resolve(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Find or load the instance that a handle means, as its load policy says; return its identifier."""
    policy = _find if binding.key is None else _POLICIES[binding.policy]
    return (yield from policy(dispatcher.for_one(), binding))


def _find(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Find a loaded instance: by what the user named, else any."""
    query = ModelQuery() if binding.key is None else ModelQuery(identifier=binding.key)
    lookup = Lookup(specifier=QuerySpecifier(query=query).to_dict(), throwIfNotFound=True)
    info = yield from ask(dispatcher, binding.kind, "getModelInfo", lookup, doing="Model get")
    return bind(dispatcher, binding, info, loaded=False)


# A new instance ------------------------------------------------------------------------------------------------------


def _new_instance(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Load a new instance, once: several callers may use the handle at the same time."""
    while binding.identifier is None:
        yield from run_or_wait(
            dispatcher,
            binding.flights,
            "load",
            lambda: _load_new(dispatcher, binding),
            blocked=lambda: _reject_wait(binding),
            shared=Exception,
        )
    return binding.identifier


def _load_new(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[None]:
    assert binding.key is not None, "a new instance is loaded by its key"
    ttl_ms = milliseconds(binding.ttl)
    info = yield from load(dispatcher, binding, binding.key, binding.requested_identifier, ttl_ms)
    try:
        yield from check_config(dispatcher, binding, info, loaded=True)
    except LMStudioConfigMismatchError:  # nobody else knows of the instance
        yield from ask(dispatcher, binding.kind, "unloadModel", UnloadModel(identifier=info["identifier"]))
        raise
    bind(dispatcher, binding, info, loaded=True)


def _reject_wait(binding: Binding) -> Flow[None]:
    raise LMStudioRuntimeError(
        f"a task of this event loop loads {binding.key!r}, and a call that blocks the loop would wait for "
        "it for ever; await the async call, or make this one in another thread"
    )
    yield  # a flow, by its type


# An explicit load ----------------------------------------------------------------------------------------------------


def _explicit(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Find a loaded instance, however it was loaded, or load one that is never evicted."""

    def load_it() -> Flow[None]:
        identifiers.append((yield from _load_explicitly(dispatcher, binding)))

    identifiers: list[str] = []
    info = yield from _find_loaded(dispatcher, binding, None)
    if info is None:
        flights, key = dispatcher.models.flights, (binding.kind, binding.key)
        yield from run_or_wait(dispatcher, flights, key, load_it, blocked=load_it, shared=LMStudioServerError)
        if not identifiers:  # another caller has loaded it
            info = yield from _find_loaded(dispatcher, binding, None)
    if info is not None:
        return (yield from _use(dispatcher, binding, info))
    if not identifiers:  # or has given up; a load of several callers at once is one all the same
        yield from load_it()
    return identifiers[0]


def _load_explicitly(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Load a model under its key as identifier; just in time if the server permits no more."""
    try:
        return (yield from _load_or_wait(dispatcher, binding))
    except LMStudioServerError as error:
        if not _is_denied(error):
            raise
        identifier = yield from get_or_load(dispatcher, binding)
        dispatcher.models.warn_once(
            ("denied", binding.kind, binding.key),
            f"the server denied an explicit load of {binding.key!r}, so it was loaded just in time, and just-in-time "
            f"loads of other models evict it while Auto-Evict is on ({error.title or error})",
        )
        return identifier


def _load_or_wait(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Load a model; where another program loads it just now, wait for that instance."""
    assert binding.key is not None, "a model is found or loaded by its key"
    model_key = yield from _model_key(dispatcher, binding)
    # A path may say which file of a model is meant; another spelling of the key says no more than the key.
    name = model_key if binding.key.lower() == model_key.lower() else binding.key
    begun, seconds = time.monotonic(), _FIRST_PAUSE
    while True:
        info = yield from _find_loaded(dispatcher, binding, model_key)
        if info is not None:
            return (yield from _use(dispatcher, binding, info))
        try:
            info = yield from load(dispatcher, binding, name, model_key, _ttl_ms(binding))
        except LMStudioServerError as error:
            if "already exists" not in str(error):
                raise
            yield from _reject_other_owner(dispatcher, model_key, error)
        else:
            yield from check_config(dispatcher, binding, info, loaded=True)
            return bind(dispatcher, binding, info, loaded=True)
        _check_load_timeout(dispatcher, model_key, time.monotonic() - begun)
        yield from wait_for(dispatcher.pause(seconds))
        seconds = min(2 * seconds, _LONGEST_PAUSE)


def _use(dispatcher: Dispatcher[Any], binding: Binding, info: Info) -> Flow[str]:
    """Use an instance that was found."""
    if binding.on_load_progress is not None:
        binding.on_load_progress(1.0)
    yield from check_config(dispatcher, binding, info, loaded=False)
    return bind(dispatcher, binding, info, loaded=False)


def _find_loaded(dispatcher: Dispatcher[Any], binding: Binding, model_key: str | None) -> Flow[Info | None]:
    """Return a loaded instance that the user's name or the model key means; one with that identifier comes first."""
    names = {binding.key, model_key or dispatcher.models.model_key(binding.kind, binding.key)}
    infos = yield from list_loaded(dispatcher, binding.kind)
    with understanding("Model list"):
        found = [info for info in infos if any(name and _names(name, info) for name in names)]
        return min(found, key=lambda info: info["identifier"] != binding.key, default=None)


def _names(name: str, info: Info) -> bool:
    """Whether a name means a model: its identifier, its key, its path, or the beginning of that after the publisher."""
    lowered = name.lower().rstrip("/")
    if name == info.get("identifier") or lowered in {str(info.get(field)).lower() for field in _NAMES}:
        return True
    return "/" in lowered and f"{info['path']}/".lower().startswith(f"{lowered}/")


_NAMES = ("modelKey", "path", "selectedVariant", "indexedModelIdentifier")
"""Fields of a model's info that name it."""


def _model_key(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Return the model key that a name means, so that two spellings do not load two copies."""
    assert binding.key is not None, "a model is found or loaded by its key"
    known = dispatcher.models.model_key(binding.kind, binding.key)
    if known is not None:
        return known
    infos = yield from ask(dispatcher, "system", "listDownloadedModels", doing="Model list")
    with understanding("Model list"):
        found = [info for info in infos if info.get("type") == binding.kind and _names(binding.key, info)]
        if found:
            return str(found[0]["modelKey"])
    return (yield from _key_by_server(dispatcher, binding))


def _key_by_server(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Let the server find out which model a name means: begin to load it, and cancel that once the key is known.

    The channel is read to its end. A load that was faster than its cancellation leaves an instance, which is used.
    """
    assert binding.key is not None, "a model is found or loaded by its key"
    parameter = LoadModel(modelKey=binding.key, loadConfigStack=stack_of(binding.config))
    if (ttl_ms := _ttl_ms(binding)) is not None:
        parameter["ttlMs"] = ttl_ms
    model_key: str | None = None
    with dispatcher.start(binding.kind, channel(binding.kind, "loadModel"), parameter, doing="Model load") as call:
        try:
            while batch := (yield call):
                for packet in batch:
                    with understanding("Model load"):
                        if packet["type"] == "resolved":
                            model_key = str(packet["info"]["modelKey"])
                            call.cancel()
                        elif packet["type"] == "success":
                            dispatcher.models.record_explicit(packet["info"])
        except LMStudioServerError:
            if model_key is None:
                raise
    if model_key is None:
        raise closed_early("Model load")
    return model_key


def _reject_other_owner(dispatcher: Dispatcher[Any], model_key: str, error: LMStudioServerError) -> Flow[None]:
    """Raise if another model has the identifier; else somebody is loading this one.

    Raises:
        LMStudioModelLoadError: If waiting would be in vain.
    """
    for kind, info in (yield from list_all_loaded(dispatcher)):
        if info["identifier"] == model_key and info.get("modelKey") != model_key:
            raise LMStudioModelLoadError(
                f"{model_key!r} cannot be loaded explicitly: the {kind} model {info.get('modelKey')!r} is loaded "
                f"under that identifier; unload it with client.{kind}.unload({model_key!r})"
            ) from error


def _check_load_timeout(dispatcher: Dispatcher[Any], model_key: str, elapsed: float) -> None:
    limit = dispatcher.timeouts.get("load_timeout")
    if limit is not None and elapsed >= limit:
        raise LMStudioTimeoutError(
            f"Model load: another program has reserved the identifier {model_key!r}, but no instance of that model "
            f"is loaded: load_timeout expired after {elapsed:.1f} s; raise load_timeout, or set it to None",
            timeout_name="load_timeout",
            elapsed=elapsed,
        )


def _is_denied(error: LMStudioServerError) -> bool:
    denied = isinstance(error, LMStudioInsufficientResourcesError | LMStudioAuthenticationError)
    return denied or "permission" in str(error).lower()


def _ttl_ms(binding: Binding) -> int | None:
    """Return the time to live of an explicit load: none stays for ever by accident."""
    return milliseconds(DEFAULT_TTL if binding.ttl is None else binding.ttl)


_POLICIES: dict[LoadPolicy, Callable[[Dispatcher[Any], Binding], Flow[str]]] = {
    "get_or_load": get_or_load,
    "explicit": _explicit,
    "require_loaded": _find,
    "new_instance": _new_instance,
}
