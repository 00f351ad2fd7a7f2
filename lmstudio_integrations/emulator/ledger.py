"""What has happened on the server, for tests to look at from their own thread."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lmstudio_integrations.errors import LMStudioTimeoutError

KEPT = 10_000
"""Predictions that are remembered."""

_LOOK_AGAIN = 0.02
"""Seconds after which a condition is looked at even if nothing was announced; tokens are not."""


@dataclass(slots=True, eq=False)
class PredictionRecord:
    """One prediction.

    Attributes:
        model: The identifier of the model that answers.
        client: The identifier of the client that asks.
        raw: Whether a text is continued, without a chat template.
        state: Whether it waits for its turn, runs, or has ended.
        fragments: How many pieces of text were sent.
        stop_reason: Why it ended: a reason of protocol §6.5, `error`, or `disconnected`.
        error: The title of the error that ended it.
    """

    model: str
    client: str
    raw: bool = False
    state: Literal["queued", "running", "ended"] = "queued"
    fragments: int = 0
    stop_reason: str | None = None
    error: str | None = None


class Ledger:
    """Records, and a way to wait for them. Written by the server's thread, read by any."""

    def __init__(self) -> None:
        self.predictions: deque[PredictionRecord] = deque(maxlen=KEPT)
        self._changed = threading.Condition()

    def add(self, record: PredictionRecord) -> PredictionRecord:
        """Take a record in."""
        self.predictions.append(record)
        self.announce()
        return record

    def announce(self) -> None:
        """Wake all who wait, because something has changed."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> None:
        """Wait until a condition holds.

        Raises:
            LMStudioTimeoutError: If it does not in time, in seconds.
        """
        for _ in range(max(1, round(timeout / _LOOK_AGAIN))):
            if predicate():
                return
            # The lock is not held while the condition is looked at: the server's thread must never wait for a test.
            with self._changed:
                self._changed.wait(_LOOK_AGAIN)
        if predicate():
            return
        raise LMStudioTimeoutError(f"the condition did not hold within {timeout} s", elapsed=timeout)
