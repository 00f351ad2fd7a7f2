"""The environment of the measured programs, made by uv under `build/bench`, and the processes that run in it."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Self

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench"

_REMOVED = {"VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "LMSTUDIO_HOST", "LM_API_TOKEN", "LMSTUDIO_API_TOKEN"}

_BELOW = ("lmstudio-integrations", "pydantic", "websockets", "langchain-core", "llama-index-core")
"""What this package and the floors are made of."""

_VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def prepare() -> Path:
    """Make the environment, or complete it; return its Python.

    Raises:
        FileNotFoundError: If uv is not installed.
        subprocess.CalledProcessError: If uv cannot install what is missing.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise FileNotFoundError("uv is not on the PATH; the benchmark needs it to install the peers")
    python = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(FOLDER)])
    requested = ["--editable", ".[langchain,llama-index]", "--group", "bench"]
    _run([uv, "pip", "install", "--quiet", "--python", str(python), *requested])
    return python


def machine() -> dict[str, str]:
    """Return what measurements depend on beside the packages; nothing that identifies the machine."""
    return {"platform": f"{platform.system()} {platform.machine()}", "cpus": str(os.cpu_count())}


def versions(python: Path) -> dict[str, str]:
    """Return the versions of Python and of what is measured."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    names = [*_BELOW, *sorted(Requirement(each).name for each in groups["bench"])]
    done = _run([str(python), "-c", _VERSIONS, *names], stdout=subprocess.PIPE)
    return {"Python": platform.python_version(), **json.loads(done.stdout)}


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _REMOVED}


def _run(command: list[str], stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=_variables(), check=True, stdout=stdout, text=True)


class Process:
    """A process that is talked to by lines; it is killed at the end of its `with` block.

    Args:
        python: The interpreter.
        module: What it runs.
        arguments: With what.
    """

    def __init__(self, python: str | Path, module: str, *arguments: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [str(python), "-m", module, *arguments],
            cwd=ROOT,
            env=_variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def read(self) -> str:
        """Return its next line.

        Raises:
            RuntimeError: If it has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self._module} has ended")
        return line.strip()

    def ask(self, line: str) -> str:
        """Send it a line and return the one that it responds with."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it may have threads that would keep it when its input ends
        self._process.communicate()
