"""The progress bars of `show_progress`. tqdm draws them on a terminal and in a notebook; a service stays silent.

`"auto"` needs no tqdm, and shows only what takes long: a line on a terminal, which disappears at the end. The packets
of a load draw it, so nothing else has to wake up for it.
"""

import shutil
import sys
from collections.abc import Callable
from functools import partial
from threading import Lock
from time import monotonic
from typing import Any, Literal, Self, TypeAlias

from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations._support.text import printable_line
from lmstudio_integrations.errors import LMStudioValueError

ShowProgress: TypeAlias = bool | Literal["auto"]
"""Whether there is a bar; `auto` shows a line on a terminal if it takes long."""

DELAY = 2.0
"""Seconds after which the line of `auto` appears."""

_FORM = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


class ProgressBar:
    """Reports progress to the callback of a program, and shows it by a bar.

    The bar appears with the first progress, and ends with 1.0 or with the block that uses it.

    Args:
        label: The text in front of the bar.
        shown: Whether there is a bar at all.
        on_progress: The callback. A program that has one shows the progress itself, so that `auto` shows nothing.

    Raises:
        ImportError: If tqdm is missing.
        LMStudioValueError: If `shown` is something else.
    """

    def __init__(self, label: str, *, shown: ShowProgress, on_progress: Callable[..., Any] | None = None) -> None:
        label = printable_line(label)
        self._on_progress = on_progress
        self._make_bar: Callable[[float], Any] | None = None
        """Makes the bar for the first progress; it may return none yet."""
        if check_show_progress(shown) is True:
            try:
                from tqdm.auto import tqdm  # noqa: PLC0415 - a part of extras
            except ImportError as error:
                raise ImportError(f"show_progress=True needs tqdm; run: {package_command('tqdm')}") from error
            self._make_bar = lambda _: tqdm(total=100, desc=label, bar_format=_FORM, disable=None)
        elif shown == "auto" and on_progress is None and _has_terminal():
            self._make_bar = partial(_Line.begin, label, monotonic() + DELAY)
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_used(self) -> bool:
        """Whether there is a callback, or a bar, which may only appear if it takes long."""
        return self._make_bar is not None or self._on_progress is not None

    def report(self, progress: float, *details: Any) -> None:
        """Draw the progress, 0.0 to 1.0, and call the callback, with the details if it takes others."""
        self.draw(progress)
        if self._on_progress is not None:
            self._on_progress(*(details or [progress]))

    def draw(self, progress: float) -> None:
        """Draw the progress, 0.0 to 1.0."""
        if self._bar is None and self._make_bar is not None:
            self._bar = self._make_bar(progress)
        if self._bar is not None:
            self._bar.n = round(progress * 100)
            self._bar.refresh()
        if progress >= 1:
            self.close()

    def close(self) -> None:
        """End the bar where it is; nothing is drawn after that."""
        if self._bar is not None:
            self._bar.close()
        self._make_bar = self._bar = None


class _Line:
    """A line with the methods of a bar. There is one at a time: the calls of a batch wait for the same load."""

    _is_taken = Lock()

    def __init__(self, label: str) -> None:
        self.n = 0
        self._label = label
        self._width = 0

    @classmethod
    def begin(cls, label: str, start: float, progress: float) -> Self | None:
        """Return the line; `None` before its time, if there is nothing to wait for, or if another one is shown."""
        is_due = monotonic() >= start and progress < 1
        return cls(label) if is_due and cls._is_taken.acquire(blocking=False) else None

    def refresh(self) -> None:
        text = f"{self._label}: {self.n:3}%"[: shutil.get_terminal_size().columns - 1]
        self._write(text.ljust(self._width))
        self._width = len(text)

    def close(self) -> None:
        self._write(f"{' ' * self._width}\r")
        self._is_taken.release()

    def _write(self, text: str) -> None:
        if _has_terminal():  # it may have been closed
            sys.stderr.write(f"\r{text}")
            sys.stderr.flush()


def check_show_progress(value: object) -> ShowProgress:
    """Return the value of `show_progress`.

    Raises:
        LMStudioValueError: If it is neither a bool nor `auto`.
    """
    if value == "auto":
        return "auto"
    if isinstance(value, bool):
        return value
    raise LMStudioValueError(f"show_progress must be True, False or 'auto'; got {value!r}")


def _has_terminal() -> bool:
    """Whether stderr is a terminal. A process may have none."""
    try:
        return bool(sys.stderr and sys.stderr.isatty())
    except ValueError:  # it is closed
        return False
