"""What to say of a name that nobody knows: which one was probably meant."""

from collections.abc import Iterable


def near(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the names that are most like one; none if none is like it.

    Args:
        name: The name that is not known.
        known: Those that are.
        most: How many to return.
        cutoff: How like they must be, 0 to 1.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only when something is wrong

    return get_close_matches(name, list(known), n=most, cutoff=cutoff)


def hint(known: Iterable[str], meant: Iterable[str]) -> str:
    """Return the end of a message: what was probably meant, else what is known."""
    nearest = next(iter(meant), None)
    return f"did you mean {nearest!r}?" if nearest else f"known are {', '.join(sorted(known))}"
