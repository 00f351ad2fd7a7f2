"""A stranger's project: an empty folder beside a wheel of this package, and an environment of its own."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from lmstudio_integrations import __version__
from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from tools import ROOT

UV = os.environ.get("UV") or shutil.which("uv")
TIMEOUT = 900
"""Seconds for one command; a slow network is no failure."""


def plain_variables() -> dict[str, str]:
    """Return the environment of this process without what belongs to it alone; uv resolves as for this project."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    own = {"PYTHONPATH", "VIRTUAL_ENV", HOST_VARIABLE, *TOKEN_VARIABLES}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return {**kept, "UV_EXCLUDE_NEWER": settings["exclude-newer"]}


class Project:
    """A folder with an environment of its own, and the wheel of this package beside it.

    Attributes:
        folder: Where its commands run.
        environment: The folder of its virtual environment.
        scripts: The folder of its programs.
        wheel: The wheel, which is not installed yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = folder / "environment"
        self.scripts = self.environment / ("Scripts" if sys.platform == "win32" else "bin")
        self.wheel = folder / f"lmstudio_integrations-{__version__}-py3-none-any.whl"
        environment = str(self.environment)
        self._variables = {**plain_variables(), "VIRTUAL_ENV": environment, "UV_PROJECT_ENVIRONMENT": environment}
        self.uv("venv", "--python", sys.executable, environment)
        self.uv("build", "--wheel", "--out-dir", folder, ROOT)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, with its environment active."""
        return subprocess.run(
            command, cwd=self.folder, env=self._variables, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    def uv(self, *arguments: str | Path) -> None:
        """Run uv, which must succeed."""
        assert UV, "These tests need uv: pip install uv"
        done = self.run(UV, *arguments)
        assert done.returncode == 0, done.stderr
