"""The format of cassettes, what is recorded of a conversation, without secrets, and which requests are equal.

A cassette is JSON, one object a line, in UTF-8. The first line has the version of the format. Each request is followed
by its events, in the order in which the requests were made. There are no times and no numbers, so the file changes in
Git only where a request or a response has changed. A line has an `event`, which is one of these:

- `call`, `channel`: a request, as `docs/protocol.md` has it: `namespace`, `endpoint`, the parameter as `body`, and the
  `section` of the recording, if it has sections.
- `sent`, `received`: a packet on a channel, of the client and of the server.
- `result`, `error`, `warning`: the reply to a call, the error that ended a call or a channel, the warning by which the
  server rejected a request.
- `closed`, `lost`: the end of a channel, or of its connection. A request without an end was under way when the
  recording ended.

`body` is what was sent. A void parameter or result has none, which is not the same as null.
"""

import contextlib
import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard, get_args

from lmstudio_integrations._support.environment import __version__, regular
from lmstudio_integrations._support.secrets import HIDDEN, NAMING, SCHEMA_KEYWORDS, is_secret_member, redact_received
from lmstudio_integrations._support.text import counted, dumps
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS
from lmstudio_integrations.protocol.envelope import parse
from lmstudio_integrations.types.files import INLINE

logger: logging.Logger = logging.getLogger(__name__)

VERSION = 2
"""The version of the format. A reader rejects a file with any other."""

Mode: TypeAlias = Literal["none", "once", "rewrite"]
"""When a cassette is recorded."""

Kind: TypeAlias = Literal["call", "channel"]
"""What a request opens: a call with one reply, or a channel with packets in both directions."""

EventKind: TypeAlias = Literal["sent", "received", "result", "error", "closed", "lost", "warning"]
"""A packet of the client or of the server, the reply to a call, an error that ends either, the end of a channel, the
loss of the connection, or a warning in the place of a reply."""

OBJECTS: frozenset[EventKind] = frozenset({"sent", "received", "error", "warning"})
"""Events whose bodies are objects."""

ENDS: frozenset[EventKind] = frozenset({"result", "error", "closed", "lost", "warning"})
"""After these, nothing belongs to the request any more."""

ABSENT: Any = object()
"""A parameter or result that is void."""


@dataclass(frozen=True, slots=True)
class Event:
    """What was said after a request.

    Attributes:
        kind: Who said it, and what it is.
        body: The packet, result, error or warning.
    """

    kind: EventKind
    body: Any = ABSENT


@dataclass(slots=True, eq=False)
class Interaction:
    """A request, and everything that belongs to it.

    Attributes:
        number: Its place in the order of requests, from 1.
        kind: What it opens.
        namespace: Where the endpoint is.
        endpoint: The endpoint.
        parameter: What was asked.
        events: What was said after it, in order.
        section: What the recording calls the part to which it belongs; empty if it has no parts.
    """

    number: int
    kind: Kind
    namespace: str
    endpoint: str
    parameter: Any = ABSENT
    events: list[Event] = field(default_factory=list[Event])
    section: str = ""

    @property
    def name(self) -> str:
        """The endpoint, with its namespace."""
        return f"{self.namespace}.{self.endpoint}"

    @property
    def is_over(self) -> bool:
        """Whether its end is there, or only that of its channel is missing."""
        return self.end is not None or any(packet.get("type") in LAST_PACKETS for packet in list(self.packets())[-1:])

    def packets(self) -> Iterator[dict[str, Any]]:
        """Return what the server sent on a channel."""
        return (event.body for event in self.events if event.kind == "received")

    @property
    def end(self) -> Event | None:
        """What ended it; `None` if the recording ended before."""
        return self.events[-1] if self.events and self.events[-1].kind in ENDS else None

    @property
    def result(self) -> Any:
        """The reply to a call; `ABSENT` if it is void, or did not come."""
        return self.end.body if self.end is not None and self.end.kind == "result" else ABSENT


