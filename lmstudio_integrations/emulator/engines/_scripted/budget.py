"""How much one schema may cost, whoever wrote it: parts that are looked at, characters that are written, seconds."""

import time

MOST_PARTS = 100_000
"""The most schemas, members and items that are looked at; one that is referred to twice counts twice."""

MOST_CHARACTERS = 5_000_000
"""The most characters of JSON, those of inner values counted again on each level above."""

DEEPEST = 60
"""The most schemas within each other, references followed."""

MOST_SECONDS = 10.0


class SchemaLimitError(Exception):
    """A schema exceeds a bound, which the text names; looking further is of no use."""


class Budget:
    """What is left for one schema."""

    def __init__(self) -> None:
        self._parts = MOST_PARTS
        self._characters = MOST_CHARACTERS
        self._end = time.monotonic() + MOST_SECONDS

    def take(self, parts: int) -> None:
        """Count parts that are looked at.

        Raises:
            SchemaLimitError: If there are too many, or the time is over.
        """
        self._parts -= parts
        if self._parts < 0:
            raise SchemaLimitError(f"it has more than {MOST_PARTS} parts, its references followed")
        if time.monotonic() > self._end:
            raise SchemaLimitError(f"it takes more than {MOST_SECONDS:g} s to follow")

    def write(self, characters: int) -> None:
        """Count characters that are written.

        Raises:
            SchemaLimitError: If there are too many.
        """
        self._characters -= characters
        if self._characters < 0:
            raise SchemaLimitError(f"its instances take more than {MOST_CHARACTERS} characters")
