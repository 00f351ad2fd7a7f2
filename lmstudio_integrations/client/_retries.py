"""When a failed call is repeated, and after which pause. `_operations.py` and `_prediction_run.py` repeat calls.

A call is repeated only while the caller has seen nothing of the response: always after its model was unloaded, which
loads the model again; and up to `max_retries` times when no server answers or the connection is lost.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, wait_for
from lmstudio_integrations.errors import (
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioModelUnloadedError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
)

T = TypeVar("T")

RELOAD_PAUSES = (0.0, 0.2, 1.0)
"""Mean seconds before each reload. They vary, so that programs that evict each other's models get out of step."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before the first repetition after a failed connection; doubled each time, up to the longest."""


@dataclass(slots=True)
class Retries:
    """Counts the repetitions of one call.

    Attributes:
        max_retries: How often it may be repeated after a failed connection.
        failed: How often it was.
        reloaded: How often its model was loaded again.
    """

    max_retries: int = 0
    failed: int = 0
    reloaded: int = 0

    def pause_after(self, error: LMStudioError) -> float | None:
        """Return the seconds to wait before the call is repeated; `None` if it must not be."""
        if isinstance(error, LMStudioModelUnloadedError):
            if self.reloaded == len(RELOAD_PAUSES):
                return None
            self.reloaded += 1
            return random.uniform(0.5, 1.5) * RELOAD_PAUSES[self.reloaded - 1]  # noqa: S311 - no secret
        if self.failed >= self.max_retries or not is_connection_failure(error):
            return None
        self.failed += 1
        return min(FIRST_PAUSE * 2.0 ** (self.failed - 1), LONGEST_PAUSE)


def is_connection_failure(error: LMStudioError) -> bool:
    """Whether an error means that the call may be repeated on a new connection."""
    match error:
        case LMStudioUnreachableError():
            return True
        case LMStudioConnectionLostError():
            return error.retryable
        case LMStudioTimeoutError():
            return error.timeout_name == "connect_timeout"  # nothing was sent
        case _:
            return False


def pause(dispatcher: Dispatcher[Any], seconds: float) -> Flow[None]:
    """Wait before a call is repeated after a failed connection."""
    yield from wait_for(dispatcher.pause(seconds))


def repeated(dispatcher: Dispatcher[Any], attempt: Callable[[Dispatcher[Any]], Flow[T]]) -> Flow[T]:
    """Run an operation, again after a failed connection. Each attempt has the whole `timeout`, unless it is shared."""
    return _repeat(dispatcher, attempt) if dispatcher.max_retries else attempt(dispatcher.for_operation())


def _repeat(dispatcher: Dispatcher[Any], attempt: Callable[[Dispatcher[Any]], Flow[T]]) -> Flow[T]:
    retries = Retries(dispatcher.max_retries)
    while True:
        try:
            return (yield from attempt(dispatcher.for_operation()))
        except LMStudioError as error:
            seconds = retries.pause_after(error) if is_connection_failure(error) else None
            if seconds is None:
                raise
        yield from pause(dispatcher, seconds)