# Files --------------------------------------------------------------------------------------------------------------

_PLAIN = re.compile(r"\w+(?:::\w+)*(?:\[[a-z0-9_.=](?:[a-z0-9_.=-]*[a-z0-9_.=])?\])?")
"""Names of tests that no other test has after characters are replaced, whatever the file system makes of them."""

_LONGEST = 150
"""Bytes of a readable name. File systems take 255 for the whole, and Windows 260 for the whole path."""


def cassette_name(test: Sequence[str]) -> str:
    """Return the file name of a test's cassette.

    It ends in a hash if the readable part alone may be that of another test: if characters are replaced, if parameters
    have capitals, which some file systems do not tell apart, or if it is too long.

    Args:
        test: The names of the test's classes, and of the test itself with its parameters.
    """
    name = "::".join(test)
    readable = re.sub(r"[^\w.=-]+", "-", name).strip("-")
    shortened = readable.encode()[:_LONGEST].decode(errors="ignore")
    if shortened != readable or not _PLAIN.fullmatch(name):
        # `~` is in no readable part.
        shortened += f"~{hashlib.sha256(name.encode(errors='backslashreplace')).hexdigest()[:8]}"
    return f"{shortened}.lms.jsonl"


def needs_server(path: Path, mode: Mode) -> bool:
    """Whether a server is needed in a mode, because something may be recorded."""
    return mode != "none" and not (mode == "once" and path.exists())


