"""Failover of one operation over several hosts: where it runs, where it has failed, and where it goes next."""

import time
from collections.abc import Hashable, Sequence
from copy import copy

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.client.hosts.host import Host, HostRecord
from lmstudio_integrations.client.hosts.hosts import Hosts
from lmstudio_integrations.client.models.attempts import Attempts, Retries, is_retryable
from lmstudio_integrations.client.models.state import ModelState
from lmstudio_integrations.client.transport.client_context import NO_TIMEOUTS, ClientContext
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioTimeoutError,
)
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.prompt_fingerprint import FingerprintMaker, PromptFingerprint
from lmstudio_integrations.types.results import PredictionResult

_HERE_ONLY = (
    LMStudioModelNotFoundError,
    LMStudioModelLoadError,
    LMStudioInsufficientResourcesError,
    LMStudioAuthenticationError,
)
"""Errors of one host that another host need not have."""


class FailoverAttempts(Attempts):
    """The attempts of one operation on several hosts: an attempt that fails on one host moves to another.

    A model that was unloaded is loaded again on the same host.

    Args:
        hosts: All hosts.
        candidates: Those that the operation may run on.
        timeouts: Timeouts that differ from the clients'.
        reload: See `Attempts`.
        fingerprint: Makes the fingerprint of the prompt, if the operation goes on with a conversation.
    """

    def __init__(
        self,
        hosts: Hosts,
        candidates: Sequence[Host],
        timeouts: Timeouts = NO_TIMEOUTS,
        *,
        reload: bool = True,
        fingerprint: FingerprintMaker | None = None,
    ) -> None:
        first = candidates[0].model
        super().__init__(first.context, first.state, timeouts, reload=reload)
        self._failover = Failover(hosts, candidates, None if fingerprint is None else fingerprint())

    def next_operation(self) -> Flow[Operation]:
        """Return the operation of the next attempt, on the best host."""
        if self._failover.host is None:
            delay, self._delay = self._delay, None
            if delay:
                yield from self.context.pause(delay)
            host = yield from self._failover.next_host()
            self.state: ModelState = host.model.state
            self.context: ClientContext = host.model.context.child(
                self._failover.started_at, self.listener, can_fail_over=self._failover.can_fail_over
            )
            self.listener.on_attempt(self.context.target, self.state.key)
        return (yield from super().next_operation())

    def should_retry(self, error: LMStudioError, *, seen: bool = False) -> bool:
        """Record that the attempt has failed; return whether another one follows, on this host or on another."""
        if super().should_retry(error, seen=seen):
            return True
        delay = self._failover.delay_after(error, seen=seen)
        if delay is None:
            return False
        self.listener.on_retry(error)
        self._failover.release()
        self._delay, self._is_unloaded = delay, False
        self.is_running: bool = False
        return True

    def final_error(self, error: LMStudioError) -> LMStudioError:
        """Return the error of the operation; if all hosts failed, it has the reason of each."""
        return self._failover.combine(error)

    def record_success(self, result: PredictionResult | None = None) -> None:
        """Record that the host has responded, and release its slot."""
        self._failover.record_success(result)

    def release(self) -> None:
        """Release the slot, if there is one."""
        self._failover.release()


