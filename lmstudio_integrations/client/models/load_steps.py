"""What is done before, during and after a load: make room, read its packets, compare its settings."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.client.models.planning import PINNED, Machine, Resident, SeenMemory, Wanted
from lmstudio_integrations.client.models.queries import get_load_config, list_wire_infos, unload
from lmstudio_integrations.client.models.state import (
    Instance,
    ModelState,
    ServerModels,
    WireInfo,
    device_of,
    identifier_of,
    max_context_length,
    reference_of,
    specifier_of_instance,
)
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioConfigMismatchError,
    LMStudioConfigWarning,
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioModelNotFoundError,
)
from lmstudio_integrations.protocol.kv_config import stack_of_fields
from lmstudio_integrations.protocol.prediction import model_info
from lmstudio_integrations.protocol.requests import LoadModel
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LOAD_CONFIGS, ModelKind
from lmstudio_integrations.types.machines import Eviction, MemoryPlan

logger: logging.Logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two checks of what another process does; doubled each time, up to the longest."""


class Fitting:
    """Loads a model on a machine, in place of what must go for it.

    Args:
        operation: Makes the requests.
        machine: The machine.
        wanted: The model.
    """

    def __init__(self, operation: Operation, machine: Machine, wanted: Wanted) -> None:
        self._operation = operation
        self._machine = machine
        self._wanted = wanted
        self._server_models = operation.context.shared(ServerModels)
        self._seen = SeenMemory.of(operation.context)
        self._evicted: list[Resident] = []

    def run(self, load: Callable[[], Flow[Instance]]) -> Flow[Instance]:
        """Load the model, after what must go was evicted. If it cannot be loaded after all, load that again.

        Args:
            load: Loads it.

        Raises:
            LMStudioInsufficientResourcesError: If it does not fit, with the plan.
            LMStudioError: If it could not be loaded; it names what was evicted before.
        """
        try:
            return (yield from self._make_room_and_load(load))
        except Exception as error:  # also that of a callback of the user
            texts = yield from self._load_again()
            if not texts:
                raise
            text = f"evicted before: {'; '.join(texts)}"
            if not isinstance(error, LMStudioError):
                error.add_note(text)
                raise
            named = copy(error)
            named.args = (f"{error}\n  {text}", *error.args[1:])
            raise named from error

    def _make_room_and_load(self, load: Callable[[], Flow[Instance]]) -> Flow[Instance]:
        refusal: LMStudioInsufficientResourcesError | None = None
        seconds = FIRST_PAUSE
        while True:
            plan, victims = yield from self._machine.plan([self._wanted])
            if not plan.fits:
                fits_later = yield from self._machine.fits_later(self._wanted)
                raise _too_large(plan, fits_later=fits_later) from refusal
            if refusal is not None and not victims:  # it fits, says the plan, and so it said before
                raise refusal
            if not (yield from self._evict_all(victims, plan)):
                yield from self._operation.pause(seconds)  # it may be idle again when the next plan is made
                seconds = min(2 * seconds, LONGEST_PAUSE)
                continue
            try:
                return (yield from load())
            except LMStudioInsufficientResourcesError as error:
                refusal = error  # recorded as seen, so the next plan evicts more, or fails

    def _evict_all(self, victims: Sequence[Resident], plan: MemoryPlan) -> Flow[bool]:
        """Unload instances that are still idle; return whether all are gone."""
        gone: list[str] = []
        try:
            for victim in victims:
                try:
                    if (yield from self._machine.why_it_is_busy(victim.kind, victim.info)):
                        return False
                    self._evicted.append(victim)  # now: if the response to the next request is lost, it may be gone
                    yield from unload(self._operation, victim.kind, victim.identifier, device_of(victim.info))
                except LMStudioModelNotFoundError:  # another program was faster
                    self._evicted = [each for each in self._evicted if each is not victim]
                    continue
                gone.append(victim.identifier)
                self._server_models.record_eviction(self._wanted.model_key, victim.info, for_memory=True)
                self._seen.evictions.append(
                    Eviction(
                        identifier=victim.identifier,
                        model_key=victim.model_key,
                        device=self._machine.identifier,
                        evicted_for=self._wanted.model_key,
                        at=time.time(),
                    )
                )
        finally:
            if gone:
                logger.info("evicted %s to load %r\n%s", ", ".join(gone), self._wanted.model_key, plan)
        return True

    def _load_again(self) -> Flow[list[str]]:
        """Load again what was evicted in vain; return what became of each."""
        texts: list[str] = []
        for resident in self._evicted:
            try:
                if (yield from self._is_loaded(resident)):
                    continue
                info = yield from self._reload(resident)
            except LMStudioError as failure:
                texts.append(f"{resident.identifier!r}, which could not be loaded again ({failure})")
                continue
            texts.append(f"{resident.identifier!r}, which was loaded again")
            if self._server_models.is_explicit(reference_of(resident.info)):
                self._server_models.record_explicit(info)
            for eviction in reversed(self._seen.evictions.copy()):  # another thread may add one
                if eviction.identifier == resident.identifier:
                    self._seen.evictions.remove(eviction)
                    self._seen.evictions.append(replace(eviction, loaded_again=True))
                    break
        return texts

    def _is_loaded(self, resident: Resident) -> Flow[bool]:
        """Whether an instance is still loaded, because the request that was to unload it was lost."""
        infos = yield from list_wire_infos(self._operation, resident.kind)
        return any(_id(info) == _id(resident.info) for info in infos)

    def _reload(self, resident: Resident) -> Flow[WireInfo]:
        parameter = LoadModel(
            modelKey=resident.model_key,
            identifier=resident.identifier,
            loadConfigStack=stack_of_fields(resident.fields),
        )
        if (ttl_ms := resident.info.get("ttlMs")) is not None:
            parameter["ttlMs"] = ttl_ms

        def read(packet: dict[str, Any]) -> WireInfo | None:
            return model_info(packet["info"]) if packet["type"] == "success" else None

        return (
            yield from self._operation.read_channel(
                resident.kind, "loadModel", {**parameter, **device_of(resident.info)}, read, label="Model load"
            )
        )


