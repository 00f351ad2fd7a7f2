"""How the commands write values for people: text from a server, errors, sizes and times. Pure functions."""

from lmstudio_integrations import _shortening

_KEPT = {"\n", "\t"}
_CONTROL_CHARACTERS: dict[int, None] = dict.fromkeys(
    code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in _KEPT
)

_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_TIMES = (("h", 3600), ("m", 60), ("s", 1))


def printable(text: str) -> str:
    """Return a text for a terminal, without characters that would control it: models and servers are not trusted."""
    return text.translate(_CONTROL_CHARACTERS)


def one_line(text: object) -> str:
    """Return a text, or the message of an error, as one line."""
    return printable(_shortening.one_line(text))


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
