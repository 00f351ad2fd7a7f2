"""Removes secrets from what is recorded, and from the requests that are compared with a recording.

Tokens, passkeys and the folder of the user are found by their form, by the name of their member, or because they were
sent to log in; the user names more. A secret that a model repeats may arrive in several packets, which are read as one
text.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lmstudio_integrations._support.secrets import HIDDEN, is_secret_name, secret_spans
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.uploads import INLINE
from lmstudio_integrations.errors import LMStudioValueError

HOME = "~"
"""Replaces the folder of a user."""

HASHED = "sha256:"
"""Precedes the hash that replaces the content of a file."""

_HOMES = re.compile(
    r"(?:/home/|/Users/|\b[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/))[^/\\\s\"'<>|:*?,;)\]}]+", re.IGNORECASE
)

_LABELS = {"type", "key"}
"""Members of the protocol that say what a value is, and hold none themselves."""

_NOT_SECRET = {"tokens", "bosToken", "eosToken"}
"""Members of the protocol whose names look like those of secrets."""


@lru_cache(4096)
def _is_secret(name: str) -> bool:
    return name not in _NOT_SECRET and is_secret_name(name)


Span = tuple[int, int, str]
"""Where a text is replaced, and by what."""


class Redaction:
    """What must not be recorded.

    Args:
        patterns: Regular expressions; what they match is hidden.
        contents: Whether the contents of images and files are kept, instead of their hashes.

    Raises:
        LMStudioValueError: If a pattern is not a valid regular expression, or matches the empty text.
    """

    def __init__(self, patterns: Iterable[str] = (), *, contents: bool = False) -> None:
        self._patterns = [_compiled(pattern) for pattern in patterns]
        self._keeps_contents = contents
        self._literals: set[str] = set()
        home = str(Path.home())
        self._home = re.compile(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])") if len(home) > 1 else None

    def hide(self, secret: object) -> None:
        """Hide a text wherever it occurs from now on, such as the passkey of a client."""
        if isinstance(secret, str) and secret:
            self._literals.add(secret)

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        return _replaced(text, self._spans(text))

    def value(self, value: Any, *, is_secret: bool = False) -> Any:
        """Return a JSON value without secrets. If it is secret as a whole, its texts and numbers are hidden.

        `ABSENT` stays what it is.
        """
        if isinstance(value, str):
            return HIDDEN if is_secret else self._string(value)
        if is_list(value):
            return [self.value(each, is_secret=is_secret) for each in value]
        if is_object(value):
            return {self.text(name): self._member(value, name, is_secret=is_secret) for name in value}
        return HIDDEN if is_secret and type(value) in {int, float} else value

    def parts(self, texts: Sequence[str]) -> list[str]:
        """Return the parts of one text without the secrets that it contains, also those across several parts."""
        return _parted(texts, self._spans("".join(texts)))

    def _member(self, parent: dict[str, Any], name: str, *, is_secret: bool) -> Any:
        value = parent[name]
        if name == "contentBase64" and isinstance(value, str):
            return self._content(value)
        if name == "properties" and is_object(value):  # of a JSON schema: names of parameters, and no values
            return {self.text(each): self.value(schema, is_secret=is_secret) for each, schema in value.items()}
        # A setting of a configuration has its name beside it.
        named = str(parent["key"]) if name == "value" and "key" in parent else name
        return self.value(value, is_secret=(is_secret and name not in _LABELS) or _is_secret(named))

    def _string(self, text: str) -> str:
        return INLINE + self._content(text.removeprefix(INLINE)) if text.startswith(INLINE) else self.text(text)

    def _content(self, content: str) -> str:
        return content if self._keeps_contents else hash_of(content)

    def _spans(self, text: str) -> list[Span]:
        found = [(start, end, HIDDEN) for start, end in secret_spans(text)]
        found += [(match.start(), match.end(), HOME) for match in _HOMES.finditer(text)]
        if self._home is not None:
            found += [(match.start(), match.end(), HOME) for match in self._home.finditer(text)]
        for pattern in self._patterns:
            found += [(match.start(), match.end(), HIDDEN) for match in pattern.finditer(text)]
        for literal in self._literals:
            if literal in text:
                found += [(match.start(), match.end(), HIDDEN) for match in re.finditer(re.escape(literal), text)]
        return _merged(found)


def hash_of(content: str) -> str:
    """Return the hash of the content of a file, or of one that is a hash already."""
    if content.startswith(HASHED):
        return content
    return f"{HASHED}{hashlib.sha256(content.encode(errors='surrogatepass')).hexdigest()}"


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise LMStudioValueError(f"the pattern {pattern!r} is not a regular expression: {error}") from None
    if compiled.search("") is not None:
        raise LMStudioValueError(f"the pattern {pattern!r} matches an empty text, so it would hide everything")
    return compiled


def _merged(spans: list[Span]) -> list[Span]:
    """Return spans that do not overlap. What is hidden by one of several is hidden."""
    merged: list[Span] = []
    for start, end, by in sorted(spans):
        if merged and start < merged[-1][1]:
            first, last, other = merged[-1]
            merged[-1] = (first, max(last, end), HIDDEN if HIDDEN in {by, other} else by)
        else:
            merged.append((start, end, by))
    return merged


def _replaced(text: str, spans: list[Span]) -> str:
    return "".join(_parted([text], spans))


def _parted(texts: Sequence[str], spans: list[Span]) -> list[str]:
    """Replace spans of a text that is in parts. A replacement is in the part where its span begins."""
    parts: list[str] = []
    begin = 0
    for text in texts:
        end, at, part = begin + len(text), begin, ""
        for start, stop, by in spans:
            if stop <= begin or start >= end:
                continue
            part += text[at - begin : max(start - begin, 0)] + (by if start >= begin else "")
            at = min(stop, end)
        parts.append(part + text[at - begin :])
        begin = end
    return parts
