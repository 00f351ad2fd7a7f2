"""Suggest which name was probably meant by an unknown one."""

from collections.abc import Iterable
from itertools import islice

_MOST_NAMES, _LONGEST_NAME = 128, 128
"""The most names that are compared, and the most characters of one: a comparison takes quadratic time."""


def near(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the names most similar to an unknown one, among the first 128 of up to 128 characters.

    Args:
        name: The unknown name.
        known: The known names.
        most: The most names to return.
        cutoff: How similar they must be, 0 to 1.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only for errors

    if len(name) > _LONGEST_NAME:
        return []
    names = [each for each in islice(known, _MOST_NAMES) if len(each) <= _LONGEST_NAME]
    return get_close_matches(name, names, n=most, cutoff=cutoff)


def hint(known: Iterable[str], meant: Iterable[str]) -> str:
    """Return the end of an error message: the name that was probably meant, else the known names."""
    nearest = next(iter(meant), None)
    return f"did you mean {nearest!r}?" if nearest else f"known are {', '.join(sorted(known))}"
