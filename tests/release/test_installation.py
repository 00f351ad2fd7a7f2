"""The first lines of each framework, and the commands that install this package, as its users run them.

What downloads runs with `pytest -m network`.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lmstudio_integrations import __version__
from lmstudio_integrations._support.installation import NAME
from tests.release import first_lines
from tests.release.project import TIMEOUT, Project, plain_variables
from tools import ROOT

SECONDS = 3 * TIMEOUT


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::langchain_core._api.LangChainBetaWarning", "ignore::pydantic.warnings.PydanticDeprecationWarning"
)
@pytest.mark.parametrize("line", first_lines.LINES)
def test_each_first_line_works_here(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "deep" in line:
        pytest.importorskip("deepagents", reason="needs the group cookbook")
    monkeypatch.setenv("LMSTUDIO_HOST", "set by the line")
    first_lines.use(line)


def test_a_checkout_is_no_wheel() -> None:
    with pytest.raises(SystemExit, match="this uses the checkout"):
        first_lines.main("load_llm")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def equipped(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the wheel, its extras, and the agents of others."""
    project = Project(tmp_path_factory.mktemp("equipped"))
    project.uv("pip", "install", f"{project.wheel}[all]", "deepagents")
    return project


@pytest.mark.network
@pytest.mark.timeout(SECONDS)
def test_the_printed_command_works_where_the_wheel_was_installed_without_the_extra(project: Project) -> None:
    program = project.scripts / f"{NAME}{'.exe' if sys.platform == 'win32' else ''}"
    project.uv("pip", "install", project.wheel)
    printed = project.run(program, "--version").stderr
    hint = shlex.split(printed.partition("run: ")[2])
    assert hint[:3] == ["uv", "pip", "install"], printed
    project.uv(*hint[1:])
    assert project.run(program, "--version").stdout.strip() == __version__


IN_A_CLONE = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_readme_has_one_command_for_the_demo_and_one_for_the_tests() -> None:
    """`.ci/run` begins with the second."""
    assert [command.rpartition("--group ")[2].split()[1] for command in IN_A_CLONE if "uv run" in command] == [
        "lmsi",
        "pytest",
    ]


@pytest.mark.network
@pytest.mark.timeout(SECONDS)
@pytest.mark.skipif(sys.platform == "win32", reason="the command is that of a POSIX shell")
def test_the_command_of_the_readme_shows_the_demo_in_an_empty_home(tmp_path: Path) -> None:
    clone, home = tmp_path / "clone", tmp_path / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    (command,) = [command for command in IN_A_CLONE if "lmsi demo" in command]
    variables = {**plain_variables(), "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    done = subprocess.run(
        ["bash", "-c", command], cwd=clone, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Answer:   The ferry to the island takes twenty minutes." in done.stdout


@pytest.mark.network
@pytest.mark.timeout(SECONDS)
def test_the_command_of_the_readme_adds_the_package_to_a_project_of_uv(project: Project) -> None:
    (command,) = re.findall(r'uv (add "PATH/TO/[^"]*")', (ROOT / "README.md").read_text(encoding="utf-8"))
    project.uv("init", "--bare", "--name", "mine")
    project.uv(*shlex.split(command.replace("PATH/TO/lmstudio-integrations", ROOT.as_posix())))
    done = project.run(project.scripts / "python", "-c", "import langchain.agents, lmstudio_integrations.langchain")
    assert done.returncode == 0, done.stderr


@pytest.mark.network
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("line", first_lines.LINES)
def test_each_first_line_works_from_the_wheel(equipped: Project, line: str) -> None:
    done = equipped.run(equipped.scripts / "python", "-P", first_lines.__file__, line)
    assert done.returncode == 0, done.stderr
    assert f"{line}: works, from {equipped.environment}" in done.stdout
