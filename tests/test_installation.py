"""The command that installs an extra, for each way in which the package may be installed."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

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


@pytest.fixture
def metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this package be installed with the metadata above."""
    information = tmp_path / "lmstudio_integrations-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(METADATA, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("metadata")
@pytest.mark.parametrize(("has_pip", "installer"), [(True, "pip"), (False, "uv pip")])
def test_the_command_lists_what_an_extra_needs(has_pip: bool, installer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: name if has_pip else None)
    assert install_command("cli") == f'{installer} install "typer>=0.26" "rich<16,>=13.9"'
    assert install_command("langchain") == f'{installer} install "langchain-core"'


def test_without_metadata_the_command_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert install_command("cli").endswith('pip install "PATH/TO/lmstudio-integrations[cli]"')


@pytest.mark.parametrize("extra", ["langchain", "llama-index", "emulator", "cli"])
def test_the_extras_of_this_installation_have_requirements(extra: str) -> None:
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
