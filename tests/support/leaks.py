"""What an exception shows of a secret, anywhere in its chain."""

import traceback
from collections.abc import Callable, Iterator

import pytest
from pydantic import ValidationError

TOKEN = "sk-lm-KqWzHmPx:RtYbNhGvXsLkJwQzMnPy"
"""No six characters of it occur in a number, a UUID or a word."""


def shows_token(text: str) -> bool:
    """Whether six characters in a row of either half of the token are in a text; pydantic shows ends of values."""
    return any(TOKEN[start : start + 6] in text for start in range(6, len(TOKEN) - 5))


def error_of(call: Callable[[], object]) -> ValueError | TypeError:
    """Return the error of a call that must fail."""
    try:
        call()
    except (ValueError, TypeError) as error:
        return error
    pytest.fail("it was accepted")


def shown_by(error: BaseException, *, with_attributes: bool = True) -> str:
    """Return everything that a log or a person may see of an exception.

    Args:
        error: The exception.
        with_attributes: Whether they may see its attributes, of which some are what the model wrote.
    """
    return "\n".join(_shown(error, set(), with_attributes=with_attributes))


def _shown(error: BaseException, seen: set[int], *, with_attributes: bool) -> Iterator[str]:
    if id(error) in seen:
        return
    seen.add(id(error))
    yield f"{error} {error!r} {error.args!r} {''.join(traceback.format_exception(error))}"
    if with_attributes:
        yield repr(vars(error))
    if isinstance(error, ValidationError):
        yield f"{error.errors()!r} {error.json()}"
    for other in (error.__cause__, error.__context__):
        if other is not None:
            yield from _shown(other, seen, with_attributes=with_attributes)
