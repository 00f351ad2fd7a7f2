"""Decides what looks like a secret, and removes it from errors, URLs and log records.

`errors.py` redacts every message of the package with it; the types and the adapters redact values that pydantic shows.
"""

import logging
import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import cast
from urllib.parse import urlsplit

from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from lmstudio_integrations._support.suggestions import closest_names
from lmstudio_integrations._support.typeguards import is_mapping

HIDDEN = "**********"
"""Replaces a secret, as in the `repr` of pydantic's `SecretStr`."""

TOKEN_PREFIX = "sk-lm-"  # noqa: S105 - the prefix of all LM Studio API tokens

_NAMES = (
    "token",
    "apitoken",
    "accesstoken",
    "apikey",
    "secret",
    "password",
    "passkey",
    "passphrase",
    "authorization",
    "headers",
)
_IN_NAME = re.compile(
    r"apikey|apitoken|secret|passw|passkey|passphrase|authori[sz]|credential|bearer|token$|^auth$|headers?$"
    r"|pluginconfig"
)
_IN_ADDRESS_NAME = re.compile(r"host|base_?url")
_NAME_CUTOFF = 0.75
"""How similar a mistyped name must be, 0 to 1; `max_tokens` is below."""

_VALUE = (
    rf"(?<![a-z0-9])(?:{TOKEN_PREFIX}[a-z0-9][\w:-]*|sk-[\w-]{{6,}})"  # API tokens of LM Studio and of others
    r"|(?<![a-z0-9])[a-z0-9]{8}:[a-z0-9]{20}(?![a-z0-9])"  # the two halves of one, without the prefix
    r"|(?<=\bbearer\s)\S{8,}"
    r"|(?<=://)[^/\s'\"]+(?=@)"  # user and password of a URL
    r"|(?<![^/\s'\":@])[^/\s'\":@]+:[^/\s'\":@]+(?=@\w)"  # the same without a scheme
    r"|(?<=[?&])[^=&\s]{0,64}(?:token|key|secret|passw)[^=&\s]{0,64}=[^&\s'\"]+"  # a query
)
"""Runs in linear time, because the text may be a whole image in base64."""

_LONGEST_URL = 120


@cache
def _value_pattern() -> re.Pattern[str]:
    """Return `_VALUE`, compiled with the first use: only errors need it, and it takes a millisecond."""
    return re.compile(_VALUE, re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name, even mistyped, is a secret."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    return bool(_IN_NAME.search(plain) or closest_names(plain, _NAMES, cutoff=_NAME_CUTOFF))


def redact(text: str) -> str:
    """Return a text without tokens and without the credentials of URLs."""
    return _value_pattern().sub(HIDDEN, text)


def secret_spans(text: str) -> Iterator[tuple[int, int]]:
    """Return where a text has tokens, or the credentials of URLs."""
    return (match.span() for match in _value_pattern().finditer(text))


def holds_credentials(host: str) -> bool:
    """Whether an address contains more than a host, a port and a path: a token, a user, or a query."""
    return TOKEN_PREFIX in host or any(character in host for character in "@?#")


def holds_secret(value: object, name: str = "") -> bool:
    """Whether a value must not be shown: its name is that of a secret, or it contains something like a token.

    Args:
        value: The value. One that hides itself, such as a `SecretStr`, may be shown.
        name: The name of the setting.
    """
    if value is None:
        return False
    secret = is_secret_name(name)
    if is_mapping(value):
        return any(holds_secret(key) or holds_secret(each, name if secret else str(key)) for key, each in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return any(holds_secret(each, name) for each in cast("Collection[object]", value))
    if secret:
        return HIDDEN not in repr(value)
    if isinstance(value, str) and _IN_ADDRESS_NAME.search(name.lower()) and holds_credentials(value):
        return True  # a password may contain what ends it elsewhere, such as a slash
    text = value if isinstance(value, str) else repr(value)
    return redact(text) != text


def redacted_url(url: str) -> str:
    """Return a URL without its possible secrets: user name, password, query and fragment.

    A URL that cannot be parsed is reduced to its scheme.
    """
    scheme = url.partition(":")[0].lower()
    try:
        parts = urlsplit(url)
        host, port, path = parts.hostname, parts.port, parts.path
    except ValueError:
        host, port, path = None, None, ""
    if not host:
        return f"{scheme}:…" if scheme.isalnum() and len(scheme) < len(url) else "…"
    netloc = f"[{host}]" if ":" in host else host
    shown = f"{scheme}://{netloc}{'' if port is None else f':{port}'}{path}"
    printable = "".join(character if character.isprintable() else "�" for character in shown)
    return printable if len(printable) <= _LONGEST_URL else f"{printable[:_LONGEST_URL]}…"


def without_secrets(error: ValidationError) -> ValidationError:
    """Return pydantic's error without secret inputs; the error itself if there are none.

    Raise it outside the `except` block, or `from None` inside a validator: an exception keeps its context.
    """
    problems = error.errors(include_url=False)
    secret = [any(holds_secret(each["input"], str(part)) for part in each["loc"] or [""]) for each in problems]
    if not any(secret):
        return error
    return ValidationError.from_exception_data(
        error.title,
        [
            InitErrorDetails(
                type=PydanticCustomError(each["type"], redact(each["msg"])),  # pyright: ignore[reportArgumentType]
                loc=each["loc"],
                input=HIDDEN if hide else each["input"],
            )
            for each, hide in zip(problems, secret, strict=True)
        ],
    )


class _RedactingLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger of the `websockets` library without debug records, which contain API tokens and all headers."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        return level > logging.DEBUG and super().isEnabledFor(level)


client_logger = _RedactingLogger(logging.getLogger("websockets.client"))
server_logger = _RedactingLogger(logging.getLogger("websockets.server"))
