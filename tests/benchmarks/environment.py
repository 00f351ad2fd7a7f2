"""The environment of the measured programs: made by uv under `build/bench`, which git ignores."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "bench"


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
    variables = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    if not python.exists():
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(FOLDER)], variables)
    wanted = ["--editable", ".[langchain,llama-index]", "--group", "bench"]
    _run([uv, "pip", "install", "--quiet", "--python", str(python), *wanted], variables)
    return python


def _run(command: list[str], variables: dict[str, str]) -> None:
    subprocess.run(command, cwd=ROOT, env=variables, check=True)
