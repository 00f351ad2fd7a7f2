"""API tokens: their shape, and the two halves that travel in their place (protocol §2.3)."""

import re

from lmstudio_integrations._secrets import TOKEN_PREFIX

TOKEN_FORM = f"{TOKEN_PREFIX}, 8 letters or digits, a colon, and 20 more"
"""What a token looks like, for error messages."""

_TOKEN = re.compile(TOKEN_PREFIX + r"(?P<identifier>[A-Za-z0-9]{8}):(?P<passkey>[A-Za-z0-9]{20})")


def split_token(token: str) -> tuple[str, str] | None:
    """Return the client identifier and the passkey of a token; `None` if it is none. Space around it does not count."""
    found = _TOKEN.fullmatch(token.strip())
    return (found["identifier"], found["passkey"]) if found else None
