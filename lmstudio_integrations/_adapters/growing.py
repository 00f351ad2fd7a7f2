"""A text that is still being written, and read again only when that is worth while. Pure."""

from dataclasses import dataclass, field

_SMALL = 4096
"""Characters up to which every piece is read; beyond, reading each time would cost the square of the length."""

_GROWTH = 1.01
"""By how much a longer text must have grown to be read again."""


@dataclass(slots=True)
class GrowingText:
    """The pieces of a text."""

    _pieces: list[str] = field(default_factory=list[str])
    _length: int = 0
    _read: int = 0

    def add(self, piece: str) -> None:
        """Take a piece in."""
        self._pieces.append(piece)
        self._length += len(piece)

    def is_due(self) -> bool:
        """Whether there is enough new to read all of it again."""
        return self._length > self._read and (self._length <= _SMALL or self._length >= self._read * _GROWTH)

    def read(self) -> str:
        """Return all of it."""
        self._read = self._length
        return "".join(self._pieces)
