"""An upload has a path on the server's machine, until its client disconnects or the server stops."""

import base64
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.emulator.bare_client import TIMEOUT, Wire, wire

CONTENT = b"The sky is blue."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder for temporary files."""
    made = tmp_path / "temporary"
    made.mkdir()
    return made


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with Emulator(["chat"]) as running:
        yield running


@pytest.fixture
def files(server: Emulator) -> Iterator[Wire]:
    with wire(server, "files") as opened:
        yield opened


def upload(files: Wire, name: str = "sky.txt") -> str:
    parameter = {"name": name, "contentBase64": base64.b64encode(CONTENT).decode()}
    identifier: str = files.result("uploadFileBase64", parameter)["identifier"]
    return identifier


def path_of(files: Wire, identifier: str) -> Path:
    found: Any = files.result("getLocalFileAbsolutePath", {"fileName": identifier})
    return Path(found["path"])


def test_an_upload_is_written_to_a_private_folder_on_request(server: Emulator, files: Wire, folder: Path) -> None:
    identifier = upload(files)
    assert list(folder.iterdir()) == []
    path = path_of(files, identifier.removeprefix("local:"))
    assert path.is_absolute()
    assert path.is_relative_to(folder.resolve())
    assert (path.read_bytes(), path.suffix) == (CONTENT, ".txt")
    assert path_of(files, identifier) == path
    assert sys.platform == "win32" or stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for name in ("../../up.txt", "up.t/x", "up.\0", "up", "up." + "x" * 300):
        assert path_of(files, upload(files, name)).parent == path.parent
    server.stop()
    assert list(folder.iterdir()) == []


def test_a_file_of_another_client_and_one_that_is_none_have_no_path(server: Emulator, files: Wire) -> None:
    identifier = upload(files)
    with wire(server, "files", client="guest:other") as other:
        for name in (identifier, "sky.txt", "base64:AAAA"):
            assert name in other.rpc_error("getLocalFileAbsolutePath", {"fileName": name})["title"]


def test_an_upload_is_removed_with_its_client(server: Emulator) -> None:
    with wire(server, "files") as files, wire(server):
        kept, removed = path_of(files, upload(files)), path_of(files, upload(files))
        removed.unlink()
        files.socket.close()
        server.wait_for(lambda: len(server.connections) == 1, TIMEOUT)
        assert kept.exists()
    server.wait_for(lambda: not kept.exists(), TIMEOUT)
    assert kept.parent.exists()


def test_an_upload_that_cannot_be_written_is_an_error(files: Wire, folder: Path) -> None:
    identifier = upload(files)
    folder.rmdir()
    error = files.rpc_error("getLocalFileAbsolutePath", {"fileName": identifier})
    assert error["title"] == 'The file "sky.txt" cannot be written'
    assert "No such file" in error["cause"]
    assert str(folder) not in str(error)
