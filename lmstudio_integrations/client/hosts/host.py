"""What is known of a model on a host: remembered from calls and from probes, which also load the model there.

Probes are rare. They and the loads run on the I/O thread, and nobody waits for them but the first call on a host.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import lmstudio_integrations as lms
from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations._support.text import one_line
from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.client.concurrency.flows import Flow, arun
from lmstudio_integrations.client.concurrency.io_thread import on_io_thread
from lmstudio_integrations.client.models.loading import Loader
from lmstudio_integrations.client.models.model import Model, is_retryable
from lmstudio_integrations.client.models.queries import get_load_config
from lmstudio_integrations.client.models.state import (
    ModelState,
    matches,
    reference_of,
    specifier_of_instance,
)
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioClientClosedError,
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioTimeoutError,
)
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint
from lmstudio_integrations.types.config import DEFAULT_PARALLEL, slots_of
from lmstudio_integrations.types.hosts import HostStatus

logger: logging.Logger = logging.getLogger(__name__)

REFRESH = 30.0
"""Seconds after which a host is asked again, when a call comes."""

ABSENCE = 10.0
"""Seconds after which a host that failed is."""

_PROBE_TIMEOUT = 10.0
"""Seconds for each response of a probe, if the calls have not less."""

_MOST_PROMPTS = 512
"""The prompts that are remembered for each model on each host."""

_HERE_ONLY = (
    LMStudioModelNotFoundError,
    LMStudioModelLoadError,
    LMStudioInsufficientResourcesError,
    LMStudioAuthenticationError,
)
"""Errors of one host that another host need not have."""


@dataclass(slots=True, eq=False)
class HostRecord:
    """What this process knows of a model on a host.

    Any thread changes it, each attribute or dict with one operation, which is atomic with and without the GIL. Of two
    that read an attribute and then change it, the last one counts.

    Attributes:
        nothing: The status of a host that is not known to have anything of the model.
        found: What it was last found to have; replaced as a whole, because any thread reads it meanwhile.
        reference: The reference of the loaded instance, if there is one.
        prompts: What stands for the conversations in its prompt cache: hashes, and no text.
        calls: The calls that run or wait there, by the number of their slot; those without a slot by themselves.
        loads: The calls and background loads that load the model.
        checked_at: When the host was last asked successfully, or failed; `-math.inf` before.
        has_failed: Whether it has failed since a call last got a response.
        probe: The running probe; only the I/O thread uses it.
    """

    nothing: HostStatus
    found: HostStatus = field(init=False)
    reference: str | None = None
    prompts: BoundedCache[int, bool] = field(default_factory=lambda: BoundedCache[int, bool](_MOST_PROMPTS))
    calls: dict[Hashable, object] = field(default_factory=dict[Hashable, object])
    loads: dict[object, object] = field(default_factory=dict[object, object])
    checked_at: float = -math.inf
    has_failed: bool = False
    probe: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        self.found = self.nothing

    @property
    def is_known(self) -> bool:
        """Whether the host was ever asked."""
        return self.checked_at > -math.inf

    @property
    def is_due(self) -> bool:
        """Whether the host is to be asked again."""
        pause = REFRESH if self.found.available else ABSENCE
        return self.probe is None and time.monotonic() >= self.checked_at + pause

    def reserve(self, call: object, limit: int | None) -> bool:
        """Take a free slot for a call, and return whether there was one; without a limit, let the call wait there."""
        if limit is None:
            self.calls[call] = call
            return True
        # `setdefault` is one step: two threads never get the same slot.
        return any(self.calls.setdefault(slot, call) is call for slot in range(limit))

    def release(self, call: object) -> None:
        """Release what a call has reserved, and its load."""
        for slot, reserved_by in self.calls.copy().items():  # one step, as other threads reserve, too
            if reserved_by is call:
                self.calls.pop(slot, None)
        self.loads.pop(call, None)

    def cached_parts(self, conversation: Sequence[int]) -> int:
        """Return how much of a conversation it has in its prompt cache."""
        return max((at for at, key in enumerate(conversation, start=1) if self.prompts.get(key)), default=0)

    def record_probe(self, found: HostStatus, reference: str | None = None) -> None:
        """Record what a probe found. A host that responds to it may still respond to no call."""
        if self.reference is not None and reference != self.reference:  # it was unloaded
            self.prompts.pop_all()
        self.found, self.reference = found, reference
        self.checked_at = time.monotonic()

    def record_success(self, conversation: Sequence[int] = ()) -> None:
        """Record that a call got a response. If it has loaded the model, the next call asks what was loaded."""
        self.has_failed = False
        if not self.found.loaded:
            self.found = replace(self.nothing, loaded=True, downloaded=True)
            self.checked_at = time.monotonic() - REFRESH
        if conversation:
            self.prompts.put(conversation[-1], value=True)

    def record_failure(self, error: LMStudioError, *, responds: bool = False) -> None:
        """Leave the host out for a while; load nothing there if it responds, but cannot load or find the model."""
        self.has_failed = self.has_failed or not responds
        self.prompts.pop_all()
        self.found, self.reference = replace(self.nothing, available=responds, error=one_line(error)), None
        self.checked_at = time.monotonic()

    def record_error(self, error: LMStudioError, *, had_all_the_time: bool = True) -> bool:
        """Record why a call failed; return whether another host may be tried.

        Args:
            error: The failure.
            had_all_the_time: Whether the host had all of the total timeout, and not what other hosts had left of it.
        """
        timeout = error if isinstance(error, LMStudioTimeoutError) else None
        name = timeout and timeout.timeout_name
        if isinstance(error, _HERE_ONLY) or name == "load_timeout":
            self.record_failure(error, responds=True)
            return True
        if is_retryable(error) or name in {"queue_timeout", "first_token_timeout"}:
            self.record_failure(error)
            return True
        # By its total timeout, a host that has responded, or has not had all the time, has not failed.
        is_used_up = name == "total_timeout" and had_all_the_time
        if timeout and (name == "idle_timeout" or (is_used_up and timeout.unanswered)):
            self.record_failure(error)
        return False


class HostRecords(dict[Hashable, HostRecord]):
    """The records of one host. One object per host, new after a fork."""


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
        """What is known of it, shared by all objects of this process that have the token: a host may reject one."""
        context, state = self.model.context, self.model.state
        records, key = context.shared(HostRecords), (state.kind, state.key, state.device, context.target.token)
        if key not in records:
            nothing = HostStatus(host=self.address, device=state.device, parallel=DEFAULT_PARALLEL[state.kind])
            records.setdefault(key, HostRecord(nothing))
        return records[key]

    def status(self) -> HostStatus:
        """Return what is known of it."""
        record, instance = self.record, self.model.state.instance
        found, reference = record.found, record.reference
        # A call that loads the model has adopted the instance before it ends.
        loaded = found.loaded or (bool(record.loads) and instance is not None)
        is_new = reference is not None and instance is not None and reference != instance.reference
        return replace(
            found,
            host=self.address,  # a server that was not named is found with the first call
            evictions=_evictions(self.model.context),
            has_failed=record.has_failed,
            loaded=loaded,
            loading=bool(record.loads) and not loaded,
            downloaded=loaded or found.downloaded,
            in_flight=len(record.calls),
            # Of a host that is lost as well, because the program has its vectors; not of an instance that is new there.
            dimensions=None if instance is None or is_new else instance.dimensions,
        )


_PLANS = "plans of what fits into the memory"


def _evictions(context: ClientContext) -> "tuple[lms.Eviction, ...]":
    """Return what the policy `fit` has evicted on a server; nothing in a copy that is without plans."""
    try:
        with door(_PLANS):
            from lmstudio_integrations.client.models.seen_memory import SeenMemory  # noqa: PLC0415 - a leaf
    except MissingLeafError:
        return ()
    return tuple(SeenMemory.of(context).evictions.copy())  # in one step


def _lacks_room(operation: Operation, state: ModelState) -> Flow[bool]:
    """Whether the policy `fit` would have to evict others before it loads a model."""
    with door(_PLANS):
        from lmstudio_integrations.client.models.fitting import Fit  # noqa: PLC0415 - a leaf
    return (yield from Fit(Loader(operation, state)).lacks_room())


def conversation_of(prompt: PromptFingerprint) -> list[int]:
    """Return what stands for a conversation after each of its parts; nothing for what many conversations begin with."""
    chain = list(accumulate(prompt.parts, lambda before, part: hash((before, part)), initial=0))
    return chain[prompt.fixed + 1 :]


# On the I/O thread --------------------------------------------------------------------------------------------------


@on_io_thread
def begin_probes(hosts: "list[Host]") -> None:
    """Ask hosts what they have, in the background; a host that is being asked is not asked twice."""
    for host in hosts:
        _probe_of(host)


@on_io_thread
def begin_load(host: Host) -> None:
    """Load the model on a host in the background; its record has the host as one of its loads."""
    host.record.loads[host] = asyncio.get_running_loop().create_task(_load(host))


async def first_probe(hosts: "list[Host]", is_enough: Callable[[], bool]) -> None:
    """Ask hosts what they have, until enough of them have responded, or all have responded or failed."""
    pending = {_probe_of(host) for host in hosts}
    while pending and not is_enough():
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)


def _probe_of(host: Host) -> "asyncio.Task[None]":
    record = host.record
    if record.probe is None:
        record.probe = asyncio.get_running_loop().create_task(_probe(host))
    return record.probe


async def _probe(host: Host) -> None:
    record = host.record
    context = host.model.context.in_background()
    idle_timeout = context.timeouts.get("idle_timeout")
    limit = _PROBE_TIMEOUT if idle_timeout is None else min(idle_timeout, _PROBE_TIMEOUT)
    try:
        operation = Operation(context, {"idle_timeout": limit})
        record.record_probe(*(await arun(_find(operation, host.model.state, record.nothing))))
    except LMStudioClientClosedError:  # nobody will use what it finds
        pass
    except LMStudioError as error:
        logger.info("%s does not respond: %s", host.name, error)
        record.record_failure(error)
    finally:
        record.probe = None


def _find(operation: Operation, state: ModelState, nothing: HostStatus) -> Flow[tuple[HostStatus, str | None]]:
    """Return what a host has of a model, and the reference of the instance.

    An instance of `new_instance` counts only if the handle has loaded it.
    """
    info = yield from Loader(operation, state).find_loaded()
    is_own = state.instance is not None and info is not None and info["identifier"] == state.instance.identifier
    if info is None or (state.policy == "new_instance" and not is_own):
        downloaded = yield from operation.call(
            "system",
            "listDownloadedModels",
            None,
            lambda infos: any(info.get("type") == state.kind and matches(state.key or "", info) for info in infos),
            label="Model list",
        )
        is_full = downloaded and state.fits and (yield from _lacks_room(operation, state))
        return replace(nothing, downloaded=downloaded, lacks_room=is_full), None
    fields = yield from get_load_config(operation, state.kind, specifier_of_instance(info))
    length, quantization = info.get("contextLength"), info.get("quantization")
    found = replace(
        nothing,
        device=nothing.device or info.get("deviceIdentifier"),
        identifier=info["identifier"],
        loaded=True,
        downloaded=True,
        parallel=slots_of(state.kind, fields),
        context_length=length if is_count(length) else None,
        path=info.get("path"),
        quantization=quantization.get("name") if is_object(quantization) else None,
    )
    return found, reference_of(info)


async def _load(host: Host) -> None:
    """Load the model with a state of its own: the user's callbacks must not run on this thread."""
    record, own = host.record, host.model.state
    state = replace(own, on_load_progress=None, show_progress=False, on_config_mismatch="ignore", running_loads={})
    try:
        if own.fits:
            await _probe_of(host)  # what was free may be taken by now
            if record.found.lacks_room:
                return
        await arun(Model(host.model.context.in_background(), state).load())
    except LMStudioClientClosedError:
        pass
    except LMStudioError as error:
        logger.info("%r could not be loaded on %s: %s", own.name, host.name, error)
        record.record_failure(error, responds=True)
    else:
        own.loaded_here = state.loaded_here or own.loaded_here
        if own.policy == "new_instance":  # no call would find it by the key of the model
            own.instance = state.instance
        await _probe(host)
    finally:
        record.loads.pop(host, None)
