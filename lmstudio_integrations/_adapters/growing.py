"""Parses JSON that is still being generated, and limits how often a growing text is parsed again. Pure."""

from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

_SMALL = 4096
"""Characters up to which the text is parsed after every fragment; for a long text, that would take quadratic time."""

_GROWTH = 1.01
"""The growth after which a longer text is parsed again."""


def partial_json(text: str) -> Any:
    """Return as much of a JSON value as there is; `None` if there is none."""
    try:
        return from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return None


@dataclass(slots=True)
class GrowingText:
    """The fragments of a text."""

    _fragments: list[str] = field(default_factory=list[str])
    _length: int = 0
    _read: int = 0

    def add(self, fragment: str) -> None:
        """Add a fragment."""
        self._fragments.append(fragment)
        self._length += len(fragment)

    def is_due(self) -> bool:
        """Whether the text has grown enough to be parsed again."""
        return self._length > self._read and (self._length <= _SMALL or self._length >= self._read * _GROWTH)

    def read(self) -> str:
        """Return the whole text, to be parsed."""
        self._read = self._length
        return "".join(self._fragments)
