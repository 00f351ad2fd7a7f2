"""The examples in the README and on the site run; their commands and links exist."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lmstudio_integrations.cli._app import app
from lmstudio_integrations.emulator import Emulator
from tests.docs.snippets import ROOT, blocks, read
from tools.outputs import CHAT, IMAGES, normalize

PAGES = [
    "README.md",
    "docs/index.md",
    "docs/langchain/chat.md",
    "docs/langchain/completion.md",
    "docs/langchain/embeddings.md",
    "docs/llama-index/embedding.md",
    "docs/llama-index/llm.md",
    "docs/guides/native-client.md",
    "docs/guides/models-that-stay-loaded.md",
]
PAGES_WITH_AGENTS = ["docs/get-started.md", "docs/llama-index/agents.md"]
IGNORED = ("-W", "ignore::DeprecationWarning")
"""LlamaIndex's agents use deprecated attributes of pydantic. Python shows no such warning of a library."""
WITH_OUTPUTS = ["docs/guides/several-hosts.md", "docs/guides/tools-with-small-models.md"]
"""Pages whose examples start servers of their own."""
EMULATOR, TESTING = "docs/tools/emulator.md", "docs/tools/testing.md"
LINK = re.compile(r"(?:\]\(|^\[[^\]]+\]: )(?!https?://|#)([^)#\s]+)", re.MULTILINE)


def run_python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=dict(os.environ), capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.sampled(3)
@pytest.mark.slow
@pytest.mark.parametrize("page", [*PAGES, *PAGES_WITH_AGENTS])
def test_the_examples_on_a_page_run_in_order(page: str, scripted: Emulator, tmp_path: Path) -> None:
    scripted.load(CHAT)
    shutil.copytree(IMAGES, tmp_path, dirs_exist_ok=True)
    ignored = IGNORED if page in PAGES_WITH_AGENTS else ()
    run = run_python("-W", "error", *ignored, "-c", "\n".join(blocks(page, "python")), cwd=tmp_path)
    assert run.stderr == ""
    assert run.returncode == 0
    assert run.stdout.strip()
    assert scripted.predictions or scripted.embedded_texts


@pytest.mark.slow
def test_the_examples_with_the_emulator_run(tmp_path: Path) -> None:
    run = run_python("-W", "error", "-c", "\n".join(blocks(EMULATOR)), cwd=tmp_path)
    assert run.stderr == ""
    response, result = run.stdout.splitlines()
    assert "Hello!" in response
    assert result == "5"


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_OUTPUTS)
def test_the_examples_on_a_page_print_what_it_shows(page: str, tmp_path: Path) -> None:
    run = run_python("-W", "error", *IGNORED, "-c", "\n".join(blocks(page, "python")), cwd=tmp_path)
    assert run.stderr == ""
    assert normalize(run.stdout) == "".join(blocks(page, "text"))


@pytest.mark.slow
def test_the_example_tests_pass(tmp_path: Path) -> None:
    tests = blocks(TESTING)
    for number, code in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(code, encoding="utf-8")
    run = run_python("-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(tests)} passed" in run.stdout


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "cookbook/README.md"])
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    targets = [(ROOT / page).parent / link for link in LINK.findall(read(page))]
    assert all(target.exists() for target in targets), targets


def test_the_reference_covers_every_command_and_its_parameters() -> None:
    page = read("docs/tools/cli.md")
    common = page.partition("\n## All commands\n")[2]
    for name, command in typer.main.get_group(app).commands.items():
        _, heading, rest = page.partition(f"\n## `{name}`\n")
        assert heading, name
        section = common + rest.partition("\n## ")[0]
        for parameter in command.params:
            name_shown = parameter.opts[0] if parameter.param_type_name == "option" else str(parameter.metavar)
            assert f"`{name_shown}" in section, (name, parameter.opts)
