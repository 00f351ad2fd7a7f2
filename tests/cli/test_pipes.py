"""What a pipe gets from a command, and what happens when nobody reads it, or Ctrl-C is pressed early."""

import signal
import socket
import sys
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from lmstudio_integrations.cli import _app
from lmstudio_integrations.cli._main import INTERRUPTED
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.managed import COMMANDS, Run, of_commands
from tests.cli.terminal import TIMEOUT, interrupt, started

FULL = Path("/dev/full")

runs_ls = pytest.mark.skipif("ls" not in COMMANDS, reason="runs `lmsi ls`, which was deleted")


WORD = "gr\xf6\xdfe"


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """A server with a loaded model whose name is no ASCII."""
    with Emulator([ModelEntry(key=WORD, display_name=WORD)]) as server:
        server.load(WORD)
        yield server


WRITTEN = of_commands(
    {
        "ls": "\\u2713 ",
        "ls --json": '"displayName": "gr\\u00f6\\u00dfe"',
        f"plan {WORD}": "gr\\xf6\\xdfe",
        "doctor": "gr\\xf6\\xdfe",
    }
)


@pytest.mark.parametrize(("arguments", "expected"), WRITTEN.items())
def test_a_pipe_has_no_control_codes_and_what_its_encoding_lacks_is_written_with_a_backslash(
    run: Run, monkeypatch: pytest.MonkeyPatch, server: Emulator, arguments: str, expected: str
) -> None:
    output = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(output, encoding="ascii"))
    assert run(*arguments.split(), "--host", server.address) == 0
    written = output.getvalue().decode("ascii")
    assert expected in written
    assert "\x1b" not in written


def test_sigterm_ends_a_command_as_ctrl_c_does(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(_app, "run_app", lambda: signal.raise_signal(signal.SIGTERM))
    assert run("ls") == INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
@runs_ls
def test_a_closed_pipe_ends_a_command_silently(server: Emulator) -> None:
    with started("ls", "--host", server.address) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.close()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=TIMEOUT)
    assert "rror" not in err
    assert "Traceback" not in err


@pytest.mark.slow
@runs_ls
@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(server: Emulator) -> None:
    with FULL.open("wb") as full, started("ls", "--host", server.address, stdout=full) as process:
        assert process.communicate(timeout=TIMEOUT)[1] == "Error: No space left on device\n"
    assert process.returncode == 1


@pytest.mark.slow
@runs_ls
def test_an_interrupt_ends_a_command_that_waits_for_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(TIMEOUT)
        with started("ls", "--host", f"127.0.0.1:{silent.getsockname()[1]}") as process:
            assert process.stdin
            process.stdin.close()
            process.stdin = None
            connection, _ = silent.accept()
            with connection:
                assert interrupt(process) == (130, "", "")
