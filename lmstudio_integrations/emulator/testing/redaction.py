"""Removes secrets from what is recorded, and from the requests that are compared with a recording.

Tokens, passkeys and the folder of the user are found by their form, by the name of their member, or because they were
sent to log in; the user names more. Names are read in JSON that stands in a text as well. A secret that a model repeats
may arrive in several packets, which are read as one text.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lmstudio_integrations._support.secrets import (
    HIDDEN,
    NAMING,
    SCHEMA_KEYWORDS,
    is_secret_member,
    secret_members,
    secret_spans,
)
from lmstudio_integrations._support.text import dumps
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.testing.cassette import Event, Interaction
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.files import INLINE

HOME = "~"
"""Replaces the folder of a user."""

HASHED = "sha256:"
"""Precedes the hash that replaces the content of a file."""

_HOMES = re.compile(
    r"(?:/home/|/Users/|\b[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/))[^/\\\s\"'<>|:*?,;)\]}]+", re.IGNORECASE
)

_LABELS = {"type", "key"}
"""Members of a plugin's settings that say what a value is, and hold none themselves."""

_SCHEMAS = {"properties", "patternProperties", "$defs", "definitions"}
"""Members of a JSON schema whose own members are schemas, named by what they describe."""

_SAMPLES = {"default", "const", "example", "examples"}
"""Members of a JSON schema that have a value of what it describes."""

Place: TypeAlias = Literal["protocol", "plugin settings", "text", "arguments"]
"""Where a value is: in a message, in the settings of a plugin there, in JSON that stands in a text, or among the
arguments of a tool call."""

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
        self._patterns = [_compile(pattern) for pattern in patterns]
        self._keeps_contents = contents
        self._literals: set[str] = set()
        home = str(Path.home())
        self._home = re.compile(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])") if len(home) > 1 else None

    def hide(self, secret: object) -> None:
        """Hide a text wherever it occurs from now on, such as the passkey of a client."""
        if isinstance(secret, str) and secret:
            self._literals.add(secret)

    def text(self, text: str, place: Place = "text") -> str:
        """Return a text without secrets."""
        return "".join(self.parts([text], place=place))

    def value(self, value: Any, *, is_secret: bool = False, place: Place = "protocol") -> Any:
        """Return a JSON value without secrets. If it is secret as a whole, its texts and numbers are hidden.

        `ABSENT` stays what it is.
        """
        if isinstance(value, str):
            return HIDDEN if is_secret and value else self._string(value, place)
        if is_list(value):
            return [self.value(each, is_secret=is_secret, place=place) for each in value]
        if is_object(value):
            redacted = {self.text(name): self._member(value, name, is_secret=is_secret, place=place) for name in value}
            raw = value.get("rawContent")
            if isinstance(raw, str):  # the tool call of this packet, as the model wrote it
                redacted["rawContent"] = "".join(
                    self.parts([raw], also=hidden_texts(value, redacted), place="arguments")
                )
            return redacted
        return HIDDEN if is_secret and type(value) in {int, float} else value

    def parts(self, texts: Sequence[str], *, also: Iterable[str] = (), place: Place = "text") -> list[str]:
        """Return the parts of one text without the secrets that it contains, also those across several parts.

        A text that is JSON remains JSON, and equals what `value` makes of it.

        Args:
            texts: The parts.
            also: Words to hide as well, if the text is not JSON.
            place: Where the text is.
        """
        text = "".join(texts)
        spans: list[Span] = []
        around, at = list[str](), 0
        for start, end, value in _json_in(text):
            try:
                redacted = self.value(value, place=place)
            except RecursionError:
                continue
            if redacted != value:
                written = dumps(redacted)
                spans.append((start, end, "".join(_replace_spans([written], self._spans(written)))))
            around += [text[at : start + 1], " " * (end - start - 2)]
            at = max(start + 1, end - 1)
            also = also if end - start < len(text) else ()
        around.append(text[at:])
        for word in also:
            spans += [(*match.span(), HIDDEN) for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text)]
        return _replace_spans(texts, _merge([*secret_members("".join(around)), *spans, *self._spans(text)]))

    def _member(self, parent: dict[str, Any], name: str, *, is_secret: bool, place: Place) -> Any:
        value = parent[name]
        if place == "protocol" and name == "contentBase64" and isinstance(value, str):
            return self._content(value)
        if place == "plugin settings" and name in _LABELS:
            return self.value(value)
        if name in _SCHEMAS and place != "arguments" and not is_secret and _has_schemas(value):
            return {self.text(each): self._schema(schema, each, place) for each, schema in value.items()}
        # A setting, a header or a variable has its name beside it.
        labels = [str(parent[each]) for each in NAMING if each in parent] if name == "value" else []
        is_secret = is_secret or any(map(is_secret_member, labels or [name]))
        if name == "arguments":
            place = "arguments"
        elif place == "protocol" and name.startswith("pluginConfig"):
            place = "plugin settings"
        return self.value(value, is_secret=is_secret, place=place)

    def _schema(self, schema: Any, name: str, place: Place) -> Any:
        """Return the JSON schema of what has a name. If that is secret, so is what the schema has as a value of it."""
        if not is_secret_member(name) or not is_object(schema):
            return self.value(schema, place=place)
        return {self.text(each): self._member(schema, each, is_secret=each in _SAMPLES, place=place) for each in schema}

    def _string(self, text: str, place: Place) -> str:
        if text.startswith(INLINE):
            return INLINE + self._content(text.removeprefix(INLINE))
        return self.text(text, "arguments" if place == "arguments" else "text")

    def _content(self, content: str) -> str:
        return content if self._keeps_contents else hash_of(content)

    def _spans(self, text: str) -> list[Span]:
        spans: list[Span] = [(start, end, HIDDEN) for start, end in secret_spans(text)]
        spans += [(match.start(), match.end(), HOME) for match in _HOMES.finditer(text)]
        if self._home is not None:
            spans += [(match.start(), match.end(), HOME) for match in self._home.finditer(text)]
        for pattern in self._patterns:
            spans += [(match.start(), match.end(), HIDDEN) for match in pattern.finditer(text)]
        for literal in self._literals:
            if literal in text:
                spans += [(match.start(), match.end(), HIDDEN) for match in re.finditer(re.escape(literal), text)]
        return _merge(spans)


