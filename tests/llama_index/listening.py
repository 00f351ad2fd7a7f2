"""Silence that is kept, and conditions that are waited for."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def silence() -> Iterator[None]:
    """Fail if something is warned of or logged as a warning."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    ear = Ear(logging.WARNING)
    logging.getLogger().addHandler(ear)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        logging.getLogger().removeHandler(ear)
    assert not said, said


def wait_for(predicate: Callable[[], bool], seconds: float = 2.0) -> bool:
    """Whether a condition holds within so many seconds."""
    until = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
