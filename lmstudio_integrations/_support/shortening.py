"""Short texts for messages: shortened ones, those of one line, and counts."""

_HEAD, _TAIL = 6_144, 2_048
"""Characters of the beginning and the end of a long text that stay."""

_EXCERPT = 200
"""Characters shown of what a model wrote."""


def shortened(text: str) -> str:
    """Return a text; a very long one without its middle."""
    omitted = len(text) - _HEAD - _TAIL
    return text if omitted <= 0 else f"{text[:_HEAD]} [… {omitted} characters omitted …] {text[-_TAIL:]}"


def beginning(text: str) -> str:
    """Return the quoted beginning of what a model wrote, for an error message."""
    return repr(text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…")


def one_line(text: object) -> str:
    """Return a text, or the message of an error, as one line."""
    return " ".join(str(text).split())


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, for example `2 models`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
