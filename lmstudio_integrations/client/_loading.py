"""Load a model with one of two requests, read their packets, and compare the actual config with the requested one.

`_policies.py` decides which request is made.
"""

import logging
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast, get_args

from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.client._binding import Binding, Specifier
from lmstudio_integrations.client._server_models import models_of, warn_user
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import CallbackEffect, Flow, call_rpc, decode_errors, open_channel
from lmstudio_integrations.errors import (
    LMStudioConfigMismatchError,
    LMStudioConfigWarning,
    LMStudioError,
    LMStudioInsufficientResourcesError,
)
from lmstudio_integrations.protocol.envelope import readable
from lmstudio_integrations.protocol.errors import details_of
from lmstudio_integrations.protocol.kv_config import KvConfig, stack_of
from lmstudio_integrations.protocol.requests import GetOrLoad, LoadModel, Specified
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.models import by_identifier

logger = logging.getLogger(__name__)

Info = Mapping[str, Any]
"""The info of a loaded instance, in [wire form](docs/protocol.md#model-info)."""


def get_or_load(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Get a loaded instance, or load one just in time; return its identifier."""
    assert binding.key is not None, "a model is got or loaded by its key"
    parameter = GetOrLoad(identifier=binding.key, loadConfigStack=stack_of(binding.config))
    ttl_ms = milliseconds(binding.ttl)
    if ttl_ms is not None:
        parameter["loadTtlMs"] = ttl_ms
    packets = _LoadPackets(binding)
    info = yield from _load(dispatcher, binding, "getOrLoad", parameter, packets)
    for evicted in packets.evicted:
        models_of(dispatcher).record_eviction(str(info.get("modelKey", binding.key)), evicted)
    return (yield from bind(dispatcher, binding, info, loaded=not packets.was_loaded))


def load(
    dispatcher: Dispatcher[Any], binding: Binding, name: str, identifier: str | None, ttl_ms: int | None
) -> Flow[Info]:
    """Load a new instance; return its info.

    Args:
        dispatcher: Sends requests to the server.
        binding: How to load it.
        name: The model key, or another name of the model.
        identifier: The identifier of the instance; `None` lets the server choose it.
        ttl_ms: Its TTL in milliseconds; `None` sends none.
    """
    parameter = load_parameter(binding, name, ttl_ms)
    if identifier is not None:
        parameter["identifier"] = identifier
    info = yield from _load(dispatcher, binding, "loadModel", parameter, _LoadPackets(binding))
    models_of(dispatcher).record_explicit(info)
    return info


def load_parameter(binding: Binding, name: str, ttl_ms: int | None) -> LoadModel:
    """Return the parameter of `loadModel`."""
    parameter = LoadModel(modelKey=name, loadConfigStack=stack_of(binding.config))
    if ttl_ms is not None:
        parameter["ttlMs"] = ttl_ms
    return parameter


@lru_cache(maxsize=256)
def named(identifier: str) -> Specifier:
    """Return the specifier of an instance."""
    return by_identifier(identifier).to_dict()


def bind(dispatcher: Dispatcher[Any], binding: Binding, info: Info, *, loaded: bool) -> Flow[str]:
    """Compare the config of an instance; record that a handle means it from now on; return its identifier.

    Args:
        dispatcher: Sends requests to the server.
        binding: The handle's model.
        info: The instance.
        loaded: Whether the handle loaded it; otherwise it found it.
    """
    with decode_errors("Model get"):
        identifier = _identifier(info)
    yield from _check_config(dispatcher, binding, info, loaded=loaded)
    reference = info.get("instanceReference")
    binding.reference = reference if isinstance(reference, str) else None
    if loaded:
        binding.own_reference = binding.reference
    models_of(dispatcher).record(binding.kind, binding.key, info)
    binding.identifier = identifier
    return identifier


def _load(
    dispatcher: Dispatcher[Any], binding: Binding, endpoint: str, parameter: Mapping[str, Any], packets: "_LoadPackets"
) -> Flow[Info]:
    operation = "Model load" if endpoint == "loadModel" else "Model get/load"
    started = dispatcher.elapsed
    try:
        info = yield from open_channel(dispatcher, binding.kind, endpoint, parameter, packets, operation=operation)
    except LMStudioInsufficientResourcesError as error:
        raise (yield from _with_remedy(dispatcher, error)) from error
    if not packets.was_loaded:
        dispatcher.load_times.append(dispatcher.elapsed - started)
    packets.report(1.0)
    return info


class _LoadPackets:
    """Reads the packets of a load; reports strictly growing progress that ends with 1.0."""

    def __init__(self, binding: Binding) -> None:
        self._key = binding.key
        self._on_progress = binding.on_load_progress
        self._last = -1.0
        self.was_loaded = False
        """Whether the model was already loaded."""
        self.evicted: list[Info] = []
        """The instances that the load evicted."""

    def __call__(self, packet: dict[str, Any]) -> CallbackEffect | Info | None:
        match packet["type"]:
            case "startLoading" | "loadProgress" | "progress" as kind:
                progress = 0.0 if kind == "startLoading" else float(packet["progress"])
                return None if self._on_progress is None else CallbackEffect(self.report, progress)
            case "unloadingOtherJITModel":
                logger.info("loading %r unloads %r", self._key, packet["info"]["modelKey"])
                self.evicted.append(packet["info"])
            case "alreadyLoaded" | "loadSuccess" | "success" as kind:
                self.was_loaded = kind == "alreadyLoaded"
                _identifier(packet["info"])
                return cast("Info", packet["info"])
            case other:
                logger.debug("skipped a packet of unknown type %r while loading", other)
        return None

    def report(self, progress: float) -> None:
        """Call the callback if the progress has grown."""
        if self._on_progress is not None and progress > self._last:
            self._last = progress
            self._on_progress(progress)


def _with_remedy(
    dispatcher: Dispatcher[Any], error: LMStudioInsufficientResourcesError
) -> Flow[LMStudioInsufficientResourcesError]:
    """Return the error of a load without enough memory, with advice if this process keeps models loaded."""
    own = models_of(dispatcher).explicit
    try:
        loaded = (yield from list_all_loaded(dispatcher)) if own else []
    except LMStudioError:  # the error of the load says more
        return error
    explicit = [
        f"client.{kind}.unload({_identifier(info)!r})" for kind, info in loaded if info.get("instanceReference") in own
    ]
    if not explicit:
        return error
    advice = f"this program loaded models explicitly, so they stay loaded; unload them: {', '.join(explicit)}"
    suggestion = " ".join(text for text in (error.suggestion, advice) if text)
    details: dict[str, Any] = details_of(error) | {"suggestion": suggestion}
    return LMStudioInsufficientResourcesError(f"{error}\n  suggestion: {advice}", **details)


def list_all_loaded(dispatcher: Dispatcher[Any]) -> Flow[list[tuple[ModelKind, Info]]]:
    """Return the info of all loaded instances, each with its kind."""
    loaded: list[tuple[ModelKind, Info]] = []
    for kind in get_args(ModelKind):
        loaded += [(kind, info) for info in (yield from list_loaded(dispatcher, kind))]
    return loaded


def list_loaded(dispatcher: Dispatcher[Any], kind: ModelKind) -> Flow[list[Info]]:
    """Return the info of the loaded instances of one kind."""

    def read(items: Any) -> list[Info]:
        return [item for item in items if _identifier(item)]

    return call_rpc(dispatcher, kind, "listLoaded", None, read, operation="Model list")


def load_fields(dispatcher: Dispatcher[Any], kind: ModelKind, specifier: Specifier) -> Flow[dict[str, Any]]:
    """Return the settings that an instance was loaded with, by their wire keys."""

    def read(config: Any) -> dict[str, Any]:
        return KvConfig.from_dict(readable(config)).as_mapping()

    return call_rpc(dispatcher, kind, "getLoadConfig", Specified(specifier=specifier), read, operation="Load config")


def _check_config(dispatcher: Dispatcher[Any], binding: Binding, info: Info, *, loaded: bool) -> Flow[None]:
    """Compare the requested config with the actual one.

    A model that was loaded before keeps its config. A model that this call loaded has the requested config, except that
    the server silently lowers a context length above the model's maximum.
    """
    if binding.config is None or binding.on_config_mismatch == "ignore":
        return
    fields = binding.config.to_fields()
    requested = {key: value for key, value in fields.items() if not loaded or key.endswith(".contextLength")}
    if not requested:
        return
    identifier = _identifier(info)
    actual = yield from load_fields(dispatcher, binding.kind, named(identifier))
    differences = {
        key.rpartition(".")[2]: (value, actual[key])
        for key, value in requested.items()
        if key in actual and actual[key] != value and not (_is_off(actual[key]) and _is_off(value))
    }
    if not differences:
        return
    listed = ", ".join(f"{name}: requested {value!r}, actual {real!r}" for name, (value, real) in differences.items())
    advice = "unload it first, load a new instance, or set on_config_mismatch"
    if loaded:
        advice = f"the model's maximum is {info.get('maxContextLength')} tokens"
    text = f"model {identifier!r} {'was' if loaded else 'is already'} loaded with other settings ({listed}); {advice}"
    if binding.on_config_mismatch == "raise":
        raise LMStudioConfigMismatchError(text, differences=differences)
    warn_user(text, LMStudioConfigWarning)


def _is_off(value: object) -> bool:
    """Whether a setting is switched off; it may then have [any value](docs/protocol.md#value-encodings)."""
    return is_object(value) and value.get("checked", value.get("enabled")) is False


def milliseconds(ttl: float | None) -> int | None:
    """Return a TTL in milliseconds, as it is sent; `None` if none is sent."""
    return None if ttl is None or math.isinf(ttl) else max(1, round(ttl * 1000))


def _identifier(info: Info) -> str:
    identifier: object = info["identifier"]
    if not isinstance(identifier, str):
        raise TypeError(f"a model without identifier: {info!r}")
    return identifier
