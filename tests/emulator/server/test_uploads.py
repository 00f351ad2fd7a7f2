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
from tests.emulator.bare_client import Wire, wire

CONTENT = b"The sky is blue."


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server whose temporary folders are below the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
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


def test_the_path_of_an_upload_has_its_content(files: Wire, tmp_path: Path) -> None:
    identifier = upload(files)
    path = path_of(files, identifier.removeprefix("local:"))
    assert path.is_absolute()
    assert path.is_relative_to(tmp_path.resolve())
    assert (path.read_bytes(), path.suffix) == (CONTENT, ".txt")
    assert path_of(files, identifier) == path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_the_folder_is_private(files: Wire) -> None:
    assert stat.S_IMODE(path_of(files, upload(files)).parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["../../up.txt", "up.t/x", "up.\0", "up", "up." + "x" * 300])
def test_no_upload_name_escapes_the_folder(files: Wire, name: str) -> None:
    inside = path_of(files, upload(files)).parent
    assert path_of(files, upload(files, name)).parent == inside


def test_an_upload_is_written_to_disk_on_request_only(server: Emulator, files: Wire, tmp_path: Path) -> None:
    upload(files)
    assert list(tmp_path.iterdir()) == []


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
        server.wait_for(lambda: len(server.connections) == 1)
        assert kept.exists()
    server.wait_for(lambda: not kept.exists())
    assert kept.parent.exists()


def test_the_upload_folder_is_removed_with_the_server(server: Emulator, files: Wire, tmp_path: Path) -> None:
    path_of(files, upload(files))
    server.stop()
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_cannot_be_written_is_an_error(
    files: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = upload(files)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    error = files.rpc_error("getLocalFileAbsolutePath", {"fileName": identifier})
    assert error["title"] == 'The file "sky.txt" cannot be written'
    assert "No such file" in error["cause"]
    assert str(tmp_path) not in str(error)
