"""The way of one operation over several hosts: where it runs, where it has failed, and where it goes next.

`pool.py` makes routes, for its own operations and for predictions (`predictions/run.py`).
"""

import time
from collections.abc import Hashable, Sequence
from copy import copy
from typing import Any, NoReturn, Protocol

from lmstudio_integrations._support.shortening import one_line
from lmstudio_integrations.client.hosts.host import Host
from lmstudio_integrations.client.models.binding import Binding
from lmstudio_integrations.client.models.retries import Retries, is_retryable
from lmstudio_integrations.client.transport.concurrent_flows import MakeWaiter
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioTimeoutError,
)

_HERE_ONLY = (
    LMStudioModelNotFoundError,
    LMStudioModelLoadError,
    LMStudioInsufficientResourcesError,
    LMStudioAuthenticationError,
)
"""Errors of one host that another host need not have."""


class AvailableHosts(Protocol):
    """What a route needs of `pool.py`."""

    max_retries: int

    def surveyed(self, make_waiter: MakeWaiter | None = None) -> Flow[None]:
        """Wait until the hosts were asked what they have."""
        ...

    def claim(self, hosts: Sequence[Host], excluded: set[int], token: object) -> tuple[int, Hashable] | None:
        """Choose a host for a call and take a slot there."""
        ...


class Route:
    """The way of one operation over the hosts of a pool: where it runs, and where it has failed.

    Its slot is released when it ends, at the latest when it is collected.
    """

    def __init__(self, pool: AvailableHosts, hosts: Sequence[Host]) -> None:
        self._pool = pool
        self._hosts = hosts
        self._number: int | None = None
        self._claimed: Hashable | None = None
        self._token = object()
        """Stands for this route in the records, which must not keep it from being collected."""
        self._errors: dict[int, LMStudioError] = {}
        self._retries = Retries(pool.max_retries)
        self._started_at: float | None = None

    def next(self, make_waiter: MakeWaiter | None = None) -> Flow[tuple[Dispatcher[Any], Binding]]:
        """Return where the next attempt runs. All attempts until a retry share the total timeout."""
        self.release()
        if self._started_at is None:
            self._started_at = time.monotonic()
        claim = None
        while claim is None:
            yield from self._pool.surveyed(make_waiter)
            claim = self._pool.claim(self._hosts, set(self._errors), self._token)
        self._number, self._claimed = claim
        host = self._hosts[self._number]
        dispatcher = host.dispatcher if make_waiter is None else host.dispatcher.with_waiters(make_waiter)
        if len(self._errors) + 1 < len(self._hosts):
            dispatcher = dispatcher.movable()
        return dispatcher.for_operation(started_at=self._started_at), host.binding

    def delay_after(self, error: LMStudioError, *, seen: bool = False) -> float | None:
        """Record a failure of the operation; return the seconds until the next attempt, `None` if there is none.

        Args:
            error: The failure.
            seen: Whether the caller has received a part of the response, so that there must not be another attempt.
        """
        if self._number is None or not self._record_failure(error) or seen:
            return None
        self._errors[self._number] = error
        if len(self._errors) < len(self._hosts):
            return 0.0
        seconds = self._retries.next_delay(error) if is_retryable(error) else None
        if seconds is not None:
            self._errors, self._started_at = {}, None
        return seconds

    def succeeded(self) -> None:
        """Record that the host has responded, and release its slot."""
        if self._number is not None:
            record = self._hosts[self._number].record
            record.record_success()
        self.release()

    def release(self) -> None:
        """Release the slot, if there is one. May be called by finalizers."""
        claimed, self._claimed = self._claimed, None
        if claimed is not None and self._number is not None:
            self._hosts[self._number].record.release(claimed, self._token)

    def raise_combined(self, error: LMStudioError) -> NoReturn:
        """Raise the error of the operation; if all hosts failed, it has the reason of each."""
        if len(self._errors) < 2 or error not in self._errors.values():
            raise error
        reasons = "; ".join(f"{self._hosts[number].name}: {one_line(each)}" for number, each in self._errors.items())
        combined = copy(min(self._errors.values(), key=_helpfulness))
        combined.args = (f"all {len(self._errors)} hosts failed: {reasons}",)
        raise combined from error

    def _record_failure(self, error: LMStudioError) -> bool:
        """Record why the host failed; return whether another host may be tried."""
        assert self._number is not None, "an operation fails on a host"
        record = self._hosts[self._number].record
        match error:
            case LMStudioTimeoutError(timeout_name="timeout") if self._errors or not error.unanswered:
                return False  # the host responds, or it got only what other hosts had left of the time
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

    def __del__(self) -> None:
        self.release()


def _helpfulness(error: LMStudioError) -> tuple[bool, bool]:
    """Order the errors of several hosts: what one has responded, that one has not, that one is switched off."""
    return is_retryable(error), isinstance(error, LMStudioTimeoutError)
