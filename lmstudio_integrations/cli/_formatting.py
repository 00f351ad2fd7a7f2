"""How the commands write values for people: sizes, times and long lines. Pure functions."""

import textwrap
import time
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmstudio_integrations.types.models import ModelInfo, ModelInstanceInfo

_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_TIMES = (("h", 3600), ("m", 60), ("s", 1))


def file_size(count: float) -> str:
    """Return a number of bytes in the unit that fits, for example `2.50 GB`."""
    for unit, factor in _SIZES:
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count:.0f} B"


def model_size(count: int) -> str:
    """Return the size of a model on disk; `-` if the server does not know it."""
    return file_size(count) if count else "-"


def instance_name(info: "ModelInstanceInfo") -> str:
    """Return the identifier of a loaded model, with its key if that is another one."""
    return info.identifier if info.identifier == info.model_key else f"{info.identifier} ({info.model_key})"


def device_name(info: "ModelInfo | ModelInstanceInfo", devices: Mapping[str | None, str]) -> str:
    """Return the name of the device that a model is on; nothing if all models are on one machine.

    Args:
        info: The info of the model.
        devices: The names of devices, by their identifiers; empty if all models are on one machine.
    """
    return devices.get(info.device_identifier, str(info.device_identifier)) if devices else ""


def duration(seconds: float) -> str:
    """Return a time in its two largest units, for example `1h 5m`."""
    whole, parts = max(0, round(seconds)), list[str]()
    for unit, factor in _TIMES:
        number, whole = divmod(whole, factor)
        if number:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"


def finite(number: float | None) -> float | None:
    """Return a number of a server, which may send any; `None` if it is infinite or not a number."""
    return number if number is not None and isfinite(number) else None


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
