"""Load a model with one of two requests, read their packets, and compare the actual config with the requested one.

`policies.py` decides which request is made.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, get_args

from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.client.models.binding import Binding, ContextWindow, Specifier
from lmstudio_integrations.client.models.server_models import models_of, reference_of
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.telemetry.spans import traced_load
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, call_rpc, decode_errors
from lmstudio_integrations.errors import (
    LMStudioConfigMismatchError,
    LMStudioConfigWarning,
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioProtocolError,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.endpoints import channel
from lmstudio_integrations.protocol.envelope import readable
from lmstudio_integrations.protocol.errors import with_advice
from lmstudio_integrations.protocol.kv_config import KvConfig, stack_of
from lmstudio_integrations.protocol.requests import GetOrLoad, LoadModel, Specified
from lmstudio_integrations.protocol.session import closed_early
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.models import by_identifier

logger = logging.getLogger(__name__)

Info = Mapping[str, Any]
"""The info of a loaded instance, in [wire form](docs/protocol.md#model-info)."""


def get_or_load(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Get a loaded instance, or load one just in time; return its identifier."""
    assert binding.key is not None, "get_or_load needs a key"
    parameter = GetOrLoad(identifier=binding.key, loadConfigStack=stack_of(binding.config))
    ttl_ms = milliseconds(binding.ttl)
    if ttl_ms is not None:
        parameter["loadTtlMs"] = ttl_ms
    packets = _LoadPackets(binding)
    try:
        info = yield from traced_load(dispatcher, binding, _load(dispatcher, binding, "getOrLoad", parameter, packets))
    finally:  # a load may evict others and then fail
        models = models_of(dispatcher)
        for evicted in packets.evicted:
            model_key = (packets.info or {}).get("modelKey") or models.model_key(binding.kind, binding.key)
            models.record_eviction(str(model_key or binding.key), evicted)
    packets.report()
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
    packets = _LoadPackets(binding)
    info = yield from traced_load(dispatcher, binding, _load(dispatcher, binding, "loadModel", parameter, packets))
    models_of(dispatcher).record_explicit(info)
    packets.report()
    return info


def load_parameter(binding: Binding, name: str, ttl_ms: int | None) -> LoadModel:
    """Return the parameter of `loadModel`."""
    parameter = LoadModel(modelKey=name, loadConfigStack=stack_of(binding.config))
    if ttl_ms is not None:
        parameter["ttlMs"] = ttl_ms
    return parameter


@lru_cache(maxsize=256)
def instance_specifier(identifier: str) -> Specifier:
    """Return the specifier of an instance, by the identifier that the server reported.

    All callers get the same dict and must not change it.

    Raises:
        LMStudioProtocolError: If no request can have this identifier.
    """
    try:
        return by_identifier(identifier).to_dict()
    except LMStudioValueError as error:
        raise LMStudioProtocolError(f"the server reported an instance with an invalid identifier: {error}") from error


def bind(dispatcher: Dispatcher[Any], binding: Binding, info: Info, *, loaded: bool) -> Flow[str]:
    """Compare the config of an instance; bind the handle to the instance; return its identifier.

    Args:
        dispatcher: Sends requests to the server.
        binding: The handle's model.
        info: The instance.
        loaded: Whether the handle loaded it; otherwise the instance already existed.
    """
    with decode_errors("Model get"):  # the infos of loads and lists were checked before
        identifier = _identifier(info)
    models_of(dispatcher).record(binding.kind, binding.key, info)
    yield from _check_config(dispatcher, binding, info, loaded=loaded)
    binding.reference, binding.identifier = reference_of(info), identifier
    binding.context_window = _context_window(info)
    return identifier


def _load(
    dispatcher: Dispatcher[Any], binding: Binding, endpoint: str, parameter: Mapping[str, Any], packets: "_LoadPackets"
) -> Flow[Info]:
    """Return the info of the instance. Its last progress is not reported yet: the instance must be recorded first."""
    operation = "Model load" if endpoint == "loadModel" else "Model get/load"
    started = dispatcher.elapsed
    try:
        with (
            packets.bar.closed_on_failure(),
            dispatcher.start(binding.kind, channel(binding.kind, endpoint), parameter, operation=operation) as call,
        ):
            while packets.info is None:
                packets.report()
                batch = yield call
                if not batch:
                    raise closed_early(operation)
                with decode_errors(operation):
                    packets.read(batch)
            call.nothing_to_stop = True
    except LMStudioInsufficientResourcesError as error:
        raise (yield from _with_unload_advice(dispatcher, error)) from error
    if not packets.was_loaded:
        binding.own_reference = reference_of(packets.info)
        dispatcher.load_times.append(dispatcher.elapsed - started)
    return packets.info


class _LoadPackets:
    """Reads the packets of a load; reports strictly growing progress that ends with 1.0.

    A batch is read to its end before its progress is reported, and 1.0 is reported only after the success: otherwise a
    callback that raises would hide an instance that the server has loaded.
    """

    def __init__(self, binding: Binding) -> None:
        self._key = binding.key
        self._on_progress = binding.on_load_progress
        self._unreported: list[float] = []
        self._last = -1.0
        self.bar = ProgressBar(f"Loading {binding.name}", shown=binding.show_progress)
        self.info: Info | None = None
        """The instance, once it is loaded."""
        self.was_loaded = False
        """Whether the model was already loaded."""
        self.evicted: list[Info] = []
        """The instances that the load evicted."""

    def read(self, batch: Iterable[dict[str, Any]]) -> None:
        """Read packets up to the success."""
        for packet in batch:
            match packet["type"]:
                case "startLoading":
                    self._unreported.append(0.0)
                case "loadProgress" | "progress":
                    self._unreported.append(float(packet["progress"]))
                case "unloadingOtherJITModel":
                    logger.info("loading %r unloads %r", self._key, packet["info"]["modelKey"])
                    self.evicted.append(packet["info"])
                case "alreadyLoaded" | "loadSuccess" | "success" as kind:
                    _identifier(packet["info"])
                    self.was_loaded = kind == "alreadyLoaded"
                    self._unreported.append(1.0)
                    self.info = packet["info"]
                    return
                case other:
                    logger.debug("skipped a packet of unknown type %r while loading", other)

    def report(self) -> None:
        """Draw each value by which the progress has grown, and call the callback with it."""
        values, self._unreported = self._unreported, []
        for progress in values:
            if progress > self._last and (progress < 1.0 or self.info is not None):
                self._last = progress
                self._report(progress)

    def _report(self, progress: float) -> None:
        if not self.was_loaded:
            self.bar.update(progress)
        if self._on_progress is not None:
            with self.bar.closed_on_failure():
                self._on_progress(progress)


def _with_unload_advice(
    dispatcher: Dispatcher[Any], error: LMStudioInsufficientResourcesError
) -> Flow[LMStudioInsufficientResourcesError]:
    """Return the error of a load without enough memory, with advice if this process keeps models loaded."""
    own = models_of(dispatcher).explicit
    try:
        loaded = (yield from list_all_loaded(dispatcher)) if own else []
    except LMStudioError:  # the error of the load says more
        return error
    explicit = [f"client.{kind}.unload({_identifier(info)!r})" for kind, info in loaded if reference_of(info) in own]
    if not explicit:
        return error
    advice = f"this program loaded models explicitly, so they stay loaded; unload them: {', '.join(explicit)}"
    return with_advice(error, advice)


def list_all_loaded(dispatcher: Dispatcher[Any]) -> Flow[list[tuple[ModelKind, Info]]]:
    """Return the info of all loaded instances, each with its kind."""
    loaded: list[tuple[ModelKind, Info]] = []
    for kind in get_args(ModelKind):
        loaded += [(kind, info) for info in (yield from list_loaded(dispatcher, kind))]
    return loaded


def list_loaded(dispatcher: Dispatcher[Any], kind: ModelKind) -> Flow[list[Info]]:
    """Return the info of the loaded instances of one kind."""

    def read(items: Any) -> list[Info]:
        for item in items:
            _identifier(item)
        return list(items)

    return call_rpc(dispatcher, kind, "listLoaded", None, read, operation="Model list")


def get_load_config(dispatcher: Dispatcher[Any], kind: ModelKind, specifier: Specifier) -> Flow[dict[str, Any]]:
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
    fields = binding.config.set_fields()
    requested = {key: value for key, value in fields.items() if not loaded or key.endswith(".contextLength")}
    if not requested:
        return
    identifier = _identifier(info)
    actual = yield from get_load_config(dispatcher, binding.kind, instance_specifier(identifier))
    # A setting that the server does not report cannot be compared.
    differences = {
        key.rpartition(".")[2]: (value, actual[key])
        for key, value in requested.items()
        if key in actual and actual[key] != value and not (_is_off(actual[key]) and _is_off(value))
    }
    if not differences:
        return
    listed = ", ".join(f"{name}: requested {value!r}, actual {real!r}" for name, (value, real) in differences.items())
    advice = _mismatch_advice(binding.kind, info, differences, loaded=loaded)
    text = f"model {identifier!r} {'was' if loaded else 'is already'} loaded with other settings ({listed}); {advice}"
    if binding.on_config_mismatch == "raise":
        raise LMStudioConfigMismatchError(text, differences=differences)
    warn_user(text, LMStudioConfigWarning)


def _mismatch_advice(kind: ModelKind, info: Info, differences: Mapping[str, tuple[Any, Any]], *, loaded: bool) -> str:
    """Return what helps if a model has other settings than requested. No load exceeds the maximum of the model."""
    maximum, (requested, actual) = _max_context_length(info), differences.get("contextLength", (None, None))
    is_longest = maximum is not None and is_count(requested) and requested > maximum == actual
    advice: list[str] = []
    if kind == "llm" and not is_longest and is_count(requested) and is_count(actual) and actual < requested:
        advice.append(
            f"load it with auto_fit_min_context_length={requested} in place of context_length, and the server fits it "
            "into memory with no shorter one"
        )
    if loaded or is_longest:
        advice.append(f"the model's maximum is {info.get('maxContextLength')} tokens")
    if not loaded and len(differences) > is_longest:
        advice.append(f"unload it first with `lmsi unload {_identifier(info)}`, or set on_config_mismatch='ignore'")
    return "; ".join(advice)


def _max_context_length(info: Info) -> int | None:
    maximum = info.get("maxContextLength")
    return maximum if is_count(maximum) else None


def _context_window(info: Info) -> ContextWindow | None:
    """Return the context window in the info of an instance, if it is there."""
    length = info.get("contextLength")
    return ContextWindow(length, _max_context_length(info)) if is_count(length) else None


def _is_off(value: object) -> bool:
    """Whether a setting is switched off; it may then have [any value](docs/protocol.md#value-encodings)."""
    return is_object(value) and value.get("checked", value.get("enabled")) is False


def milliseconds(ttl: float | None) -> int | None:
    """Return a TTL in milliseconds, as it is sent; `None` if none is sent."""
    return None if ttl is None or math.isinf(ttl) else max(1, round(ttl * 1000))


def _identifier(info: Info) -> str:
    identifier: object = info["identifier"]
    if not isinstance(identifier, str) or not identifier:
        raise TypeError(f"a model without identifier: {info!r}")
    return identifier
