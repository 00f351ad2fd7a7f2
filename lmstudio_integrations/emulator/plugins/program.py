"""A program that lines are written to and read from. `mcp_server.py` runs one.

`mcp` can run programs, too. But it hides the exit code, writes the standard error to a file only, and may leave running
what the program has started.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence

logger: logging.Logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""How long a program may take to exit once its input is closed, and again once it is terminated."""

KILL_SECONDS = 2.0
"""How long a killed program may take to exit. After that, only what has left its group keeps its pipes open."""

LONGEST_LINE = 2**26
"""The most bytes of a line that the program writes; an image is one line."""

_OUTPUT_KEPT = 4096
"""Bytes of standard error that are kept."""


class _Protocol(asyncio.subprocess.SubprocessStreamProtocol):
    """Notices the exit of a program. `Process.wait` waits for its pipes as well, in some versions of Python."""

    def __init__(self) -> None:
        super().__init__(limit=LONGEST_LINE, loop=asyncio.get_running_loop())
        self.exited: asyncio.Event = asyncio.Event()

    def process_exited(self) -> None:
        """Called by the event loop."""
        super().process_exited()
        self.exited.set()


class Program:
    """One running program. Belongs to the event loop that started it."""

    def __init__(self, transport: asyncio.SubprocessTransport, protocol: "_Protocol") -> None:
        self._transport = transport
        self._protocol = protocol
        self._process = asyncio.subprocess.Process(transport, protocol, asyncio.get_running_loop())
        self._errors = b""
        self._error_reader = asyncio.create_task(self._read_errors())

    @classmethod
    async def start(cls, command: Sequence[str], *, env: Mapping[str, str], working_directory: str | None) -> "Program":
        """Start a program, which is looked up in the `PATH` of its environment.

        Raises:
            OSError: If it cannot be started.
            ValueError: If the command or the environment contains a null byte.
        """
        name, *arguments = command
        transport, protocol = await asyncio.get_running_loop().subprocess_exec(
            _Protocol,
            shutil.which(name, path=env.get("PATH")) or name,  # on Windows, with the suffix of a script
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=working_directory,
            # A group of its own, which can be ended as a whole; Ctrl-C does not reach it.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )
        return cls(transport, protocol)

    @property
    def exit_code(self) -> int | None:
        """The exit code; negative if a signal ended the program, `None` while it runs."""
        return self._process.returncode

    def last_errors(self, lines: int) -> str:
        return "\n".join(self._errors.decode("utf-8", "replace").splitlines()[-lines:])

    async def read(self) -> AsyncIterator[bytes]:
        """Yield the lines of its output.

        Raises:
            ValueError: If a line is longer than `LONGEST_LINE`.
        """
        assert self._process.stdout is not None, "the process was started with pipes"
        try:
            while line := await self._process.stdout.readline():
                yield line
        except ValueError:
            raise ValueError(f"It wrote a line of more than {LONGEST_LINE:,} bytes.") from None

    async def write(self, line: bytes) -> None:
        """Write a line to its input.

        Raises:
            ConnectionError: If the program has closed its input.
        """
        assert self._process.stdin is not None, "the process was started with pipes"
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()

    async def wait(self) -> None:
        """Wait until the program exits, even if what it has started keeps its pipes open."""
        await self._protocol.exited.wait()

    async def stop(self) -> None:
        """End the program: close its input, wait, terminate, kill. What it has started and left behind is killed."""
        assert self._process.stdin is not None, "the process was started with pipes"
        try:
            self._process.stdin.close()
            if not await self._exits_within(GRACE_SECONDS):
                self._kill(at_once=False)
                await self._exits_within(GRACE_SECONDS)
        finally:  # also if this is cancelled
            self._kill(at_once=True)
            await self._exits_within(KILL_SECONDS)
            self._transport.close()  # the end of the pipes, for the readers

    async def _read_errors(self) -> None:
        """Read what the program prints: a full pipe would block it."""
        assert self._process.stderr is not None, "the process was started with pipes"
        while data := await self._process.stderr.read(_OUTPUT_KEPT):
            self._errors = (self._errors + data)[-_OUTPUT_KEPT:]
            logger.debug("program %s: %s", self._process.pid, data)

    async def _exits_within(self, seconds: float) -> bool:
        """Return whether the program exits in time, and everything that shares its pipes."""
        # `asyncio.wait`, because a timeout here must not cancel the reader.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
                await asyncio.wait([self._error_reader])
                return True
        return False

    def _kill(self, *, at_once: bool) -> None:
        """Terminate or kill the program and all that it has started.

        Windows has no groups, and knows the children of a program only while it runs: all are killed at once.
        """
        if sys.platform == "win32":
            if self.exit_code is None:
                tree = ["taskkill", "/T", "/F", "/PID", str(self._process.pid)]
                subprocess.run(tree, check=False, capture_output=True)  # noqa: S603
        else:
            # macOS forbids to signal a group whose programs have exited.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL if at_once else signal.SIGTERM)