_DECODER = json.JSONDecoder()
_MOST_FAILURES = 500
"""How many objects in a text may be broken until the others are not read: an error takes the time of the whole text."""

_OBJECT = re.compile(r'\{\s*+["}]')


def _json_in(text: str) -> Iterator[tuple[int, int, Any]]:
    """Yield what a text is in JSON, or else the objects that stand in it, with their places."""
    with suppress(ValueError, RecursionError):
        yield 0, len(text), json.loads(text)
        return
    at = failures = 0
    while failures < _MOST_FAILURES and (begin := _OBJECT.search(text, at)) is not None:
        at = begin.start() + 1
        try:
            value, end = _DECODER.raw_decode(text, begin.start())
        except ValueError:
            failures += 1  # another object may begin in it
        except RecursionError:
            return
        else:
            yield begin.start(), end, value
            at = end


def _has_schemas(value: object) -> bool:
    """Whether the members of an object are JSON schemas. An empty one says nothing about the others."""
    if not is_object(value) or not all(each is None or isinstance(each, bool | dict) for each in value.values()):
        return False
    return any(is_object(each) and not SCHEMA_KEYWORDS.isdisjoint(each) for each in value.values())


def hidden_texts(before: Any, after: Any) -> Iterator[str]:
    """Return the texts and numbers that are hidden as a whole in a redacted value, in each form that they may have."""
    if is_object(before):
        for one, other in zip(before.values(), after.values(), strict=False):
            yield from hidden_texts(one, other)
    elif is_list(before):
        for one, other in zip(before, after, strict=True):
            yield from hidden_texts(one, other)
    elif after == HIDDEN != before:
        text = str(before)
        yield from {text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}


