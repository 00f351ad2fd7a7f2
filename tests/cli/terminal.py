"""Runs commands as a user does: on a terminal (a pseudo-terminal), or as a process with pipes."""

import atexit
import codecs
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import IO

import pytest

from tools import ROOT

TIMEOUT = 600.0
"""Seconds to wait for a text or an end."""

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r(?=\n)")
SCRIPT = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a background job inherits SIG_IGN
    "from lmstudio_integrations.cli import main; main()"
)

needs_pty = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")


def plain_environment() -> dict[str, str]:
    """Return the environment of a command. Its coverage is not measured, which would take most of its time."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@contextlib.contextmanager
def started(
    *arguments: str, cwd: Path | None = None, stdout: int | IO[bytes] = subprocess.PIPE
) -> Generator["subprocess.Popen[str]", None, None]:
    """Start a command as a process with pipes; it is gone after the block. `interrupt` is what Ctrl-C does to it."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=plain_environment(),
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Send SIGINT to a process; return its exit status and all that it printed since."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


class Terminal:
    """A command on a terminal.

    Attributes:
        raw: All that it printed.
    """

    def __init__(self, master: int, process: IO[str]) -> None:
        self.raw = ""
        self._process = process
        self._pid = int(process.readline())
        self._master = master
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._seen = 0

    @property
    def text(self) -> str:
        """All that it printed, without colors and movements of the cursor."""
        return CONTROL.sub("", self.raw)

    def type(self, text: str) -> None:
        """Type a text; `\\n` is the return key, `\\x03` Ctrl-C, `\\x04` Ctrl-D."""
        os.write(self._master, text.encode())

    def wait_for(self, expected: str) -> str:
        """Wait until it has printed a text, after what was waited for before; return all up to its end."""
        deadline = time.monotonic() + TIMEOUT
        while (found := self.text.find(expected, self._seen)) < 0:
            assert self._read(deadline), f"{expected!r} was not printed, but {self.text[self._seen :]!r}"
        start, self._seen = self._seen, found + len(expected)
        return self.text[start : self._seen]

    def wait(self) -> int:
        """Wait for the end, and return the exit status."""
        deadline = time.monotonic() + TIMEOUT
        while self._read(deadline):
            pass
        return int(self._process.readline())

    def terminate(self) -> None:
        """Send SIGTERM."""
        os.kill(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def _read(self, deadline: float) -> bool:
        """Read what it prints next; whether there was anything before the deadline and its end."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # how Linux tells that the other side is closed
            data = b""
        self.raw += self._decode(data)
        return bool(data)


@contextlib.contextmanager
def on_terminal(
    *arguments: str, columns: int = 120, cwd: Path | None = None, **environment: str
) -> Generator[Terminal, None, None]:
    """Start a command on a terminal of its own; it is gone after the block."""
    import pty
    import termios

    inherited = {
        name: value for name, value in plain_environment().items() if name not in {"NO_COLOR", "COLUMNS", "CI"}
    }
    request = arguments, {**inherited, "TERM": "xterm-256color", **environment}, str(cwd or Path.cwd())
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, columns))
    own, other = socket.socketpair()
    own.settimeout(TIMEOUT)
    with own, own.makefile("rw", encoding="utf-8") as process:
        with other:
            socket.send_fds(_forks(), [b"-"], [slave, other.fileno()])
        os.close(slave)
        print(json.dumps(request), file=process, flush=True)
        terminal = Terminal(master, process)
        try:
            yield terminal
        finally:
            terminal.kill()
            os.close(master)


@cache
def _forks() -> socket.socket:
    """Start the process whose forks are the commands; it ends with this one."""
    own, other = socket.socketpair()
    with other:
        command = [sys.executable, "-m", "tests.cli.terminal_child"]
        process = subprocess.Popen(command, stdin=other.fileno(), cwd=ROOT, env=plain_environment())
    atexit.register(process.wait)
    atexit.register(own.close)  # before it
    return own