def _id(info: WireInfo) -> tuple[object, ...]:
    return reference_of(info), identifier_of(info), info.get("deviceIdentifier")


def _too_large(plan: MemoryPlan, *, fits_later: bool) -> LMStudioInsufficientResourcesError:
    (model,) = plan.models
    reason = " until requests to other models have ended" if fits_later else ", and nothing more may be evicted"
    title = f"{model.model_key!r} does not fit into the memory of {plan.place}{reason}"
    smaller = model.largest_context_length
    suggestion = f"load it with context_length={smaller}" if smaller else "use a smaller model"
    stays = {each.stays_because for each in plan.loaded}
    if stays - {None}:
        suggestion += ", or unload one of those that stay"
    if PINNED in stays:
        suggestion += "; load_policy='fit_any' evicts those without a TTL as well"
    return LMStudioInsufficientResourcesError(
        f"{title}\n{plan}\n  suggestion: {suggestion}",
        title=title,
        suggestion=suggestion,
        plan=plan,
        retryable=fits_later,
    )


class LoadPackets:
    """Reads the packets of a load; reports strictly growing progress that ends with 1.0.

    A batch is read to its end before its progress is reported, and 1.0 is reported only after the success: otherwise a
    callback that raises would hide an instance that the server has loaded.
    """

    def __init__(self, state: ModelState) -> None:
        self._key = state.key
        self._on_progress = state.on_load_progress
        self._unreported: list[float] = []
        self._last = -1.0
        self.bar: ProgressBar = ProgressBar(
            f"Loading {state.name}", shown=state.show_progress, is_reported=state.on_load_progress is not None
        )
        self.info: WireInfo | None = None
        """The instance, once it is loaded."""
        self.already_loaded: bool = False
        """Whether the model was already loaded."""
        self.evicted: list[WireInfo] = []
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
                    self.evicted.append(model_info(packet["info"]))
                case "alreadyLoaded" | "loadSuccess" | "success" as kind:
                    info = model_info(packet["info"])
                    identifier_of(info)
                    self.already_loaded = kind == "alreadyLoaded"
                    self._unreported.append(1.0)
                    self.info = info
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
        if not self.already_loaded:
            self.bar.update(progress)
        if self._on_progress is not None:
            with self.bar.closed_on_failure():
                self._on_progress(progress)


