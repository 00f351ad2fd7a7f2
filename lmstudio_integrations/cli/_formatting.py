"""How the commands write values for people: sizes and times. Pure functions."""

_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_TIMES = (("h", 3600), ("m", 60), ("s", 1))


def file_size(count: float) -> str:
    """Return a number of bytes in the unit that fits, for example `2.50 GB`."""
    for unit, factor in _SIZES:
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Return a time in its two largest units, for example `1h 5m`."""
    whole, parts = max(0, round(seconds)), list[str]()
    for unit, factor in _TIMES:
        number, whole = divmod(whole, factor)
        if number:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"
