"""Threads that do something at the same time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def together(threads: int, work: Callable[[int], T]) -> list[T]:
    """Run work in several threads that begin at once, each with its number; return the results."""
    begin = threading.Barrier(threads, timeout=600)

    def run(number: int) -> T:
        begin.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))
