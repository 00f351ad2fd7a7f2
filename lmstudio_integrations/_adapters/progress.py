"""A progress bar of one line on the error stream."""

import sys
from collections.abc import Callable
from functools import lru_cache

_WIDTH = 30


@lru_cache(maxsize=64)
def bar(what: str) -> Callable[[float], None]:
    """Return a callable that takes values from 0.0 to 1.0 and draws them; the same one for the same label."""

    def show(progress: float) -> None:
        filled = round(progress * _WIDTH)
        end = "\n" if progress >= 1 else ""
        sys.stderr.write(f"\r{what} [{'#' * filled}{'.' * (_WIDTH - filled)}] {progress:4.0%}{end}")
        sys.stderr.flush()

    return show
