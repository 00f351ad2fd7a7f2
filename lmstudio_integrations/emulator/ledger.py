"""What has happened on the server, for tests to look at from their own thread."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lmstudio_integrations.errors import LMStudioTimeoutError

KEPT = 10_000
"""Records of each kind that are kept; the oldest are dropped."""

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


LoadMode = Literal["just_in_time", "explicit"]
LoadState = Literal["loading", "loaded", "failed", "cancelled", "evicted", "expired", "crashed", "unloaded"]


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """One load of a model, as it stands at the moment of reading.

    Attributes:
        key: The model's key in the catalog.
        identifier: The identifier of the instance.
        mode: `just_in_time` for a load on first use, which the next one of its kind may evict; `explicit` for a load
            by request, at the start of the server or by `Emulator.load`.
        config: The load settings that were requested, as the native client takes them.
        state: `loading` and `loaded`; `failed` and `cancelled` for a load that did not succeed; and how the instance
            ended: `evicted` by another model's just-in-time load, `expired` after its idle TTL, `crashed`, or
            `unloaded` by request or with the server.
    """

    key: str
    identifier: str
    mode: LoadMode
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    state: LoadState = "loading"


class LoadEntry:
    """The place of one load in the ledger, where its record is replaced as the load goes on."""

    def __init__(self, record: LoadRecord, on_change: Callable[[], None]) -> None:
        self.record = record
        self._on_change = on_change

    @property
    def identifier(self) -> str:
        """The identifier of the instance."""
        return self.record.identifier

    def enter(self, state: LoadState) -> None:
        """Record a new state."""
        self.record = replace(self.record, state=state)
        self._on_change()


class Ledger:
    """Records, and a way to wait for them. Written by the server's thread, read by any."""

    def __init__(self) -> None:
        self.predictions: deque[PredictionRecord] = deque(maxlen=KEPT)
        self._loads: deque[LoadEntry] = deque(maxlen=KEPT)
        self._changed = threading.Condition()

    @property
    def loads(self) -> tuple[LoadRecord, ...]:
        """The loads so far, oldest first."""
        return tuple(entry.record for entry in tuple(self._loads))

    def begin_load(self, record: LoadRecord) -> LoadEntry:
        """Record a load that starts."""
        entry = LoadEntry(record, self.announce)
        self._loads.append(entry)
        self.announce()
        return entry

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
