"""Lets the client collect garbage at each check, and nothing else do it: what a real one does after some seconds."""

import gc
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from lmstudio_integrations.client.transport import io_thread, mailboxes
from lmstudio_integrations.client.transport.connections import Connection
from lmstudio_integrations.client.transport.io_thread import IOThread


class Collections:
    """The collections of garbage since the beginning of a test."""

    def __init__(self) -> None:
        self._ended = threading.Condition()
        self.count = 0

    def record(self, phase: str, info: dict[str, Any]) -> None:
        """Count a collection of everything that has ended, as one of `gc.callbacks`."""
        if phase == "stop" and info["generation"] == 2:
            with self._ended:
                self.count += 1
                self._ended.notify_all()

    def wait_for_two(self) -> None:
        """Wait until two more have ended: the second has begun later than this."""
        with self._ended:
            goal = self.count + 2
            assert self._ended.wait_for(lambda: self.count >= goal, 10)


@contextmanager
def eager_collections() -> Generator[Collections]:
    """Collect garbage at each check that finds a stream unread, and at no other time."""
    seen, thresholds = Collections(), gc.get_threshold()
    gc.collect()
    gc.freeze()  # what earlier tests have left would be looked at by each collection
    gc.set_threshold(0)
    gc.callbacks.append(seen.record)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection._arm, "__defaults__", (0.01,))
            patch.setattr(mailboxes, "UNREAD", 0.0)
            patch.setattr(io_thread, "COLLECTION_INTERVAL", 0.0)
            patch.setattr(io_thread, "COLLECTION_SHARE", 1.0)
            patch.setattr(IOThread.current(), "_collect_after", 0.0)
            yield seen
    finally:
        gc.callbacks.remove(seen.record)
        gc.set_threshold(*thresholds)
