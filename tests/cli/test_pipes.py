"""What a pipe gets from a command, and what happens when nobody reads it."""

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.cli.managed import LARGE, SMALL
from tests.cli.terminal import TIMEOUT, in_pipe, started


@pytest.mark.parametrize("arguments", [("ls",), ("ps",), ("load", SMALL), ("unload", LARGE)])
def test_a_pipe_contains_no_control_codes(managed: Emulator, arguments: tuple[str, ...]) -> None:
    managed.load(LARGE)
    done = in_pipe(*arguments, "--host", managed.address)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("ls",), ("ps", "--json"), ("load", LARGE), ("chat", LARGE, "-p", "Hi")])
def test_a_closed_pipe_ends_a_command_silently(managed: Emulator, arguments: tuple[str, ...]) -> None:
    managed.load(LARGE)
    with started(*arguments, "--host", managed.address) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.close()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=TIMEOUT)
    assert "rror" not in err
    assert "Traceback" not in err
