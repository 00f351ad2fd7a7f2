"""Texts of limited length, for messages of errors."""

_HEAD, _TAIL = 6_144, 2_048
"""Characters kept of the beginning and the end of a long text."""

_EXCERPT = 200
"""Characters shown of what a model wrote."""


def shortened(text: str) -> str:
    """Return a text; one too long to be of use loses its middle."""
    omitted = len(text) - _HEAD - _TAIL
    return text if omitted <= 0 else f"{text[:_HEAD]} [… {omitted} characters omitted …] {text[-_TAIL:]}"


def beginning(text: str) -> str:
    """Return the beginning of what a model wrote, quoted, as errors show it."""
    return repr(text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…")
