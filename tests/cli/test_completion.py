"""What a shell gets for the name of a model."""

import socket
from collections.abc import Callable

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.cli import _completion
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.managed import EMBEDDER, LARGE, SMALL

Complete = Callable[[str], tuple[list[str], str]]


@pytest.fixture
def complete(
    run: Callable[..., int | str | None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Complete:
    """Press Tab after a line; return what is offered, and what is printed on stderr."""

    def press_tab(line: str) -> tuple[list[str], str]:
        monkeypatch.setenv("_LMSI_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"lmsi {line}")
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" "))))
        assert run() == 0
        shown = capsys.readouterr()
        return shown.out.split(), shown.err

    return press_tab


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("load ", [SMALL, LARGE, EMBEDDER, "stuck"]),
        ("load --ttl 9 vendor/s", [SMALL]),
        ("plan vendor/s", [SMALL]),
        ("chat ", [SMALL, LARGE, "stuck", "mine"]),
        ("unload ", ["mine", EMBEDDER]),
        ("embed file.txt --model ", [EMBEDDER]),
        ("rerank query --model ", [SMALL, LARGE, "stuck", "mine"]),
    ],
)
def test_a_shell_completes_the_names_of_the_server(
    managed: Emulator, complete: Complete, monkeypatch: pytest.MonkeyPatch, line: str, offered: list[str]
) -> None:
    managed.load(SMALL, identifier="mine")
    managed.load(EMBEDDER)
    monkeypatch.setenv(HOST_VARIABLE, managed.address)
    assert complete(line) == (offered, "")


def test_the_server_of_the_command_line_is_asked(managed: Emulator, complete: Complete) -> None:
    assert complete(f"load --host {managed.address} vendor/l") == ([LARGE], "")


def test_no_name_can_run_a_command(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["$(ls)", "`ls`", "a;ls", "a b", '"', "it's", r"\\$(ls)", "plain/name-1.5@q4_k_m"]
    with Emulator([ModelEntry(key=name) for name in names]) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        assert complete("load ") == (["plain/name-1.5@q4_k_m"], "")


def test_without_a_server_nothing_is_offered(complete: Complete, nobody: str) -> None:
    assert complete(f"load --host {nobody} ") == ([], "")


def test_a_silent_server_is_not_waited_for(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_completion, "_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert complete(f"load --host 127.0.0.1:{silent.getsockname()[1]} ") == ([], "")
