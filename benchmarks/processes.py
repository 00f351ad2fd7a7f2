"""The other processes of a run: the scripted server, and a worker for each measured program."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from benchmarks.environment import FOLDER, ROOT, variables


class Process:
    """A process that is talked to by lines.

    Args:
        python: The interpreter.
        module: What it runs.
        arguments: With what.
        checkout: The checkout whose code it runs.
    """

    def __init__(self, python: Path, module: str, *arguments: str, checkout: Path = ROOT) -> None:
        self._name = " ".join((*([] if checkout == ROOT else [checkout.name]), module, *arguments[:1]))
        self._log = FOLDER / f"{self._name.replace(' ', '-')}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), "-m", module, *arguments],
                cwd=checkout,
                env=variables(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )

    def read(self) -> str:
        """Return its next line.

        Raises:
            RuntimeError: If it has died.
        """
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise RuntimeError(f"{self._name} has ended; its last words are in {self._log}")
        return line.strip()

    def write(self, line: str) -> None:
        """Send it a line."""
        pipe = _pipe(self._process.stdin)
        pipe.write(line + "\n")
        pipe.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Its input ends with it, and that is all it needs; a worker may have threads that would keep it.
        self._process.kill()
        self._process.communicate()


class Server(Process):
    """The scripted server."""

    def __init__(self, python: Path) -> None:
        super().__init__(python, "benchmarks.server")
        self.address = f"127.0.0.1:{self.read()}"
        """Where it listens."""


class Worker(Process):
    """A measured program."""

    def __init__(self, python: Path, program: str, address: str, *, checkout: Path = ROOT) -> None:
        super().__init__(python, "benchmarks.worker", program, address, checkout=checkout)
        self.cases: list[str] = json.loads(self.read())
        """What it can measure."""

    def measure(self, case: str) -> float:
        """Run a case once and return its value."""
        self.write(case)
        value: float = json.loads(self.read())
        return value


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "both ends are pipes"
    return pipe
