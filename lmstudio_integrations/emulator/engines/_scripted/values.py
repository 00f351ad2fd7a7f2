"""The smallest numbers and strings that a flat JSON schema allows."""

import contextlib
import itertools
import math
import string
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from lmstudio_integrations.emulator.engines._scripted.budget import Budget, SchemaLimitError
from lmstudio_integrations.emulator.engines._scripted.pattern import (
    LargePatternError,
    UnreadablePatternError,
    matching,
)
from lmstudio_integrations.emulator.engines._scripted.search import Pattern, PatternError

Schema = Mapping[str, Any]

MOST = 100_000
"""The longest string and array that is made, and the object with the most members."""

MOST_DIFFERENT = 1_000
"""The longest array of different items that is made."""

_REPEATS = 64
"""How many repeats of a pattern's parts are tried, to make it long enough."""

_FORMATS: Mapping[str, str] = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "duration": "P0D",
    "email": "a@example.com",
    "hostname": "a",
    "ipv4": "0.0.0.0",  # noqa: S104 - an example of an address, nothing is bound to it
    "ipv6": "::",
    "time": "00:00:00Z",
    "uri": "http://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class NoInstanceError(Exception):
    """A schema allows nothing, or what it allows is not understood here."""


def numbers(schema: Schema, want: int, *, whole: bool) -> list[Any]:
    """Return numbers that a schema allows, those near zero first.

    Args:
        schema: With bounds and `multipleOf`.
        want: How many there shall be at most.
        whole: Whether they must be integers.
    """
    low, high = _bound(schema, "minimum", "exclusiveMinimum", max), _bound(schema, "maximum", "exclusiveMaximum", min)
    excluded = {_fraction(schema.get(keyword)) for keyword in ("exclusiveMinimum", "exclusiveMaximum")}
    step = _fraction(schema.get("multipleOf", 1))
    if step is None or step <= 0:
        raise NoInstanceError(f"multipleOf is {schema['multipleOf']!r}")
    if whole:
        step = Fraction(step.numerator)
    found = list(itertools.islice((n for n in _multiples(step, low, high) if n not in excluded), want))
    if not (found or whole or "multipleOf" in schema or low is None or high is None):
        between = (low + (high - low) * part / (want + 1) for part in range(want + 2))
        found = [number for number in between if low <= number <= high and number not in excluded][:want]
    if not found:
        raise NoInstanceError("no number lies within the bounds")
    return [int(number) if number.denominator == 1 else float(number) for number in found]


def _bound(schema: Schema, closed: str, opened: str, stricter: Any) -> Fraction | None:
    bounds = [bound for keyword in (closed, opened) if (bound := _fraction(schema.get(keyword))) is not None]
    return stricter(bounds) if bounds else None


def _fraction(value: object) -> Fraction | None:
    """Return a number as it is written, not as it is stored: 0.1 is a tenth."""
    return Fraction(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _multiples(step: Fraction, low: Fraction | None, high: Fraction | None) -> Iterator[Fraction]:
    """Yield the multiples of a step between two bounds, from the one nearest to zero on."""
    nearest = math.floor(high / step) if high is not None and high < 0 else math.ceil(max(low or 0, 0) / step)
    away = -1 if nearest < 0 else 1

    def within(multiple: Fraction) -> bool:
        return (low is None or low <= multiple) and (high is None or multiple <= high)

    for start, direction in ((nearest, away), (nearest - away, -away)):
        yield from itertools.takewhile(within, (place * step for place in itertools.count(start, direction)))


def strings(schema: Schema, want: int, budget: Budget) -> list[str]:
    """Return strings that a schema allows, the shortest first."""
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength", math.inf)
    if least > min(most, MOST):
        raise NoInstanceError(f"a string must be of {least} characters")
    budget.write(least * want)
    if "pattern" in schema:
        candidates = _of_pattern(str(schema["pattern"]), budget)
    elif schema.get("format") in _FORMATS:
        candidates = iter([_FORMATS[schema["format"]]])
    else:
        candidates = _letters(least)
    fitting = (text for text in candidates if least <= len(text) <= most)
    # Letters only grow, so that the search ends where they are too long.
    found = list(itertools.islice(itertools.takewhile(lambda text: len(text) <= most, fitting), want))
    if not found:
        raise NoInstanceError(f"no string of its length fits {schema.get('pattern') or schema.get('format')!r}")
    return found


def _letters(length: int) -> Iterator[str]:
    for longer in itertools.count(length):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=longer))


def _of_pattern(pattern: str, budget: Budget) -> Iterator[str]:
    """Yield texts that a pattern is found in, with more and more repeats, and then with letters around them."""
    try:
        shortest = matching(pattern)
        search = Pattern(pattern).is_in
    except LargePatternError as error:
        raise SchemaLimitError(str(error)) from error
    except (PatternError, UnreadablePatternError) as error:
        raise NoInstanceError(f"the pattern {pattern!r} is not understood") from error
    padded = (shortest + "a" * length for length in range(1, _REPEATS))
    for text in itertools.chain([shortest], _longer(pattern, shortest), padded):
        budget.take(1)
        if search(text):
            yield text


def _longer(pattern: str, shortest: str) -> Iterator[str]:
    """Yield longer and longer texts for a pattern, as far as they are within the bounds."""
    with contextlib.suppress(LargePatternError):
        for repeats in range(1, _REPEATS):
            longer = matching(pattern, repeats)
            if len(longer) <= len(shortest):
                return
            shortest = longer
            yield longer
