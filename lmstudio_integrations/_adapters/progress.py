"""The progress bars of `show_progress`, drawn by tqdm on the error stream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_bars: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """Draws progress from 0.0 to 1.0. Equal bars are interchangeable, because a bar is part of a model's cache key.

    Attributes:
        label: The text in front of the bar.
        callback: Called with the same values.
    """

    label: str
    callback: Callable[[float], Any] | None = None

    def __call__(self, progress: float) -> None:
        """Report and draw the progress; 1.0 ends the bar."""
        if self.callback is not None:
            self.callback(progress)
        bar = _bars.get(self.label)
        if bar is None:
            from tqdm import tqdm  # noqa: PLC0415 - lazy: keeps import cheap

            bar = _bars[self.label] = tqdm(total=100, desc=self.label, bar_format="{desc}: {percentage:3.0f}%|{bar}|")
        bar.n = round(progress * 100)
        bar.refresh()
        if progress >= 1:
            _bars.pop(self.label, bar).close()