def check_config(operation: Operation, state: ModelState, info: WireInfo, *, loaded: bool) -> Flow[None]:
    """Compare the requested config with the actual one.

    A model that was loaded before keeps its config. A model that this call loaded has the requested config, except that
    the server silently fits the context length: it lowers one above the model's maximum, and may raise one as far as
    memory goes, which nobody has asked for.
    """
    if state.config is None or state.on_config_mismatch == "ignore":
        return
    fields = state.config.set_fields()
    requested = {key: value for key, value in fields.items() if not loaded or key.endswith(".contextLength")}
    if not requested:
        return
    instance = Instance.of(info)
    actual = yield from get_load_config(operation, state.kind, specifier_of_instance(info))
    if instance.context_window is not None:  # a server may report the requested length as that of the config
        actual[f"{state.kind}.load.contextLength"] = instance.context_window.length
    # A setting that the server does not report cannot be compared.
    differences = {
        key.rpartition(".")[2]: (value, actual[key])
        for key, value in requested.items()
        if key in actual and actual[key] != value and not (_is_off(actual[key]) and _is_off(value))
    }
    if not differences:
        return
    names = {item.key.rpartition(".")[2]: name for name, item in wire_keys(LOAD_CONFIGS[state.kind]).items()}
    listed = ", ".join(
        f"{names.get(key, key)}: requested {value!r}, actual {real!r}" for key, (value, real) in differences.items()
    )
    advice = _mismatch_advice(state.kind, info, differences, loaded=loaded)
    how = "was" if loaded else "is already"
    text = f"model {instance.identifier!r} {how} loaded with other settings ({listed}); {advice}"
    if state.on_config_mismatch == "raise":
        raise LMStudioConfigMismatchError(text, differences=differences)
    warn_user(text, LMStudioConfigWarning)


def _mismatch_advice(
    kind: ModelKind, info: WireInfo, differences: Mapping[str, tuple[Any, Any]], *, loaded: bool
) -> str:
    """Return what helps if a model has other settings than requested. No load exceeds the maximum of the model."""
    maximum, (requested, actual) = max_context_length(info), differences.get("contextLength", (None, None))
    possible = requested
    if maximum is not None and is_count(requested):
        possible = min(requested, maximum)
    is_longest = possible != requested and actual == maximum
    advice: list[str] = []
    if kind == "llm" and is_count(possible) and is_count(actual) and actual < possible:
        advice.append(
            f"load it with auto_fit_min_context_length={possible} in place of context_length, and the server fits it "
            "into memory with no shorter one"
        )
    if loaded and is_count(possible) and is_count(actual) and actual > possible:
        advice.append(
            "the server has fitted it up, into memory that was not asked for (`lmsi plan` shows how much); set the "
            "context length in LM Studio's own settings of the model as well"
        )
    elif maximum is not None and (loaded or possible != requested):
        limit = f"the model's maximum is {maximum} tokens"
        advice.insert(0 if possible != requested else len(advice), limit)
    if not loaded and len(differences) > is_longest:
        advice.append(f"unload it first with `lms unload {identifier_of(info)}`, or set on_config_mismatch='ignore'")
    return "; ".join(advice) or "set on_config_mismatch='ignore' to use it as it is"


def _is_off(value: object) -> bool:
    """Whether a setting is switched off; it may then have [any value](docs/protocol.md#value-encodings)."""
    return is_object(value) and value.get("checked", value.get("enabled")) is False
