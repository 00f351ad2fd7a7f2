"""A model on several hosts: what is known of them, which one gets the next operation, and where a failed one goes."""

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from copy import copy

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.client.concurrency.flows import Flow, T
from lmstudio_integrations.client.hosts.host import Host, begin_load, begin_probes, first_probe
from lmstudio_integrations.client.models.model import ModelOperation, Retries, is_retryable
from lmstudio_integrations.client.models.state import ModelState
from lmstudio_integrations.client.transport.client_context import NO_TIMEOUTS, ClientContext
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioConfigMismatchError,
    LMStudioConfigWarning,
    LMStudioError,
    LMStudioTimeoutError,
)
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.types.config import DEFAULT_PARALLEL, total_of
from lmstudio_integrations.types.hosts import SAME_FILE, HostStatus, describe_values, differences_of
from lmstudio_integrations.types.results import PredictionResult


def choose(
    hosts: Sequence[HostStatus],
    *,
    cached: Sequence[int] = (),
    may_load: bool = True,
    excluded: Collection[int] = (),
) -> tuple[int, int | None]:
    """Choose the host of a call, and one on which the model is loaded meanwhile for later calls, by their numbers.

    Of the hosts that have the model loaded, one with a free slot gets the call; among equals, one that has not failed,
    then the one that has most of the conversation in its cache, then the one with the shortest queue, then the first.

    If no slot is free, the model is also loaded on another host that has it downloaded, unless others must go for it.
    If it is loaded nowhere, the call loads it: first where nothing must go. Hosts that are not available are chosen
    only if no other is left, and nothing is loaded there meanwhile.

    Args:
        hosts: The hosts, at least one of them not excluded.
        cached: For each host, how much of the conversation it has in its cache; by default nothing.
        may_load: Whether calls may load the model.
        excluded: Hosts that must not be chosen, by their numbers.
    """
    allowed = [number for number in range(len(hosts)) if number not in excluded]
    numbers = [number for number in allowed if hosts[number].available] or allowed

    def rank(number: int) -> tuple[bool, bool, int, float]:
        host = hosts[number]
        is_cached = cached[number] if cached else 0
        slots = host.parallel or DEFAULT_PARALLEL["llm"]
        return not host.has_free_slot, host.has_failed, -is_cached, host.in_flight / slots

    numbers.sort(key=rank)
    loaded = [number for number in numbers if hosts[number].loaded]
    loading = [number for number in numbers if hosts[number].loading and not hosts[number].loaded]
    if any(hosts[number].has_free_slot for number in (*loaded, *loading)) or not may_load:
        return (loaded or loading or numbers)[0], None
    loadable = [number for number in numbers if hosts[number].downloaded and number not in (*loaded, *loading)]
    roomy = [number for number in loadable if not hosts[number].lacks_room]
    if loaded:
        return loaded[0], next((number for number in roomy if hosts[number].available), None)
    return (roomy or loading or loadable or numbers)[0], None


