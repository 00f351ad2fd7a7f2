"""API tokens: their form, and the two halves that are sent in their place (docs/protocol.md#credentials)."""

import re

from lmstudio_integrations._support.secrets import TOKEN_PREFIX

TOKEN_FORM = f"{TOKEN_PREFIX}, 8 letters or digits, a colon, and 20 more"
"""The form of a token, for error messages."""

_TOKEN = re.compile(TOKEN_PREFIX + r"(?P<identifier>[A-Za-z0-9]{8}):(?P<passkey>[A-Za-z0-9]{20})")


def split_token(token: str) -> tuple[str, str] | None:
    """Return the client identifier and the passkey of a token; `None` if it has another form."""
    # As in the official Python SDK, surrounding whitespace does not count (docs/protocol.md#credentials).
    match = _TOKEN.fullmatch(token.strip())
    return (match["identifier"], match["passkey"]) if match else None
