"""The format of cassettes, and what is recorded of a conversation.

A cassette is JSON, one object a line, in UTF-8. The first line has the version of the format. Each request is followed
by its events, in the order in which the requests were made. There are no times and no numbers, so the file changes in
Git only where a request or a response has changed. A line has an `event`, which is one of these:

- `call`, `channel`: a request, as `docs/protocol.md` has it: `namespace`, `endpoint`, the parameter as `body`, and the
  `section` of the recording, if it has sections.
- `sent`, `received`: a packet on a channel, of the client and of the server.
- `result`, `error`, `warning`: the reply to a call, the error that ended a call or a channel, the warning by which the
  server rejected a request.
- `closed`, `lost`: the end of a channel, or of its connection.
- `open`: in the place of an end, if the request was under way when the recording ended.

`body` is what was sent. A void parameter or result has none, which is not the same as null.
"""

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from lmstudio_integrations._support.environment import __version__, regular
from lmstudio_integrations._support.secrets import HIDDEN
from lmstudio_integrations._support.text import counted, dumps
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.cassettes.redaction import redact, redact_packets
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS
from lmstudio_integrations.protocol.envelope import parse

logger: logging.Logger = logging.getLogger(__name__)

VERSION = 2
"""The version of the format. A reader rejects a file with any other."""

Kind: TypeAlias = Literal["call", "channel"]
"""What a request opens: a call with one reply, or a channel with packets in both directions."""

EventKind: TypeAlias = Literal["sent", "received", "result", "error", "closed", "lost", "warning"]
"""A packet of the client or of the server, the reply to a call, an error that ends either, the end of a channel, the
loss of the connection, or a warning in the place of a reply."""

_OPEN = "open"
"""Stands in the place of an end, without which a cassette is cut off."""

OBJECTS: frozenset[EventKind] = frozenset({"sent", "received", "error", "warning"})
"""Events whose bodies are objects."""

ENDS: frozenset[EventKind] = frozenset({"result", "error", "closed", "lost", "warning"})
"""After these, nothing belongs to the request any more."""

MAX_REQUEST = 10_000_000
"""Bytes of a request's line. Each is compared with what a program asks, which takes a second for each megabyte."""

ABSENT: Any = object()
"""A parameter or result that is void."""

BeforeRecord: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Sees a request before it is written, and returns what is written, or nothing: `namespace`, `endpoint`, `body`, and
the `events` after it, each with its kind as `event` and its `body`. Bodies that are void are absent."""

_TEXTS = re.compile(r"(?:^|\.)(?:text|content|arguments|inputString|input|prompt|query)\b")
"""Places whose texts are of users and models, also those of one word."""


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
        was_open: Whether the cassette says that it was under way when the recording ended.
    """

    number: int
    kind: Kind
    namespace: str
    endpoint: str
    parameter: Any = ABSENT
    events: list[Event] = field(default_factory=list[Event])
    section: str = ""
    was_open: bool = False

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


