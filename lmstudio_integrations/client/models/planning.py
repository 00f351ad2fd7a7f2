"""Plans what fits into the memory of a machine; `fitting.py` makes room by it.

A plan adds up the server's estimates. Nothing on the wire says how much memory is free, so a model that was refused in
this process is planned only beside less than there was then.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lmstudio_integrations._support.typeguards import is_count, is_number
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.hardware import survey_hardware
from lmstudio_integrations.client.models.queries import (
    estimate_usage,
    get_load_config,
    get_processing_state,
    link_status,
    list_all_loaded,
    list_downloaded,
    list_downloaded_infos,
    look_up,
    on_device,
)
from lmstudio_integrations.client.models.seen_memory import SeenMemory
from lmstudio_integrations.client.models.state import (
    ServerModels,
    WireInfo,
    identifier_of,
    matches,
    max_context_length,
    reference_of,
    specifier_of_instance,
)
from lmstudio_integrations.client.support.arguments import list_of, text_of
from lmstudio_integrations.client.transport.operation import Operation, decode_errors
from lmstudio_integrations.errors import (
    LMStudioModelNotFoundError,
    LMStudioProtocolError,
    LMStudioServerError,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.errors import add_suggestion, to_exception
from lmstudio_integrations.protocol.kv_config import stack_of_fields
from lmstudio_integrations.protocol.requests import OnDevice
from lmstudio_integrations.types.config import LOAD_CONFIGS, PARALLEL_KEYS, Evict, ModelKind, slots_of
from lmstudio_integrations.types.machines import LOCAL
from lmstudio_integrations.types.memory_plans import LoadedModel, MemoryPlan, PlannedModel

logger: logging.Logger = logging.getLogger(__name__)

_UNKNOWN = (LMStudioServerError, LMStudioProtocolError)
"""What a server responds that does not know something, or says it in another form."""

_STEP = 256
"""Context lengths that are tried for a model that is too large are multiples of it."""

_ITEM = r"(?P<name>.+?)(?::(?P<context_length>[1-9][0-9]{0,14}))?(?:@(?P<slots>[1-9][0-9]{0,14}))?"
"""A model of a plan as text: `MODEL[:CONTEXT][@SLOTS]`."""

_PLANNED = "it is part of the plan"
BUSY = "it has requests"
"""Why an instance stays that may be evicted later."""

PINNED = "it was loaded without a TTL"
"""Why an instance stays that the policy `fit_any` evicts."""


class Wanted(NamedTuple):
    """A model to load.

    Attributes:
        kind: Its kind.
        model_key: Its key.
        fields: Its settings by their wire keys.
        max_context_length: Its longest context length, if it is known.
    """

    kind: ModelKind
    model_key: str
    fields: Mapping[str, Any]
    max_context_length: int | None = None

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
    def slots(self) -> int | None:
        """How many calls share its context. Each text of an embedding model has the whole."""
        return slots_of(self.kind, self.fields) if PARALLEL_KEYS[self.kind] else 1


@dataclass(slots=True, eq=False)
class Resident:
    """An instance that is loaded on the machine.

    Attributes:
        kind: Its kind.
        info: Its info, from the server.
        fields: The settings that it was loaded with, by their wire keys.
        memory_bytes: What the server estimates that it takes; `None` if it does not say it.
        stays_because: Why it must not be evicted; `None` if it may.
    """

    kind: ModelKind
    info: WireInfo
    fields: Mapping[str, Any]
    memory_bytes: int | None
    stays_because: str | None

    @property
    def identifier(self) -> str:
        return identifier_of(self.info)

    @property
    def model_key(self) -> str:
        return str(self.info["modelKey"])

    @property
    def context_length(self) -> int:
        """Its context length; 0 if the server does not say it."""
        length = self.info.get("contextLength")
        return length if is_count(length) else 0


class _Room:
    """The memory of a machine, while a plan fills it.

    Args:
        capacity: Its size in bytes, if the server says it.
        staying: What is there and stays, in bytes each.
        candidates: What may be evicted, the least recently used first.
    """

    def __init__(self, capacity: int | None, staying: list[int], candidates: list[Resident]) -> None:
        self.capacity = capacity
        self.candidates = candidates
        self.victims: list[Resident] = []
        self._staying = staying
        # What is there now fits, whatever the server says of the size.
        self._limit = max(capacity or math.inf, sum(staying) + sum(map(size_of, candidates)))

    def evictions_for(self, needed: int, *, permitted: bool, refused_beside: int | None) -> list[Resident] | None:
        """Return what must go for so many bytes, no more than necessary; `None` if they do not fit even then.

        Args:
            needed: What the model takes.
            permitted: Whether the server's guardrails let it pass as things are now.
            refused_beside: Beside how many bytes it was refused, if it was.
        """

        def fits_without(evicted: Sequence[Resident]) -> bool:
            kept = sum(self._staying) + sum(size_of(each) for each in self.candidates if each not in evicted)
            freed = sum(map(size_of, (*self.victims, *evicted)))
            # The guardrails know nothing of what is evicted before. On an unknown capacity, only a try shows whether a
            # larger model fits in place of all that may go.
            is_let_in = permitted or (freed > 0 if self.capacity is not None or not kept else freed >= needed)
            return is_let_in and kept + needed <= self._limit and (refused_beside is None or kept < refused_beside)

        evicted: list[Resident] = []
        while not fits_without(evicted):
            if len(evicted) == len(self.candidates):
                return None
            evicted = self.candidates[: len(evicted) + 1]
        for each in reversed(evicted[:-1]):  # without the last one, it would not fit
            fewer = [other for other in evicted if other is not each]
            if fits_without(fewer):
                evicted = fewer
        return evicted

    def take(self, needed: int, evicted: Sequence[Resident]) -> None:
        """Put a model in the place of what is evicted for it."""
        self.victims += evicted
        self.candidates = [each for each in self.candidates if each not in evicted]
        self._staying.append(needed)


def size_of(resident: Resident) -> int:
    """Return what an instance takes, in bytes. One without an estimate takes something, or no refusal would count."""
    return resident.memory_bytes or 1


def devices_with(operation: Operation, name: str) -> Flow[list[str]]:
    """Return the names of the connected machines on which a model is downloaded; `local` is the server's own."""
    infos = yield from list_downloaded_infos(operation)
    found = {info.get("deviceIdentifier") for info in infos if matches(name, info)}
    peers = (yield from link_status(operation)).peers if found - {None} else ()
    linked = [peer.device_name for peer in peers if peer.device_identifier in found and peer.is_connected]
    return [*([LOCAL] if None in found else []), *linked]


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
        self._seen = SeenMemory.of(operation.context)

    def fits_later(self, wanted: Wanted) -> Flow[bool]:
        """Whether a model fits as soon as the requests to those that are loaded have ended."""
        residents = yield from self._residents()
        if all(each.stays_because != BUSY for each in residents):
            return False
        idle = [replace(each, stays_because=None) if each.stays_because == BUSY else each for each in residents]
        plan, _ = yield from self._plan([wanted], idle)
        return plan.fits

    def plan(self, wanted: Sequence[Wanted]) -> Flow[tuple[MemoryPlan, list[Resident]]]:
        """Return what fits, and what would have to go for it."""
        return (yield from self._plan(wanted, (yield from self._residents())))

    def _plan(self, wanted: Sequence[Wanted], residents: Sequence[Resident]) -> Flow[tuple[MemoryPlan, list[Resident]]]:
        loaded = [_take(each, residents) for each in wanted]
        staying = [size_of(each) for each in residents if each.stays_because is not None]
        candidates = sorted((each for each in residents if each.stays_because is None), key=self._last_used)
        capacity, problems = yield from self._capacity()
        room = _Room(capacity, staying, candidates)
        models: list[PlannedModel] = []
        for each, resident in zip(wanted, loaded, strict=True):
            models.append(_as_loaded(each, resident) if resident else (yield from self._plan_one(each, room)))
        plan = MemoryPlan(
            host=str(self._operation.context.target),
            device=self._name,
            capacity_bytes=room.capacity,
            problems=problems,
            models=tuple(models),
            loaded=tuple(
                LoadedModel(
                    identifier=each.identifier,
                    model_key=each.model_key,
                    context_length=each.context_length,
                    memory_bytes=each.memory_bytes,
                    stays_because=each.stays_because,
                )
                for each in residents
            ),
        )
        return plan, room.victims

    def _plan_one(self, wanted: Wanted, room: _Room) -> Flow[PlannedModel]:
        """Return whether a model fits and what must go for it; if it fits, it takes its place in the room."""
        length = wanted.possible
        memory_bytes, evicted = yield from self._fit(wanted, length, room)
        was_refused = self._seen.refused_beside(self.identifier, wanted.model_key, length) is not None
        largest = None
        if evicted is None:
            largest = yield from self._largest(wanted, length, room)
        else:
            room.take(memory_bytes or 1, evicted)
        return PlannedModel(
            model_key=wanted.model_key,
            kind=wanted.kind,
            context_length=length,
            slots=wanted.slots,
            memory_bytes=memory_bytes,
            fit="too_large" if evicted is None else "fits_after_eviction" if evicted else "fits",
            basis="seen" if was_refused else "estimated",
            evicts=tuple(each.identifier for each in evicted or ()),
            largest_context_length=largest,
            requested_context_length=wanted.requested,
        )

    def _fit(
        self, wanted: Wanted, context_length: int | None, room: _Room
    ) -> Flow[tuple[int | None, list[Resident] | None]]:
        """Return what a model would take, and what must go for it; see `_Room.evictions_for`."""
        memory_bytes, permitted = yield from self._estimate(wanted, context_length)
        refused_beside = self._seen.refused_beside(self.identifier, wanted.model_key, context_length)
        needed = memory_bytes or 1
        return memory_bytes, room.evictions_for(needed, permitted=permitted, refused_beside=refused_beside)

    def _largest(self, wanted: Wanted, context_length: int | None, room: _Room) -> Flow[int | None]:
        """Return the longest context length that fits, below one that does not."""
        most = context_length or (yield from self._longest_context(wanted))
        low, high = 0, (most - 1) // _STEP if most else 0
        while low < high:
            middle = (low + high + 1) // 2
            _, evicted = yield from self._fit(wanted, middle * _STEP, room)
            low, high = (middle, high) if evicted is not None else (low, middle - 1)
        return low * _STEP or None

    def _longest_context(self, wanted: Wanted) -> Flow[int | None]:
        """Return the longest context length that a model can have, if the server knows it."""
        if wanted.max_context_length is not None:
            return wanted.max_context_length
        for info in (yield from list_downloaded(self._operation, wanted.kind)):
            if info.model_key == wanted.model_key and info.device_identifier == self.identifier:
                return info.max_context_length
        return None

    def _estimate(self, wanted: Wanted, context_length: int | None) -> Flow[tuple[int | None, bool]]:
        """Return what a model would take, and whether the server's guardrails let it pass."""
        fields = dict(wanted.fields)
        if context_length is not None:
            fields |= LOAD_CONFIGS[wanted.kind](context_length=context_length).to_fields()  # without automatic fitting
        stack = stack_of_fields(fields)
        try:
            usage = yield from estimate_usage(self._operation, wanted.kind, wanted.model_key, stack, self._device)
            total = usage.memory.total_bytes
            with decode_errors("Usage estimate"):
                return None if total is None else round(total), usage.passes_guardrails
        except LMStudioModelNotFoundError:
            raise
        except _UNKNOWN as error:  # not every server estimates
            logger.info("the server does not estimate what %r takes: %s", wanted.model_key, error)
            return None, True

    def record_refusal(self, wanted: Wanted) -> Flow[None]:
        """Remember that a model was refused beside what is loaded now."""
        beside = sum(map(size_of, (yield from self._residents())))
        self._seen.record_refusal(self.identifier, wanted.model_key, wanted.possible, beside)

    def _residents(self) -> Flow[list[Resident]]:
        """Return what is loaded, and whether it may be evicted."""
        residents: list[Resident] = []
        for kind, info in (yield from list_all_loaded(self._operation)):
            if info.get("deviceIdentifier") == self.identifier:
                with suppress(LMStudioModelNotFoundError):  # it was unloaded meanwhile
                    residents.append((yield from self._resident(kind, info)))
        return residents

    def _resident(self, kind: ModelKind, info: WireInfo) -> Flow[Resident]:
        fields = yield from get_load_config(self._operation, kind, specifier_of_instance(info))
        with decode_errors("Model list"):
            wanted = Wanted(kind, str(info["modelKey"]), fields)
        length = info.get("contextLength")
        memory_bytes, _ = yield from self._estimate(wanted, length if is_count(length) else wanted.requested)
        is_pinned = self._evict != "any" and info.get("ttlMs") is None
        stays_because = PINNED if is_pinned else (yield from self.why_it_is_busy(kind, info))
        return Resident(kind, info, fields, memory_bytes, stays_because)

    def why_it_is_busy(self, kind: ModelKind, info: WireInfo) -> Flow[str | None]:
        """Return why an instance is not idle; `None` if it is."""
        try:
            state = yield from get_processing_state(self._operation, kind, specifier_of_instance(info))
        except LMStudioModelNotFoundError:
            raise
        except _UNKNOWN:
            return "the server does not say whether it is idle"
        return None if state.status == "idle" and not state.queued else BUSY

    def _last_used(self, resident: Resident) -> float:
        """Return when an instance was used last. One that was never used counts as just loaded, if this process did."""
        used = resident.info.get("lastUsedTime")
        is_own = self._server_models.is_explicit(reference_of(resident.info))
        return float(used) if is_number(used) else math.inf if is_own else -math.inf

    def _capacity(self) -> Flow[tuple[int | None, tuple[str, ...]]]:
        """Return how large the memory is, if the server says it, and what it could not find out of the hardware."""
        if self.identifier is not None:  # a survey is of the server's own machine
            return None, ()
        try:
            survey = yield from survey_hardware(self._operation)
        except _UNKNOWN as error:
            logger.info("the server does not say how much memory it has: %s", error)
            return None, ()
        memory = survey.memory_bytes
        return memory if is_count(memory) else None, tuple(survey.problems)


