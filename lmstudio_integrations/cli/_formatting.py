"""How the commands write for people: sizes, times and long lines, and texts that a terminal shows and does not obey."""

import os
import sys
import textwrap
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from lmstudio_integrations._support.text import printable

if TYPE_CHECKING:
    from lmstudio_integrations.types.models import ModelInstanceInfo

_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def model_size(count: int) -> str:
    """Return the size of a model on disk, such as `2.50 GB`; `-` if the server does not know it."""
    for unit, factor in _SIZES:
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} B" if count else "-"


def duration(seconds: float) -> str:
    """Return a time in its two largest units, for example `1h 5m`."""
    whole, parts = max(0, round(seconds)), list[str]()
    for unit, factor in (("h", 3600), ("m", 60), ("s", 1)):
        number, whole = divmod(whole, factor)
        if number:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"


def instance_name(info: "ModelInstanceInfo") -> str:
    """Return the identifier of a loaded model, with its key if that is another one."""
    return info.identifier if info.identifier == info.model_key else f"{info.identifier} ({info.model_key})"


def clock_time(milliseconds: float) -> str:
    """Return the time of day of a Unix time, for example `14:03:22`."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(milliseconds / 1000))
    except (ValueError, OverflowError, OSError):  # a server may send any number
        return "??:??:??"


def wrapped(line: str, width: int | None, indent: int = 4) -> str:
    """Return a line in lines of at most this width, the further ones indented; without a width, as it is."""
    if width is None:
        return line
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


class ProtectedTerminal:
    """Takes the place of a stream to a terminal, so that results, notes, logs, warnings and tracebacks are escaped.

    Args:
        stream: The stream.

    Attributes:
        rich_proxied_file: The stream, by the name under which rich looks for it: its consoles write control codes.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write a text with its control characters escaped, and return how many characters that were."""
        return self.rich_proxied_file.write(printable(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def protect_terminals() -> None:
    """Protect stdout and stderr, if they are terminals, as long as this process runs.

    Pipes and files get UTF-8 also on Windows, whose default lacks most letters, and as our commands read files. What an
    encoding lacks is written with a backslash.
    """
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if getattr(stream, "errors", None) == "strict":
            stream.reconfigure(errors="backslashreplace")
        if stream is not None and stream.isatty():  # a process may have no such stream
            setattr(sys, name, ProtectedTerminal(stream))
        elif sys.platform == "win32" and "PYTHONIOENCODING" not in os.environ and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")
