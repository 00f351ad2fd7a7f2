"""Loads a model in place of what must go for it: the policies `fit` and `fit_any`.

`loading.py` imports this on first use. `planning.py` says what fits, and what would have to go.
"""

import logging
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.admission import SingleFlight
from lmstudio_integrations.client.models.load_steps import FIRST_PAUSE, LONGEST_PAUSE
from lmstudio_integrations.client.models.loading import Loader
from lmstudio_integrations.client.models.planning import (
    PINNED,
    Machine,
    Resident,
    Wanted,
    devices_with,
    on_another_device,
)
from lmstudio_integrations.client.models.queries import list_wire_infos, unload
from lmstudio_integrations.client.models.seen_memory import SeenMemory
from lmstudio_integrations.client.models.state import (
    Instance,
    ServerModels,
    WireInfo,
    device_of,
    identifier_of,
    reference_of,
)
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioModelNotFoundError,
    LMStudioServerError,
)
from lmstudio_integrations.protocol.kv_config import stack_of_fields
from lmstudio_integrations.protocol.prediction import model_info
from lmstudio_integrations.protocol.requests import LoadModel
from lmstudio_integrations.types.config import Evict
from lmstudio_integrations.types.memory_plans import Eviction, MemoryPlan

logger: logging.Logger = logging.getLogger(__name__)


class Fit:
    """The policies `fit` and `fit_any` for one model.

    Args:
        loader: Finds or loads it.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def find_or_load(self) -> Flow[Instance]:
        """Find a loaded instance, or load one after what must go for it was evicted. One such load runs at a time."""
        loader = self._loader
        operation, running_loads = loader.operation, loader.server_models.running_loads
        while True:
            info = yield from loader.find_loaded()
            if info is not None:
                return (yield from loader.use(info))
            machine, wanted = yield from self._machine()
            work = Fitting(operation, machine, wanted).run(loader.load_or_wait_for_other_program)
            flight = "fit", machine.identifier
            try:  # other callers may want other models, so they do not fail with this one
                instance = yield from SingleFlight.run(
                    operation, running_loads, flight, work, errors=(), deadlock=loader.deadlock
                )
            except LMStudioModelNotFoundError as error:  # the plan is for one machine
                devices = yield from devices_with(operation, wanted.model_key)
                raise (on_another_device(error, devices[0]) if devices else error) from None
            if instance is not None:
                return instance

    def lacks_room(self) -> Flow[bool]:
        """Whether others would have to go before the model is loaded."""
        try:
            machine, wanted = yield from self._machine()
            plan, _ = yield from machine.plan([wanted])
        except LMStudioServerError:  # the load will say more
            return False
        return bool(plan.evicts) or not plan.fits

    def record_refusal(self) -> Flow[None]:
        """Remember that the model was refused beside what is loaded now."""
        machine, wanted = yield from self._machine()
        yield from machine.record_refusal(wanted)

    def _machine(self) -> Flow[tuple[Machine, Wanted]]:
        """Return the machine on which the model is loaded, and the model as plans name it."""
        loader, state = self._loader, self._loader.state
        device = yield from loader.on_device()
        assert state.key is not None, "a model is found or loaded by its key"
        model_key = yield from loader.model_key_of(state.key)
        fields = {} if state.config is None else state.config.to_fields()
        evict: Evict = "any" if state.policy == "fit_any" else "own"
        return Machine(loader.operation, device, state.device, evict), Wanted(state.kind, model_key, fields)


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
