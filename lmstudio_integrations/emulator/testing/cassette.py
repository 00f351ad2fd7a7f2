"""The format of cassettes: JSON, one event a line, in UTF-8; and when a cassette is recorded, and what it is called.

The first line has the version of the format. The lines of one request are together, and the same content is always the
same bytes, so a file changes in Git only where a response has changed. Every other line has an `event`, the `id` of its
request, and `at`: seconds since the recording began for a request, and since its request for any other event. By
events, they also have:

- `call`, `channel`: a request, as `docs/protocol.md` has it: `namespace`, `endpoint`, `parameter`, and the `section` of
  the recording. A void parameter or result has no member.
- `sent`, `received`: a `packet` on a channel, of the client and of the server.
- `result`, `error`, `warning`: the reply to a call, the error that ended a call or a channel, the warning by which the
  server rejected a request, each in the member of that name.
- `closed`, `lost`: the end of a channel, or of its connection. A request without an end was under way when the
  recording ended.
"""

import contextlib
import hashlib
import logging
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from lmstudio_integrations._support.environment import __version__, regular
from lmstudio_integrations._support.text import dumps
from lmstudio_integrations._support.typeguards import is_number, is_object
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS
from lmstudio_integrations.protocol.envelope import parse

logger: logging.Logger = logging.getLogger(__name__)

VERSION = 1
"""The version of the format. A reader rejects a file with any other."""

Mode: TypeAlias = Literal["none", "once", "rewrite"]
"""When a cassette is recorded."""

Pace: TypeAlias = Literal["fast", "recorded"]
"""How fast a recording is replayed: everything at once, or with the waits of the recording."""

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
"""A parameter or result that is void: its member is absent, which is not the same as null."""


class Request(NamedTuple):
    """What a client asks.

    Attributes:
        namespace: Where the endpoint is.
        endpoint: The endpoint.
        parameter: What is asked; `ABSENT` if it is void.
    """

    namespace: str
    endpoint: str
    parameter: Any = ABSENT

    def __str__(self) -> str:
        return f"{self.namespace}.{self.endpoint}"


@dataclass(frozen=True, slots=True)
class Event:
    """What was said after a request.

    Attributes:
        kind: Who said it, and what it is.
        at: Seconds since the request.
        body: The packet, result, error or warning.
    """

    kind: EventKind
    at: float
    body: Any = ABSENT


