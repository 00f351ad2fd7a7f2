"""Runs commands as processes: with pipes, or on a terminal (a pseudo-terminal), where Ctrl-C and cursor are real."""

import codecs
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import IO

import pytest

TIMEOUT = 600.0
"""Seconds to wait for an end."""

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r(?=\n)")
SCRIPT = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a background job inherits SIG_IGN
    "from lmstudio_integrations.cli._main import main; main()"
)
ON_TERMINAL = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {SCRIPT}"
"""Ctrl-C of the terminal reaches the process that controls it."""

needs_pty = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")


def plain_environment() -> dict[str, str]:
    """Return the environment of a command. Its coverage is not measured, which would take most of its time."""
    hidden = {"NO_COLOR", "COLUMNS", "CI"}
    return {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_") and name not in hidden
    }


@contextlib.contextmanager
def started(*arguments: str, stdout: int | IO[bytes] = subprocess.PIPE) -> Generator["subprocess.Popen[str]"]:
    """Start a command as a process with pipes; it is gone after the block."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    pipe, environment = subprocess.PIPE, plain_environment()
    with subprocess.Popen(
        command, stdin=pipe, stdout=stdout, stderr=pipe, env=environment, encoding="utf-8"
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Send to a process what Ctrl-C does; return its exit status and all that it printed since."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


class Terminal:
    """A command on a terminal.

    Attributes:
        process: Its process.
        raw: All that it printed.
    """

    def __init__(self, master: int, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.raw = ""
        self._master = master
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    @property
    def text(self) -> str:
        """All that it printed, without colors and movements of the cursor."""
        return CONTROL.sub("", self.raw)

    def type(self, text: str) -> None:
        """Type a text; `\\x03` is Ctrl-C."""
        os.write(self._master, text.encode())

    def wait_for(self, expected: str) -> None:
        """Wait until it has printed a text."""
        while expected not in self.text:
            assert self._read(), f"{expected!r} was not printed, but {self.text!r}"

    def wait(self) -> int:
        """Wait for the end, and return the exit status."""
        while self._read():
            pass
        return self.process.wait(TIMEOUT)

    def _read(self) -> bool:
        """Read what it prints next; whether there was anything before its end."""
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how Linux tells that the other side is closed
            data = b""
        self.raw += self._decode(data)
        return bool(data)


@contextlib.contextmanager
def on_terminal(*arguments: str, cwd: Path | None = None) -> Generator[Terminal]:
    """Start a command on a terminal of its own; it is gone after the block."""
    import pty
    import termios

    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 120))
    command = [sys.executable, "-c", ON_TERMINAL, *arguments]
    environment = {**plain_environment(), "TERM": "xterm-256color"}
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=environment, start_new_session=True
    ) as process:
        os.close(slave)
        try:
            yield Terminal(master, process)
        finally:
            process.kill()
            os.close(master)
