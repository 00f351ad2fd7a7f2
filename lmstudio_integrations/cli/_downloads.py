"""What a download shows and asks. Shared by the two ways of `get`: what a search finds, and an artifact of the hub."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from lmstudio_integrations.cli._common import progress_display
from lmstudio_integrations.cli._formatting import file_size
from lmstudio_integrations.errors import LMStudioValueError

if TYPE_CHECKING:
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


@contextlib.contextmanager
def download_bar(size: int) -> "Generator[Callable[[DownloadProgressUpdate], None], None, None]":
    """Show a bar while the block runs, and provide the function that moves it.

    Args:
        size: The expected size in bytes.
    """
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn  # noqa: PLC0415 - slow

    columns = BarColumn(), DownloadColumn(), "{task.fields[speed]}", TimeRemainingColumn()
    with progress_display(*columns, transient=True) as progress:
        task = progress.add_task("", total=size or None, speed="")

        def show(update: "DownloadProgressUpdate") -> None:
            speed = f"{file_size(update.speed_bytes_per_second)}/s"
            progress.update(task, completed=update.downloaded_bytes, total=update.total_bytes, speed=speed)

        yield show


def pick_one(question: str, choices: Sequence[str], default: int = 0) -> int:
    """Return the index of the choice that the user picks.

    Raises:
        LMStudioValueError: If there is no terminal to ask at.
    """
    from lmstudio_integrations.cli._questions import has_terminal, pick  # noqa: PLC0415 - slow

    if has_terminal():
        return pick(question, choices, default)
    listed, best = "; ".join(choices), choices[default]
    raise LMStudioValueError(f"not a terminal, so cannot ask; name one, or use --yes for {best!r}: {listed}")


def downloaded_note(key: str | None, *, is_new: bool) -> str:
    """Return what is printed at the end.

    Args:
        key: The key to load the model with; `None` if it is no model.
        is_new: Whether it was downloaded now.
    """
    what = "Downloaded." if is_new else "It was downloaded before."
    return what if key is None else f"{what} `lmsi load {key}` loads it."
