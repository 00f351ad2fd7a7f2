"""Regular expressions that take linear time: those of Rust's `regex`, which pydantic brings.

Python's own engine backtracks: `(a+)+$` against forty letters takes hours and blocks every thread meanwhile.
Look-around and back-references are not supported, and a pattern that would need much memory is not compiled.
"""

from pydantic_core import SchemaError, SchemaValidator, core_schema

MAX_SEARCHED = 1_000_000
"""Only the first characters of a text are searched, as even linear time is long for an endless text."""


class PatternError(Exception):
    """A pattern is invalid, or does not take linear time."""


class Pattern:
    """A compiled regular expression.

    Args:
        pattern: In the syntax of Rust's `regex`.

    Raises:
        PatternError: If it cannot be compiled.
    """

    def __init__(self, pattern: str) -> None:
        schema = core_schema.str_schema(pattern=_without_surrogates(pattern), regex_engine="rust-regex", strict=True)
        try:
            self._validator = SchemaValidator(schema)
        except SchemaError as error:
            raise PatternError(str(error).strip().rpartition("\n")[2].strip()) from error

    def is_found_in(self, text: str) -> bool:
        """Return whether the pattern matches somewhere in a text."""
        return self._validator.isinstance_python(_without_surrogates(text[:MAX_SEARCHED]))


def _without_surrogates(text: str) -> str:
    """Return the text with a question mark for each lone surrogate, which Rust does not accept."""
    return text.encode("utf-8", "replace").decode("utf-8")
