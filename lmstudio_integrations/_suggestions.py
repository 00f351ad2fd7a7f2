"""What to say of a name that nobody knows: which one was probably meant."""

from collections.abc import Iterable
from itertools import islice

_MOST_NAMES, _LONGEST_NAME = 128, 128
"""Names compared, and characters of one; comparing two takes the square of their length."""


def near(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the names most similar to one. Only the first 128 names of up to 128 characters are compared.

    Args:
        name: The name that is not known.
        known: Those that are.
        most: How many to return.
        cutoff: How like they must be, 0 to 1.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only when something is wrong

    if len(name) > _LONGEST_NAME:
        return []
    names = [each for each in islice(known, _MOST_NAMES) if len(each) <= _LONGEST_NAME]
    return get_close_matches(name, names, n=most, cutoff=cutoff)


def hint(known: Iterable[str], meant: Iterable[str]) -> str:
    """Return the end of a message: what was probably meant, else what is known."""
    nearest = next(iter(meant), None)
    return f"did you mean {nearest!r}?" if nearest else f"known are {', '.join(sorted(known))}"
