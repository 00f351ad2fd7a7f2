"""Checks the texts for an embedding model. Pure."""

from lmstudio_integrations.client._arguments import list_of
from lmstudio_integrations.errors import LMStudioValueError


def prefixed(prefix: str, texts: object) -> list[str]:
    """Return texts, each with a prefix.

    Raises:
        LMStudioValueError: If they are not a list of strings. A single string would be embedded letter by letter.
    """
    found = list_of(texts, "texts")
    for index, text in enumerate(found):
        if not isinstance(text, str):
            raise LMStudioValueError(f"text {index} must be a string; got {text!r}")
    return [prefix + text for text in found] if prefix else found
