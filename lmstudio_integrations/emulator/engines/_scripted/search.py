"""Regular expressions that take linear time: those of Rust's `regex`, which pydantic brings.

Python's own engine backtracks: `(a+)+$` against forty letters takes hours, and no other thread runs meanwhile.
There is no looking around and no reference back; a pattern that would need much memory is not compiled.
"""

from pydantic_core import SchemaError, SchemaValidator, core_schema

LONGEST_SEARCHED = 1_000_000
"""So many characters of a text are searched, the first ones: linear time is long for a text without end."""


class PatternError(Exception):
    """A pattern is none, or none that takes linear time."""


class Pattern:
    """A compiled regular expression.

    Args:
        pattern: In the syntax of Rust's `regex`.

    Raises:
        PatternError: If it cannot be compiled.
    """

    def __init__(self, pattern: str) -> None:
        schema = core_schema.str_schema(pattern=_without_halves(pattern), regex_engine="rust-regex", strict=True)
        try:
            self._validator = SchemaValidator(schema)
        except SchemaError as error:
            raise PatternError(str(error).strip().rpartition("\n")[2].strip()) from error

    def is_in(self, text: str) -> bool:
        """Whether the pattern is found in a text."""
        return self._validator.isinstance_python(_without_halves(text[:LONGEST_SEARCHED]))


def _without_halves(text: str) -> str:
    """Return the text with a question mark for each half of a character that stands alone."""
    return text.encode("utf-8", "replace").decode("utf-8")
