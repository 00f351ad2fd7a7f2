"""The command that installs an extra, for each way in which the package may be installed."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations import langchain
from lmstudio_integrations._support import installation
from lmstudio_integrations._support.installation import install_command

ROOT = Path(__file__).parents[1]

METADATA = """\
Metadata-Version: 2.4
Name: lmstudio-integrations
Version: 0.1.0
Requires-Dist: pydantic>=2.12
Requires-Dist: typing-extensions>=4.12
Requires-Dist: typer>=0.26; extra == 'cli'
Requires-Dist: rich<16,>=13.9; extra == 'cli'
Requires-Dist: langchain-core; extra == 'langchain'
"""
REQUIREMENTS = 'pip install "typer>=0.26" "rich<16,>=13.9"'
COMMIT = "2f1f4d6d7b2c3a4e5f60718293a4b5c6d7e8f901"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Let the metadata be that of an installation with the given contents of `direct_url.json`."""
    folder = tmp_path / "site"
    information = folder / "lmstudio_integrations-0.1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(METADATA, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    with_pip(monkeypatch, True)

    def write(**origin: Any) -> None:
        (information / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")

    return write


def with_pip(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: name if there else None)


def test_a_folder_is_named_by_its_path(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my projects (ä)" / "lms"
    install(url=folder.as_uri(), dir_info={})
    assert install_command("cli") == REQUIREMENTS, "it does not exist"
    folder.mkdir(parents=True)
    assert install_command("llama-index") == f'pip install "{folder}[llama-index]"'
    install(url=folder.as_uri(), dir_info={"editable": True})
    assert install_command("cli") == f'pip install -e "{folder}[cli]"'
    assert install_command("cli", with_origin=False) == REQUIREMENTS, "a server does not show it"
    with_pip(monkeypatch, False)
    assert install_command("cli", with_origin=False) == f"uv {REQUIREMENTS}"


def test_a_wheel_is_named_by_its_path(install: Install, tmp_path: Path) -> None:
    wheel = tmp_path / "lmstudio_integrations-0.1.0-py3-none-any.whl"
    wheel.touch()
    install(url=wheel.as_uri(), archive_info={"hash": "sha256=00"})
    assert install_command("cli") == f'pip install "{wheel}[cli]"'


@pytest.mark.parametrize(
    ("origin", "target"),
    [
        (
            {"url": "https://example.org/lms.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            f"git+https://example.org/lms.git@{COMMIT}",
        ),
        (
            {"url": "file:///srv/lms", "vcs_info": {"vcs": "hg", "commit_id": COMMIT}},
            f"hg+file:///srv/lms@{COMMIT}",
        ),
        (
            {"url": "https://example.org:8443/lms-0.1.0.tar.gz", "archive_info": {}},
            "https://example.org:8443/lms-0.1.0.tar.gz",
        ),
    ],
    ids=["repository", "local repository", "archive"],
)
def test_a_url_is_repeated(install: Install, origin: dict[str, Any], target: str) -> None:
    install(**origin)
    assert install_command("cli") == f'pip install "lmstudio-integrations[cli] @ {target}"'


@pytest.mark.parametrize(
    "origin",
    [
        {"url": "https://somebody:hunter2@example.org/lms.git"},
        {"url": "https://hunter2@example.org/lms.git"},
        {"url": "https://example.org/lms.git?token=hunter2"},
        {"url": "https://example.org/lms.git#hunter2"},
        {"url": "https://example.org/all.git", "subdirectory": "lms"},
    ],
)
def test_a_url_that_is_not_enough_or_may_contain_credentials_is_not_shown(install: Install, origin: Any) -> None:
    install(**origin, vcs_info={"vcs": "git", "commit_id": COMMIT})
    assert install_command("cli") == REQUIREMENTS


@pytest.mark.parametrize("name", ["a$HOME", "a`id`", "a!b", "a%PATH%", "a;b", "“a”", "a&b", "a'b", "a#b"])
def test_a_path_that_a_shell_or_uv_would_change_is_not_shown(install: Install, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    install(url=folder.as_uri(), dir_info={})
    assert install_command("cli") == REQUIREMENTS


@pytest.mark.usefixtures("install")
def test_without_an_origin_the_requirements_are_listed() -> None:
    assert install_command("cli") == REQUIREMENTS
    assert install_command("langchain") == 'pip install "langchain-core"'


def test_after_the_first_release_the_name_is_enough_unless_the_origin_is_known(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "IS_PUBLISHED", True)
    assert install_command("cli") == 'pip install "lmstudio-integrations[cli]"'
    install(url=tmp_path.as_uri(), dir_info={})
    assert install_command("cli") == f'pip install "{tmp_path}[cli]"'


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that is on the path without being installed."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "lmstudio_integrations/_support/installation.py"))
    with_pip(monkeypatch, True)
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def test_a_checkout_that_was_never_installed_is_named_by_its_path(checkout: Path) -> None:
    assert install_command("cli") == f'pip install "{checkout}[cli]"'
    assert install_command("cli", with_origin=False) == 'pip install "PATH/TO/lmstudio-integrations[cli]"'


def test_a_copy_of_the_package_alone_cannot_be_installed_and_its_path_is_not_shown(checkout: Path) -> None:
    (checkout / "pyproject.toml").unlink()
    assert install_command("cli") == 'pip install "PATH/TO/lmstudio-integrations[cli]"'


@pytest.mark.parametrize("extra", ["langchain", "llama-index", "emulator", "cli"])
def test_the_extras_of_this_installation_have_requirements(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_target", lambda *_: None)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert not any(";" in requirement for requirement in declared[extra]), "the command knows no markers"
    names = {re.split(r"[<>=]", requirement)[0] for requirement in declared[extra]}
    assert {re.split(r"[<>=]", each)[0] for each in shlex.split(install_command(extra))} >= names


def test_an_older_core_has_no_decisions_and_one_sentence_says_which_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core.decisions", None)
    monkeypatch.delitem(sys.modules, "lmstudio_integrations.langchain.classifiers", raising=False)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs langchain-core 1\.8 or newer; run: .*'langchain-core>=1\.8'$"
    ):
        langchain.__getattr__("LMStudioClassifier")


@pytest.mark.slow
def test_without_a_package_of_their_group_the_tests_say_in_a_sentence_what_to_install() -> None:
    program = "import sys; sys.modules['pytest_timeout'] = None; import tests.conftest"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("The tests need packages that are not installed: pytest_timeout. In the clone, run `uv sync")
