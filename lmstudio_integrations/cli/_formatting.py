"""How the commands write values for people: sizes, times and long lines. Pure functions."""

import textwrap
import time
from typing import TYPE_CHECKING

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
