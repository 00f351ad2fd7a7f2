"""Parses JSON that is still being generated; a long text only when it has grown. Pure."""

from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from lmstudio_integrations.errors import LMStudioStructuredOutputError
from lmstudio_integrations.types.structured import read_response

_SMALL = 4096
"""Characters up to which the text is parsed after every fragment; for a long text, that would take quadratic time."""

_GROWTH = 1.01
"""The growth after which a longer text is parsed again."""


def _parse(text: str) -> Any:
    return from_json(text, allow_partial="trailing-strings")


def partial_json(text: str) -> Any:
    """Return as much of a JSON value as there is; `None` if there is none."""
    try:
        return read_response(_parse, text, "none yet")
    except LMStudioStructuredOutputError:
        return None


@dataclass(slots=True)
class GrowingText:
    """The fragments of a text."""

    _fragments: list[str] = field(default_factory=list[str])
    _length: int = 0
    _parsed: int = 0

    def add(self, fragment: str) -> None:
        """Add a fragment."""
        self._fragments.append(fragment)
        self._length += len(fragment)

    def partial_value(self) -> Any:
        """Return as much of the JSON value as there is; `None` if the text has not grown enough to be parsed again."""
        if self._length <= self._parsed or (self._length > _SMALL and self._length < self._parsed * _GROWTH):
            return None
        self._parsed = self._length
        return partial_json(str(self))

    def __str__(self) -> str:
        return "".join(self._fragments)
