"""The environment of the measured programs: made by uv under `build/bench`, which git ignores."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

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
    command = [str(python), "-c", _VERSIONS, *names]
    done = subprocess.run(command, env=variables(), check=True, stdout=subprocess.PIPE, text=True)
    return {"Python": platform.python_version(), **json.loads(done.stdout)}


def variables() -> dict[str, str]:
    """Return the variables for all processes of a run.

    Bytecode is kept, in a folder of its own: without it, imports would be measured with the compiler.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _REMOVED}
    return {**kept, "PYTHONPYCACHEPREFIX": str(FOLDER / "pycache")}


def _run(command: list[str]) -> None:
    subprocess.run(command, cwd=ROOT, env=variables(), check=True)
