"""`embed`: which outputs it replaces, and which it writes to: no device, pipe or link ever becomes a file.

All devices here are made by the tests. A test must never name one of this machine: a defect could replace it.
"""

import json
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.cli import INTERRUPTED
from lmstudio_integrations.cli._embed.output import LinesOutput, StreamOutput
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.terminal import TIMEOUT, started
from tests.cli.test_embed import read_lines

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other devices, pipes and links")

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
MODEL = "an-embedder"
TEXTS = ["eins", "zwei"]
NULL = os.makedev(1, 3) if sys.platform == "linux" else 0
NO_DRIVER = 240 << 8
"""The number of a device that does not exist."""

overwritten = pytest.mark.parametrize("flags", [(), ("--overwrite",)], ids=["", "--overwrite"])


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([ModelEntry(key=MODEL, kind="embedding", embedding_length=3)]) as running:
        yield running


@pytest.fixture
def embed(run: Run, server: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `embed` on the server, in a folder with an input."""
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return lambda *arguments: run("embed", "in.txt", "--host", server.address, *arguments)


def texts_of(lines: str | bytes) -> list[str]:
    return [json.loads(line)["text"] for line in lines.splitlines()]


def make_node(name: str, kind: int, device: int) -> None:
    try:
        os.mknod(name, kind | 0o600, device)
    except PermissionError:
        pytest.skip("only root may make devices")


def make_null(name: str) -> None:
    """Make a device like /dev/null."""
    if not NULL:
        pytest.skip("devices have other numbers")
    make_node(name, stat.S_IFCHR, NULL)
    try:
        Path(name).write_bytes(b"")
    except PermissionError:
        pytest.skip("this file system has no devices")


def open_reader(fifo: str) -> int:
    """Open the other end of a pipe, so that it can be opened for writing."""
    return os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)


def remaining() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


# Devices and pipes ---------------------------------------------------------------------------------------------------


@overwritten
@pytest.mark.parametrize("output", ["null.jsonl", "link"])
def test_a_device_is_written_to_and_stays_a_device(embed: Run, output: str, flags: tuple[str, ...]) -> None:
    make_null("null.jsonl")
    Path("link").symlink_to("null.jsonl")
    assert embed("-o", output, *flags) == 0
    assert Path("null.jsonl").is_char_device()
    assert Path("link").is_symlink()
    assert remaining() == ["in.txt", "link", "null.jsonl"]


@overwritten
@pytest.mark.parametrize("output", ["pipe.jsonl", "link"])
def test_a_named_pipe_gets_json_lines_and_stays_a_pipe(
    embed: Run, output: str, flags: tuple[str, ...], capsys: Capture
) -> None:
    os.mkfifo("pipe.jsonl")
    Path("link").symlink_to("pipe.jsonl")
    reader = open_reader("pipe.jsonl")
    assert embed("-o", output, *flags) == 0
    assert texts_of(os.read(reader, 1 << 16)) == TEXTS
    os.close(reader)
    assert Path("pipe.jsonl").is_fifo()
    assert remaining() == ["in.txt", "link", "pipe.jsonl"]
    assert capsys.readouterr().err == f"Wrote 2 rows to {output}.\n"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_a_symlink_to_stdout_is_stdout_also_if_that_is_a_file(server: Emulator, tmp_path: Path, mode: str) -> None:
    (tmp_path / "in.txt").write_text("eins", encoding="utf-8")
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    path = tmp_path / "redirected"
    path.write_bytes(b'{"text": "before"}\n')
    inode = path.stat().st_ino
    with path.open(mode) as file:
        arguments = "embed", "in.txt", "-o", "stdout", "--host", server.address
        with started(*arguments, cwd=tmp_path, stdout=file) as process:
            assert process.wait(timeout=TIMEOUT) == 0
    assert path.stat().st_ino == inode
    assert texts_of(path.read_bytes()) == ["before", "eins"][mode == "wb" :]


def test_a_reader_that_is_gone_is_an_error(embed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("pipe")
    reader = open_reader("pipe")
    write = StreamOutput.write

    def write_without_reader(self: Any, *arguments: Any) -> None:
        os.close(reader)
        write(self, *arguments)

    monkeypatch.setattr(StreamOutput, "write", write_without_reader)
    assert embed("-o", "pipe") == "Error: cannot write 'pipe': Broken pipe"


def test_an_interrupt_does_not_promise_to_continue_in_a_pipe(
    embed: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    os.mkfifo("pipe")
    reader = open_reader("pipe")
    monkeypatch.setattr(StreamOutput, "write", interrupt)
    assert embed("-o", "pipe") == INTERRUPTED
    os.close(reader)
    assert capsys.readouterr().err == "Interrupted after 0 rows.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "pipe.parquet"), "Parquet cannot be read from or written to a pipe; name a file"),
        (("-o", "pipe.jsonl", "--output-format", "parquet"), "Parquet cannot be read from or written to a pipe"),
        (("-o", "socket.jsonl"), "cannot write 'socket.jsonl': it is a socket"),
        (("-o", "loop.jsonl"), "cannot write 'loop.jsonl': Too many levels of symbolic links"),
        (("-o", "folder.jsonl"), "cannot write 'folder.jsonl': it is a folder"),
        (("-o", "nowhere.jsonl"), "cannot write 'nowhere.jsonl': there is no folder"),
    ],
)
@overwritten
def test_what_cannot_be_written_is_one_error(
    embed: Run, arguments: tuple[str, ...], message: str, flags: tuple[str, ...]
) -> None:
    os.mkfifo("pipe.parquet")
    os.mkfifo("pipe.jsonl")
    Path("loop.jsonl").symlink_to("loop.jsonl")
    Path("nowhere.jsonl").symlink_to("missing/out.jsonl")
    Path("folder").mkdir()
    Path("folder.jsonl").symlink_to("folder")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jsonl")
        before = remaining()
        code = embed(*arguments, *flags)
    assert isinstance(code, str)
    assert message in code
    assert remaining() == before


def test_a_disk_is_not_overwritten(embed: Run) -> None:
    make_node("disk.jsonl", stat.S_IFBLK, NO_DRIVER)
    assert embed("-o", "disk.jsonl", "--overwrite") == "Error: cannot write 'disk.jsonl': it is a block device"
    assert Path("disk.jsonl").is_block_device()


def test_an_input_that_is_a_pipe_must_be_stdin(embed: Run, run: Run, server: Emulator) -> None:
    os.mkfifo("in.fifo")
    code = run("embed", "in.fifo", "--input-format", "text", "--host", server.address)
    assert code == "Error: cannot read 'in.fifo': it is no regular file; to read a pipe, use - as input"


# Links ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["link.jsonl", "second.jsonl"])
def test_of_a_symlink_the_file_is_replaced(embed: Run, output: str) -> None:
    Path("folder").mkdir()
    Path("folder/out.jsonl").write_text("mine", encoding="utf-8")
    Path("link.jsonl").symlink_to("folder/out.jsonl")
    Path("second.jsonl").symlink_to(Path("link.jsonl").absolute())
    code = embed("-o", output)
    assert isinstance(code, str)
    assert f"{output!r} exists already" in code
    assert Path("folder/out.jsonl").read_text(encoding="utf-8") == "mine"
    assert embed("-o", output, "--overwrite") == 0
    assert [row["text"] for row in read_lines("folder/out.jsonl")] == TEXTS
    assert [path.name for path in Path().iterdir() if path.is_symlink()] == ["link.jsonl", "second.jsonl"]
    assert [path.name for path in Path("folder").iterdir()] == ["out.jsonl"]


def test_of_a_symlink_to_nothing_the_file_is_made(embed: Run) -> None:
    Path("link.jsonl").symlink_to("out.data")
    assert embed("-o", "link.jsonl") == 0
    assert Path("link.jsonl").is_symlink()
    assert not Path("out.data").is_symlink()
    assert len(read_lines("out.data")) == 2
    assert remaining() == ["in.txt", "link.jsonl", "out.data"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda name: Path(name).symlink_to("elsewhere")], ids=["pipe", "link"])
def test_what_has_taken_the_place_of_the_output_meanwhile_stays(
    embed: Run, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], None]
) -> None:
    finish = LinesOutput.finish

    def finish_late(self: LinesOutput) -> None:
        make("out.jsonl")
        finish(self)

    with monkeypatch.context() as patch:
        patch.setattr(LinesOutput, "finish", finish_late)
        code = embed("-o", "out.jsonl")
    assert (
        code == "Error: cannot write 'out.jsonl': it is no regular file any more; the rows are in 'out.jsonl.partial'"
    )
    assert Path("out.jsonl").is_fifo() or Path("out.jsonl").is_symlink()
    Path("out.jsonl").unlink()
    assert embed("-o", "out.jsonl") == 0
    assert len(read_lines("out.jsonl")) == 2


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
def test_the_output_is_flushed_to_the_disk_as_windows_allows_it(
    embed: Run, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    flushed: list[int] = []

    def fsync(descriptor: int) -> None:
        os.write(descriptor, b"")  # raises as `os.fsync` does on Windows, if the file is open for reading alone
        flushed.append(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert embed("-o", output) == 0
    assert len(flushed) == 1
