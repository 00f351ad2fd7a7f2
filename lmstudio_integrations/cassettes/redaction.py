"""What is hidden in a cassette: what `_support/secrets.py` takes for a secret, folders of users, contents of files."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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

_ARGUMENTS = "toolCallGenerationArgumentFragmentGenerated"
"""The type of a packet with a piece of the arguments of a tool call."""


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


class _Piece(NamedTuple):
    """A piece of a text that arrives in several packets.

    Attributes:
        number: That of its packet.
        text: What arrived.
        kind: Whether it is reasoning, a tag, or neither.
    """

    number: int
    text: str
    kind: tuple[Any, Any]


def redact_packets(packets: Iterable[Any]) -> tuple[list[Any], Callable[[Sequence[Any]], None]]:
    """Return the packets of a channel without secrets, and what to call with them once nothing else of them changes.

    A text that arrives in several packets is one text, and stands whole in its first fragment, without its tokens,
    which are the text in another form. The call divides it again if it is still what arrived.
    """
    hidden = list(map(redact, packets := list(packets)))
    texts = [text for pieces in _streams(packets) for text in _texts(pieces)]
    tokens = dict[int, Any]()
    for pieces, text in texts:
        for index, piece in enumerate(pieces):
            holder, name = _holder(hidden[piece.number])
            holder[name] = "" if index else text
            if "tokens" in holder:
                tokens[piece.number] = holder.pop("tokens")

    def divide(written: Sequence[Any]) -> None:
        for pieces, _ in texts:
            holders = [_holder(written[piece.number]) for piece in pieces if piece.number < len(written)]
            stand = [holder.get(name) for holder, name in holders]
            if stand != ["".join(piece.text for piece in pieces), *[""] * (len(pieces) - 1)]:
                continue
            for piece, (holder, name) in zip(pieces, holders, strict=True):
                holder[name] = piece.text
                if piece.number in tokens:
                    holder["tokens"] = tokens[piece.number]

    return hidden, divide


def _streams(packets: Iterable[Any]) -> Iterable[list[_Piece]]:
    """Return the pieces of what a prediction writes, and by their number of the arguments of each tool call."""
    streams, calls = defaultdict[int, list[_Piece]](list), 0
    for number, packet in enumerate(packets):
        calls += is_object(packet) and packet.get("type") == "toolCallGenerationStart"
        holder, name = _holder(packet)
        if holder:
            kind = holder.get("reasoningType"), holder.get("isStructural")
            stream = calls if holder.get("type") == _ARGUMENTS else 0
            streams[stream].append(_Piece(number, holder[name], kind))
    return streams.values()


def _holder(packet: Any) -> tuple[dict[str, Any], str]:
    """Return the object that has the piece of a text of a packet, empty if there is none, and the member's name."""
    holder, name = packet, "content"
    if is_object(packet) and packet.get("type") != _ARGUMENTS:
        holder = packet.get("fragment")
        if isinstance(holder, str):  # of a server of 2024
            holder, name = packet, "fragment"
    return (holder, name) if is_object(holder) and isinstance(holder.get(name), str) else ({}, name)


def _texts(pieces: Sequence[_Piece]) -> Iterator[tuple[list[_Piece], str]]:
    """Return the texts of a stream without secrets, each with its pieces: reasoning is not the text of the response."""
    runs = [list(run) for _, run in groupby(pieces, key=lambda piece: piece.kind)]
    texts = [_redact_text("".join(piece.text for piece in run)) for run in runs]
    # A secret may begin in one and end in another. Then these get what is left between those before and after them.
    whole = _redact_text("".join(piece.text for piece in pieces))
    (start, end), (at, to) = (0, len(texts)), (0, len(whole))
    while end - start > 1 and whole.startswith(texts[start], at, to):
        at += len(texts[start])
        start += 1
    while end - start > 1 and whole.endswith(texts[end - 1], at, to):
        end -= 1
        to -= len(texts[end])
    texts[start:end] = [whole[at:to], *[""] * (end - start - 1)]
    return zip(runs, texts, strict=True)


def _hash_of(content: str) -> str:
    """Return the hash of the content of a file, or of one that is a hash already."""
    if content.startswith(HASHED):
        return content
    return f"{HASHED}{hashlib.sha256(content.encode(errors='surrogatepass')).hexdigest()}"