class Hosts:
    """A model on several hosts. Thread-safe.

    Args:
        hosts: The hosts, in the order in which they are preferred. Their contexts do not retry; the operations do.
        max_retries: How often an operation is tried again after it has failed on every host.
    """

    def __init__(self, hosts: Sequence[Host], max_retries: int = 0) -> None:
        self.hosts: list[Host] = list(hosts)
        self.max_retries: int = max_retries

    def with_context(self, change: Callable[[ClientContext], ClientContext]) -> "Hosts":
        """Return the same hosts, called in another way."""
        return Hosts([Host(host.model.with_context(change)) for host in self.hosts], self.max_retries)

    @property
    def context(self) -> ClientContext:
        """Makes the calls that concern no host in particular."""
        return self.hosts[0].model.context

    def refresh(self) -> Flow[list[HostStatus]]:
        """Ask all hosts what they have; return what is known of each."""
        yield from self.probe(again=True)
        return self.statuses()

    def probe(self, *, of_all: bool = False, again: bool = False) -> Flow[None]:
        """Wait until the hosts were asked what they have: until one has a free slot, or until all have responded.

        Only the first operations wait. Hosts that were asked a while ago are asked again in the background.

        Args:
            of_all: Whether to wait for the first response of every host.
            again: Whether to ask all hosts now, and to wait for them.
        """
        unknown = [host for host in self.hosts if again or not host.record.is_known]

        def is_enough() -> bool:
            has_free_slot = any(status.loaded and status.has_free_slot for status in self.statuses())
            return has_free_slot and not (of_all or again)

        if unknown and not is_enough():
            yield from self.context.run_task(lambda: first_probe(unknown, is_enough))
        due = [host for host in self.hosts if host.record.is_due]
        if due:
            self.context.submit(begin_probes, due)

    def statuses(self) -> list[HostStatus]:
        """Return what is known of each host."""
        return [host.status() for host in self.hosts]

    @property
    def slots(self) -> list[int | None]:
        """How many calls each host runs at once, as far as it is known; hosts that cannot run any do not count."""
        known = [host.record.is_known for host in self.hosts]  # before what they have: never newer
        statuses = self.statuses()
        usable = [status for status, is_known in zip(statuses, known, strict=True) if status.downloaded or not is_known]
        return [status.parallel for status in usable or statuses]

    @property
    def parallel(self) -> int | None:
        """How many calls the hosts run at once; `None` if that is not known of one of them."""
        return total_of(self.slots)

    @property
    def context_length(self) -> int | None:
        """The smallest context length of the loaded instances, in tokens, if any is known."""
        return min((status.context_length for status in self.statuses() if status.context_length), default=None)

    def reserve(
        self, hosts: Sequence[Host], excluded: Collection[int], call: object, conversation: Sequence[int] = ()
    ) -> int | None:
        """Choose a host for a call and take a slot there; start a load elsewhere if no slot is free.

        Return the number of the host, or `None` if no slot is free and some hosts were not asked yet.

        Args:
            hosts: The hosts to choose from.
            excluded: The numbers of those that the call has tried.
            call: Stands for the call.
            conversation: What stands for its prompt; see `conversation_of`.
        """
        may_load = hosts[0].model.state.policy != "require_loaded"
        while True:
            # Before what they have: whether all were asked must not be newer than what is known of them.
            all_known = all(host.record.is_known for host in hosts)
            statuses = [host.status() for host in hosts]
            self.compare(statuses)
            cached = [host.record.cached_parts(conversation) for host in hosts]
            number, load = choose(statuses, cached=cached, may_load=may_load, excluded=excluded)
            host, status = hosts[number], statuses[number]
            if not (all_known or (status.loaded and status.has_free_slot)):
                return None
            if not host.record.reserve(call, status.parallel if status.has_free_slot else None):
                continue  # another thread was faster
            if may_load and not status.loaded:
                host.record.loads[call] = call
            if load is not None:
                self._begin_load(hosts[load])
            return number

    def _begin_load(self, host: Host) -> None:
        """Load the model on a host in the background; from now on its record says so."""
        try:
            host.record.loads[host] = None
            self.context.submit(begin_load, host)
        except BaseException:  # raised into this thread from outside
            host.record.loads.pop(host, None)
            raise

    def compare(self, statuses: Sequence[HostStatus]) -> None:
        """Warn once if the hosts have loaded different files of the model, or with different context lengths.

        Raises:
            LMStudioConfigMismatchError: If a mismatch is to raise, or their vectors have different lengths.
        """
        differences, model = differences_of(statuses), self.hosts[0].model
        reaction = "raise" if "dimensions" in differences else model.state.on_config_mismatch
        if not differences or reaction == "ignore":
            return
        described = {name: describe_values(by_host) for name, by_host in differences.items()}
        listed = "; ".join(f"{name} ({values})" for name, values in described.items())
        remedy = SAME_FILE[model.state.kind]
        if "dimensions" not in differences:
            remedy += ", or set on_config_mismatch='ignore'"
        text = f"the hosts have {model.state.name!r} loaded differently: {listed}; {remedy}"
        if reaction == "raise":
            raise LMStudioConfigMismatchError(
                text, differences={name: (values, values) for name, values in described.items()}
            )
        model.server_models.warn_once(text, text, LMStudioConfigWarning)


