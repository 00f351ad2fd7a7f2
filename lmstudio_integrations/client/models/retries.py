"""Decide whether a failed call is retried, and after what delay. Used by `operations.py` and `predictions/run.py`.

A call is retried only while the caller has received nothing of the response: up to `max_retries` times if no server
responds or the connection is lost, and independently of that up to three times if its model was unloaded.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmstudio_integrations.client.telemetry.spans import add_retry
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, T, wait_for
from lmstudio_integrations.errors import (
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioModelUnloadedError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
)

RELOAD_DELAYS = (0.0, 0.2, 1.0)
"""Mean seconds before each reload. They vary, so that programs that evict each other's models get out of step."""

INITIAL_DELAY, MAX_DELAY = 0.5, 8.0
"""Seconds before the first retry after a failed connection; doubled each time, up to the maximum."""


@dataclass(slots=True)
class Retries:
    """Counts the retries of one call.

    Attributes:
        max_retries: How often it may be retried after a failed connection.
        connection_retries: How many of these were used.
        reloads: How often its model was loaded again.
    """

    max_retries: int = 0
    connection_retries: int = 0
    reloads: int = 0

    def next_delay(self, error: LMStudioError) -> float | None:
        """Count a retry, and return the seconds to wait before it; `None` if the call must not be retried."""
        if isinstance(error, LMStudioModelUnloadedError):
            if self.reloads == len(RELOAD_DELAYS):
                return None
            self.reloads += 1
            return random.uniform(0.5, 1.5) * RELOAD_DELAYS[self.reloads - 1]  # noqa: S311 - no secret
        if self.connection_retries >= self.max_retries or not is_retryable(error):
            return None
        self.connection_retries += 1
        return min(INITIAL_DELAY * 2.0 ** (self.connection_retries - 1), MAX_DELAY)


def is_retryable(error: LMStudioError) -> bool:
    """Whether an error means that the call may be retried on a new connection."""
    return (
        isinstance(error, LMStudioUnreachableError)
        or (isinstance(error, LMStudioConnectionLostError) and error.retryable)
        or (isinstance(error, LMStudioTimeoutError) and error.timeout_name == "connect_timeout")  # nothing was sent
    )


def pause(dispatcher: Dispatcher[Any], seconds: float) -> Flow[None]:
    """Wait before a retry after a failed connection."""
    yield from wait_for(dispatcher.pause(seconds))


def retried(dispatcher: Dispatcher[Any], attempt: Callable[[Dispatcher[Any]], Flow[T]]) -> Flow[T]:
    """Run an operation; retry it after a failed connection. Each attempt has the whole `timeout`, if not shared."""
    return _retry(dispatcher, attempt) if dispatcher.max_retries else attempt(dispatcher.for_operation())


def _retry(dispatcher: Dispatcher[Any], attempt: Callable[[Dispatcher[Any]], Flow[T]]) -> Flow[T]:
    retries = Retries(dispatcher.max_retries)
    while True:
        try:
            return (yield from attempt(dispatcher.for_operation()))
        except LMStudioError as error:
            # `attempt_with_model` has retried an unloaded model already.
            seconds = retries.next_delay(error) if is_retryable(error) else None
            if seconds is None:
                raise
            if dispatcher.trace_context is not None:
                add_retry(dispatcher.trace_context, error)
        yield from pause(dispatcher, seconds)
