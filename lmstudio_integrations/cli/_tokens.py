"""The API tokens that `serve` accepts: from options, a file or the environment. None is ever printed."""

import os
from collections.abc import Sequence
from pathlib import Path

from lmstudio_integrations._support.environment import TOKEN_VARIABLES
from lmstudio_integrations._support.files import regular
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.credentials import TOKEN_FORM, split_token


def accepted_tokens(options: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """Return the tokens of the options and of the file; without any, the one of the environment.

    Raises:
        LMStudioValueError: If the file cannot be used, or a token is malformed; the message contains its place.
    """
    tokens = [(token, "--token") for token in options]
    if file is not None:
        tokens += _read(file)
    variable = token_variable()
    if not tokens and variable is not None:
        tokens = [(os.environ[variable], variable)]
    for token, where in tokens:
        if split_token(token) is None:
            raise LMStudioValueError(f"the API token of {where} is malformed; it must be {TOKEN_FORM}")
    return tuple(token for token, _ in tokens)


def token_variable() -> str | None:
    """Return the environment variable that contains a token, as for clients."""
    return next((name for name in TOKEN_VARIABLES if os.environ.get(name)), None)


def _read(file: Path) -> list[tuple[str, str]]:
    """Return the tokens of a file, each with its line. `#` begins a comment."""
    try:
        lines = regular(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise LMStudioValueError(f"cannot read the token file {str(file)!r}: {reason}") from None
    entries = [(line.partition("#")[0].strip(), f"{file}, line {number}") for number, line in enumerate(lines, 1)]
    tokens = [(token, where) for token, where in entries if token]
    if not tokens:
        raise LMStudioValueError(f"the token file {str(file)!r} contains no token, and every guest would be accepted")
    return tokens
