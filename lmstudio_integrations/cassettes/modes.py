"""The cassette of a test: how its file is named, when it is recorded, and when it is replayed."""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from lmstudio_integrations.cassettes.cassette import BeforeRecord, file_errors
from lmstudio_integrations.cassettes.recording import Recording
from lmstudio_integrations.cassettes.replay import Replay
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError

Mode: TypeAlias = Literal["none", "once", "rewrite"]
"""When a cassette is recorded."""


_PLAIN = r"\w+(?:::\w+)*(?:\[[a-z0-9_.=](?:[a-z0-9_.=-]*[a-z0-9_.=])?\])?"
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
    if shortened != readable or not re.fullmatch(_PLAIN, name):
        # `~` is in no readable part.
        shortened += f"~{hashlib.sha256(name.encode(errors='backslashreplace')).hexdigest()[:8]}"
    return f"{shortened}.lms.jsonl"


def needs_server(path: Path, mode: Mode) -> bool:
    """Whether a server is needed in a mode, because something may be recorded."""
    return mode != "none" and not (mode == "once" and path.exists())


@contextlib.contextmanager
def use_cassette(
    path: str | Path, mode: Mode = "none", *, server: str | None = None, before_record: BeforeRecord | None = None
) -> Generator[Replay | Recording]:
    """Record a cassette or replay it, and provide the `address` of a server for the clients of the block.

    A cassette that is recorded is saved when the block ends without an error. Else an earlier one stays as it was, and
    the error has a note about that.

    Args:
        path: The cassette.
        mode: `none` never records; what the cassette does not have is an error. `once` records if there is no cassette
            yet. `rewrite` records, and replaces the cassette; who may read it stays.
        server: The address of the LM Studio that is recorded; not needed where nothing is.
        before_record: Called with each request before it is written, without its secrets; it returns what is written,
            or `None` to leave the request out. A request is a dict with `namespace`, `endpoint`, `body`, and the
            `events` after it, each with its kind as `event`, and its `body`; a streamed text stands whole in its first
            fragment, and reasoning is a text of its own. Where the cassette is replayed, it is called with each request
            before that is compared with those in the cassette; its `events` are empty then.

    Raises:
        LMStudioOSError: If the cassette cannot be read or written.
        LMStudioValueError: If an argument is not valid, or the file is not a cassette.
    """
    path = Path(path)
    if mode not in get_args(Mode):
        raise LMStudioValueError(f"the mode must be one of {', '.join(get_args(Mode))}; got {mode!r}")
    with file_errors(path, "use"):
        exists, is_recorded = path.exists(), needs_server(path, mode)
        if exists and not path.is_file():
            raise LMStudioOSError(f"the cassette {str(path)!r} is not a file")
    if not is_recorded:
        if not exists:
            raise LMStudioOSError(f"there is no cassette {str(path)!r}; record it with the mode 'once'")
        with Replay(path, before_record=before_record) as replayed:
            yield replayed
        return
    if server is None:
        raise LMStudioValueError(f"the mode {mode!r} records {str(path)!r}: name the server to record")
    with file_errors(path):
        file = Path(os.path.realpath(path))  # the same one by all links to it
        new = file.with_name(f".recording-{file.name}")
        if new.exists():
            raise LMStudioOSError(
                f"the cassette {str(path)!r} is being recorded in another place; if it is not, because a program was "
                f"killed, delete {str(new)!r}"
            )
        rights = stat.S_IMODE(file.stat().st_mode) if exists else None
        if rights is not None and not rights & stat.S_IWUSR:
            raise LMStudioOSError(f"the cassette {str(path)!r} is read-only; make it writable, or choose another name")
    recording = Recording(new, server, before_record=before_record)
    recording.path = path
    try:
        if rights is not None:
            with file_errors(path):
                new.chmod(rights)
        with recording:
            yield recording
        _move(new, path, existed=exists)
    except BaseException as error:
        error.add_note(f"The cassette {str(path)!r} is not saved, because its block did not end without an error.")
        raise
    finally:
        new.unlink(missing_ok=True)


def _move(new: Path, path: Path, *, existed: bool) -> None:
    """Put a recording in its place.

    Raises:
        LMStudioOSError: If that fails, or another program has saved one there meanwhile.
    """
    with file_errors(path):
        if path.exists() and not existed:
            raise LMStudioOSError(
                f"the cassette {str(path)!r} was saved by another recording meanwhile, and stays; to have this "
                "one, record again with the mode 'rewrite'"
            )
        new.replace(os.path.realpath(path))
