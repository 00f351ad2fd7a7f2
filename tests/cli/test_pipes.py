"""What a pipe gets from a command, and what happens when nobody reads it, or Ctrl-C is pressed early."""

import signal
import socket
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from lmstudio_integrations.cli import INTERRUPTED, _app
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.managed import LARGE, SMALL, Command
from tests.cli.terminal import TIMEOUT, interrupt, started

FULL = Path("/dev/full")


@pytest.mark.parametrize("arguments", [("ls",), ("plan", SMALL), ("doctor",)])
def test_a_pipe_contains_no_control_codes(managed: Emulator, arguments: tuple[str, ...], command: Command) -> None:
    managed.load(LARGE)
    status, out, err = command(*arguments)
    assert not status
    assert "\x1b" not in out + err


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("ls",), 0, "\\u2713 "),
        (("ls", "--json"), 0, '"displayName": "Gr\\u00f6\\u00dfe"'),
        (("plan", "gr\xf6\xdfe"), 0, "gr\\xf6\\xdfe"),
        (("certify", "gr\xf6\xdfe", "--rows", "tools"), 0, "gr\\xf6\\xdfe (context"),
        (("doctor",), 0, "gr\\xf6\\xdfe"),
    ],
)
def test_what_an_encoding_lacks_is_written_with_a_backslash(
    run: Callable[..., int | str | None],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
    expected: str,
) -> None:
    output = BytesIO()
    with Emulator([ModelEntry(key="gr\xf6\xdfe", display_name="Gr\xf6\xdfe")]) as server:
        server.load("gr\xf6\xdfe")
        monkeypatch.setattr(sys, "stdout", TextIOWrapper(output, encoding="ascii"))
        assert run(*arguments, "--host", server.address) == status
        assert expected in output.getvalue().decode("ascii")


def test_sigterm_ends_a_command_as_ctrl_c_does(
    run: Callable[..., int | str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(_app, "run_app", lambda: signal.raise_signal(signal.SIGTERM))
    assert run("ls") == INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_a_closed_pipe_ends_a_command_silently(managed: Emulator) -> None:
    with started("ls", "--host", managed.address) as process:
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
@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(managed: Emulator) -> None:
    with FULL.open("wb") as full, started("ls", "--host", managed.address, stdout=full) as process:
        assert process.communicate(timeout=TIMEOUT)[1] == "Error: No space left on device\n"
    assert process.returncode == 1


@pytest.mark.slow
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