class Failover:
    """The failover of one operation: on which of several hosts it runs, and where it has failed.

    Its slot is released when it ends, at the latest when it is collected.
    """

    def __init__(self, hosts: Hosts, candidates: Sequence[Host], fingerprint: PromptFingerprint | None = None) -> None:
        self._all = hosts
        self._hosts = candidates
        self._fingerprint = fingerprint
        self._number: int | None = None
        self._slot: Hashable | None = None
        self._call = object()
        """Stands for this object in the records, which must not keep it from being collected."""
        self._errors: dict[int, LMStudioError] = {}
        self._retries = Retries(hosts.max_retries)
        self.started_at: float | None = None
        """When the first of the attempts that share the total timeout began."""

    @property
    def host(self) -> Host | None:
        """The host of the attempt, as long as it holds a slot there."""
        return None if self._number is None or self._slot is None else self._hosts[self._number]

    @property
    def can_fail_over(self) -> bool:
        """Whether another host is left. Another instance on the same host is none: it stops responding as well."""
        used = {number for number in range(len(self._hosts)) if number in self._errors or self._is_beside(number)}
        return len(used) < len(self._hosts)

    def _is_beside(self, number: int) -> bool:
        """Whether a host is that of the attempt, or another instance on it."""
        assert self._number is not None, "an attempt has a host"
        return self._hosts[number].address == self._hosts[self._number].address

    def next_host(self) -> Flow[Host]:
        """Return where the next attempt runs. All attempts until a retry share the total timeout."""
        self.release()
        if self.started_at is None:
            self.started_at = time.monotonic()
        reserved = None
        while reserved is None:
            yield from self._all.probe()
            reserved = self._all.reserve(self._hosts, set(self._errors), self._call, self._fingerprint)
        self._number, self._slot = reserved
        return self._hosts[self._number]

    def delay_after(self, error: LMStudioError, *, seen: bool = False) -> float | None:
        """Record a failure of the operation; return the seconds until the next attempt, `None` if there is none.

        Args:
            error: The failure.
            seen: Whether the caller has received a part of the response, so that there must not be another attempt.
        """
        if self._number is None:
            return None
        # A host that does not respond, or rejects the token, does so for all instances on it.
        is_of_host = is_retryable(error) or isinstance(error, LMStudioAuthenticationError)
        failed = [at for at in range(len(self._hosts)) if at == self._number or (is_of_host and self._is_beside(at))]
        may_move = False
        for number in failed:
            may_move = record_failure(self._hosts[number].record, error, had_all_the_time=not self._errors)
        if seen or not may_move:
            return None
        self._errors.update(dict.fromkeys(failed, error))
        if len(self._errors) < len(self._hosts):
            return 0.0
        seconds = self._retries.next_delay(error) if is_retryable(error) else None
        if seconds is not None:
            self._errors, self.started_at = {}, None
        return seconds

    def record_success(self, result: PredictionResult | None = None) -> None:
        """Record that the host has responded, and what it did for a conversation; release its slot."""
        host = self.host
        self.release()
        if host is None or host.model.state.instance is None:  # images were uploaded, before any use of the model
            return
        host.record.record_success()
        if result is not None:
            host.record.prompt_index.record_response(self._fingerprint, result)
        if host.model.state.kind == "embedding":  # the length of its vectors may be known only now
            self._all.compare(self._all.statuses())

    def release(self) -> None:
        """Release the slot, if there is one. May be called by finalizers."""
        slot, self._slot = self._slot, None
        if slot is not None and self._number is not None:
            self._hosts[self._number].record.release(slot, self._call)

    def combine(self, error: LMStudioError) -> LMStudioError:
        """Return the error of the operation; if all hosts failed, it has the reason of each."""
        # The instances of a host that does not respond have one error.
        failed = {id(each): (self._hosts[number], each) for number, each in reversed(self._errors.items())}
        if len(failed) < 2 or error not in self._errors.values():
            return error
        texts = [f"{host.name}: {one_line(each)}" for host, each in reversed(failed.values())]
        remedies = {text.partition("; ")[2] for text in texts}
        if len(remedies) == 1:  # what helps all hosts is said once
            texts = [*(text.partition("; ")[0] for text in texts), *filter(None, remedies)]
        reasons = "; ".join(texts)
        combined = copy(min(self._errors.values(), key=_helpfulness))
        combined.args = (f"all {len(failed)} hosts failed: {reasons}",)
        combined.__cause__ = error
        return combined

    def __del__(self) -> None:
        self.release()


def record_failure(record: HostRecord, error: LMStudioError, *, had_all_the_time: bool = True) -> bool:
    """Record why a host failed; return whether another host may be tried.

    Args:
        record: What is known of the host.
        error: The failure.
        had_all_the_time: Whether the host had all of the total timeout, and not what other hosts had left of it.
    """
    match error:
        case LMStudioTimeoutError(timeout_name="timeout") if not (had_all_the_time and error.unanswered):
            return False  # the host responds, or it may not have had the time for it
        case LMStudioTimeoutError(timeout_name="timeout" | "idle_timeout"):
            record.record_failure(error)
            return False
        case LMStudioTimeoutError(timeout_name="queue_timeout" | "first_token_timeout"):
            record.record_failure(error)
        case LMStudioTimeoutError(timeout_name="load_timeout"):
            record.record_load_failure(error)
        case _ if isinstance(error, _HERE_ONLY):
            record.record_load_failure(error)
        case _ if is_retryable(error):
            record.record_failure(error)
        case _:
            return False
    return True


def _helpfulness(error: LMStudioError) -> tuple[bool, bool]:
    """Order the errors of several hosts: what one has responded, that one has not, that one is switched off."""
    return is_retryable(error), isinstance(error, LMStudioTimeoutError)
