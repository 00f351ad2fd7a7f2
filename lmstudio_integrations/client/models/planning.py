"""Plans what fits into the memory of a machine; `fitting.py` makes room by it.

A plan rests on the server's estimates, and more on what loads there really came to (`load_history.py`). Nothing on the
wire says how much memory is free.
"""

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.models.load_history import Load, MachineHistory, Sized, history_of, machine_history_of
from lmstudio_integrations.client.models.queries import (
    estimate_usage,
    get_load_config,
    get_processing_state,
    list_all_loaded,
    list_downloaded,
    on_device,
    survey_hardware,
)
from lmstudio_integrations.client.models.server_models import ServerModels
from lmstudio_integrations.client.models.state import (
    WireInfo,
    identifier_of,
    matches,
    max_context_length,
    reference_of,
    specifier_of_instance,
)
from lmstudio_integrations.client.support.arguments import list_of, text_of
from lmstudio_integrations.client.support.suggestions import error_with_suggestion
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation, decode_errors
from lmstudio_integrations.errors import (
    LMStudioModelNotFoundError,
    LMStudioProtocolError,
    LMStudioServerError,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.kv_config import stack_of_fields
from lmstudio_integrations.protocol.requests import OnDevice
from lmstudio_integrations.types.config import LOAD_CONFIGS, Evict, ModelKind
from lmstudio_integrations.types.hosts import DEFAULT_PARALLEL, PARALLEL_KEY, parallel_of
from lmstudio_integrations.types.machines import LOCAL
from lmstudio_integrations.types.memory_plans import Basis, LoadedModel, MemoryPlan, PlannedModel

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")

_UNKNOWN = (LMStudioServerError, LMStudioProtocolError)
"""What a server responds that does not know something, or says it in another form."""

_STEP = 256
"""Context lengths that are tried for a model that is too large are multiples of it."""

_ITEM = re.compile(r"(?P<name>.+?)(?::(?P<context_length>[0-9]{1,15}))?(?:@(?P<slots>[0-9]{1,15}))?")
"""A model of a plan as text: `MODEL[:CONTEXT][@SLOTS]`."""


# The decisions, without any request -----------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """Whether models fit at once, and what that rests on."""

    fits: bool
    basis: Basis


class Memory(NamedTuple):
    """The memory of a machine: its size in bytes, if the server says it, and what loads there came to."""

    capacity: int | None
    history: MachineHistory

    def verdict(self, models: Sequence[Sized], *, permitted: bool, freed: int) -> Verdict:
        """Return whether models fit at once.

        Args:
            models: All of them; the last one is the one to load.
            permitted: Whether the server's guardrails let the last one pass as things are now.
            freed: The memory of what is evicted before, in bytes.
        """
        seen = self.history.fits(models)
        if seen is not None:
            return Verdict(seen, "seen")
        limit, needed = self.history.limit(self.capacity), models[-1].memory_bytes or 0
        if limit is None:
            # On an unknown capacity, only a try shows whether a larger one fits in place of all that may go.
            is_alone = freed > 0 and len(models) == 1
            return Verdict(permitted or is_alone or freed >= max(needed, 1), "estimated")
        total = sum(each.memory_bytes or 0 for each in models)
        # The guardrails know nothing of what is evicted before.
        return Verdict(total <= limit and (permitted or freed > 0), "estimated")


def choose_evictions(
    candidates: Sequence[T], verdict_without: Callable[[Sequence[T]], Verdict]
) -> tuple[list[T], Verdict]:
    """Return what must go, and whether the rest fits then: no more than necessary, the least recently used first.

    Args:
        candidates: What may go, the least recently used first.
        verdict_without: Returns whether everything fits without some of them.
    """
    evicted: list[T] = []
    verdict = verdict_without(evicted)
    while not verdict.fits:
        if len(evicted) == len(candidates):
            return [], verdict
        evicted = list(candidates[: len(evicted) + 1])
        verdict = verdict_without(evicted)
    for each in reversed(evicted[:-1]):  # without the last one, it would not fit
        fewer = [other for other in evicted if other is not each]
        if (spared := verdict_without(fewer)).fits:
            evicted, verdict = fewer, spared
    return evicted, verdict


# What is asked --------------------------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """A model to load.

    Attributes:
        kind: Its kind.
        model_key: Its key.
        fields: Its settings by their wire keys.
        max_context_length: Its longest context length, if it is known.
        is_further: Whether it is loaded beside other instances of the model, which no plan evicts.
    """

    kind: ModelKind
    model_key: str
    fields: Mapping[str, Any]
    max_context_length: int | None = None
    is_further: bool = False

    @property
    def requested(self) -> int | None:
        """The requested context length; `None` leaves it to the server."""
        length = self.fields.get(f"{self.kind}.load.contextLength")
        return length if is_count(length) else None

    @property
    def possible(self) -> int | None:
        """The requested context length, as far as the model can have it."""
        return self.requested and min(self.requested, self.max_context_length or self.requested)

    @property
    def slots(self) -> int:
        """How many predictions share its context. Each text of an embedding model has the whole."""
        return (parallel_of(self.fields.get(PARALLEL_KEY)) or DEFAULT_PARALLEL["llm"]) if self.kind == "llm" else 1


@dataclass(slots=True, eq=False)
class Resident:
    """An instance that is loaded on the machine.

    Attributes:
        kind: Its kind.
        info: Its info, from the server.
        sized: What it takes.
        fields: The settings that it was loaded with, by their wire keys.
        stays_because: Why it must not be evicted; `None` if it may.
    """

    kind: ModelKind
    info: WireInfo
    sized: Sized
    fields: Mapping[str, Any]
    stays_because: str | None

    @property
    def identifier(self) -> str:
        """Its identifier."""
        return identifier_of(self.info)

    @property
    def listed(self) -> LoadedModel:
        """What a plan lists of it."""
        load, memory_bytes = self.sized
        return LoadedModel(
            identifier=self.identifier,
            model_key=load.model_key,
            context_length=load.context_length,
            memory_bytes=memory_bytes,
            stays_because=self.stays_because,
        )


class Machine:
    """One machine of a server: what is loaded on it, and what fits.

    Args:
        operation: Makes the requests.
        device: How requests name it.
        name: What the user calls it.
        evict: What may be evicted.
    """

    def __init__(self, operation: Operation, device: OnDevice, name: str | None, evict: Evict) -> None:
        self._operation = operation
        self._device = device
        self.identifier: str | None = device.get("deviceIdentifier")
        """The identifier of the linked device; `None` for the server's own machine."""
        self._name = None if self.identifier is None else name
        self._evict = evict
        self._server_models = operation.context.shared(ServerModels)
        self._loads = history_of(operation.context)
        self.history: MachineHistory = machine_history_of(operation.context, device)

    def plan(self, wanted: Sequence[Wanted]) -> Flow[tuple[MemoryPlan, list[Resident]]]:
        """Return what fits, and what would have to go for it."""
        residents = yield from self.residents()
        memory = Memory((yield from self._capacity()), self.history)
        loaded: list[Resident | None] = [self._take(each, residents) for each in wanted]
        staying = [each.sized for each in residents if each.stays_because is not None]
        candidates = sorted((each for each in residents if each.stays_because is None), key=self._last_used)
        models: list[PlannedModel] = []
        victims: list[Resident] = []
        for each, resident in zip(wanted, loaded, strict=True):
            if resident is not None:
                models.append(_as_loaded(each, resident))
                continue
            room = _Room(self, memory, each, staying, candidates, victims)
            model, sized, evicted = yield from room.plan()
            models.append(model)
            if model.fit != "too_large":
                staying.append(sized)
                victims += evicted
                candidates = [other for other in candidates if other not in evicted]
        plan = MemoryPlan(
            host=str(self._operation.context.target),
            device=self._name,
            capacity_bytes=memory.capacity,
            models=tuple(models),
            loaded=tuple(each.listed for each in residents),
        )
        return plan, victims

    def estimate(self, wanted: Wanted, context_length: int | None) -> Flow[tuple[Sized, bool]]:
        """Return what a model would take, and whether the server's guardrails let it pass."""
        fields = dict(wanted.fields)
        if context_length is not None:
            fields[f"{wanted.kind}.load.contextLength"] = context_length
        load = Load(wanted.model_key, context_length or 0, wanted.slots)
        stack = stack_of_fields(fields)
        try:
            usage = yield from estimate_usage(self._operation, wanted.kind, wanted.model_key, stack, self._device)
            with decode_errors("Usage estimate"):
                return Sized(load, round(usage.memory.total_bytes)), usage.passes_guardrails
        except LMStudioModelNotFoundError:
            raise
        except _UNKNOWN as error:  # not every server estimates
            logger.info("the server does not estimate what %r takes: %s", wanted.model_key, error)
            return Sized(load, None), True

    def residents(self) -> Flow[list[Resident]]:
        """Return what is loaded, and whether it may be evicted. That all of it fits at once was seen now."""
        residents: list[Resident] = []
        for kind, info in (yield from list_all_loaded(self._operation)):
            if info.get("deviceIdentifier") == self.identifier:
                with suppress(LMStudioModelNotFoundError):  # it was unloaded meanwhile
                    residents.append((yield from self._resident(kind, info)))
        if residents:
            self.history.record([each.sized for each in residents], accepted=True)
        return residents

    def _resident(self, kind: ModelKind, info: WireInfo) -> Flow[Resident]:
        reference = reference_of(info)
        known = None if reference is None else self._loads.residents.get(reference)
        if known is None:
            fields = yield from get_load_config(self._operation, kind, specifier_of_instance(info))
            with decode_errors("Model list"):
                wanted = Wanted(kind, str(info["modelKey"]), fields)
            length = info.get("contextLength")
            sized, _ = yield from self.estimate(wanted, length if is_count(length) else wanted.requested)
            known = sized, fields
            if reference is not None and sized.memory_bytes is not None:  # the next estimate may succeed
                self._loads.residents.put(reference, known)
        return Resident(kind, info, *known, (yield from self._why_it_stays(kind, info)))

    def _why_it_stays(self, kind: ModelKind, info: WireInfo) -> Flow[str | None]:
        if self._evict != "any" and info.get("ttlMs") is None:
            return PINNED
        return (yield from self.why_it_is_busy(kind, info))

    def why_it_is_busy(self, kind: ModelKind, info: WireInfo) -> Flow[str | None]:
        """Return why an instance is not idle; `None` if it is."""
        try:
            state = yield from get_processing_state(self._operation, kind, specifier_of_instance(info))
        except LMStudioModelNotFoundError:
            raise
        except _UNKNOWN:
            return "the server does not say whether it is idle"
        return None if state.status == "idle" and not state.queued else "it has requests"

    def _last_used(self, resident: Resident) -> float:
        """Return when an instance was used last. One that was never used counts as just loaded, if this process did."""
        used = resident.info.get("lastUsedTime")
        is_own = self._server_models.is_explicit(reference_of(resident.info))
        return float(used) if isinstance(used, int | float) else math.inf if is_own else -math.inf

    def _capacity(self) -> Flow[int | None]:
        if self.identifier is not None:  # a survey is of the server's own machine
            return None
        try:
            return (yield from survey_hardware(self._operation)).memory_bytes
        except _UNKNOWN as error:
            logger.info("the server does not say how much memory it has: %s", error)
            return None

    def expected_length(self, wanted: Wanted) -> int | None:
        """Return the context length that a load is likely to come to; `None` leaves it to the server."""
        return self.history.context_length(wanted.model_key, wanted.requested) or wanted.possible

    def longest_context(self, wanted: Wanted) -> Flow[int | None]:
        """Return the longest context length that a model can have, if the server knows it."""
        if wanted.max_context_length is not None:
            return wanted.max_context_length
        for info in (yield from list_downloaded(self._operation, wanted.kind)):
            if info.model_key == wanted.model_key and info.device_identifier == self.identifier:
                return info.max_context_length
        return None

    def record_refusal(self, wanted: Wanted) -> Flow[None]:
        """Remember that a model was refused beside what is loaded now."""
        residents = yield from self.residents()
        sized, _ = yield from self.estimate(wanted, self.expected_length(wanted))
        self.history.record([*(each.sized for each in residents), sized], accepted=False)

    @staticmethod
    def _take(wanted: Wanted, residents: Sequence[Resident]) -> Resident | None:
        """Return the instance that is loaded already for a model, if there is one; no plan evicts that."""
        for each in residents:
            is_of_model = each.kind == wanted.kind and each.sized.load.model_key == wanted.model_key
            if is_of_model and each.stays_because != _PLANNED:
                each.stays_because = _PLANNED
                if not wanted.is_further:
                    return each
        return None


_PLANNED = "it is part of the plan"
PINNED = "it was loaded without a TTL"
"""Why an instance stays that `evict="any"` evicts."""


class _Room(NamedTuple):
    """The room for one model of a plan.

    Attributes:
        machine: Where.
        memory: Its memory.
        wanted: The model.
        staying: What takes memory and must not be evicted, with what is planned before.
        candidates: What may be evicted, the least recently used first.
        gone: What is evicted before.
    """

    machine: Machine
    memory: Memory
    wanted: Wanted
    staying: Sequence[Sized]
    candidates: Sequence[Resident]
    gone: Sequence[Resident]

    def plan(self) -> Flow[tuple[PlannedModel, Sized, list[Resident]]]:
        """Return whether the model fits, what it takes, and what must go for it."""
        wanted = self.wanted
        length = self.machine.expected_length(wanted)
        sized, evicted, verdict = yield from self._at(length)
        largest = None if verdict.fits else (yield from self._largest(length))
        model = PlannedModel(
            model_key=wanted.model_key,
            kind=wanted.kind,
            context_length=length,
            slots=wanted.slots,
            memory_bytes=sized.memory_bytes,
            fit="too_large" if not verdict.fits else "fits_after_eviction" if evicted else "fits",
            basis=verdict.basis,
            evicts=tuple(each.identifier for each in evicted),
            largest_context_length=largest,
            requested_context_length=wanted.requested,
        )
        return model, sized, evicted

    def _at(self, context_length: int | None) -> Flow[tuple[Sized, list[Resident], Verdict]]:
        """Return what the model would take with a context length, what must go for it, and whether it fits then."""
        sized, permitted = yield from self.machine.estimate(self.wanted, context_length)

        def verdict_without(evicted: Sequence[Resident]) -> Verdict:
            kept = [each.sized for each in self.candidates if each not in evicted]
            freed = sum(each.sized.memory_bytes or 0 for each in (*self.gone, *evicted))
            return self.memory.verdict([*self.staying, *kept, sized], permitted=permitted, freed=freed)

        return sized, *choose_evictions(self.candidates, verdict_without)

    def _largest(self, context_length: int | None) -> Flow[int | None]:
        """Return the longest context length that fits, below one that does not."""
        most = context_length or (yield from self.machine.longest_context(self.wanted))
        low, high = 0, (most - 1) // _STEP if most else 0
        while low < high:
            middle = (low + high + 1) // 2
            _, _, verdict = yield from self._at(middle * _STEP)
            low, high = (middle, high) if verdict.fits else (low, middle - 1)
        return low * _STEP or None


def _as_loaded(wanted: Wanted, resident: Resident) -> PlannedModel:
    load, memory_bytes = resident.sized
    return PlannedModel(
        model_key=wanted.model_key,
        kind=wanted.kind,
        context_length=load.context_length,
        slots=load.slots,
        memory_bytes=memory_bytes,
        fit="loaded",
        basis="seen",
        requested_context_length=wanted.requested,
    )


# The plan of a user ---------------------------------------------------------------------------------------------------


def plan_memory(
    operation: Operation, models: Sequence[str | tuple[str, Any]], device: str | None, evict: Evict
) -> Flow[MemoryPlan]:
    """Return what fits on a machine.

    Args:
        operation: Makes the requests.
        models: The models; see `parse_item`.
        device: The machine; `None` is the server's own.
        evict: What may be evicted.
    """
    items = [(item, *parse_item(item)) for item in list_of(models, "models")]
    where = yield from on_device(operation, LOCAL if device is None else device)
    downloaded = yield from operation.call("system", "listDownloadedModels", None, list[WireInfo], label="Model list")
    machine = Machine(operation, where, device, evict)  # now: a server that was not named is found by then
    with decode_errors("Model list"):
        here = [info for info in downloaded if info.get("deviceIdentifier") == where.get("deviceIdentifier")]
        known = [info for info in here if info.get("type") in LOAD_CONFIGS]
    wanted = [_wanted(item, name, config, known) for item, name, config in items]
    plan, _ = yield from machine.plan(wanted)
    return plan


def parse_item(item: object) -> tuple[str, Any]:
    """Return the name and the load settings of a planned model: a pair of them, or `MODEL[:CONTEXT][@SLOTS]`.

    Raises:
        LMStudioValueError: If it is something else.
    """
    if isinstance(item, str) and (parts := _ITEM.fullmatch(item.strip())):
        settings = {"context_length": parts["context_length"], "max_parallel_predictions": parts["slots"]}
        return parts["name"], {name: int(value) for name, value in settings.items() if value is not None}
    pair: Any = item
    if isinstance(item, tuple | list) and len(pair) == 2:
        return text_of(pair[0], "the model"), pair[1]
    raise LMStudioValueError(f"a planned model must be 'MODEL[:CONTEXT][@SLOTS]', or a key and a config; got {item!r}")


def _wanted(item: object, name: str, config: Any, models: Sequence[WireInfo]) -> Wanted:
    """Return the model of an item among those that are downloaded."""
    text = item.strip() if isinstance(item, str) else ""
    info = _find(text, models, partly=False) if text else None
    if info is not None:  # a key may end as a context length or a number of slots does
        config = {}
    else:
        info = _find(name, models)
    if info is None:
        stem = re.split("[:@]", text)[0]
        if stem != text and _find(stem, models) is not None:
            raise LMStudioValueError(
                f"{text!r} is no planned model; write MODEL[:CONTEXT][@SLOTS] with whole numbers, such as "
                f"{stem}:32768@4"
            )
        paths = [str(each.get("path")) for each in models]
        display = {"code": "generic.pathNotFound", "path": name, "availablePathsSample": paths}
        title = f'Cannot find a model with the key or path "{name}"'
        raise error_with_suggestion({"title": title, "displayData": display}, "Memory plan")
    kind: ModelKind = info["type"]
    if kind == "embedding" and text and "max_parallel_predictions" in config:
        raise LMStudioValueError(f"{text!r} is an embedding model, which has no slots; leave out @ and the number")
    fields = LOAD_CONFIGS[kind].parse(config).to_fields()
    return Wanted(kind, str(info["modelKey"]), fields, max_context_length(info))


def _find(name: str, models: Sequence[WireInfo], *, partly: bool = True) -> WireInfo | None:
    """Return the model of this name, else the only one that has it as a part of its key, if that is enough."""
    with decode_errors("Model list"):
        named = next((info for info in models if matches(name, info)), None)
        keys = {str(info["modelKey"]): info for info in models}
    found = [info for key, info in keys.items() if partly and name.casefold() in key.casefold()]
    return found[0] if named is None and len(found) == 1 else named
