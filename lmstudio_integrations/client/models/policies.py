"""How each load policy finds or loads the instance that a handle refers to.

`operations.py` runs one of `POLICIES` before it runs work on the instance. Built on the requests of `loading.py`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from lmstudio_integrations.client.models.binding import Binding
from lmstudio_integrations.client.models.loading import (
    Info,
    bind,
    get_or_load,
    list_all_loaded,
    list_loaded,
    load,
    load_parameter,
    milliseconds,
)
from lmstudio_integrations.client.models.server_models import models_of, reference_of
from lmstudio_integrations.client.models.single_flight import run_or_wait
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, call_rpc, decode_errors, wait_for
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioModelLoadError,
    LMStudioRuntimeError,
    LMStudioServerError,
    LMStudioTimeoutError,
)
from lmstudio_integrations.protocol.endpoints import channel, rpc
from lmstudio_integrations.protocol.requests import Lookup, UnloadModel
from lmstudio_integrations.protocol.session import closed_early
from lmstudio_integrations.types.config import LoadPolicy
from lmstudio_integrations.types.models import ModelQuery, QuerySpecifier, by_identifier

DEFAULT_TTL = 3600.0
"""Unload after this many idle seconds a model that was loaded without a TTL of its own."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two checks of a load of another process; doubled each time, up to the longest."""


