"""Texts of limited length, for messages of errors."""

_HEAD, _TAIL = 6_144, 2_048
"""Characters kept of the beginning and the end of a long text."""


def shortened(text: str) -> str:
    """Return a text; one too long to be of use loses its middle."""
    omitted = len(text) - _HEAD - _TAIL
    return text if omitted <= 0 else f"{text[:_HEAD]} [… {omitted} characters omitted …] {text[-_TAIL:]}"
