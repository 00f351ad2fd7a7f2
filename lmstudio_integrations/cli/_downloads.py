"""What a download shows and asks. Shared by the two ways of `get`: what a search finds, and an artifact of the hub."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmstudio_integrations.cli._common import progress_display
from lmstudio_integrations.cli._formatting import file_size
from lmstudio_integrations.errors import LMStudioValueError

if TYPE_CHECKING:
    from rich.progress import Progress

    from lmstudio_integrations.types.models import DownloadProgressUpdate

_FITS = {
    "fullGPUOffload": "fits into the GPU",
    "partialGPUOffload": "fits partly into the GPU",
    "fitWithoutGPU": "fits without a GPU",
    "willNotFit": "does not fit",
}
"""What the server expects of a download on its machine."""


def describe(name: str, size: int, quantization: str | None, file_format: str | None, fit: str | None = None) -> str:
    """Return a line about a form of a model.

    Args:
        name: Its name.
        size: Its size in bytes.
        quantization: Its quantization.
        file_format: Its format.
        fit: The server's name for whether it fits.
    """
    details = (file_size(size), quantization, file_format, _FITS.get(fit or ""))
    return f"{name} ({', '.join(detail for detail in details if detail)})"


class DownloadBar(contextlib.ExitStack):
    """A bar that shows the progress of a download, from the first report to the end of the block."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the server has reported progress."""
        return self._progress is not None

    def show(self, update: "DownloadProgressUpdate") -> None:
        """Show how far the download is."""
        from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn  # noqa: PLC0415 - slow

        speed = f"{file_size(update.speed_bytes_per_second)}/s"
        if self._progress is None:
            columns = BarColumn(), DownloadColumn(), "{task.fields[speed]}", TimeRemainingColumn()
            self._progress = self.enter_context(progress_display(*columns, transient=True))
            self._progress.add_task("", total=update.total_bytes, speed=speed)
        (task,) = self._progress.task_ids
        self._progress.update(task, completed=update.downloaded_bytes, total=update.total_bytes, speed=speed)


def pick_one(question: str, choices: Sequence[str], default: int = 0, *, remedy: str) -> int:
    """Return the index of the choice that the user picks.

    Args:
        question: What to pick.
        choices: The choices, one line each.
        default: The index that the return key means.
        remedy: How to get along without a terminal.

    Raises:
        LMStudioValueError: If there is no terminal to ask at.
    """
    from lmstudio_integrations.cli._questions import has_terminal, pick  # noqa: PLC0415 - slow

    if has_terminal():
        return pick(question, choices, default)
    raise LMStudioValueError(f"not a terminal, so cannot ask; {remedy}; choices: {'; '.join(choices)}")


def pick_form(model: str, lines: Sequence[str], default: int, quantization: str | None) -> int:
    """Return the index of the form that the user picks.

    Args:
        model: The name of the model.
        lines: The forms, one line each.
        default: The index that the return key means.
        quantization: The quantization of that one.

    Raises:
        LMStudioValueError: If there is no terminal to ask at.
    """
    remedy = f"name a quantization (`{model}@{quantization}`), or omit -a" if quantization else "omit -a"
    return pick_one("Download", lines, default, remedy=remedy)


def downloaded_note(key: str | None, *, is_new: bool) -> str:
    """Return what is printed at the end.

    Args:
        key: The key to load the model with; `None` if it is no model.
        is_new: Whether it was downloaded now.
    """
    what = "Downloaded." if is_new else "It was downloaded before."
    return what if key is None else f"{what} `lmsi load {key}` loads it."
