"""A stranger's project: an empty folder with an environment of its own, and an index that has this package."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations._support.installation import NAME
from tools import ROOT

UV = os.environ.get("UV") or shutil.which("uv")
TIMEOUT = 900
"""Seconds for one command; a slow network is no failure."""


def plain_variables() -> dict[str, str]:
    """Return the environment of this process without what belongs to it alone."""
    own = {"PYTHONPATH", "VIRTUAL_ENV", HOST_VARIABLE, *TOKEN_VARIABLES}
    return {name: value for name, value in os.environ.items() if name not in own}


def variables_with(index: str, folder: Path) -> dict[str, str]:
    """Return an environment in which pip and uv also look into an index. Its settings for uv are a file in the folder.

    uv resolves the packages of others as for this project: by the day that it is tested with.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    file = folder / "uv.toml"
    file.write_text(
        f"exclude-newer = {json.dumps(settings['exclude-newer'])}\n"
        f"exclude-newer-package = {{ {NAME} = false }}\n"
        f"[[index]]\nurl = {json.dumps(index)}\n",
        encoding="utf-8",
    )
    return {**plain_variables(), "UV_CONFIG_FILE": str(file), "PIP_EXTRA_INDEX_URL": index}


class Project:
    """A folder with an environment of its own, in which nothing is installed yet.

    Attributes:
        folder: Where its commands run.
        environment: The folder of its virtual environment.
        scripts: The folder of its programs.
    """

    def __init__(self, folder: Path, index: str) -> None:
        self.folder = folder
        self.environment = folder / "environment"
        self.scripts = self.environment / ("Scripts" if sys.platform == "win32" else "bin")
        environment = str(self.environment)
        self._variables = {
            **variables_with(index, folder),
            "VIRTUAL_ENV": environment,
            "UV_PROJECT_ENVIRONMENT": environment,
        }
        self.uv("venv", "--python", sys.executable, environment)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, with its environment active."""
        return subprocess.run(
            command, cwd=self.folder, env=self._variables, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    def python(self, *arguments: str | Path) -> str:
        """Run Python, which must succeed, and return what it prints."""
        done = self.run(self.scripts / "python", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def uv(self, *arguments: str | Path) -> str:
        """Run uv, which must succeed, and return what it prints."""
        assert UV, "These tests need uv: pip install uv"
        done = self.run(UV, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout
