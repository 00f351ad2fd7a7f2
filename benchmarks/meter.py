"""How a case is measured: by the CPU time of this process, all threads, or by the clock that all processes share."""

import gc
import http.client
import json
import math
import time
from collections.abc import Callable
from typing import TypeAlias

Measure: TypeAlias = Callable[[], float]
"""Runs a case once and returns its value, in the unit of its row."""

Cases: TypeAlias = dict[str, Measure]

NOTICE_TIMEOUT = 1.0
"""Seconds after which a server is taken never to notice a cancellation."""


def per_token(run: Callable[[], object], tokens: int) -> Measure:
    """Measure microseconds of CPU per token."""
    return lambda: _cpu(run) / tokens * 1e6


def milliseconds(run: Callable[[], object], calls: int = 1, *, per: int = 1) -> Measure:
    """Measure milliseconds of CPU per call, over so many, each of which may itself make `per` calls."""
    return lambda: _cpu(lambda: _repeat(run, calls)) / calls / per * 1e3


def microseconds(run: Callable[[], object], calls: int) -> Measure:
    """Measure microseconds of CPU per call, over so many."""
    return lambda: _cpu(lambda: _repeat(run, calls)) / calls * 1e6


def cancellation(address: str, cancel: Callable[[], float]) -> Measure:
    """Measure milliseconds until the server notices a cancellation; infinite if it never does.

    Args:
        address: The server.
        cancel: Reads the beginning of a response, cancels it, and returns when it did so.
    """

    def measure() -> float:
        connection = http.client.HTTPConnection(address)
        try:
            _cancelled_at(connection)
            cancelled, given_up = cancel(), time.monotonic() + NOTICE_TIMEOUT
            while (noticed := _cancelled_at(connection)) is None:
                if time.monotonic() > given_up:
                    return math.inf
            return (noticed - cancelled) * 1e3
        finally:
            connection.close()

    return measure


def _cancelled_at(connection: http.client.HTTPConnection) -> float | None:
    connection.request("GET", "/cancelled")
    noticed: float | None = json.load(connection.getresponse())
    return noticed


def _cpu(run: Callable[[], object]) -> float:
    gc.collect()
    started = time.process_time()
    run()
    return time.process_time() - started


def _repeat(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()


def expect(count: int, expected: int) -> None:
    """Check that nothing is missing: a program that loses tokens would be the fastest.

    Raises:
        ValueError: If something is missing.
    """
    if count < expected:
        raise ValueError(f"received {count} of {expected}")
