"""The progress bars of `show_progress`. tqdm draws them on a terminal and in a notebook; a service stays silent."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Self

from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations._support.text import printable_line

_FORM = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


class ProgressBar:
    """A bar that appears with the first progress, and ends with 1.0 or with the block that uses it.

    Args:
        label: The text in front of the bar.
        shown: Whether there is a bar at all.

    Raises:
        ImportError: If tqdm is missing.
    """

    def __init__(self, label: str, *, shown: bool) -> None:
        self._label = label
        self._tqdm: Any = _import_tqdm() if shown else None
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shown(self) -> bool:
        """Whether there is a bar."""
        return self._tqdm is not None

    def update(self, progress: float) -> None:
        """Draw the progress, 0.0 to 1.0."""
        if self._tqdm is None:
            return
        if self._bar is None:
            self._bar = self._tqdm(total=100, desc=printable_line(self._label), bar_format=_FORM, disable=None)
        self._bar.n = round(progress * 100)
        self._bar.refresh()
        if progress >= 1:
            self.close()

    def close(self) -> None:
        """End the bar where it is; nothing is drawn after that."""
        if self._bar is not None:
            self._bar.close()
        self._tqdm = self._bar = None

    @contextmanager
    def closed_on_failure(self) -> Generator[None, None, None]:
        """End the bar if the block fails."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def before(self, callback: Callable[[float], Any] | None) -> Callable[[float], Any] | None:
        """Return a callback that draws the progress and then calls `callback`; `None` if there is nothing to do."""
        if not self.shown or callback is None:
            return self.update if self.shown else callback

        def report(progress: float) -> None:
            self.update(progress)
            callback(progress)

        return report


def _import_tqdm() -> Any:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415 - a part of extras
    except ImportError as error:
        raise ImportError(f"show_progress=True needs tqdm; run: {package_command('tqdm')}") from error
    return tqdm