def _find_instance(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Find a loaded instance: the one that the user named, else any."""
    specifier = QuerySpecifier(query=ModelQuery()) if binding.key is None else by_identifier(binding.key)
    lookup = Lookup(specifier=specifier.to_dict(), throwIfNotFound=True)
    info: Info = yield from call_rpc(dispatcher, binding.kind, "getModelInfo", lookup, operation="Model get")
    return (yield from bind(dispatcher, binding, info, loaded=False))


# A new instance ------------------------------------------------------------------------------------------------------


def _load_new_instance(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Load a new instance once, even if several callers use the handle at the same time."""
    while binding.identifier is None:
        yield from run_or_wait(
            dispatcher,
            binding.flights,
            "load",
            lambda: _load_instance(dispatcher, binding),
            on_deadlock=lambda: _reject_wait(binding),
            shared=Exception,
        )
    return binding.identifier


def _load_instance(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Load a new instance; unload it again if the call fails later, because no other program uses it yet."""
    assert binding.key is not None, "a new instance is loaded by its key"
    previous = binding.own_reference
    try:
        info = yield from load(
            dispatcher, binding, binding.key, binding.requested_identifier, milliseconds(binding.ttl)
        )
        return (yield from bind(dispatcher, binding, info, loaded=True))
    except BaseException as error:
        identifier = models_of(dispatcher).explicit.get(binding.own_reference or "")
        if identifier is not None and binding.own_reference != previous:
            with suppress(LMStudioError):  # the first error says more
                unload = rpc(binding.kind, "unloadModel")
                with dispatcher.start(binding.kind, unload, UnloadModel(identifier=identifier)) as call:
                    if isinstance(error, Exception):  # a caller that was cancelled does not wait
                        yield call
                    call.nothing_to_stop = True  # not to be cancelled
        raise


def _reject_wait(binding: Binding) -> Flow[str]:
    raise LMStudioRuntimeError(
        f"this thread, or a task of its event loop, is loading {binding.key!r}, so this call would wait forever; "
        "await the async call, or make this call after the load or in another thread"
    )
    yield  # makes this a flow


# An explicit load ----------------------------------------------------------------------------------------------------


def _find_or_load_explicitly(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Find a loaded instance, no matter how it was loaded, or load one that is never evicted."""
    info = yield from find_loaded(dispatcher, binding, None)
    if info is None:
        flights, key = models_of(dispatcher).flights, (binding.kind, binding.key)
        load_it = partial(_load_explicitly, dispatcher, binding)
        # A second load is safe: it has the same identifier, so the server rejects it and `_load_or_wait` waits.
        identifier = yield from run_or_wait(
            dispatcher, flights, key, load_it, on_deadlock=load_it, shared=LMStudioServerError
        )
        if identifier is not None:
            return identifier
        info = yield from find_loaded(dispatcher, binding, None)
        if info is None:  # the other caller was cancelled
            return (yield from load_it())
    return (yield from _use(dispatcher, binding, info))


def _load_explicitly(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Load a model with its key as identifier; just in time if the server permits nothing else."""
    try:
        return (yield from _load_or_wait(dispatcher, binding))
    except LMStudioServerError as error:
        # Too little memory counts as well: unlike an explicit load, a just-in-time load evicts other models.
        denied = isinstance(error, LMStudioInsufficientResourcesError | LMStudioAuthenticationError)
        if not denied and "permission" not in str(error).lower():
            raise
        identifier = yield from get_or_load(dispatcher, binding)
        models_of(dispatcher).warn_once(
            ("denied", binding.kind, binding.key),
            f"the server denied an explicit load of {binding.key!r}, so it was loaded just in time, and just-in-time "
            f"loads of other models evict it while Auto-Evict is on ({error.title or error})",
        )
        return identifier


def _load_or_wait(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Load a model; if another program is loading it, wait for that instance."""
    assert binding.key is not None, "a model is found or loaded by its key"
    model_key = yield from _model_key(dispatcher, binding, binding.key)
    # A path is passed on unchanged, because it may select one file of a model. A key in other case is normalized.
    name = model_key if binding.key.lower() == model_key.lower() else binding.key
    started, seconds = time.monotonic(), _FIRST_PAUSE
    while True:
        info = yield from find_loaded(dispatcher, binding, model_key)
        if info is not None:
            return (yield from _use(dispatcher, binding, info))
        try:
            info = yield from load(dispatcher, binding, name, model_key, _ttl_ms(binding))
        except LMStudioServerError as error:
            if "already exists" not in str(error):
                raise
            yield from _reject_other_owner(dispatcher, model_key, error)
        else:
            return (yield from bind(dispatcher, binding, info, loaded=True))
        _check_load_timeout(dispatcher, model_key, time.monotonic() - started)
        yield from wait_for(dispatcher.pause(seconds))
        seconds = min(2 * seconds, _LONGEST_PAUSE)


def _use(dispatcher: Dispatcher[Any], binding: Binding, info: Info) -> Flow[str]:
    """Use an instance that was found."""
    if binding.on_load_progress is not None:
        binding.on_load_progress(1.0)
    return (yield from bind(dispatcher, binding, info, loaded=False))


def find_loaded(dispatcher: Dispatcher[Any], binding: Binding, model_key: str | None) -> Flow[Info | None]:
    """Return a loaded instance that matches the user's name or the model key; one with that identifier comes first."""
    names = {binding.key, model_key or models_of(dispatcher).model_key(binding.kind, binding.key)}
    infos = yield from list_loaded(dispatcher, binding.kind)
    with decode_errors("Model list"):
        found = [info for info in infos if any(name and matches(name, info) for name in names)]
        return min(found, key=lambda info: info["identifier"] != binding.key, default=None)


def matches(name: str, info: Info) -> bool:
    """Whether a name matches a model: its identifier, its key, its path, or the first parts of its path."""
    lowered = name.lower().rstrip("/")
    if name == info.get("identifier") or lowered in {str(info[field]).lower() for field in _NAMES if info.get(field)}:
        return True
    return "/" in lowered and f"{info['path']}/".lower().startswith(f"{lowered}/")


_NAMES = ("modelKey", "path", "selectedVariant", "indexedModelIdentifier")
"""Fields of a model's info that contain a name of it."""


def _model_key(dispatcher: Dispatcher[Any], binding: Binding, name: str) -> Flow[str]:
    """Return the model key of a name, so that two spellings do not load two copies."""
    known = models_of(dispatcher).model_key(binding.kind, name)
    if known is not None:
        return known

    def read(infos: Any) -> str | None:
        keys = (str(info["modelKey"]) for info in infos if info.get("type") == binding.kind and matches(name, info))
        return next(keys, None)

    found = yield from call_rpc(dispatcher, "system", "listDownloadedModels", None, read, operation="Model list")
    return found or (yield from _resolve_on_server(dispatcher, binding, name))


def _resolve_on_server(dispatcher: Dispatcher[Any], binding: Binding, name: str) -> Flow[str]:
    """Let the server resolve a name that no downloaded model has: start to load it, and cancel once the key is known.

    No endpoint only resolves a name, and the names that the server accepts are not all in its list of models. The
    channel is read to its end. If the load was faster than its cancellation, the new instance is used.
    """
    parameter = load_parameter(binding, name, _ttl_ms(binding))
    model_key: str | None = None
    with dispatcher.start(binding.kind, channel(binding.kind, "loadModel"), parameter, operation="Model load") as call:
        try:
            while batch := (yield call):
                for packet in batch:
                    with decode_errors("Model load"):
                        if packet["type"] == "resolved":
                            model_key = str(packet["info"]["modelKey"])
                            call.cancel()
                        elif packet["type"] == "success":
                            models_of(dispatcher).record_explicit(packet["info"])
                            binding.own_reference = reference_of(packet["info"])
        except LMStudioServerError:
            if model_key is None:
                raise
    if model_key is None:
        raise closed_early("Model load")
    return model_key


def _reject_other_owner(dispatcher: Dispatcher[Any], model_key: str, error: LMStudioServerError) -> Flow[None]:
    """Raise if another model has the identifier; otherwise another program is loading this model.

    Raises:
        LMStudioModelLoadError: If waiting would not help.
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
            f"is loaded: load_timeout expired after {limit:.12g} s; raise load_timeout, or set it to None",
            timeout_name="load_timeout",
            elapsed=elapsed,
        )


def _ttl_ms(binding: Binding) -> int | None:
    """Return the TTL of an explicit load; without one the model would stay loaded forever by accident."""
    return milliseconds(DEFAULT_TTL if binding.ttl is None else binding.ttl)


POLICIES: dict[LoadPolicy, Callable[[Dispatcher[Any], Binding], Flow[str]]] = {
    "get_or_load": get_or_load,
    "explicit": _find_or_load_explicitly,
    "require_loaded": _find_instance,
    "new_instance": _load_new_instance,
}
"""The flow of each load policy. It returns the identifier of the instance."""