class FailoverOperation(ModelOperation):
    """One operation on a model on several hosts: an attempt that fails on one host moves to another.

    A model that was unloaded is loaded again on the same host. The slot there is released when the operation ends, at
    the latest when this object is collected.

    Args:
        hosts: All hosts.
        candidates: Those that the operation may run on.
        timeouts: Timeouts that differ from the clients'.
        reload: See `ModelOperation`.
        conversation: What stands for the conversation after each of its parts, if the operation goes on with one.
    """

    def __init__(
        self,
        hosts: Hosts,
        candidates: Sequence[Host],
        timeouts: Timeouts = NO_TIMEOUTS,
        *,
        reload: bool = True,
        conversation: Sequence[int] = (),
    ) -> None:
        self._is_placed = False
        """Whether the attempt has reserved its place on a host."""
        first = candidates[0].model
        super().__init__(first.context, first.state, timeouts, reload=reload)
        self._all = hosts
        self._call = object()
        """Stands for this object in the records, which must not keep it from being collected."""
        self._hosts = candidates
        self._number = 0
        self._conversation = conversation
        self._errors: dict[int, LMStudioError] = {}
        self._retries_of_all = Retries(hosts.max_retries)
        self._all_started_at: float | None = None
        """When the first of the attempts that share the total timeout began."""

    def run(self, work: Callable[[Operation], Flow[T]]) -> Flow[T]:
        """Return what `work` returns in the first attempt that succeeds, on any host."""
        try:
            result = yield from super().run(work)
        except LMStudioError as error:
            self.release()
            raise self.final_error(error)  # noqa: B904 - it has its cause
        except BaseException:
            self.release()
            raise
        self.record_success()
        return result

    def next_attempt(self) -> Flow[None]:
        """Begin the next attempt, on the best host. All until a retry share the total timeout."""
        if not self._is_placed:
            delay, self._delay = self._delay, None
            if delay:
                yield from self.context.pause(delay)
            if self._all_started_at is None:
                self._all_started_at = time.monotonic()
            number = None
            while number is None:
                yield from self._all.probe()
                number = self._all.reserve(self._hosts, self._errors, self._call, self._conversation)
            self._number, self._is_placed = number, True
            model = self._hosts[self._number].model
            # Another device of the same server is no other host: it stops responding as well.
            used = {*self._errors, *self._beside()}
            self.state: ModelState = model.state
            self.context: ClientContext = model.context.child(
                self._all_started_at, self.listener, can_fail_over=len(used) < len(self._hosts)
            )
            self.listener.on_attempt(self.context.target, self.state.key)
        yield from super().next_attempt()

    def _beside(self) -> list[int]:
        """Return the numbers of the hosts at the address of the attempt: devices of one server, and its own."""
        address = self._hosts[self._number].address
        return [number for number, host in enumerate(self._hosts) if host.address == address]

    def should_retry(self, error: LMStudioError, *, seen: bool = False) -> bool:
        """Record that the attempt has failed; return whether another one follows, on this host or on another."""
        if super().should_retry(error, seen=seen):
            return True
        delay = self._delay_after(error, seen=seen) if self._is_placed else None
        if delay is None:
            return False
        self.listener.on_retry(error)
        self.release()
        self._delay, self._is_reload = delay, False
        self.is_running: bool = False
        return True

    def _delay_after(self, error: LMStudioError, *, seen: bool) -> float | None:
        """Record a failure of the host; return the seconds until the next attempt, `None` if there is none."""
        # A server that does not respond, or rejects the token, does so for all of its devices.
        is_of_host = is_retryable(error) or isinstance(error, LMStudioAuthenticationError)
        failed = self._beside() if is_of_host else [self._number]
        records = [self._hosts[number].record for number in failed]
        may_move = [record.record_error(error, had_all_the_time=not self._errors) for record in records]
        if seen or not all(may_move):
            return None
        self._errors.update(dict.fromkeys(failed, error))
        if len(self._errors) < len(self._hosts):
            return 0.0
        delay = self._retries_of_all.next_delay(error) if is_retryable(error) else None
        if delay is not None:
            self._errors, self._all_started_at = {}, None
        return delay

    def record_success(self, result: PredictionResult | None = None) -> None:
        """Record that the host has responded, and has the conversation now; release its slot."""
        host, is_running = self._hosts[self._number], self._is_placed
        self.release()
        if not is_running or host.model.state.instance is None:  # images were uploaded, before any use of the model
            return
        host.record.record_success(() if result is None else self._conversation)
        if host.model.state.kind == "embedding":  # the length of its vectors may be known only now
            self._all.compare(self._all.statuses())

    def release(self) -> None:
        """Release the slot, if there is one. May be called by finalizers.

        Nothing is taken for granted: an exception may have been raised into the thread that took the slot before that
        was noted here, or into one that began to release it.
        """
        self._is_placed = False
        for host in self._hosts:
            host.record.release(self._call)

    def __del__(self) -> None:
        if hasattr(self, "_hosts"):
            self.release()

    def final_error(self, error: LMStudioError) -> LMStudioError:
        """Return the error of the operation; if all hosts failed, it has the reason of each."""
        # The instances of a host that does not respond have one error.
        failed = {id(each): (self._hosts[number], each) for number, each in reversed(self._errors.items())}
        if len(failed) < 2 or error not in self._errors.values():
            return error
        combined = copy(min(self._errors.values(), key=_helpfulness))
        texts = [f"{host.name}: {one_line(each)}" for host, each in reversed(failed.values())]
        combined.args = ("\n  ".join([f"all {len(failed)} hosts failed:", *_with_common_remedies(texts)]),)
        combined.__cause__ = error
        return combined


def _with_common_remedies(texts: Sequence[str]) -> list[str]:
    """Return errors of hosts, one on a line; what helps several of them is said once, at the end."""
    clauses = [text.split("; ") for text in texts]
    counts = Counter(_PORT.sub("", remedy) for _, *remedies in clauses for remedy in {*remedies})
    lines, common = list[str](), dict[str, str]()
    for reason, *remedies in clauses:
        own = [remedy for remedy in remedies if counts[_PORT.sub("", remedy)] == 1]
        common = {_PORT.sub("", remedy): remedy for remedy in remedies if remedy not in own} | common
        lines.append("; ".join([reason, *own]))
    return [*lines, f"suggestion: {'; '.join(common.values())}"] if common else lines


_PORT = re.compile(r":\d+")
"""In what helps, only the ports of hosts on one machine differ."""


def _helpfulness(error: LMStudioError) -> tuple[bool, bool]:
    """Order the errors of several hosts: what one has responded, that one has not, that one is switched off."""
    return is_retryable(error), isinstance(error, LMStudioTimeoutError)
