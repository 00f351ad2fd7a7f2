"""The command that installs an extra, for each way in which the package may be installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from lmstudio_integrations import langchain
from lmstudio_integrations._support import installation
from lmstudio_integrations._support.installation import install_command

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("has_pip", "installer"), [(True, "pip"), (False, "uv pip")])
def test_the_command_names_the_extra(has_pip: bool, installer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: name if has_pip else None)
    assert install_command("cli") == f'{installer} install "lmstudio-integrations[cli]"'


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