def read(path: Path) -> list[Interaction]:
    """Return the requests of a cassette, in order.

    Raises:
        LMStudioOSError: If the file cannot be read.
        LMStudioValueError: If it is not a cassette, or of another version; the message names the line.
    """
    with file_errors(path, "read"):
        lines = regular(path).read_bytes().splitlines()
    head = _object(lines[0]) if lines else {}
    if "cassette" not in head:
        raise LMStudioValueError(f"{str(path)!r} is not a cassette; `lmsi record` writes them")
    if head["cassette"] != VERSION:
        raise LMStudioValueError(
            f"the cassette {str(path)!r} has version {head['cassette']!r} of the format, and this release reads "
            f"version {VERSION}; record it again"
        )
    interactions = list[Interaction]()
    for number, line in enumerate(lines[1:], 2):
        try:
            _add(interactions, _object(line))
        except (KeyError, ValueError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else error
            raise LMStudioValueError(f"line {number} of the cassette {str(path)!r} cannot be read: {why}") from None
    return interactions


def _object(line: bytes) -> dict[str, Any]:
    return parse(line)[0] or {}


def _add(interactions: list[Interaction], line: dict[str, Any]) -> None:
    """Add a line to the requests.

    Raises:
        KeyError: If it lacks a member.
        ValueError: If it does not fit to those before it.
    """
    kind, body = line["event"], line.get("body", ABSENT)
    if kind in get_args(Kind):
        names = line["namespace"], line["endpoint"]
        interactions.append(Interaction(len(interactions) + 1, kind, *names, body, section=line.get("section", "")))
        return
    if kind not in get_args(EventKind):
        raise ValueError(f"unknown event {kind!r}")
    if not interactions or interactions[-1].end is not None:
        raise ValueError("no request before it is open")
    if kind in OBJECTS and not is_object(body):
        raise ValueError("its body is not an object")
    interactions[-1].events.append(Event(kind, body))


def save(path: Path, interactions: Iterable[Interaction]) -> None:
    """Write a cassette without secrets, in the place of a file that exists.

    Raises:
        LMStudioOSError: If that fails.
    """
    lines = [{"cassette": VERSION, "recorded_by": f"lmstudio-integrations {__version__}"}]
    for each in interactions:
        try:
            lines += _lines(redacted(each))
        except RecursionError:
            logger.warning("a request of %s is not recorded: it is nested too deeply", each.name)
    with file_errors(path):
        path.write_bytes(b"".join(f"{dumps(line)}\n".encode() for line in lines))


def _lines(interaction: Interaction) -> Iterator[dict[str, Any]]:
    names = {"namespace": interaction.namespace, "endpoint": interaction.endpoint}
    section = {"section": interaction.section} if interaction.section else {}
    yield {"event": interaction.kind, **names, **section, **_body(interaction.parameter)}
    for event in interaction.events:
        yield {"event": event.kind, **_body(event.body)}


def _body(body: Any) -> dict[str, Any]:
    return {} if body is ABSENT else {"body": body}


@contextlib.contextmanager
def file_errors(path: Path, doing: str = "write") -> Generator[None]:
    """Raise the errors of a file as typed ones."""
    try:
        yield
    except (LMStudioOSError, LMStudioValueError):
        raise
    except (OSError, ValueError) as error:  # the latter for a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise LMStudioOSError(f"cannot {doing} the cassette {str(path)!r}: {reason}") from error


# Secrets ------------------------------------------------------------------------------------------------------------

HOME = "~"
"""Replaces the folder of a user."""

HASHED = "sha256:"
"""Precedes the hash that replaces the content of a file."""

_HOMES = r"(?i:/home/|/Users/|\b[A-Z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/))[^/\\\s\"'<>|:*?,;)\]}]+"

_SCHEMAS = {"properties", "patternProperties", "$defs", "definitions"}
"""Members of a JSON schema whose own members are schemas, named by what they describe."""

_LABELS = {"type", "key"}
"""Members of a plugin's settings that say what a value is, and hold none themselves."""

_SAMPLES = {"default", "const", "example", "examples"}
"""Members of a JSON schema that have a value of what it describes."""


def redacted(interaction: Interaction) -> Interaction:
    """Return a request without secrets, as `_support/secrets.py` knows them."""
    parameter = redact(interaction.parameter)
    bodies: list[Any] = [redact(event.body) for event in interaction.events]
    _redact_streams([event.body for event in interaction.events], bodies)
    if interaction.endpoint == "tokenize" and parameter != interaction.parameter:
        # The numbers of the tokens are the text in another form.
        bodies = [{**body, "tokens": [0] * len(body["tokens"])} if _has_tokens(body) else body for body in bodies]
    events = [replace(event, body=body) for event, body in zip(interaction.events, bodies, strict=True)]
    return replace(interaction, parameter=parameter, events=events)


def _has_tokens(body: object) -> bool:
    return is_object(body) and is_list(body.get("tokens"))


def redact(value: Any, *, is_secret: bool = False) -> Any:
    """Return a JSON value without secrets, folders of users and contents of files; `ABSENT` stays what it is.

    Args:
        value: The value.
        is_secret: Whether it is secret as a whole; then all its texts and numbers are hidden.
    """
    if is_list(value):
        return [redact(each, is_secret=is_secret) for each in value]
    if is_object(value):
        return {_redact_text(name): _redact_member(value, name, is_secret=is_secret) for name in value}
    if is_secret and type(value) in {str, int, float} and value != "":
        return HIDDEN
    if isinstance(value, str) and value.startswith(INLINE):
        return INLINE + _hash_of(value.removeprefix(INLINE))
    return _redact_text(value) if isinstance(value, str) else value


def _redact_member(parent: dict[str, Any], name: str, *, is_secret: bool) -> Any:
    value = parent[name]
    if name == "contentBase64" and isinstance(value, str):
        return _hash_of(value)
    if name in _SCHEMAS and not is_secret and _has_schemas(value):
        return {each: _redact_schema(schema, each) for each, schema in value.items()}
    if name.startswith("pluginConfig"):
        return _redact_settings(value)
    # A setting, a header or a variable has its name beside it.
    labels = [str(parent[each]) for each in NAMING if each in parent] if name == "value" else []
    return redact(value, is_secret=is_secret or any(map(is_secret_member, labels or [name])))


def _redact_settings(value: Any) -> Any:
    """Return the settings of a plugin: they are secret, but for what says of which kind a value is."""
    if is_list(value):
        return [_redact_settings(each) for each in value]
    if is_object(value):
        return {name: redact(each) if name in _LABELS else _redact_settings(each) for name, each in value.items()}
    return redact(value, is_secret=True)


def _has_schemas(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether the members of an object are JSON schemas. An empty one says nothing about the others."""
    if not is_object(value) or not all(each is None or isinstance(each, bool | dict) for each in value.values()):
        return False
    return any(is_object(each) and not SCHEMA_KEYWORDS.isdisjoint(each) for each in value.values())


def _redact_schema(schema: Any, name: str) -> Any:
    """Return the JSON schema of what has a name. If that is secret, so is what the schema has as a value of it."""
    if not is_secret_member(name) or not is_object(schema):
        return redact(schema)
    return {each: _redact_member(schema, each, is_secret=each in _SAMPLES) for each in schema}


def _redact_text(text: str) -> str:
    home = str(Path.home())
    own = rf"|(?<![\w.-]){re.escape(home)}(?![\w.-])" if len(home) > 1 else ""
    return re.sub(_HOMES + own, HOME, redact_received(text))


def _redact_streams(bodies: Sequence[Any], redacted_bodies: Sequence[Any]) -> None:
    """Hide secrets that arrive in several packets: a text with any then has the place of its first fragment.

    Args:
        bodies: The packets of a request.
        redacted_bodies: The same, each redacted by itself; their fragments are changed.
    """
    # What a prediction writes, and by their number the arguments of each tool call.
    texts = defaultdict[int, list[tuple[str, dict[str, Any]]]](list)
    calls = 0
    for body, new in zip(bodies, redacted_bodies, strict=True):
        if not is_object(body):
            continue
        calls += body.get("type") == "toolCallGenerationStart"
        is_argument = body.get("type") == "toolCallGenerationArgumentFragmentGenerated"
        before, after = (body, new) if is_argument else (body.get("fragment"), new.get("fragment"))
        if is_object(before) and isinstance(before.get("content"), str):
            texts[calls if is_argument else 0].append((before["content"], after))
    for fragments in texts.values():
        text = "".join(content for content, _ in fragments)
        hidden = _redact_text(text)
        for content, fragment in fragments:
            fragment["content"] = content
        if hidden != text:
            for _, fragment in fragments:
                fragment["content"], hidden = hidden, ""
                fragment.pop("tokens", None)  # the text in another form


def _hash_of(content: str) -> str:
    """Return the hash of the content of a file, or of one that is a hash already."""
    if content.startswith(HASHED):
        return content
    return f"{HASHED}{hashlib.sha256(content.encode(errors='surrogatepass')).hexdigest()}"


# Matching -----------------------------------------------------------------------------------------------------------

USED_ONCE = {"predict", "completeRawText", "generateWithGenerator"}
"""Requests whose recorded response is used once: the same prompt may get another response each time. For any other, the
last response counts for all further requests."""

_NEUTRAL = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?(?!\d)"), "<time>"),
    (re.compile(r"(?:/private)?(?:/tmp|/var/folders|/var/tmp)/[^\s\"'<>|:*?,;)\]}]+"), "<path>"),
    (re.compile(r"(?:~|[A-Za-z]:)?[\\/]\S{0,120}?[\\/]Temp[\\/][^\s\"'<>|:*?,;)\]}]+", re.IGNORECASE), "<path>"),
)
"""What differs from run to run in texts, and what stands for it."""

MAX_LISTED = 8
"""Differences that are shown; of more, only their number."""

_AROUND = 24
"""Characters that are shown before and after the place where two values differ."""

Leaves: TypeAlias = dict[tuple[str, ...], str]
"""A normalized request: what is at the end of each path into it, as JSON."""


class Matcher:
    """Finds recorded requests. Belongs to the event loop of its server.

    Args:
        interactions: The recording.
    """

    def __init__(self, interactions: Iterable[Interaction]) -> None:
        self.unmatched: list[str] = []
        """Why requests were not found, one text for each."""
        self._used: set[int] = set()
        self._recorded = defaultdict[str, list[tuple[Interaction, Leaves]]](list)
        for each in interactions:
            self._recorded[each.name].append((each, _normalize(each.parameter)))

    def find(self, name: str, parameter: Any) -> Interaction:
        """Return the recorded request that this one equals, once both are normalized.

        Equal requests are found in their order.

        Args:
            name: The namespace and the endpoint.
            parameter: What is asked.

        Raises:
            WireError: If nothing is found, or nothing that is not used up; it has the difference to the nearest one.
        """
        sent = _normalize(parameter)
        matches = [each for each, leaves in self._recorded[name] if leaves == sent]
        unused = [each for each in matches if each.number not in self._used]
        if unused:
            self._used.add(unused[0].number)
            return unused[0]
        if matches and name.partition(".")[2] not in USED_ONCE:
            return matches[-1]
        cause = self._nearest(name, sent)
        if matches:
            cause = f"It was recorded {counted(len(matches), 'time')}, and each recorded response is used once."
        self.unmatched.append(f"{name}: {cause}")
        logger.warning("not in the cassette: %s", self.unmatched[-1])
        raise WireError(
            f"The cassette has no such request ({name})",
            cause=cause,
            suggestion="Record the cassette again if the program has changed on purpose.",
        )

    def _nearest(self, name: str, sent: Leaves) -> str:
        if not self._recorded[name]:
            names = ", ".join(sorted(each for each in self._recorded if self._recorded[each]))
            return f"It has requests of {names or 'no endpoint'} only."
        compared = [(each, list(_compare(leaves, sent))) for each, leaves in self._recorded[name]]
        nearest, lines = min(compared, key=lambda pair: len(pair[1]))
        if len(lines) > MAX_LISTED:
            lines[MAX_LISTED:] = [f"and {counted(len(lines) - MAX_LISTED, 'further difference')}"]
        return "\n  ".join([f"The nearest is request {nearest.number}:", *lines])


def _normalize(parameter: Any) -> Leaves:
    """Return a parameter without secrets, and without what is new in each run; void and null are the same."""
    return dict(_leaves(redact(None if parameter is ABSENT else parameter), ("parameter",), {}))


def _leaves(value: Any, path: tuple[str, ...], calls: dict[str, str]) -> Iterator[tuple[tuple[str, ...], str]]:
    if is_list(value) and value and all(is_object(each) and each.keys() == {"key", "value"} for each in value):
        value = {str(each["key"]): each["value"] for each in value}  # settings, whose order means nothing
    if is_object(value) and value:
        for name in sorted(value):
            if name == "toolCallId" or (name == "id" and "arguments" in value):
                call = json.dumps(value[name])
                yield (*path, name), calls.setdefault(call, f"call {len(calls) + 1}")
            else:
                yield from _leaves(value[name], (*path, name), calls)
    elif is_list(value) and value:
        for index, each in enumerate(value):
            yield from _leaves(each, (*path[:-1], f"{path[-1]}[{index}]"), calls)
    else:
        if isinstance(value, str):
            for pattern, by in _NEUTRAL:
                value = pattern.sub(by, value)
        yield path, json.dumps(value, ensure_ascii=False)


def _compare(recorded: Leaves, sent: Leaves) -> Iterator[str]:
    """Return a line for each place where two requests differ, for people."""
    for path in {**recorded, **sent}:
        one, other = (leaves.get(path, "nothing") for leaves in (recorded, sent))
        if one != other:
            equal = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
            start = max(equal - _AROUND, 0)
            shown = (_excerpt(each, start) for each in (one, other))
            yield "{}: recorded {}, sent {}".format(".".join(path[1:]) or path[0], *shown)


def _excerpt(text: str, start: int) -> str:
    end = start + 2 * _AROUND
    return f"{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}"
