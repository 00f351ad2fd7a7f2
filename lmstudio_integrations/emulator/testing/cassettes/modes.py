"""When a cassette is recorded, how fast it is replayed, and what the cassette of a test is called."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["none", "once", "rewrite"]
"""When a cassette is recorded."""

Pace: TypeAlias = Literal["fast", "recorded"]
"""How fast a recording is replayed: everything at once, or with the waits of the recording."""

_PLAIN = re.compile(r"\w+(?:::\w+)*(?:\[[a-z0-9_.=](?:[a-z0-9_.=-]*[a-z0-9_.=])?\])?")
"""Names of tests that no other test has after characters are replaced, whatever the file system makes of them."""

_LONGEST = 150
"""Bytes of a readable name. File systems take 255 for the whole, and Windows 260 for the whole path."""


def cassette_name(test: Sequence[str]) -> str:
    """Return the file name of a test's cassette.

    It ends in a hash if the readable part alone may be that of another test: if characters are replaced, if parameters
    have capitals, which some file systems do not tell apart, or if it is too long.

    Args:
        test: The names of the test's classes, and of the test itself with its parameters.
    """
    name = "::".join(test)
    readable = re.sub(r"[^\w.=-]+", "-", name).strip("-")
    shortened = readable.encode()[:_LONGEST].decode(errors="ignore")
    if shortened != readable or not _PLAIN.fullmatch(name):
        # `~` is in no readable part.
        shortened += f"~{hashlib.sha256(name.encode(errors='backslashreplace')).hexdigest()[:8]}"
    return f"{shortened}.lms.jsonl"


def needs_server(path: Path, mode: Mode) -> bool:
    """Whether a server is needed in a mode, because something may be recorded."""
    return mode != "none" and not (mode == "once" and path.exists())
