"""Failover of one operation over several hosts: where it runs, where it has failed, and where it goes next."""

import time
from collections.abc import Hashable, Sequence
from copy import copy

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.client.hosts.host import Host, conversation_of
from lmstudio_integrations.client.hosts.hosts import Hosts
from lmstudio_integrations.client.models.attempts import Attempts, Retries, is_retryable
from lmstudio_integrations.client.models.state import ModelState
from lmstudio_integrations.client.transport.client_context import NO_TIMEOUTS, ClientContext
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioAuthenticationError, LMStudioError, LMStudioTimeoutError
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.prompt_fingerprint import FingerprintMaker
from lmstudio_integrations.types.results import PredictionResult


class FailoverAttempts(Attempts):
    """The attempts of one operation on several hosts: an attempt that fails on one host moves to another.

    A model that was unloaded is loaded again on the same host. The slot there is released when the operation ends, at
    the latest when this object is collected.

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
        self._slot: Hashable | None = None
        first = candidates[0].model
        super().__init__(first.context, first.state, timeouts, reload=reload)
        self._all = hosts
        self._hosts = candidates
        self._number = 0
        self._conversation = [] if fingerprint is None else conversation_of(fingerprint())
        self._call = object()
        """Stands for this object in the records, which must not keep it from being collected."""
        self._errors: dict[int, LMStudioError] = {}
        self._retries_of_all = Retries(hosts.max_retries)
        self._started_at: float | None = None
        """When the first of the attempts that share the total timeout began."""

    def next_operation(self) -> Flow[Operation]:
        """Return the operation of the next attempt, on the best host. All until a retry share the total timeout."""
        if self._slot is None:
            delay, self._delay = self._delay, None
            if delay:
                yield from self.context.pause(delay)
            if self._started_at is None:
                self._started_at = time.monotonic()
            reserved = None
            while reserved is None:
                yield from self._all.probe()
                reserved = self._all.reserve(self._hosts, self._errors, self._call, self._conversation)
            self._number, self._slot = reserved
            model = self._hosts[self._number].model
            # Another device of the same server is no other host: it stops responding as well.
            used = {*self._errors, *self._beside()}
            self.state: ModelState = model.state
            self.context: ClientContext = model.context.child(
                self._started_at, self.listener, can_fail_over=len(used) < len(self._hosts)
            )
            self.listener.on_attempt(self.context.target, self.state.key)
        return (yield from super().next_operation())

    def _beside(self) -> list[int]:
        """Return the numbers of the hosts at the address of the attempt: devices of one server, and its own."""
        address = self._hosts[self._number].address
        return [number for number, host in enumerate(self._hosts) if host.address == address]

    def should_retry(self, error: LMStudioError, *, seen: bool = False) -> bool:
        """Record that the attempt has failed; return whether another one follows, on this host or on another."""
        if super().should_retry(error, seen=seen):
            return True
        delay = None if self._slot is None else self._delay_after(error, seen=seen)
        if delay is None:
            return False
        self.listener.on_retry(error)
        self.release()
        self._delay, self._is_unloaded = delay, False
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
            self._errors, self._started_at = {}, None
        return delay

    def record_success(self, result: PredictionResult | None = None) -> None:
        """Record that the host has responded, and has the conversation now; release its slot."""
        host, is_running = self._hosts[self._number], self._slot is not None
        self.release()
        if not is_running or host.model.state.instance is None:  # images were uploaded, before any use of the model
            return
        host.record.record_success(() if result is None else self._conversation)
        if host.model.state.kind == "embedding":  # the length of its vectors may be known only now
            self._all.compare(self._all.statuses())

    def release(self) -> None:
        """Release the slot, if there is one. May be called by finalizers."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._hosts[self._number].record.release(slot, self._call)

    def __del__(self) -> None:
        self.release()

    def final_error(self, error: LMStudioError) -> LMStudioError:
        """Return the error of the operation; if all hosts failed, it has the reason of each."""
        # The instances of a host that does not respond have one error.
        failed = {id(each): (self._hosts[number], each) for number, each in reversed(self._errors.items())}
        if len(failed) < 2 or error not in self._errors.values():
            return error
        texts = [f"{host.name}: {one_line(each)}" for host, each in reversed(failed.values())]
        remedies = {text.partition("; ")[2] for text in texts}
        if len(remedies) == 1:  # what helps all hosts is said once
            texts = [*(text.partition("; ")[0] for text in texts), *filter(None, remedies)]
        combined = copy(min(self._errors.values(), key=_helpfulness))
        combined.args = (f"all {len(failed)} hosts failed: {'; '.join(texts)}",)
        combined.__cause__ = error
        return combined


def _helpfulness(error: LMStudioError) -> tuple[bool, bool]:
    """Order the errors of several hosts: what one has responded, that one has not, that one is switched off."""
    return is_retryable(error), isinstance(error, LMStudioTimeoutError)
