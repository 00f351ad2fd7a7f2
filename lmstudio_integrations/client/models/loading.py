"""Finds or loads the instance that a handle means, as its load policy says."""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import lmstudio_integrations as lms
from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations._support.suggestions import (
    MAKE_ROOM,
    NAME_A_MODEL,
)
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.admission import SingleFlight
from lmstudio_integrations.client.models.load_steps import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LoadPackets,
    check_config,
)
from lmstudio_integrations.client.models.queries import (
    link_status,
    list_all_loaded,
    list_downloaded_infos,
    list_wire_infos,
    on_device,
)
from lmstudio_integrations.client.models.state import (
    Instance,
    LoadObservers,
    ModelState,
    ServerModels,
    WireInfo,
    identifier_of,
    is_on,
    matches,
    reference_of,
)
from lmstudio_integrations.client.transport.operation import Operation, decode_errors
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioRuntimeError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.protocol.endpoints import channel, rpc
from lmstudio_integrations.protocol.errors import add_suggestion, means_no_explicit_load
from lmstudio_integrations.protocol.kv_config import stack_of
from lmstudio_integrations.protocol.prediction import model_info
from lmstudio_integrations.protocol.requests import GetOrLoad, LoadModel, Lookup, OnDevice
from lmstudio_integrations.protocol.session import closed_early
from lmstudio_integrations.types.config import Evict, ModelKind
from lmstudio_integrations.types.models import ModelQuery, QuerySpecifier, by_identifier
from lmstudio_integrations.types.timeouts import EXPIRIES

if TYPE_CHECKING:
    from lmstudio_integrations.client.models.fitting import Fit

logger: logging.Logger = logging.getLogger(__name__)

_PLANS = "plans of what fits into the memory"

DEFAULT_TTL = 3600.0
"""Unload after this many idle seconds a model that was loaded without a TTL of its own."""

_OF_MODEL = ("modelKey", "path", "deviceIdentifier")
"""What the infos of all instances of a model on a machine have in common."""

_OTHER_KIND: Mapping[ModelKind, ModelKind] = {"llm": "embedding", "embedding": "llm", "decision": "llm"}
"""The kind that a model probably is of, if it is not of the one that was asked for and the server does not say it."""


