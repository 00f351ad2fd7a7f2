"""Type checks of untyped data that type checkers understand in full."""

from collections.abc import Iterable, Mapping
from typing import Any

from typing_extensions import TypeIs


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
