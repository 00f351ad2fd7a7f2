"""What is hidden in a cassette: what `_support/secrets.py` takes for a secret, folders of users, contents of files."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from lmstudio_integrations._support.secrets import (
    HIDDEN,
    NAMED,
    NAMING,
    is_secret_beside,
    is_secret_member,
    redact_received,
)
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.types.files import INLINE

T = TypeVar("T")

_PASSES = 5
"""How often a value is redacted at most. The second time, almost none changes any more."""

HOME = "~"
"""Replaces the folder of a user."""

HASHED = "sha256:"
"""Precedes the hash that replaces the content of a file."""

_HOMES = r"(?i:/home/|/Users/|\b[A-Z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/))[^/\\\s\"'<>|:*?,;)\]}]+"

_LISTS_OF_NAMES = {"required", "enum"}
"""Members of a schema with lists of names, which are no pairs of a name and its value."""

_LABELS = {"type", "key"}
"""Members of a plugin's settings that say what a value is, and hold none themselves."""


def redact(value: Any) -> Any:
    """Return a JSON value without secrets, folders of users and contents of files; anything else stays what it is.

    What it returns it would not change again: so a request that is replayed equals the recorded one, also if it has a
    response of the cassette in it.
    """
    return _settled(_redact, value)


def _settled(change: Callable[[T], T], value: T) -> T:
    """Return a value, changed until nothing changes any more."""
    for _ in range(_PASSES):
        before, value = value, change(value)
        if value == before:
            break
    return value


def _redact(value: Any, *, is_secret: bool = False) -> Any:
    """Redact a JSON value once.

    Args:
        value: The value.
        is_secret: Whether it is secret as a whole; then all its texts and numbers are hidden.
    """
    if is_list(value):
        is_pair = len(value) == 2
        texts = [each if isinstance(each, str) else "" for each in value]
        says = [is_secret_member(each) if each[:1] == "-" else is_pair and is_secret_beside(each) for each in texts]
        after = zip(value, [False, *says], texts, strict=False)
        return [_redact(each, is_secret=is_secret or (follows and bool(text))) for each, follows, text in after]
    if is_object(value):
        return {_redact_text_once(name): _redact_member(value, name, is_secret=is_secret) for name in value}
    if is_secret and type(value) in {str, int, float} and value != "":
        return HIDDEN
    if isinstance(value, str) and value.startswith(INLINE):
        return INLINE + _hash_of(value.removeprefix(INLINE))
    return _redact_text_once(value) if isinstance(value, str) else value


def _redact_member(parent: dict[str, Any], name: str, *, is_secret: bool) -> Any:
    value = parent[name]
    if name == "contentBase64" and isinstance(value, str):
        return _hash_of(value)
    if name.startswith("pluginConfig"):
        return _redact_settings(value)
    if name in _LISTS_OF_NAMES and is_list(value):
        return list(value)
    # A setting, a header or a variable has its name beside it.
    labels = [str(parent[each]) for each in NAMING if each in parent] if name in NAMED else []
    says = any(is_secret_beside(each, name) for each in labels) if labels else is_secret_member(name)
    return _redact(value, is_secret=is_secret or says)


def _redact_settings(value: Any) -> Any:
    """Return the settings of a plugin: they are secret, but for what says of which kind a value is."""
    if is_list(value):
        return [_redact_settings(each) for each in value]
    if is_object(value):
        return {name: _redact(each) if name in _LABELS else _redact_settings(each) for name, each in value.items()}
    return _redact(value, is_secret=True)


def _redact_text(text: str) -> str:
    return _settled(_redact_text_once, text)


def _redact_text_once(text: str) -> str:
    home = str(Path.home())
    own = rf"|(?<![\w.-]){re.escape(home)}(?![\w.-])" if len(home) > 1 else ""
    return re.sub(_HOMES + own, HOME, redact_received(text))


def redact_packets(packets: Iterable[Any]) -> tuple[list[Any], Callable[[], None]]:
    """Return the packets of a channel without secrets, and what to call once nothing else of them changes.

    A text that arrives in several packets is one text, and stands whole in its first fragment. The call divides it
    again if it is still what arrived.
    """
    # What a prediction writes, and by their number the arguments of each tool call.
    streams = defaultdict[int, list[tuple[str, dict[str, Any]]]](list)
    hidden, calls = list[Any](), 0
    for packet in packets:
        hidden.append(redact(packet))
        if not is_object(packet):
            continue
        calls += packet.get("type") == "toolCallGenerationStart"
        is_argument = packet.get("type") == "toolCallGenerationArgumentFragmentGenerated"
        before, after = (packet, hidden[-1]) if is_argument else (packet.get("fragment"), hidden[-1].get("fragment"))
        if is_object(before) and isinstance(before.get("content"), str):
            streams[calls if is_argument else 0].append((before["content"], after))
    texts = ["".join(content for content, _ in fragments) for fragments in streams.values()]
    for text, fragments in zip(texts, streams.values(), strict=True):
        for index, (_, fragment) in enumerate(fragments):
            fragment["content"] = "" if index else _redact_text(text)

    def divide() -> None:
        for text, fragments in zip(texts, streams.values(), strict=True):
            is_same = fragments[0][1].get("content") == text
            for content, fragment in fragments:
                if is_same:
                    fragment["content"] = content
                else:
                    fragment.pop("tokens", None)  # the text in another form

    return hidden, divide


def _hash_of(content: str) -> str:
    """Return the hash of the content of a file, or of one that is a hash already."""
    if content.startswith(HASHED):
        return content
    return f"{HASHED}{hashlib.sha256(content.encode(errors='surrogatepass')).hexdigest()}"
