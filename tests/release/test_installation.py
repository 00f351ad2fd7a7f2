"""The commands that install this package, run as its users run them. They download: `pytest -m network`."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmstudio_integrations import __version__
from lmstudio_integrations._support.installation import NAME
from tools import ROOT, one_liners

README = (ROOT / "README.md").read_text(encoding="utf-8")
UV = os.environ.get("UV") or shutil.which("uv")
TIMEOUT = 240
"""Seconds for one command; a slow network is no failure."""

pytestmark = [pytest.mark.network, pytest.mark.timeout(3 * TIMEOUT)]


@dataclass(frozen=True)
class Project:
    """A stranger's project: an empty folder beside a wheel of this package, and an environment of its own."""

    folder: Path
    environment: Path

    @property
    def scripts(self) -> Path:
        return self.environment / ("Scripts" if sys.platform == "win32" else "bin")

    @property
    def wheel(self) -> Path:
        return self.folder / f"lmstudio_integrations-{__version__}-py3-none-any.whl"

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, with its environment active."""
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
        variables = {
            **inherited,
            "VIRTUAL_ENV": str(self.environment),
            "UV_PROJECT_ENVIRONMENT": str(self.environment),
            "UV_EXCLUDE_NEWER": settings["exclude-newer"],
        }
        return subprocess.run(
            command, cwd=self.folder, env=variables, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    def uv(self, *arguments: str | Path) -> None:
        """Run uv, which must succeed."""
        assert UV, "These tests need uv: pip install uv"
        done = self.run(UV, *arguments)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path, tmp_path / "environment")
    project.uv("venv", "--python", sys.executable, project.environment)
    return project


def test_the_printed_command_works_where_the_wheel_was_installed_without_the_extra(project: Project) -> None:
    program = project.scripts / f"{NAME}{'.exe' if sys.platform == 'win32' else ''}"
    project.uv("build", "--wheel", "--out-dir", project.folder, ROOT)
    project.uv("pip", "install", project.wheel)

    printed = project.run(program, "--version").stderr
    hint = shlex.split(printed.partition("run: ")[2])
    assert hint[:3] == ["uv", "pip", "install"], printed
    project.uv(*hint[1:])
    assert project.run(program, "--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    "command",
    re.findall(r'(?:pip install|uv add) "PATH/TO/[^"]*"(?: langchain)?', README),
    ids=["clone", "uv", "wheel"],
)
def test_the_commands_of_the_readme_install_an_adapter(project: Project, command: str) -> None:
    clone, folder = ROOT.as_posix(), project.folder.as_posix()
    known = command.replace("PATH/TO/lmstudio-integrations", clone).replace("PATH/TO", folder)
    if project.wheel.name in known:
        project.uv("build", "--wheel", "--out-dir", project.folder, ROOT)
    project.uv("init", "--bare", "--name", "mine")
    project.uv(*shlex.split(known.removeprefix("uv ")))
    agents = "langchain.agents, " if command.endswith(" langchain") else ""
    imports = f"import {agents}lmstudio_integrations.langchain"
    done = project.run(project.scripts / "python", "-c", imports)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def equipped(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the wheel, its extras, and the agents of others."""
    folder = tmp_path_factory.mktemp("equipped")
    project = Project(folder, folder / "environment")
    project.uv("venv", "--python", sys.executable, project.environment)
    project.uv("build", "--wheel", "--out-dir", folder, ROOT)
    project.uv("pip", "install", f"{project.wheel}[all]", "langchain", "deepagents")
    return project


@pytest.mark.parametrize("line", one_liners.LINES)
def test_each_first_line_works_from_the_wheel(equipped: Project, line: str) -> None:
    done = equipped.run(equipped.scripts / "python", "-P", one_liners.__file__, line)
    assert done.returncode == 0, done.stderr
    assert f"{line}: works, from {equipped.environment}" in done.stdout
