"""One cassette for one program or test: it is recorded, replayed, or both, as the mode says."""

import hashlib
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from lmstudio_integrations.emulator.cassettes.cassette import Interaction, file_errors, read, save
from lmstudio_integrations.emulator.cassettes.instances import RecordedInstances
from lmstudio_integrations.emulator.cassettes.normalize import key_of, normalize
from lmstudio_integrations.emulator.cassettes.recorder import Recording
from lmstudio_integrations.emulator.cassettes.replay import Pace
from lmstudio_integrations.emulator.emulator import Emulator
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError

Mode: TypeAlias = Literal["none", "once", "new_episodes", "all", "rewrite"]
"""When a cassette is recorded."""

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


@contextmanager
def use_cassette(
    path: str | Path,
    mode: Mode = "none",
    *,
    server: str | None = None,
    redact: Iterable[str] = (),
    contents: bool = False,
    pace: Pace = "fast",
) -> Generator[Emulator | Recording]:
    """Record a cassette or replay it, and provide a server with an `address` for the clients of the block.

    A cassette that is recorded is saved when the block ends without an error. Else an earlier one stays as it was, and
    the error has a note about that.

    Args:
        path: The cassette; if its name ends in `.gz`, it is compressed.
        mode: `none` never records; what the cassette does not have is an error. `once` records if there is no cassette
            yet. `new_episodes` replays it, and adds what it does not have. `all` records everything, and keeps what
            the cassette has besides. `rewrite` records everything, and keeps nothing.
        server: `host:port` of the LM Studio that is recorded; not needed where nothing is.
        redact: Regular expressions; what they match is hidden from the cassette, and from requests before they are
            compared with it.
        contents: Whether the contents of images and files are recorded, instead of their hashes.
        pace: `fast` replays everything at once, `recorded` with the waits of the recording.

    Raises:
        LMStudioOSError: If the cassette cannot be read or written.
        LMStudioValueError: If an argument is not valid, or the file is not a cassette.
    """
    path, redact = Path(path), tuple(redact)
    if mode not in get_args(Mode):
        raise LMStudioValueError(f"the mode must be one of {', '.join(get_args(Mode))}; got {mode!r}")
    with file_errors(path, "use"):
        exists, is_recorded = path.exists(), needs_server(path, mode)
        if exists and not path.is_file():
            raise LMStudioOSError(f"the cassette {str(path)!r} is not a file")
    if not is_recorded:
        if not exists:
            raise LMStudioOSError(f"there is no cassette {str(path)!r}; record it with the mode 'once'")
        with Emulator.replay(path, pace=pace, redact=redact) as replayed:
            yield replayed
        return
    if server is None:
        raise LMStudioValueError(f"the mode {mode!r} records {str(path)!r}: name the server to record")
    old = read(path) if exists and mode != "rewrite" else []
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".recording-{path.name}")
        new.unlink(missing_ok=True)
    try:
        with Recording(new, server, redact=redact, contents=contents) as recording:
            if mode == "new_episodes" and old:
                with Emulator.replay(path, pace=pace, redact=redact, fallback=recording.address) as replayed:
                    yield replayed
            else:
                yield recording
        recorded = read(new)
        save(path, [*(old if mode == "new_episodes" else _drop_repeated(old, recorded)), *recorded])
    except BaseException as error:
        error.add_note(f"The cassette {str(path)!r} is not saved, because its block did not end without an error.")
        raise
    finally:
        new.unlink(missing_ok=True)


def _drop_repeated(old: list[Interaction], new: list[Interaction]) -> list[Interaction]:
    """Return the requests that were not made again."""
    references = RecordedInstances([*old, *new]).references
    again = {key_of(normalize(each.request, references)) for each in new}
    return [each for each in old if key_of(normalize(each.request, references)) not in again]
