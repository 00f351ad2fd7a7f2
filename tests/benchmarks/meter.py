"""How a case is measured: by the CPU time of this process, all threads, or by the clock that all processes share."""

import gc
import http.client
import json
import math
import time
from collections.abc import Callable
from typing import TypeAlias

Measure: TypeAlias = Callable[[], float]
"""Runs a case once and returns its figure, in the unit of its row."""

Cases: TypeAlias = dict[str, Measure]

PATIENCE = 1.0
"""Seconds after which a server that was not told that a client has left never will be."""


def per_token(run: Callable[[], object], tokens: int) -> Measure:
    """Measure microseconds of CPU per token."""
    return lambda: _cpu(run) / tokens * 1e6


def milliseconds(run: Callable[[], object], calls: int = 1, *, per: int = 1) -> Measure:
    """Measure milliseconds of CPU per call, over so many, each of which may itself make `per` calls."""
    return lambda: _cpu(lambda: _repeat(run, calls)) / calls / per * 1e3


def microseconds(run: Callable[[], object], calls: int) -> Measure:
    """Measure microseconds of CPU per call, over so many."""
    return lambda: _cpu(lambda: _repeat(run, calls)) / calls * 1e6


def departure(address: str, leave: Callable[[], float]) -> Measure:
    """Measure milliseconds until the server knows that an answer was left; infinite if it is never told.

    Args:
        address: The server.
        leave: Takes the beginning of an answer, leaves, and returns when it did so.
    """

    def measure() -> float:
        connection = http.client.HTTPConnection(address)
        try:
            _departed(connection)
            left, given_up = leave(), time.monotonic() + PATIENCE
            while (told := _departed(connection)) is None:
                if time.monotonic() > given_up:
                    return math.inf
            return (told - left) * 1e3
        finally:
            connection.close()

    return measure


def _departed(connection: http.client.HTTPConnection) -> float | None:
    connection.request("GET", "/departed")
    told: float | None = json.load(connection.getresponse())
    return told


def _cpu(run: Callable[[], object]) -> float:
    gc.collect()
    started = time.process_time()
    run()
    return time.process_time() - started


def _repeat(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()


def expect(got: int, wanted: int) -> None:
    """Check that nothing was left out: a program that loses tokens would be the fastest.

    Raises:
        ValueError: If too little came.
    """
    if got < wanted:
        raise ValueError(f"{got} came of {wanted}")
