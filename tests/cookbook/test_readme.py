"""The README is true: its examples print what it shows, and its table says what the checks found."""

import re

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.emulator import Emulator
from tests.contract.frameworks import FRAMEWORKS, recorded
from tests.docs.snippets import blocks
from tests.docs.snippets import read as read_page
from tools.outputs import CHAT

RESULTS = {FRAMEWORKS[key].title: checks for key, checks in recorded().items()}
TABLE = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in read_page("README.md").partition("## How it compares")[2].splitlines()
    if line.startswith("| ")
]
ROWS = {row[0]: dict(zip(TABLE[0], row, strict=True)) for row in TABLE[2:]}

PACKAGES = {
    ("LangChain", "this package"): 0,
    ("LangChain", "`ChatOpenAI(base_url=…)`"): 1,
    ("LangChain", "`langchain-ollama`"): 2,
    ("LlamaIndex", "this package"): 0,
    ("LlamaIndex", "`llama-index-llms-lmstudio`"): 1,
}
"""Columns of the README's table, and where the results of the checks have theirs."""

CHECKS = {
    "prompts are never truncated silently": dict.fromkeys(
        ("LangChain", "LlamaIndex"),
        "a conversation that does not fit into the context window is an error, or the response says what was dropped",
    ),
    "separate reasoning": {
        "LangChain": "reasoning is a content block of its own, separate from the text",
        "LlamaIndex": "reasoning is a block of its own, separate from the text",
    },
    "reasoning goes back to the model in tool loops": dict.fromkeys(
        ("LangChain", "LlamaIndex"),
        "in a tool loop, the reasoning before a call goes back to the model, streaming or not",
    ),
}
"""Rows of the README's table that a check decides."""

NOT_LM_STUDIO = "`langchain-ollama`"


@pytest.mark.parametrize("claim", CHECKS)
def test_the_table_agrees_with_the_checks(claim: str) -> None:
    for framework, check in CHECKS[claim].items():
        for (of, column), index in PACKAGES.items():
            if of == framework and column != NOT_LM_STUDIO:
                found = RESULTS[framework][check][index]
                assert ROWS[claim][column][0] == {"-": "✗"}.get(found, found), column


def test_the_table_counts_the_checks_that_passed() -> None:
    for (framework, column), index in PACKAGES.items():
        results = RESULTS[framework]
        counted = ROWS[f"{framework} checks, of {len(results)}"][column]
        passed = sum(result[index] == "✔" for result in results.values())
        assert re.findall(r"\d+", counted) == [str(passed)], column


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


def without_speed(text: str) -> str:
    return re.sub(r"\d+$", "N", text)