def _take(wanted: Wanted, residents: Sequence[Resident]) -> Resident | None:
    """Return the instance that is loaded already for a model, if there is one; no plan evicts that."""
    for each in residents:
        is_of_model = each.kind == wanted.kind and each.model_key == wanted.model_key
        if is_of_model and each.stays_because != _PLANNED:
            each.stays_because = _PLANNED
            return each
    return None


def _as_loaded(wanted: Wanted, resident: Resident) -> PlannedModel:
    return PlannedModel(
        model_key=wanted.model_key,
        kind=wanted.kind,
        context_length=resident.context_length,
        slots=Wanted(resident.kind, resident.model_key, resident.fields).slots,
        memory_bytes=resident.memory_bytes,
        fit="loaded",
        basis="seen",
        requested_context_length=wanted.requested,
    )


# The plan of a user ---------------------------------------------------------------------------------------------------


def plan(
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
    downloaded = yield from list_downloaded_infos(operation)
    machine = Machine(operation, where, device, evict)  # now: a server that was not named is found by then
    here = [info for info in downloaded if info.get("deviceIdentifier") == where.get("deviceIdentifier")]
    known = [info for info in here if info.get("type") in LOAD_CONFIGS]
    wanted: list[Wanted] = []
    for item, name, config in items:
        try:
            wanted.append(_wanted(item, name, config, known))
        except LMStudioModelNotFoundError as error:
            wanted.append((yield from _wanted_by_other_name(operation, name, config, where, error)))
    plan, _ = yield from machine.plan(wanted)
    return plan


def parse_item(item: object) -> tuple[str, Any]:
    """Return the name and the load settings of a planned model: a pair of them, or `MODEL[:CONTEXT][@SLOTS]`.

    Raises:
        LMStudioValueError: If it is something else.
    """
    if isinstance(item, str) and (parts := re.fullmatch(_ITEM, item.strip())):
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
                f"{text!r} is no planned model; write MODEL[:CONTEXT][@SLOTS] with whole numbers above 0, "
                f"such as {stem}:32768@4"
            )
        display = {"code": "generic.pathNotFound", "path": name, "availablePathsSample": _keys(models)}
        title = f'Cannot find a model with the key or path "{name}"'
        error = to_exception({"title": title, "displayData": display}, "Memory plan")
        assert isinstance(error, LMStudioModelNotFoundError), "the code has this class"
        raise error
    kind: ModelKind = info["type"]
    if kind == "embedding" and text and "max_parallel_predictions" in config:
        raise LMStudioValueError(f"{text!r} is an embedding model, which has no slots; leave out @ and the number")
    fields = LOAD_CONFIGS[kind].parse(config).to_fields()
    return Wanted(kind, str(info["modelKey"]), fields, max_context_length(info))


