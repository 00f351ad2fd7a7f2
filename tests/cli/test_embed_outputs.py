"""`embed`: which outputs it replaces, and which it writes to: no device, pipe or link ever becomes a file.

All devices here are made by the tests. A test must never name one of this machine: a defect could replace it.
"""

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.cli import _embed
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.test_embed import read_rows

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other devices, pipes and links")

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
MODEL = "an-embedder"
TEXTS = ["eins", "zwei"]
NULL = os.makedev(1, 3) if sys.platform == "linux" else 0
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


def make_null(name: str) -> None:
    """Make a device like /dev/null."""
    if not NULL:
        pytest.skip("devices have other numbers")
    try:
        os.mknod(name, stat.S_IFCHR | 0o600, NULL)
        Path(name).write_bytes(b"")
    except PermissionError:
        pytest.skip("only root may make devices, and not in every file system")


def open_reader(fifo: str) -> int:
    """Open the other end of a pipe, so that it can be opened for writing."""
    return os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)


def remaining() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@overwritten
@pytest.mark.parametrize("output", ["null.jsonl", "link"])
def test_a_device_is_written_to_and_stays_a_device(embed: Run, output: str, flags: tuple[str, ...]) -> None:
    make_null("null.jsonl")
    Path("link").symlink_to("null.jsonl")
    assert embed("-o", output, *flags) == 0
    assert Path("null.jsonl").is_char_device()
    assert Path("link").is_symlink()
    assert remaining() == ["in.txt", "link", "null.jsonl"]


def test_a_pipe_gets_each_batch_before_the_next_one_is_embedded(embed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("pipe")
    reader = open_reader("pipe")
    embed_batch = _embed.embed_batch
    received: list[str] = []

    def embed_later(*batch: Any) -> Any:
        with suppress(BlockingIOError):
            received.extend(texts_of(os.read(reader, 1 << 16)))
        return embed_batch(*batch)

    monkeypatch.setattr(_embed, "embed_batch", embed_later)
    assert embed("-o", "pipe", "--batch-size", "1") == 0
    os.close(reader)
    assert received == ["eins"]


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
    assert [row["text"] for row in read_rows("folder/out.jsonl")] == TEXTS
    assert [path.name for path in Path().iterdir() if path.is_symlink()] == ["link.jsonl", "second.jsonl"]
    assert [path.name for path in Path("folder").iterdir()] == ["out.jsonl"]


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