def hash_of(content: str) -> str:
    """Return the hash of the content of a file, or of one that is a hash already."""
    if content.startswith(HASHED):
        return content
    return f"{HASHED}{hashlib.sha256(content.encode(errors='surrogatepass')).hexdigest()}"


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise LMStudioValueError(f"the pattern {pattern!r} is not a regular expression: {error}") from None
    if compiled.search("") is not None:
        raise LMStudioValueError(f"the pattern {pattern!r} matches an empty text, so it would hide everything")
    return compiled


def _merge(spans: list[Span]) -> list[Span]:
    """Return spans that do not overlap. Of those with the same place, the first counts."""
    merged: list[Span] = []
    for start, end, by in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not merged or start >= merged[-1][1]:
            merged.append((start, end, by))
        elif end > merged[-1][1]:
            merged[-1] = (merged[-1][0], end, HIDDEN)
    return merged


def _replace_spans(texts: Sequence[str], spans: list[Span]) -> list[str]:
    """Replace spans of a text that is in parts. A replacement is in the part where its span begins."""
    parts: list[str] = []
    begin = number = 0
    for text in texts:
        end, at, part = begin + len(text), begin, list[str]()
        while number < len(spans) and spans[number][0] < end:
            start, stop, by = spans[number]
            part += (text[at - begin : max(start - begin, 0)], by if start >= begin else "")
            at = min(stop, end)
            if stop > end:
                break  # it goes on in the next part
            number += 1
        parts.append("".join(part) + text[at - begin :])
        begin = end
    return parts


# Whole requests -----------------------------------------------------------------------------------------------------


def redact(interaction: Interaction, redaction: Redaction) -> Interaction:
    """Return a request without secrets."""
    parameter = redaction.value(interaction.parameter)
    original = [event.body for event in interaction.events]
    bodies = [redaction.value(body) for body in original]
    for before, after in zip(_texts_in_parts(original), _texts_in_parts(bodies), strict=True):
        parts = redaction.parts(before.parts, also=hidden_texts(before.end, after.end), place=before.place)
        for old, new, holder in zip(before.parts, parts, after.holders, strict=True):
            holder[after.name] = new
            if new != old:
                # The number of a token, and what might have come in its place, are its text in another form.
                for other in ("id", "candidates"):
                    holder.pop(other, None)
    if interaction.endpoint == "tokenize" and parameter != interaction.parameter:
        # The numbers of the tokens are the text in another form.
        bodies = [{**body, "tokens": [0] * len(body["tokens"])} if _has_tokens(body) else body for body in bodies]
    events = [Event(event.kind, event.at, body) for event, body in zip(interaction.events, bodies, strict=True)]
    return replace(interaction, parameter=parameter, events=events)


def _has_tokens(body: object) -> bool:
    return is_object(body) and isinstance(body.get("tokens"), list)


@dataclass(slots=True)
class _TextInParts:
    """A text that a prediction sends in parts.

    Attributes:
        name: The member that has a part.
        holders: The objects that have this member.
        place: Where the text is.
        end: The packet that ends the tool call, if one does.
    """

    name: str
    holders: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    place: Place = "text"
    end: dict[str, Any] | None = None

    @property
    def parts(self) -> list[str]:
        return [holder[self.name] for holder in self.holders]

    def add(self, holder: object) -> None:
        if is_object(holder) and isinstance(holder.get(self.name), str):
            self.holders.append(holder)


def _texts_in_parts(bodies: Sequence[Any]) -> Iterable[_TextInParts]:
    """Return the texts that a prediction sends in parts: what it writes, and the arguments of each tool call."""
    content, tokens = _TextInParts("content"), _TextInParts("text")
    calls = [_TextInParts("content", place="arguments")]
    for packet in filter(is_object, bodies):
        kind, fragment = packet.get("type"), packet.get("fragment")
        if kind == "toolCallGenerationStart":
            calls.append(_TextInParts("content", place="arguments"))
        elif kind == "toolCallGenerationArgumentFragmentGenerated":
            calls[-1].add(packet)
        elif kind == "toolCallGenerationEnd":
            calls[-1].end = packet
        if is_object(fragment):
            content.add(fragment)
            for token in fragment.get("tokens") or ():
                tokens.add(token)
    return [content, tokens, *calls]
