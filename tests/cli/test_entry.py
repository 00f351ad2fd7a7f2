"""The entry point: what it says when something is missing, and how errors end."""

import subprocess
import sys

import pytest


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_sentence_names_what_to_install(missing: str) -> None:
    run = run_python(f"import sys; sys.modules[{missing!r}] = None; from lmstudio_integrations.cli import main; main()")
    assert run.returncode == 1
    assert run.stderr.strip() == ("The command line needs its extra; run: pip install 'lmstudio-integrations[cli]'")
    assert run.stdout == ""
