"""Probes what a host has of a model, rarely and in the background, and remembers it; loads the model there.

`hosts.py` and `failover.py` read and complete it. The probes and the loads here run on the I/O thread, and nobody waits
for them but the first call on a host.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.client.hosts.prompt_index import PromptIndex
from lmstudio_integrations.client.models.loading import Loader
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.planning import SeenMemory
from lmstudio_integrations.client.models.queries import get_load_config, list_wire_infos
from lmstudio_integrations.client.models.state import (
    ModelState,
    WireInfo,
    matches,
    reference_of,
    specifier_of_instance,
)
from lmstudio_integrations.client.transport.flows import Flow, arun
from lmstudio_integrations.client.transport.io_thread import on_io_thread
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioClientClosedError, LMStudioError
from lmstudio_integrations.types.hosts import DEFAULT_PARALLEL, PARALLEL_KEY, HostStatus, parallel_of

logger: logging.Logger = logging.getLogger(__name__)

REFRESH = 30.0
"""Seconds after which a host is asked again, when a call comes."""

FIRST_ABSENCE, LONGEST_ABSENCE = 5.0, 60.0
"""Seconds for which a host that failed is left out; doubled with each failure until a call gets a response, up to the
longest."""

_PROBE_TIMEOUT = 10.0
"""Seconds for each response of a probe, if the calls have not less."""


class _ProbeResult(NamedTuple):
    """What a probe found on a host: the loaded instance, its parallel calls, whether the model is downloaded.

    If it is not loaded, also whether a load under `fit` would evict others.
    """

    info: WireInfo | None
    parallel: int | None
    downloaded: bool
    lacks_room: bool = False


@dataclass(slots=True, eq=False)
class HostRecord:
    """What this process knows of a model on a host.

    Any thread changes it, each attribute or dict with one operation, which is atomic with and without the GIL. Of two
    that read an attribute and then change it, the last one counts.

    Attributes:
        calls: The calls that run or wait there, by the number of their slot; those without a slot by themselves.
        checked_at: When the host was last asked successfully, or failed; `-math.inf` before.
        retry_at: When a host that failed is asked again.
        absence: For how many seconds it was last left out; 0 since a call got a response.
        responded_at: When a call last got a response; `-math.inf` before.
        error: The last failure; `None` if the host responds.
        load_error: Why the model could not be loaded or found there; no call loads it until the host is asked again.
        loads: The calls and background loads that load the model.
        loaded: Whether the model is loaded.
        info: The loaded instance in wire form, if there is one.
        parallel: How many calls it runs at once, if it reported that.
        downloaded: Whether the model can be loaded.
        lacks_room: Whether that would evict others.
        prompt_index: The prompts that it has in its cache.
        probe: The running probe; only the I/O thread uses it.
    """

    calls: dict[Hashable, object] = field(default_factory=dict[Hashable, object])
    checked_at: float = -math.inf
    retry_at: float = -math.inf
    absence: float = 0.0
    responded_at: float = -math.inf
    error: str | None = None
    load_error: str | None = None
    loads: dict[object, None] = field(default_factory=dict[object, None])
    loaded: bool = False
    info: WireInfo | None = None
    parallel: int | None = None
    downloaded: bool = False
    lacks_room: bool = False
    prompt_index: PromptIndex = field(default_factory=PromptIndex)
    probe: "asyncio.Task[None] | None" = None

    @property
    def is_known(self) -> bool:
        """Whether the host was ever asked."""
        return self.checked_at > -math.inf

    def is_due(self, now: float) -> bool:
        """Whether the host is to be asked again."""
        return self.probe is None and now >= (self.retry_at if self.error else self.checked_at + REFRESH)

    def reserve(self, call: object, limit: int | None) -> Hashable | None:
        """Take a free slot for a call; without a limit, take none and wait on the host. Return what `release` takes."""
        if limit is None:
            self.calls[call] = call
            return call
        # `setdefault` is one step: two threads never get the same slot.
        return next((slot for slot in range(limit) if self.calls.setdefault(slot, call) is call), None)

    def release(self, slot: Hashable, call: object) -> None:
        """Release what a call has reserved, and its load."""
        self.calls.pop(slot, None)
        self.loads.pop(call, None)

    def record_failure(self, error: LMStudioError) -> None:
        """Leave the host out for a while: it does not respond."""
        self.loaded, self.info = False, None
        self.prompt_index.clear()
        self.error = one_line(error)
        self.checked_at = now = time.monotonic()
        if now >= self.retry_at:  # calls that fail together count once
            self.absence = min(2.0 * self.absence or FIRST_ABSENCE, LONGEST_ABSENCE)
            self.retry_at = now + self.absence

    def record_load_failure(self, error: LMStudioError) -> None:
        """Load nothing on the host for a while: it responds, but it cannot load or find the model."""
        self.loaded, self.info, self.downloaded = False, None, False
        self.prompt_index.clear()
        self.load_error = one_line(error)
        self.checked_at = time.monotonic()

    def record_success(self) -> None:
        """Record that a call got a response. If it has loaded the model, the next call asks what was loaded."""
        self.absence, self.retry_at, self.error, self.load_error = 0.0, -math.inf, None, None
        self.loaded = True
        self.responded_at = time.monotonic()
        if self.info is None:
            self.checked_at = self.responded_at - REFRESH

    def record_probe(self, result: _ProbeResult) -> None:
        """Record what a probe found. A host that responds to it may still respond to no call."""
        if self.info is not None and (result.info is None or reference_of(result.info) != reference_of(self.info)):
            self.prompt_index.clear()  # it was unloaded
        # Other threads read meanwhile: whoever sees that it is loaded sees how many calls it runs at once.
        self.loaded = self.loaded and result.info is not None
        self.info, self.parallel, self.lacks_room = result.info, result.parallel, result.lacks_room
        self.loaded, self.downloaded = result.info is not None, result.downloaded
        self.error, self.load_error = None, None
        self.checked_at = time.monotonic()


class HostRecords:
    """The records of one host. One object per host, new after a fork."""

    def __init__(self) -> None:
        self._records: dict[Hashable, HostRecord] = {}

    def of(self, *key: Hashable) -> HostRecord:
        """Return the record of an instance, by all that tells it from others, and the token: a host may reject one."""
        return self._records.get(key) or self._records.setdefault(key, HostRecord())


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """A model on one host."""

    model: Model

    @property
    def name(self) -> str:
        """The address of the host, for people, with its device."""
        device = self.model.state.device
        return f"{self.address} ({device})" if device else self.address

    @property
    def address(self) -> str:
        """The address of the host, for people."""
        return str(self.model.context.target)

    @property
    def record(self) -> HostRecord:
        """What is known of it, shared by all objects of this process."""
        context, state = self.model.context, self.model.state
        return context.shared(HostRecords).of(state.kind, state.key, state.device, context.target.token)

    def unload(self) -> Flow[None]:
        """Unload the instance, if there is one; the handle does not load it again automatically."""
        state = self.model.state
        state.unloaded_by_user = True
        if not self.status().loaded:
            return
        yield from self.model.unload()
        self.record.loaded, self.record.info = False, None

    def status(self) -> HostStatus:
        """Return what is known of it."""
        record, info, instance = self.record, self.record.info, self.model.state.instance
        # A call that loads the model has adopted the instance before it ends.
        loaded = record.loaded or (bool(record.loads) and instance is not None)
        known = info or {}
        context_length = known.get("contextLength")
        quantization = known.get("quantization")
        is_new = bool(known) and instance is not None and reference_of(known) != instance.reference
        return HostStatus(
            host=self.address,
            device=self.model.state.device or known.get("deviceIdentifier"),
            evictions=tuple(SeenMemory.of(self.model.context).evictions.copy()),  # in one step
            identifier=known.get("identifier"),
            available=record.error is None,
            error=record.error or record.load_error,
            loaded=loaded,
            loading=bool(record.loads) and not loaded,
            downloaded=loaded or record.downloaded,
            lacks_room=record.lacks_room,
            in_flight=len(record.calls),
            parallel=record.parallel or DEFAULT_PARALLEL[self.model.state.kind],
            conversations=record.prompt_index.active(),
            call_seconds=record.prompt_index.call_seconds,
            responded_at=record.responded_at,
            context_length=context_length if is_count(context_length) else None,
            path=known.get("path"),
            quantization=quantization.get("name") if is_object(quantization) else None,
            # Of a host that is lost as well, because the program has its vectors; not of an instance that is new there.
            dimensions=None if instance is None or is_new else instance.dimensions,
        )


# On the I/O thread --------------------------------------------------------------------------------------------------


@on_io_thread
def begin_probes(hosts: "list[Host]") -> None:
    """Ask hosts what they have, in the background; a host that is being asked is not asked twice."""
    for host in hosts:
        _probe_of(host)


@on_io_thread
def begin_load(host: Host) -> None:
    """Load the model on a host in the background; its record has the host as one of its loads."""
    _begin(host, _load(host))


async def first_probe(hosts: "list[Host]", is_enough: Callable[[], bool]) -> None:
    """Ask hosts what they have, until enough of them have responded, or all have responded or failed."""
    pending = {_probe_of(host) for host in hosts}
    while pending and not is_enough():
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)


def _probe_of(host: Host) -> "asyncio.Task[None]":
    record = host.record
    if record.probe is None:
        record.probe = _begin(host, _probe(host))
    return record.probe


_tasks: "set[asyncio.Task[None]]" = set()
"""What runs in the background: an event loop keeps only weak references."""


def _begin(host: Host, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    task = asyncio.get_running_loop().create_task(work, name=f"lmstudio-host-{host.name}")
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def _probe(host: Host) -> None:
    record = host.record
    context = host.model.context.in_background()
    idle_timeout = context.timeouts.get("idle_timeout")
    limit = _PROBE_TIMEOUT if idle_timeout is None else min(idle_timeout, _PROBE_TIMEOUT)
    try:
        record.record_probe(await arun(_find(Operation(context, {"idle_timeout": limit}), host.model.state)))
    except LMStudioClientClosedError:  # nobody will use what it finds
        pass
    except LMStudioError as error:
        logger.info("%s does not respond: %s", host.name, error)
        record.record_failure(error)
    finally:
        record.probe = None


def _find(operation: Operation, state: ModelState) -> Flow[_ProbeResult]:
    """Return what a host has of a model. An instance of `new_instance` counts only if the handle has loaded it."""
    if state.key is None:  # any loaded model
        info = next(iter((yield from list_wire_infos(operation, state.kind))), None)
    else:
        info = yield from Loader(operation, state).find_loaded()
    if state.policy == "new_instance" and info is not None:
        info = info if state.instance is not None and info["identifier"] == state.instance.identifier else None
    if info is None:
        downloaded = yield from _is_downloaded(operation, state)
        lacks_room = downloaded and state.policy == "fit" and (yield from Loader(operation, state).lacks_room())
        return _ProbeResult(None, None, downloaded, lacks_room)
    fields = yield from get_load_config(operation, state.kind, specifier_of_instance(info))
    return _ProbeResult(info, parallel_of(fields.get(PARALLEL_KEY)), downloaded=True)


def _is_downloaded(operation: Operation, state: ModelState) -> Flow[bool]:
    def read(infos: Any) -> bool:
        return any(info.get("type") == state.kind and matches(state.key, info) for info in infos)

    return (yield from operation.call("system", "listDownloadedModels", None, read, label="Model list"))


async def _load(host: Host) -> None:
    """Load the model with a state of its own: the user's callbacks must not run on this thread."""
    record, own = host.record, host.model.state
    state = replace(own, on_load_progress=None, show_progress=False, on_config_mismatch="ignore", running_loads={})
    try:
        if own.policy == "fit":
            await _probe_of(host)  # what was free may be taken by now
            if record.lacks_room:
                return
        await arun(Model(host.model.context.in_background(), state).load())
    except LMStudioClientClosedError:
        pass
    except LMStudioError as error:
        logger.info("%r could not be loaded on %s: %s", own.name, host.name, error)
        record.record_load_failure(error)
    else:
        own.loaded_here = state.loaded_here or own.loaded_here
        if own.policy == "new_instance":  # no call would find it by the key of the model
            own.instance = state.instance
        await _probe(host)
    finally:
        record.loads.pop(host, None)
