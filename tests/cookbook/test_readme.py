"""The README is true: its examples print what it shows, and its table says what the page about the comparison says."""

import re
import sys
from types import ModuleType

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio
from tests.docs.snippets import blocks
from tests.docs.snippets import read as read_page
from tools.outputs import CATALOG, CHAT

COMPARED = read_page("docs/guides/comparison.md")
TABLE = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in read_page("README.md").partition("## How it compares")[2].splitlines()
    if line.startswith("| ")
]
ROWS = {row[0]: dict(zip(TABLE[0], row, strict=True)) for row in TABLE[2:]}


def test_the_table_counts_the_checks_as_the_page_does() -> None:
    for framework, columns in {
        "LangChain": ["this package", "`ChatOpenAI(base_url=…)`", "`langchain-ollama`"],
        "LlamaIndex": ["this package", "`llama-index-llms-lmstudio`"],
    }.items():
        section = COMPARED.partition(f"## {framework}\n")[2]
        checks, *passed = re.findall(r"\*\*(\d+)\*\*", section.partition("| **all** |")[2].partition("\n")[0])
        row = ROWS[f"{framework} checks, of {checks}"]
        assert [row[column].strip("*") for column in columns] == passed[: len(columns)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_the_examples_print_what_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    examples, shown = blocks("README.md", "python"), blocks("README.md", "text")
    with Emulator() as server:
        server.load(CHAT)
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        for example, expected in zip(examples, shown, strict=True):
            exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
            assert without_speed(capsys.readouterr().out.strip()) == without_speed(expected.strip())


def programs_of_the_diff() -> tuple[str, str]:
    """Return the programs before and after the diff, as readers paste them."""
    (diff,) = blocks("README.md", "diff")
    before, after = (
        "\n".join(line[2:] for line in diff.splitlines() if line[:2].strip() in {"", sign}) for sign in "-+"
    )
    return before, after


@pytest.mark.slow
@pytest.mark.leaf("serve")
def test_both_sides_of_the_diff_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from lmstudio_integrations.cli._serve import build_catalog

    before, after = programs_of_the_diff()
    assert "ChatOpenAI(" in before
    assert "ChatLMStudio(" in after
    other = ModuleType("langchain_openai")  # is not installed where the tests run
    other.__dict__["ChatOpenAI"] = lambda model, **_: ChatLMStudio(model=model)
    monkeypatch.setitem(sys.modules, "langchain_openai", other)
    for program in (before, after):
        with Emulator(catalog=build_catalog(path=CATALOG)) as server:
            monkeypatch.setenv(HOST_VARIABLE, server.address)
            exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
            assert capsys.readouterr().out == "From pier 7.\n"
            assert "pier 7" in str(server.predictions[-1].messages)


def test_what_one_can_rely_on_is_counted() -> None:
    (faults,) = re.findall(r"This page lists (\d+) faults", read_page("docs/internals/reliability.md"))
    assert f"[{faults} faults]" in read_page("README.md")


def without_speed(text: str) -> str:
    return re.sub(r"\d+$", "N", text)