def read(path: Path) -> list[Interaction]:
    """Return the requests of a cassette, in order.

    Raises:
        LMStudioOSError: If the file cannot be read.
        LMStudioValueError: If it is not a cassette, or of another version; the message names the line.
    """
    with file_errors(path, "read"):
        lines = regular(path).read_bytes().splitlines()
    head = (parse(lines[0])[0] if lines else None) or {}
    if "cassette" not in head:
        raise LMStudioValueError(f"{str(path)!r} is not a cassette; record one with `use_cassette`")
    if head["cassette"] != VERSION:
        raise LMStudioValueError(
            f"the cassette {str(path)!r} has version {head['cassette']!r} of the format, and this release reads "
            f"version {VERSION}; record it again"
        )
    interactions = list[Interaction]()
    for number, line in enumerate(lines[1:], 2):
        try:
            _add(interactions, _object(line), len(line))
        except (KeyError, ValueError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else error
            raise LMStudioValueError(f"line {number} of the cassette {str(path)!r} cannot be read: {why}") from None
    return interactions


def _object(line: bytes) -> dict[str, Any]:
    value, _ = parse(line)
    if value is None:
        raise ValueError("it is not a JSON object")
    return value


def _add(interactions: list[Interaction], line: dict[str, Any], size: int) -> None:
    """Add a line of a size to the requests.

    Raises:
        KeyError: If it lacks a member.
        ValueError: If it does not fit to those before it.
    """
    kind, body = line["event"], line.get("body", ABSENT)
    if kind in get_args(Kind):
        if size > MAX_REQUEST:
            raise ValueError(f"a request has more than {MAX_REQUEST:,} bytes")
        names = line["namespace"], line["endpoint"]
        interactions.append(Interaction(len(interactions) + 1, kind, *names, body, section=line.get("section", "")))
        return
    if kind not in (*get_args(EventKind), _OPEN):
        raise ValueError(f"unknown event {kind!r}")
    if not interactions or interactions[-1].end is not None or interactions[-1].was_open:
        raise ValueError("no request before it is open")
    if kind == _OPEN:
        interactions[-1].was_open = True
        return
    if kind in OBJECTS and not is_object(body):
        raise ValueError("its body is not an object")
    interactions[-1].events.append(Event(kind, body))


def save(path: Path, interactions: Iterable[Interaction], before_record: BeforeRecord | None = None) -> str:
    """Write a cassette without secrets, in the place of a file that exists.

    Args:
        path: The file.
        interactions: The requests.
        before_record: Called with each request, see `recorded`.

    Returns:
        How many values were removed, and where texts of users and models remain.

    Raises:
        LMStudioOSError: If that fails.
        LMStudioValueError: If `before_record` returns what is no request.
    """
    lines = [_encoded({"cassette": VERSION, "recorded_by": f"lmstudio-integrations {__version__}"})]
    texts, written = Counter[str](), 0
    for each in interactions:
        try:
            kept = recorded(each, before_record)
            encoded = list(map(_encoded, _lines(kept))) if kept is not None else []
        except RecursionError:
            logger.warning("a request of %s is not recorded: it is nested too deeply", each.name)
            continue
        if kept is None:
            continue
        if len(encoded[0]) > MAX_REQUEST:
            logger.warning("a request of %s is not recorded: it has more than %s bytes", each.name, f"{MAX_REQUEST:,}")
            continue
        lines += encoded
        written += 1
        bodies = [kept.parameter, *(event.body for event in kept.events)]
        texts.update(f"{each.name} {place}" for body in bodies for place in _texts(body))
    data = b"".join(lines)
    with file_errors(path):
        path.write_bytes(data)
    removed = counted(data.count(HIDDEN.encode()), "value")
    places = "".join(f"\n  {place} ({count})" for place, count in sorted(texts.items()))
    return f"{counted(written, 'request')}, {removed} removed; texts remain in:{places or ' none'}"


def recorded(interaction: Interaction, before_record: BeforeRecord | None = None) -> Interaction | None:
    """Return what is written of a request: without secrets, and as the user's function returns it, if there is one.

    Raises:
        LMStudioValueError: If it returns what is no request.
    """
    parameter = redact(interaction.parameter)
    bodies, divide = redact_packets(event.body for event in interaction.events)
    events = [replace(event, body=body) for event, body in zip(interaction.events, bodies, strict=True)]
    if before_record is not None:
        found = reviewed(before_record, interaction.name, parameter, events)
        if found is None:
            return None
        parameter, events = found
    divide([event.body for event in events])
    if interaction.endpoint == "tokenize" and parameter != interaction.parameter:
        # The numbers of the tokens are the text in another form.
        for event in events:
            if _has_tokens(event.body):
                event.body["tokens"] = [0] * len(event.body["tokens"])
    return replace(interaction, parameter=parameter, events=events)


def reviewed(
    before_record: BeforeRecord, name: str, parameter: Any, events: Iterable[Event] = ()
) -> tuple[Any, list[Event]] | None:
    """Return the parameter and the events of a request as the user's function returns them, or that it is left out.

    Raises:
        LMStudioValueError: If it returns what is no request.
    """
    namespace, _, endpoint = name.partition(".")
    listed = [{"event": each.kind, **_body(each.body)} for each in events]
    request = before_record({"namespace": namespace, "endpoint": endpoint, **_body(parameter), "events": listed})
    if request is None:
        return None
    try:
        written = request["events"] if listed else request.get("events", ())  # a replayed request has none to lose
        found = [Event(each["event"], each.get("body", ABSENT)) for each in written]
        return request.get("body", ABSENT), found
    except (TypeError, KeyError, AttributeError) as error:
        lacks = f" without {error}" if isinstance(error, KeyError) else ""
        raise LMStudioValueError(
            f"before_record must return the request that it was given, changed or not, or None to leave it out; for "
            f"{name} it returned {type(request).__name__}{lacks}"
        ) from None


def _texts(body: Any, place: str = "") -> Iterator[str]:
    """Yield where a body has texts of users and models: several words, or members that have texts by their names."""
    if is_object(body):
        for name, each in body.items():
            yield from _texts(each, f"{place}.{name}" if place else name)
    elif is_list(body):
        for each in body:
            yield from _texts(each, place)
    elif isinstance(body, str) and body and body != HIDDEN and (" " in body or _TEXTS.search(place)):
        yield place


def _has_tokens(body: object) -> bool:
    return is_object(body) and is_list(body.get("tokens"))


def _encoded(line: dict[str, Any]) -> bytes:
    return f"{dumps(line)}\n".encode()


def _lines(interaction: Interaction) -> Iterator[dict[str, Any]]:
    names = {"namespace": interaction.namespace, "endpoint": interaction.endpoint}
    section = {"section": interaction.section} if interaction.section else {}
    yield {"event": interaction.kind, **names, **section, **_body(interaction.parameter)}
    for event in interaction.events:
        yield {"event": event.kind, **_body(event.body)}
    if interaction.end is None:
        yield {"event": _OPEN}


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
