"""Counts the work of a function: the Python calls of this package, and the bytes that it allocates."""

import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lmstudio_integrations

_FOLDER = str(Path(lmstudio_integrations.__file__).parent)


def calls(run: Callable[[], object]) -> Counter[str]:
    """Return the calls of this package's functions, by name. Each resumption of a generator counts as one."""
    found: Counter[str] = Counter()

    def record(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_FOLDER):
            found[frame.f_code.co_qualname] += 1

    gc.collect()
    gc.disable()  # a collection would call finalizers, whenever it comes
    sys.setprofile(record)
    try:
        run()
    finally:
        sys.setprofile(None)
        gc.enable()
    return found


def allocations(run: Callable[[], object]) -> tuple[int, int]:
    """Return the bytes that are still allocated after a run, and the most that were during it."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        run()
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before