@dataclass(slots=True, eq=False)
class Interaction:
    """A request, and everything that belongs to it.

    Attributes:
        number: Its place in the order of requests, from 1.
        at: Seconds since the recording began.
        kind: What it opens.
        namespace: Where the endpoint is.
        endpoint: The endpoint.
        parameter: What was asked.
        events: What was said after it, in order.
        section: What the recording calls the part to which it belongs; empty if it has no parts.
    """

    number: int
    at: float
    kind: Kind
    namespace: str
    endpoint: str
    parameter: Any = ABSENT
    events: list[Event] = field(default_factory=list[Event])
    section: str = ""

    @property
    def request(self) -> Request:
        """What was asked."""
        return Request(self.namespace, self.endpoint, self.parameter)

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

    If the file ends in the middle of a line, because its recording was cut off, what is complete before it is returned,
    and a warning is logged.

    Raises:
        LMStudioOSError: If the file cannot be read.
        LMStudioValueError: If it is not a cassette, or of another version; the message names the line.
    """
    with file_errors(path, "read"):
        lines = regular(path).read_bytes().splitlines(keepends=True)
    _check_head(path, lines[0] if lines else b"")
    interactions: dict[int, Interaction] = {}
    for number, line in enumerate(lines[1:], 2):
        event, _ = parse(line)
        if event is None and not line.endswith(b"\n"):
            _drop_incomplete(interactions)
            logger.warning("line %d of the cassette %r is cut off; what is complete is used", number, str(path))
            break
        try:
            _add(interactions, event or {})
        except (KeyError, ValueError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else error
            raise LMStudioValueError(f"line {number} of the cassette {str(path)!r} cannot be read: {why}") from None
    return sorted(interactions.values(), key=lambda each: each.number)


def _check_head(path: Path, line: bytes) -> None:
    head, _ = parse(line)
    if head is None or "cassette" not in head:
        raise LMStudioValueError(f"{str(path)!r} is not a cassette; `lmsi record` writes them")
    if head["cassette"] != VERSION:
        raise LMStudioValueError(
            f"the cassette {str(path)!r} has version {head['cassette']!r} of the format, and this release reads "
            f"version {VERSION}; record it again"
        )


def _add(interactions: dict[int, Interaction], line: dict[str, Any]) -> None:
    """Add a line to the requests.

    Raises:
        KeyError: If it lacks a member.
        ValueError: If it does not fit to those before it.
    """
    kind, number, at = line["event"], line["id"], line["at"]
    if type(number) is not int or not is_number(at):
        raise ValueError("its id or its time is not a number")
    if kind in get_args(Kind):
        if number in interactions:
            raise ValueError(f"there are two requests {number}")
        texts = line["namespace"], line["endpoint"], line.get("parameter", ABSENT)
        interactions[number] = Interaction(number, at, kind, *texts, section=line.get("section", ""))
        return
    if kind not in get_args(EventKind):
        raise ValueError(f"unknown event {kind!r}")
    if number not in interactions:
        raise ValueError(f"there is no request {number} before it")
    if interactions[number].end is not None:
        raise ValueError(f"request {number} has already ended")
    body = line.get(_member(kind), ABSENT)
    if kind in OBJECTS and not is_object(body):
        raise ValueError(f"its {_member(kind)} is not an object")
    interactions[number].events.append(Event(kind, at, body))


def _drop_incomplete(interactions: dict[int, Interaction]) -> None:
    """Drop the last request, if its lines are cut off."""
    last = next(reversed(interactions.values()), None)
    if last is not None and last.end is None:
        del interactions[last.number]


class Writer:
    """Writes a cassette, request by request. What is complete is in the file at once.

    Args:
        path: The file, which must not exist yet.

    Raises:
        LMStudioOSError: If the file exists, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        with file_errors(path):
            if path.exists():
                raise LMStudioOSError(f"the cassette {str(path)!r} exists; delete it, or choose another name")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb", buffering=0)
        self._path = path
        try:
            self._write(_line({"cassette": VERSION, "recorded_by": f"lmstudio-integrations {__version__}"}))
        except LMStudioOSError:
            self.close()
            path.unlink()
            raise

    def write(self, interaction: Interaction) -> None:
        """Write a request with its events.

        Raises:
            LMStudioOSError: If that fails. The file then has the requests before it.
        """
        self._write(b"".join(_lines(interaction)))

    def close(self) -> None:
        self._file.close()

    def _write(self, lines: bytes) -> None:
        """Write lines as a whole or not at all."""
        before, rest = self._file.tell(), memoryview(lines)
        with file_errors(self._path):
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._file.truncate(before)
                raise


@contextlib.contextmanager
def file_errors(path: Path, doing: str = "write") -> Generator[None]:
    """Raise the errors of a file as typed ones."""
    try:
        yield
    except (LMStudioOSError, LMStudioValueError):
        raise
    except (OSError, ValueError) as error:  # the latter for a path that no file can have
        raise LMStudioOSError(f"cannot {doing} the cassette {str(path)!r}: {error}") from error


def _lines(interaction: Interaction) -> Iterator[bytes]:
    number = interaction.number
    request = {
        "event": interaction.kind,
        "id": number,
        "at": interaction.at,
        "namespace": interaction.namespace,
        "endpoint": interaction.endpoint,
        **({"section": interaction.section} if interaction.section else {}),
    }
    yield _line(request | ({} if interaction.parameter is ABSENT else {"parameter": interaction.parameter}))
    for event in interaction.events:
        body = {} if event.body is ABSENT else {_member(event.kind): event.body}
        yield _line({"event": event.kind, "id": number, "at": event.at, **body})


def _member(kind: EventKind) -> str:
    """Return the member of a line that holds what was said."""
    return "packet" if kind in {"sent", "received"} else kind


def _line(members: dict[str, Any]) -> bytes:
    return f"{dumps(members)}\n".encode()
