"""The format of cassettes: JSON, one event a line, in UTF-8.

The first line has the version of the format. The lines of one request are together, and the same content is always the
same bytes, so a file changes in Git only where a response has changed. A file whose name ends in `.gz` is compressed.
Every other line has an `event`, the `id` of its request, and `at`: seconds since the recording began for a request, and
since its request for any other event. By events, they also have:

- `call`, `channel`: a request, as `docs/protocol.md` has it: `namespace`, `endpoint`, `parameter`, and the `section` of
  the recording. A void parameter or result has no member.
- `sent`, `received`: a `packet` on a channel, of the client and of the server.
- `result`, `error`, `warning`: the reply to a call, the error that ended a call or a channel, the warning by which the
  server rejected a request, each in the member of that name.
- `closed`, `lost`: the end of a channel, or of its connection. A request without an end was under way when the
  recording ended.
"""

import contextlib
import gzip
import logging
import os
import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from lmstudio_integrations._support.files import regular
from lmstudio_integrations._support.json_text import dumps
from lmstudio_integrations._support.typeguards import is_number, is_object
from lmstudio_integrations._support.version import __version__
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS
from lmstudio_integrations.protocol.envelope import NestingError, parse
from lmstudio_integrations.protocol.server_session import MAX_DEPTH

logger: logging.Logger = logging.getLogger(__name__)

VERSION = 1
"""The version of the format. A reader rejects a file with any other."""

_GZIP = 16 + zlib.MAX_WBITS
"""Of zlib: compress in the form of gzip."""

_MIB = 1024 * 1024
MAX_BYTES = 256 * _MIB
"""Size of a cassette, uncompressed."""

MAX_VALUES = 5_000_000
"""Commas and opening brackets in a cassette: JSON values take far more memory than their text."""

Kind: TypeAlias = Literal["call", "channel"]
"""What a request opens: a call with one reply, or a channel with packets in both directions."""

EventKind: TypeAlias = Literal["sent", "received", "result", "error", "closed", "lost", "warning"]
"""A packet of the client or of the server, the reply to a call, an error that ends either, the end of a channel, the
loss of the connection, or a warning in the place of a reply."""

_REQUESTS = get_args(Kind)
_EVENTS = get_args(EventKind)
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

OBJECTS: frozenset[EventKind] = frozenset({"sent", "received", "error", "warning"})
"""Events whose bodies are objects."""

_ONLY_OF: dict[EventKind, Kind] = {"sent": "channel", "received": "channel", "closed": "channel", "result": "call"}
"""Events that belong to one kind of request."""

_LONGEST = 80
"""Characters of a value that an error shows."""

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


class _Size:
    """How large a cassette is so far."""

    LIMIT = f"a cassette has at most {MAX_BYTES // _MIB} MiB, uncompressed, and {MAX_VALUES:,} values"

    def __init__(self) -> None:
        self._bytes = 0
        self._values = 0

    def fits(self, lines: bytes) -> bool:
        """Add lines; return whether a cassette may be so large."""
        self._bytes += len(lines)
        self._values += sum(map(lines.count, (b",", b"[", b"{")))
        return self._bytes <= MAX_BYTES and self._values <= MAX_VALUES


def read(path: Path) -> list[Interaction]:
    """Return the requests of a cassette, in order.

    If the file ends in the middle of a line, because its recording was cut off, what is complete before it is returned,
    and a warning is logged.

    Raises:
        LMStudioOSError: If the file cannot be read.
        LMStudioValueError: If it is not a cassette, or of another version, or too large; the message names the line.
    """
    interactions: dict[int, Interaction] = {}
    number = 0
    for number, line in enumerate(_read_lines(path), 1):
        if number == 1:
            _check_head(path, line)
            continue
        try:
            is_whole = _add_line(interactions, line)
        except NestingError:
            raise _damaged(path, number, f"nested more than {MAX_DEPTH} levels deep") from None
        except (ValueError, TypeError) as error:
            raise _damaged(path, number, error) from None
        if not is_whole:
            _drop_incomplete(interactions)
            logger.warning("line %d of the cassette %r is cut off; what is complete is used", number, str(path))
    if not number:
        _check_head(path, b"")
    return sorted(interactions.values(), key=lambda each: each.number)


