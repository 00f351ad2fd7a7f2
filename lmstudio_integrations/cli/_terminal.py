"""Protects a terminal from texts: whatever is written to it, it shows them and does not obey them."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from lmstudio_integrations._support.text import printable


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
