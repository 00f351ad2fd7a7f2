"""Silence that is kept."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silence() -> Iterator[None]:
    """Fail if something is warned of or logged as a warning."""
    messages: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    ear = Ear(logging.WARNING)
    logging.getLogger().addHandler(ear)
    try:
        with warnings.catch_warnings(record=True) as caught:  # also those of finalizers, which cannot raise errors
            warnings.simplefilter("always")
            yield
    finally:
        logging.getLogger().removeHandler(ear)
    assert not messages, messages
    assert not caught, [str(warning.message) for warning in caught]