class Loader:
    """Finds or loads the instance that a state means; records it there, and in what is known of the server.

    Args:
        operation: Sends the requests.
        state: Which model.
    """

    def __init__(self, operation: Operation, state: ModelState) -> None:
        self.operation: Operation = operation
        self.state: ModelState = state
        self.server_models: ServerModels = operation.context.shared(ServerModels)
        self._device: OnDevice | None = None

    def find_or_load(self) -> Flow[Instance]:
        """Find or load the instance, as the load policy says."""
        state = self.state
        try:
            match "require_loaded" if state.key is None else state.policy:
                case "get_or_load":
                    return (yield from self._get_or_load())
                case "explicit":
                    return (yield from self._find_or_load_explicitly())
                case "fit" | "fit_any":
                    return (yield from _fit(self).find_or_load())
                case "new_instance":
                    return (yield from self._load_new_instance())
                case "require_loaded":
                    return (yield from self._find_instance())
        except LMStudioWrongModelKindError as error:
            actual = (error.display_data or {}).get("actualDomain", _OTHER_KIND[state.kind])
            if actual not in _OTHER_KIND or actual == state.kind:
                raise
            key, adapter = json.dumps(state.key, ensure_ascii=False), state.adapters.get(actual)
            advice = f"use {adapter}(model={key})" if adapter else f"use client.{actual}.model({key})"
            raise add_suggestion(error, advice) from None  # it repeats the whole error

    @property
    def deadlock(self) -> LMStudioRuntimeError:
        return LMStudioRuntimeError(
            f"this thread, or a task of its event loop, is loading {self.state.key!r}, so this call would wait "
            "forever; await the async call, or make this call after the load or in another thread"
        )

    def on_device(self) -> Flow[OnDevice]:
        """Return how requests name the device of the model."""
        if self._device is None:
            self._device = yield from on_device(self.operation, self.state.device)
        return self._device

    def _find_instance(self) -> Flow[Instance]:
        """Find a loaded instance: the one that the user named, else any."""
        state, device = self.state, (yield from self.on_device())
        try:
            info = yield from self._info_of_loaded(device)
        except LMStudioModelNotFoundError as error:
            if state.key is not None:
                raise
            raise add_suggestion(error, NAME_A_MODEL) from None  # it repeats the whole error
        is_remote = state.key is None and not device and info.get("deviceIdentifier") is not None
        if is_remote:
            info = yield from self._in_place_of_remote(info)
        instance = yield from self._adopt(info, loaded=False)
        instance.names_device = instance.names_device or is_remote  # the server would find another one by its name
        return instance

    def _info_of_loaded(self, device: OnDevice) -> Flow[WireInfo]:
        key = self.state.key
        specifier = (QuerySpecifier(query=ModelQuery()) if key is None else by_identifier(key)).to_dict()
        specifier["query"] |= device
        lookup = Lookup(specifier=specifier, throwIfNotFound=True)
        return (yield from self.operation.call(self.state.kind, "getModelInfo", lookup, model_info, label="Model get"))

    def _in_place_of_remote(self, remote: WireInfo) -> Flow[WireInfo]:
        """Return any instance of the server's own machine, or the remote one if the server is set to prefer its device.

        So prompts leave the machine for a linked device, or a cloud, only if the user wants it.

        Raises:
            LMStudioModelNotFoundError: If none is loaded on the server's own machine.
        """
        status, device = (yield from link_status(self.operation)), str(remote["deviceIdentifier"])
        if device == status.preferred_device_identifier:
            return remote
        try:
            return (yield from self._info_of_loaded(OnDevice(deviceIdentifier=None)))
        except LMStudioModelNotFoundError as error:
            where = f"{identifier_of(remote)!r} is loaded elsewhere, on {status.name_of(device)!r}"
            raise add_suggestion(error, f"{where}: name that model to use it") from None

    def _get_or_load(self) -> Flow[Instance]:
        state = self.state
        assert state.key is not None, "get_or_load needs a key"
        parameter = GetOrLoad(identifier=state.key, loadConfigStack=stack_of(state.config))
        ttl_ms = _milliseconds(state.ttl)
        if ttl_ms is not None:
            parameter["loadTtlMs"] = ttl_ms
        packets = LoadPackets(state)
        with packets.bar:
            try:
                info = yield from self._load("getOrLoad", parameter, packets)
            finally:  # a load may evict others and then fail
                recorded_key = self.server_models.model_key(state.kind, state.key)
                for evicted in packets.evicted:
                    model_key = (packets.info or {}).get("modelKey") or recorded_key or state.key
                    self.server_models.record_eviction(str(model_key), evicted)
            packets.report()
        return (yield from self._adopt(info, loaded=not packets.already_loaded))

    # A new instance ---------------------------------------------------------------------------------------------------

    def _load_new_instance(self) -> Flow[Instance]:
        """Load a new instance once, even if several callers use the handle at the same time."""
        operation, state = self.operation, self.state
        while state.instance is None:
            work = self._load_and_adopt()
            yield from SingleFlight.run(
                operation, state.running_loads, "load", work, errors=Exception, deadlock=self.deadlock
            )
        return state.instance

    def _load_and_adopt(self) -> Flow[Instance]:
        """Load a new instance; unload it again if the call fails later, because no other program uses it yet."""
        state = self.state
        assert state.key is not None, "a new instance is loaded by its key"
        previous = state.loaded_here
        try:
            ttl_ms = _milliseconds(state.ttl)
            info = yield from self._load_under_identifier(state.key, state.requested_identifier, ttl_ms)
            return (yield from self._adopt(info, loaded=True))
        except BaseException as error:
            loaded = self.server_models.explicit.get(state.loaded_here or "")
            if loaded is not None and state.loaded_here != previous:
                with suppress(LMStudioError):  # the first error says more
                    unload = rpc(state.kind, "unloadModel")
                    with self.operation.start(state.kind, unload, loaded, label="Model unload")[0] as request:
                        if isinstance(error, Exception):  # a caller that was cancelled does not wait
                            yield request
                        request.server_is_done = True  # otherwise the end of the block would cancel the unload
            raise

    # An explicit load -------------------------------------------------------------------------------------------------

    def _find_or_load_explicitly(self) -> Flow[Instance]:
        """Find a loaded instance, no matter how it was loaded, or load one that is never evicted."""
        info = yield from self.find_loaded()
        if info is None:
            running_loads = self.server_models.running_loads
            key = self.state.kind, self.state.key, self.state.device
            work = self._load_explicitly_if_permitted()
            instance = yield from SingleFlight.run(self.operation, running_loads, key, work, errors=LMStudioServerError)
            if instance is not None:
                return instance
            info = yield from self.find_loaded()
        if info is not None:
            return (yield from self.use(info))
        # The other caller was cancelled, or must not be waited for. A second load is safe: it has the same identifier,
        # so the server rejects it, and this call waits as for a load of another program.
        return (yield from self._load_explicitly_if_permitted())

    def _load_explicitly_if_permitted(self) -> Flow[Instance]:
        """Load a model with its key as identifier; just in time if the server permits nothing else."""
        kind, key = self.state.kind, self.state.key
        try:
            return (yield from self.load_or_wait_for_other_program())
        except LMStudioServerError as error:
            if not means_no_explicit_load(error):
                raise
            instance = yield from self._get_or_load()
            self.server_models.warn_once(
                ("denied", kind, key),
                f"{key!r} could not be loaded explicitly, so it was loaded just in time, and just-in-time loads of "
                f"other models evict it while Auto-Evict is on ({error.title or error})",
            )
            return instance

    def load_or_wait_for_other_program(self) -> Flow[Instance]:
        """Load a model; if another program is loading it, wait for that instance."""
        key = self.state.key
        assert key is not None, "a model is found or loaded by its key"
        model_key = yield from self.model_key_of(key)
        # Without a TTL the model would stay loaded forever by accident.
        ttl_ms = _milliseconds(DEFAULT_TTL if self.state.ttl is None else self.state.ttl)
        # A path is passed on unchanged, because it may select one file of a model. A key in other case is normalized.
        name = model_key if key.lower() == model_key.lower() else key
        started, seconds = time.monotonic(), FIRST_PAUSE
        while True:
            info = yield from self.find_loaded(model_key)
            if info is not None:
                return (yield from self.use(info))
            try:
                info = yield from self._load_under_identifier(name, model_key, ttl_ms)
            except LMStudioServerError as error:
                if "already exists" not in str(error):  # an instance has its identifier, or is being loaded under it
                    raise
                yield from self._reject_other_model(model_key, error)
            else:
                return (yield from self._adopt(info, loaded=True))
            limit, elapsed = self.operation.timeouts.get("load_timeout"), time.monotonic() - started
            if limit is not None and elapsed >= limit:
                raise LMStudioTimeoutError(
                    f"Model load: another program has reserved the identifier {model_key!r}, but no instance of that "
                    f"model is loaded: load_timeout expired after {limit:.12g} s; {EXPIRIES['load_timeout'].remedy}",
                    timeout_name="load_timeout",
                    elapsed=elapsed,
                )
            yield from self.operation.pause(seconds)
            seconds = min(2 * seconds, LONGEST_PAUSE)

    def use(self, info: WireInfo) -> Flow[Instance]:
        if self.state.on_load_progress is not None:
            self.state.on_load_progress(1.0)
        return (yield from self._adopt(info, loaded=False))

    def find_loaded(self, model_key: str | None = None) -> Flow[WireInfo | None]:
        """Return a loaded instance that matches the user's name or the model key; that identifier first."""
        kind, key = self.state.kind, self.state.key
        model_key = model_key or self.server_models.model_key(kind, key)
        names = {key, model_key}
        infos = yield from list_wire_infos(self.operation, kind)
        device = yield from self.on_device()
        with decode_errors("Model list"):
            infos = [info for info in infos if is_on(info, device)]
            matching = [info for info in infos if key is None or any(name and matches(name, info) for name in names)]
            return min(matching, key=lambda info: info["identifier"] != key, default=None)

    def model_key_of(self, name: str) -> Flow[str]:
        """Return the model key of a name, so that two spellings do not load two copies.

        The server may accept a name that its list of models does not have; that name stands for the key.
        """
        kind = self.state.kind
        known = self.server_models.model_key(kind, name)
        if known is not None:
            return known

        infos = yield from list_downloaded_infos(self.operation)
        keys = (str(info["modelKey"]) for info in infos if info.get("type") == kind and matches(name, info))
        return next(keys, None) or name

    def _reject_other_model(self, model_key: str, error: LMStudioServerError) -> Flow[None]:
        """Raise if another model has the identifier; otherwise another program is loading this model.

        Raises:
            LMStudioModelLoadError: If waiting would not help.
        """
        device = yield from self.on_device()
        for kind, info in (yield from list_all_loaded(self.operation)):
            # One of the same kind is found by its identifier.
            is_other = kind != self.state.kind and info.get("modelKey") != model_key
            if is_other and is_on(info, device) and info["identifier"] == model_key:
                raise LMStudioModelLoadError(
                    f"{model_key!r} cannot be loaded explicitly: the {kind} model {info.get('modelKey')!r} is loaded "
                    f"under that identifier; unload it with client.{kind}.unload({model_key!r})"
                ) from error

    # The requests -----------------------------------------------------------------------------------------------------

    def _load_under_identifier(self, name: str, identifier: str | None, ttl_ms: int | None) -> Flow[WireInfo]:
        """Load a new instance under an identifier; `None` lets the server choose it."""
        parameter = LoadModel(modelKey=name, loadConfigStack=stack_of(self.state.config))
        if ttl_ms is not None:
            parameter["ttlMs"] = ttl_ms
        if identifier is not None:
            parameter["identifier"] = identifier
        packets = LoadPackets(self.state)
        with packets.bar:
            try:
                info = yield from self._load("loadModel", parameter, packets)
            except LMStudioInsufficientResourcesError:
                with suppress(LMStudioError, MissingLeafError):  # the first error says more
                    yield from _fit(self).record_refusal()
                raise
            self.server_models.record_explicit(info)
            packets.report()
        return info

    def _load(self, endpoint: str, parameter: Mapping[str, Any], packets: LoadPackets) -> Flow[WireInfo]:
        """Load; the last progress is not reported yet, because the instance must be recorded first."""
        operation, state = self.operation, self.state
        target, started = operation.context.target, operation.elapsed
        try:
            info = yield from self._request_load(endpoint, parameter, packets)
        except BaseException as error:
            operation.listener.on_load(target, state.key, operation.elapsed - started, error)
            if isinstance(error, LMStudioInsufficientResourcesError):
                raise add_suggestion(error, MAKE_ROOM) from error
            raise
        if not packets.already_loaded:
            seconds = operation.elapsed - started
            operation.listener.on_load(target, state.key, seconds, None)
            operation.load_times.append(seconds)
            state.loaded_here = reference_of(info)
            observers = operation.context.shared(LoadObservers, operation.context.server)
            for record in [*observers.values()]:  # in one step: another thread may add one
                record(info)
        return info

    def _request_load(self, endpoint: str, parameter: Mapping[str, Any], packets: LoadPackets) -> Flow[WireInfo]:
        kind, parameter = self.state.kind, {**parameter, **(yield from self.on_device())}
        label = "Model load" if endpoint == "loadModel" else "Model get/load"
        with self.operation.start(kind, channel(kind, endpoint), parameter, label=label)[0] as request:
            while packets.info is None:
                packets.report()
                batch = yield request
                if not batch:
                    raise closed_early(label)
                with decode_errors(label):
                    packets.read(batch)
            request.server_is_done = True
        return packets.info

    def _adopt(self, info: WireInfo, *, loaded: bool) -> Flow[Instance]:
        """Compare the config of an instance, and let the handle use it.

        Args:
            info: The instance.
            loaded: Whether this load made it; otherwise it existed already.
        """
        if not loaded:
            info = yield from self._with_requested_context(info)
        with decode_errors("Model get"):  # the infos of loads and lists were checked before
            instance = self.server_models.instance_of(info)
        # Of a device that went away, a server says that the instance is gone; then it is found or loaded again.
        instance.by_reference = self.state.device is not None
        self.server_models.record(self.state.kind, self.state.key, info)
        yield from check_config(self.operation, self.state, info, loaded=loaded)
        known = self.state.instance
        if known is not None and known.reference is not None and known.reference == instance.reference:
            known.identifier, known.device = instance.identifier, instance.device  # the last report counts
            known.context_window = instance.context_window or known.context_window
            known.is_gone = False
            return known  # with what was learned of it
        self.state.instance = instance
        return instance

    def _with_requested_context(self, info: WireInfo) -> Flow[WireInfo]:
        """Return the info of another instance of a model if that has the requested context length, and this has not."""
        state, length = self.state, None if self.state.config is None else self.state.config.context_length
        is_named = state.key is None or not matches(state.key, {**info, "identifier": None})
        if length is None or is_named or info.get("contextLength") == length:
            return info
        wanted = {**{name: info.get(name) for name in _OF_MODEL}, "contextLength": length}
        others = yield from list_wire_infos(self.operation, state.kind)
        fitting = (other for other in others if {name: other.get(name) for name in wanted} == wanted)
        return next(fitting, info)


def _milliseconds(ttl: float | None) -> int | None:
    """Return a TTL in milliseconds, as it is sent; `None` if none is sent."""
    return None if ttl is None or math.isinf(ttl) else max(1, round(ttl * 1000))


def _fit(loader: Loader) -> "Fit":
    with door(_PLANS):
        from lmstudio_integrations.client.models.fitting import Fit  # noqa: PLC0415 - a leaf
    return Fit(loader)


def plan_memory(
    operation: Operation, models: Sequence[Any], device: str | None, evict: Evict
) -> "Flow[lms.MemoryPlan]":
    """Return what fits on a machine; see `client.plan`."""
    with door(_PLANS):
        from lmstudio_integrations.client.models.planning import plan  # noqa: PLC0415 - a leaf
    return (yield from plan(operation, models, device, evict))