def _read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file. One that is cut off has no end, and may be empty.

    Raises:
        LMStudioOSError: If the file cannot be read.
        LMStudioValueError: If it is damaged or too large.
    """
    number, size = 0, _Size()
    try:
        with regular(path).open("rb") as file:
            # One line at a time, as a small file may become a large one.
            lines = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            while line := lines.readline(MAX_BYTES + 1):
                number += 1
                if not size.fits(line):
                    raise _damaged(path, number, f"too much: {size.LIMIT}")
                yield line
    except EOFError:  # no end of the compressed data
        yield b""
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, number + 1, error) from error
    except LMStudioValueError:
        raise
    except (OSError, ValueError) as error:  # the latter for a path that no file can have
        raise LMStudioOSError(f"cannot read the cassette {str(path)!r}: {error}") from error


def _damaged(path: Path, number: int, why: object) -> LMStudioValueError:
    return LMStudioValueError(f"line {number} of the cassette {str(path)!r} cannot be read: {why}")


def _check_head(path: Path, line: bytes) -> None:
    head, _ = parse(line)
    if head is None or "cassette" not in head:
        raise LMStudioValueError(f"{str(path)!r} is not a cassette; `lmsi record` writes them")
    if head["cassette"] != VERSION:
        raise LMStudioValueError(
            f"the cassette {str(path)!r} has version {_excerpt(head['cassette'])} of the format, and this release "
            f"reads version {VERSION}; record it again"
        )


def _add_line(interactions: dict[int, Interaction], line: bytes) -> bool:
    """Add a line to the requests; return whether it is whole.

    Raises:
        TypeError: If it is no event.
        ValueError: If it does not fit to those before it.
    """
    event = parse(line, max_depth=MAX_DEPTH)[0]
    if event is not None:
        _add(interactions, event)
    elif not line.endswith(b"\n"):
        return False
    else:
        raise TypeError("no JSON object")
    return True


def _add(interactions: dict[int, Interaction], line: dict[str, Any]) -> None:
    kind: Any = line.get("event")
    number, at = line.get("id"), line.get("at")
    if type(number) is not int:
        raise TypeError(f"the id {_excerpt(number)} is not a whole number")
    if not is_number(at) or at < 0:
        raise TypeError(f"the time {_excerpt(at)} is not a number of seconds")
    if kind in _REQUESTS:
        texts: dict[str, Any] = {
            "namespace": line.get("namespace"),
            "endpoint": line.get("endpoint"),
            "section": line.get("section", ""),
        }
        for name, text in texts.items():
            if not isinstance(text, str):
                raise TypeError(f"the {name} {_excerpt(text)} is not a string")
        if number in interactions:
            raise ValueError(f"there are two requests {number}")
        interactions[number] = Interaction(number, at, kind, parameter=line.get("parameter", ABSENT), **texts)
    elif kind in _EVENTS:
        _add_event(interactions.get(number), Event(kind, at, line.get(_BODIES[kind], ABSENT)), number)
    else:
        raise ValueError(f"unknown event {_excerpt(kind)}")


def _add_event(interaction: Interaction | None, event: Event, number: int) -> None:
    if interaction is None:
        raise ValueError(f"there is no request {number} before it")
    if interaction.end is not None:
        raise ValueError(f"request {number} has already ended")
    if event.kind in _ONLY_OF and _ONLY_OF[event.kind] != interaction.kind:
        raise ValueError(f"{event.kind!r} does not belong to a {interaction.kind}, as request {number} is")
    if event.kind in OBJECTS and not is_object(event.body):
        raise TypeError(f"its {_BODIES[event.kind]} is not an object")
    if event.kind == "warning" and not isinstance(event.body.get("warning"), str):
        raise ValueError("its warning has no text")
    interaction.events.append(event)


def _drop_incomplete(interactions: dict[int, Interaction]) -> None:
    """Drop the last request, whose lines are cut off, unless only the end of its channel is missing."""
    last = next(reversed(interactions.values()), None)
    if last is None or last.end is not None:
        return
    if last.is_over:
        last.events.append(Event("closed", last.events[-1].at))
    else:
        del interactions[last.number]


def _excerpt(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


class Writer:
    """Writes a cassette, request by request. What is complete is in the file at once, also if it is compressed.

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
        self._size = _Size()
        self._complete = 0
        # Its form is that of gzip. There is no time and no name in it, so the same content is always the same bytes.
        self._compressor = zlib.compressobj(level=9, wbits=_GZIP) if path.suffix == ".gz" else None
        try:
            self._write(_line({"cassette": VERSION, "recorded_by": f"lmstudio-integrations {__version__}"}))
        except LMStudioOSError:
            path.unlink()
            raise

    def write(self, interaction: Interaction) -> None:
        """Write a request with its events.

        Raises:
            LMStudioOSError: If that fails. The file then has the requests before it, and takes no more.
        """
        self._write(b"".join(_lines(interaction)))

    def close(self) -> None:
        """Complete the file, unless a write has failed.

        Raises:
            LMStudioOSError: If that fails.
        """
        if not self._file.closed:
            if self._compressor is not None:
                self._append(self._compressor.flush())
            self._file.close()

    def _write(self, lines: bytes) -> None:
        if not self._size.fits(lines):
            self.close()
            raise LMStudioOSError(f"cannot write the cassette {str(self._path)!r}: {_Size.LIMIT}")
        if self._compressor is not None:
            lines = self._compressor.compress(lines) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        self._append(lines)

    def _append(self, data: bytes) -> None:
        """Write bytes as a whole or not at all; then the file is closed, as compressed data has no gaps."""
        rest = memoryview(data)
        with file_errors(self._path), contextlib.ExitStack() as on_error:
            on_error.callback(self._file.close)
            on_error.callback(self._file.truncate, self._complete)
            while rest:
                rest = rest[self._file.write(rest) :]
            on_error.pop_all()
        self._complete = self._file.tell()


@contextlib.contextmanager
def file_errors(path: Path, doing: str = "write") -> Generator[None]:
    """Raise the errors of a file as typed ones."""
    try:
        yield
    except (LMStudioOSError, LMStudioValueError):
        raise
    except (OSError, ValueError) as error:  # the latter for a path that no file can have
        raise LMStudioOSError(f"cannot {doing} the cassette {str(path)!r}: {error}") from error


def save(path: Path, interactions: Iterable[Interaction]) -> None:
    """Write a whole cassette, in the place of one that exists, and number its requests anew.

    Of a symbolic link, the target is written.

    Raises:
        LMStudioOSError: If it cannot be written. What was there before stays.
    """
    path = Path(os.path.realpath(path))
    new = path.with_name(f".new-{path.name}")
    with file_errors(path), contextlib.ExitStack() as stack:
        new.unlink(missing_ok=True)
        stack.callback(new.unlink, missing_ok=True)
        with contextlib.closing(Writer(new)) as writer:
            for number, interaction in enumerate(interactions, 1):
                interaction.number = number
                writer.write(interaction)
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
