"""A rehearsal of the release: what is built, and the commands that install it by name from an index on this machine.

What builds or downloads runs with `pytest -m network`.
"""

import hashlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lmstudio_integrations import __version__
from lmstudio_integrations._support.installation import NAME
from tests.docs.snippets import blocks
from tests.release import first_lines
from tests.release.project import TIMEOUT, UV, Project, plain_variables, variables_with
from tools import ROOT
from tools.copies import copy_clone
from tools.release import problems_of_distributions

SECONDS = 3 * TIMEOUT
README = (ROOT / "README.md").read_text(encoding="utf-8")
IN_A_CLONE = re.findall(r"^python3 -m venv .*/uv run .*$", README, re.MULTILINE)
WITHOUT_INSTALLING = re.findall(r"^uvx .*$", README, re.MULTILINE)
ANSWER_OF_THE_DEMO = "Answer:   The ferry to the island takes twenty minutes."


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


def test_the_readme_has_one_command_for_the_demo_and_one_for_the_tests() -> None:
    """`.ci/run` begins with the second."""
    assert [command.rpartition("--group ")[2].split()[1] for command in IN_A_CLONE] == ["lmsi", "pytest"]
    assert len(WITHOUT_INSTALLING) == 1


# What is built --------------------------------------------------------------------------------------------------------


@pytest.mark.network
def test_the_distributions_have_what_belongs_there_and_a_description_that_an_index_shows(distributions: Path) -> None:
    assert not list(problems_of_distributions(distributions))
    check = ["run", "--quiet", "--isolated", "--only-group", "release", "twine", "check", "--strict"]
    subprocess.run([UV or "uv", *check, *distributions.glob("lmstudio*")], cwd=ROOT, check=True, timeout=TIMEOUT)


@pytest.mark.network
def test_what_is_built_elsewhere_and_later_is_the_same(distributions: Path, tmp_path: Path) -> None:
    """Also the wheel that is built of the files themselves, and not of the sdist."""
    copy_clone(tmp_path / "clone")
    for folder, options in (("both", []), ("wheel", ["--wheel"])):
        command = [
            UV or "uv",
            "build",
            "--quiet",
            *options,
            "--out-dir",
            str(tmp_path / folder),
            str(tmp_path / "clone"),
        ]
        subprocess.run(command, check=True, timeout=TIMEOUT)
    assert digests(tmp_path / "both") == digests(distributions)
    assert digests(tmp_path / "wheel").items() < digests(distributions).items()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("lmstudio*")}


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")
def test_this_commit_may_be_tagged_with_its_version_once_it_has_an_address(tmp_path: Path) -> None:
    copy_clone(tmp_path)
    for arguments in (
        ["tools.address", "https://example.org/source", "https://example.org/site/"],
        ["tools.release", "tag", f"v{__version__}"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


# What is installed ----------------------------------------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize(
    ("extras", "line", "missing"),
    [
        ("", "native", ["lmstudio_integrations.langchain.ChatLMStudio", "lmstudio_integrations.llama_index.LMStudio"]),
        ("[langchain]", "langchain", ["lmstudio_integrations.llama_index.LMStudio"]),
        ("[llama-index]", "llama-index", ["lmstudio_integrations.langchain.ChatLMStudio"]),
    ],
)
def test_one_extra_works_without_the_others_which_name_what_installs_them(
    extras: str, line: str, missing: list[str], project: Project
) -> None:
    project.uv("pip", "install", f"{NAME}{extras}")
    assert f"{line}: works, from {project.environment}" in project.python("-P", first_lines.__file__, line)
    for name in missing:
        module, _, public = name.rpartition(".")
        done = project.run(project.scripts / "python", "-c", f"from {module} import {public}")
        assert re.search(rf'ModuleNotFoundError: {public} needs \S+; run: uv pip install "\S+', done.stderr), (
            done.stderr
        )


@pytest.mark.network
@pytest.mark.timeout(SECONDS)
def test_the_printed_command_works_where_the_package_was_installed_without_the_extra(project: Project) -> None:
    program = project.scripts / f"{NAME}{'.exe' if sys.platform == 'win32' else ''}"
    project.uv("pip", "install", NAME)
    printed = project.run(program, "--version").stderr
    hint = shlex.split(printed.partition("run: ")[2])
    assert hint[:3] == ["uv", "pip", "install"], printed
    project.uv(*hint[1:])
    assert project.run(program, "--version").stdout.strip() == __version__


@pytest.mark.network
@pytest.mark.timeout(SECONDS)
def test_the_command_of_the_readme_adds_the_package_to_a_project_of_uv(project: Project) -> None:
    (command,) = re.findall(rf'uv (add "{NAME}[^"]*")', README)
    project.uv("init", "--bare", "--name", "mine")
    project.uv(*shlex.split(command))
    project.python("-c", "import langchain.agents, lmstudio_integrations.langchain")


@pytest.mark.network
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("line", first_lines.LINES)
def test_each_first_line_works_when_it_is_installed(equipped: Project, line: str) -> None:
    printed = equipped.python("-P", first_lines.__file__, line)
    assert f"{line}: works, from {equipped.environment}" in printed


@pytest.mark.network
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("command", ["mypy --strict", "pyright --pythonpath environment/bin/python"])
def test_a_program_of_a_user_has_types(equipped: Project, command: str) -> None:
    """Those of the first page, and one with three mistakes."""
    right = "\n".join(blocks("README.md"))
    wrong = (
        "from lmstudio_integrations import Client\n"
        "from lmstudio_integrations.langchain import ChatLMStudio\n"
        "from lmstudio_integrations.llama_index import LMStudio\n"
        'ChatLMStudio(model="m", temperature="hot")\n'
        'LMStudio(model="m", context_length="long")\n'
        "Client().llm.model(1)\n"
    )
    program, *options = shlex.split(command)
    for text, lines in ((right, []), (wrong, ["4", "5", "6"])):
        (equipped.folder / "program.py").write_text(text, encoding="utf-8")
        printed = equipped.run(equipped.scripts / program, *options, "program.py").stdout
        assert re.findall(r"program\.py:(\d+).* error: ", printed) == lines, printed


# The demo -------------------------------------------------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.timeout(SECONDS)
@pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of a POSIX shell")
@pytest.mark.parametrize("command", [*WITHOUT_INSTALLING, IN_A_CLONE[0]])
def test_a_command_of_the_readme_shows_the_demo_in_an_empty_home(command: str, index: str, tmp_path: Path) -> None:
    clone, home = tmp_path / "clone", tmp_path / "home"
    home.mkdir()
    variables = variables_with(index, tmp_path)
    if "uvx" in command:
        command = command.replace("uvx", f"{UV} tool run")
        clone.mkdir()
    else:
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        variables = plain_variables()
    variables = {**variables, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    done = subprocess.run(
        ["bash", "-c", command], cwd=clone, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ANSWER_OF_THE_DEMO in done.stdout
