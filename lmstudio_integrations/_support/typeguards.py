"""Checks of untyped data that type checkers understand."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard, cast

from typing_extensions import TypeIs

SAFE_INTEGER = 2**53
"""From here on, integers are not exact in JavaScript, the language of the server."""


def is_object(value: object) -> TypeIs[dict[str, Any]]:
    """Whether a value is a JSON object."""
    return isinstance(value, dict)


def is_mapping(value: object) -> TypeIs[Mapping[Any, Any]]:
    """Whether a value is a mapping of any kind."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeIs[list[Any]]:
    """Whether a value is a JSON array."""
    return isinstance(value, list)


def is_iterable(value: object) -> TypeIs[Iterable[Any]]:
    """Whether a value can be iterated over."""
    return isinstance(value, Iterable)


MOST_LEVELS = 200
"""How deep a setting may be nested. What writes, compares and copies it is recursive, in the frameworks as well."""


def is_too_deep(value: object) -> bool:
    """Whether a value is nested more than `MOST_LEVELS` levels deep, or contains itself."""
    if not isinstance(value, dict | list | tuple):  # nearly all settings
        return False
    level: dict[int, object] = {0: value}
    for _ in range(MOST_LEVELS + 1):
        # Each once, however often it is shared.
        level = {id(member): member for each in level.values() for member in _members(each)}
        if not level:
            return False
    return True


def _members(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("Iterable[object]", value.values())
    return cast("Iterable[object]", value) if isinstance(value, list | tuple) else ()


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value can be a number of tokens or the like."""
    return type(value) is int and 0 <= value < SAFE_INTEGER


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number of usable size."""
    if type(value) is int:
        return -SAFE_INTEGER < value < SAFE_INTEGER
    return type(value) is float and math.isfinite(value)
