"""The environment of the measured programs: made by uv under `build/bench`, which git ignores."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "bench"

_REMOVED = {"VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "LMSTUDIO_HOST", "LM_API_TOKEN", "LMSTUDIO_API_TOKEN"}


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


def variables() -> dict[str, str]:
    """Return the variables for all processes of a run.

    Bytecode is kept, in a folder of its own: without it, imports would be measured with the compiler.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _REMOVED}
    return {**kept, "PYTHONPYCACHEPREFIX": str(FOLDER / "pycache")}


def _run(command: list[str]) -> None:
    subprocess.run(command, cwd=ROOT, env=variables(), check=True)
