"""The format of cassettes: JSON, one event a line (docs/tools/cassettes.md#format).

The lines of one request are together. A file whose name ends in `.gz` is compressed, always to the same bytes.
"""

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypeAlias, cast, get_args

from lmstudio_integrations._support.typeguards import is_number
from lmstudio_integrations.emulator.defaults import version
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.protocol.envelope import dumps, parse

VERSION = 1
"""The version of the format. A reader rejects a file with any other."""

Kind: TypeAlias = Literal["call", "channel"]
"""What a request opens: a call with one reply, or a channel with packets in both directions."""

EventKind: TypeAlias = Literal["sent", "received", "result", "error", "closed", "lost", "warning"]
"""A packet of the client or of the server, the reply to a call, an error that ends either, the end of a channel, the
loss of the connection, or a warning in the place of a reply."""

_REQUESTS = frozenset(get_args(Kind))
_BODIES: dict[EventKind, str] = {
    "sent": "packet",
    "received": "packet",
    "result": "result",
    "error": "error",
    "closed": "",
    "lost": "",
    "warning": "warning",
}
"""The member of a line that holds what was said, if anything was."""

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


def read(path: Path) -> list[Interaction]:
    """Return the requests of a cassette, in order.

    Raises:
        LMStudioOSError: If the file cannot be read.
        LMStudioValueError: If it is not a cassette, or of another version; the message names the line.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise LMStudioOSError(f"cannot read the cassette {str(path)!r}: {error}") from error
    lines = data.split(b"\n")
    _check_head(path, lines[0])
    found: dict[int, Interaction] = {}
    for number, line in enumerate(lines[1:], 2):
        if line:
            try:
                _add(found, parse(line)[0] or {})
            except (ValueError, KeyError, TypeError) as error:
                raise LMStudioValueError(
                    f"line {number} of the cassette {str(path)!r} is no event of one: {error!r}"
                ) from error
    return sorted(found.values(), key=lambda each: each.number)


def _check_head(path: Path, line: bytes) -> None:
    head, _ = parse(line)
    if head is None or "cassette" not in head:
        raise LMStudioValueError(f"{str(path)!r} is not a cassette; `lmsi record` writes them")
    if head["cassette"] != VERSION:
        raise LMStudioValueError(
            f"the cassette {str(path)!r} has version {head['cassette']!r} of the format, and this release reads "
            f"version {VERSION}; record it again"
        )


def _add(found: dict[int, Interaction], line: dict[str, Any]) -> None:
    kind, number, at = line["event"], line["id"], line["at"]
    if not is_number(at):
        raise TypeError(f"the time {at!r} is not a number of seconds")
    if kind in _REQUESTS:
        parameter = line.get("parameter", ABSENT)
        found[number] = Interaction(
            number, at, kind, line["namespace"], line["endpoint"], parameter, section=line.get("section", "")
        )
    elif kind in _BODIES:
        found[number].events.append(Event(kind, at, line.get(_BODIES[kind], ABSENT)))
    else:
        raise ValueError(f"unknown event {kind!r}")


class Writer:
    """Writes a cassette, request by request.

    Args:
        path: The file, which must not exist yet.

    Raises:
        LMStudioOSError: If the file exists, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise LMStudioOSError(f"the cassette {str(path)!r} exists; delete it, or choose another name")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("xb")
        except OSError as error:
            raise LMStudioOSError(f"cannot write the cassette {str(path)!r}: {error}") from error
        # The time and the name are left out, so that the same content is always the same bytes.
        self._lines: IO[bytes] = (
            cast("IO[bytes]", gzip.GzipFile("", "wb", fileobj=self._file, mtime=0))
            if path.suffix == ".gz"
            else self._file
        )
        self._lines.write(_line({"cassette": VERSION, "recorded_by": f"lmstudio-integrations {version()}"}))

    def write(self, interaction: Interaction) -> None:
        """Write a request with its events."""
        self._lines.write(b"".join(_lines(interaction)))
        if self._lines is self._file:
            self._file.flush()  # nothing is lost if the process ends

    def close(self) -> None:
        """Complete the file."""
        self._lines.close()
        self._file.close()


def save(path: Path, interactions: Iterable[Interaction]) -> None:
    """Write a whole cassette, in the place of one that exists, and number its requests anew.

    Raises:
        LMStudioOSError: If it cannot be written.
    """
    new = path.with_name(f".new-{path.name}")
    new.unlink(missing_ok=True)
    writer = Writer(new)
    for number, interaction in enumerate(interactions, 1):
        interaction.number = number
        writer.write(interaction)
    writer.close()
    new.replace(path)


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
        body = {} if event.body is ABSENT else {_BODIES[event.kind]: event.body}
        yield _line({"event": event.kind, "id": number, "at": event.at, **body})


def _line(members: dict[str, Any]) -> bytes:
    return f"{dumps(members)}\n".encode()