def _keys(models: Sequence[WireInfo]) -> list[str]:
    """Return the keys of models, those of language models first."""
    return [str(each["modelKey"]) for each in sorted(models, key=lambda each: each["type"] != "llm")]


def on_another_device(error: LMStudioModelNotFoundError, device: str) -> LMStudioModelNotFoundError:
    """Return the error about a model that is not downloaded on one machine, if another one of the server has it."""
    whose = "LM Studio's own machine" if device == LOCAL else f"the linked device {device!r}"
    return add_suggestion(error, f"{whose} has it: pass device={device!r}")


def _wanted_by_other_name(
    operation: Operation,
    name: str,
    config: Any,
    device: OnDevice,
    unknown: LMStudioModelNotFoundError,
) -> Flow[Wanted]:
    """Return a model that the server knows by a name that its list does not have.

    Raises:
        LMStudioModelNotFoundError: If it knows none; it says which device has one, or which models the server has.
    """
    devices = yield from devices_with(operation, name)
    if devices:
        raise on_another_device(unknown, devices[0]) from None
    for kind, config_type in LOAD_CONFIGS.items():
        fields = config_type.parse(config).to_fields()
        with suppress(*_UNKNOWN):
            info = yield from look_up(operation, kind, name)
            if info.device_identifier == device.get("deviceIdentifier"):
                return Wanted(kind, info.model_key, fields, info.max_context_length)
        with suppress(*_UNKNOWN):
            yield from estimate_usage(operation, kind, name, stack_of_fields(fields), device)
            return Wanted(kind, name, fields)
    raise unknown


def _find(name: str, models: Sequence[WireInfo], *, partly: bool = True) -> WireInfo | None:
    """Return the model of this name, else the only one that has it as a part of its key, if that is enough."""
    with decode_errors("Model list"):
        named = next((info for info in models if matches(name, info)), None)
        keys = {str(info["modelKey"]): info for info in models}
    found = [info for key, info in keys.items() if partly and name.casefold() in key.casefold()]
    return found[0] if named is None and len(found) == 1 else named
