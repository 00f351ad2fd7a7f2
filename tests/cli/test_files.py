"""Files that users name: one that no command can read or write is one line of error, and nothing waits for it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmstudio_integrations.cli._serve import load_rules
from lmstudio_integrations.client.files.uploads import read_source
from lmstudio_integrations.emulator.models import catalog
from lmstudio_integrations.errors import LMStudioError
from tests.cli.managed import Piped

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")

SERVE = ("serve", "--scripted", "--model", "m", "--port", "0")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A pipe that nobody writes to or reads from."""
    path = tmp_path / "pipe.toml"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    "command",
    [
        (*SERVE, "--rules"),
        (*SERVE, "--catalog"),
        (*SERVE, "--token-file"),
        ("serve", "--port", "0", "--replay"),
        ("certify", "m", "--host", "127.0.0.1:1", "--to"),
        ("certify", "m", "--host", "127.0.0.1:1", "--html"),
        ("certify", "m", "--host", "127.0.0.1:1", "--against"),
    ],
)
def test_a_pipe_in_place_of_a_file_is_one_line(piped: Piped, pipe: Path, command: tuple[str, ...]) -> None:
    status, _, problem = piped(*command, str(pipe))
    assert (status, problem[:7]) == (2, "Error: ")
    assert f"{str(pipe)!r}" in problem
    assert "it is a pipe or a device, not a file" in problem
    assert len(problem.splitlines()) == 1


def test_a_pipe_is_not_uploaded(pipe: Path) -> None:
    with pytest.raises(LMStudioError, match="it is a pipe or a device, not a file"):
        read_source(pipe)


@pytest.mark.parametrize("depth", [450, 5000])
@pytest.mark.parametrize(
    ("load", "text"),
    [
        (load_rules, "[[rule]]\nthen = [{{text = {}}}]\n"),
        (catalog.load, '[[preset]]\nidentifier = "p"\nstructured = {}\n'),
    ],
)
def test_a_file_that_is_nested_too_deeply_is_named(
    tmp_path: Path, load: Callable[[Path], object], text: str, depth: int
) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(text.format("[" * depth + "]" * depth), encoding="utf-8")
    with pytest.raises(LMStudioError, match=r"deep.toml.*(is nested too deeply|should be a valid)"):
        load(path)


def test_a_folder_that_may_not_be_entered_is_an_error_of_the_file_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "locked" / "model.gguf"
    monkeypatch.setattr(os, "stat", denied)
    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(LMStudioError, match=r"cannot read the catalog '.*': Permission denied"):
        catalog.load(path)
    with pytest.raises(LMStudioError, match="there is no file with the weights"):
        catalog.check_weights(catalog.Catalog(models=(catalog.ModelEntry(key="m", weights=str(path)),)))
