"""Run the conformance suites on this package and on those of others, and write `docs/guides/comparison.md`.

`python -m tools.comparison` uses the environment of the benchmarks, which includes the packages of others. If the
environment does not exist, the command creates it, which downloads packages.

`python -m tools.comparison FRAMEWORK NAME [PART...]` runs the checks of one integration in this environment, and prints
their results as JSON; with PART, only those whose requirements contain one of them.
"""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from benchmarks import environment
from tests.contract.frameworks import FRAMEWORKS, OURS, PAGE, Framework
from tests.contract.suite import PASSED
from tools import ROOT

_INTRODUCTION = """\
Each row below is one check: it states what users of the framework rely on, and fails if an integration does not do
it. The checks run on this package, against the emulator, and on other integrations for local models, against a server
that speaks their HTTP protocols and runs the same scripted models. It implements OpenAI's protocol as LM Studio does:
LM Studio rejects a named `tool_choice` and the response format `json_object`, and sends a malformed tool call as text.

What is sent is read from the requests. Reasoning counts as sent back if it is in the field that a protocol has for it,
`reasoning_content` or `reasoning` in OpenAI's and `thinking` in Ollama's, or in the text, between the model's own tags.
LM Studio's native protocol has no such field; its official SDKs send text with tags.

✔ means that the check passes, ✗ that it fails, and a dash that the integration does not have the feature. Checks that
all integrations pass are in a closed block below each table. To regenerate this page, run `python -m tools.comparison`.
"""

_NOTES = {
    "langchain": """\
`langchain-tests` checks that a chat model has LangChain's interface; the checks in `tests/contract/langchain` continue
where it ends. `langchain-openai` runs with the settings that give the best results with LM Studio: `stream_usage=True`
for token counts, and `check_embedding_ctx_length=False`, because LM Studio accepts texts, but not their tokens.
`langchain-ollama` runs with `reasoning=True`. It has other names for some standard parameters, and the suite translates
them: `max_tokens` to `num_predict`, `timeout` and `api_key` to `client_kwargs`. The official `lmstudio` SDK has no
class for LangChain.

[`init_chat_model`](../langchain/init-chat-model.md) has a fixed list of providers; one line, `register()`, enters
this package in it.
""",
    "llama_index": """\
LlamaIndex has no conformance suite for language models and embeddings; the checks are in
`tests/contract/llama_index.py`. `llama-index-llms-openai-like` runs together with `llama-index-embeddings-openai`, and
with the settings that give the best results: `should_use_structured_outputs`, `is_function_calling_model`, and
`stream_options` for token counts. `llama-index-llms-ollama` runs together with `llama-index-embeddings-ollama`.
""",
}

Results = dict[str, tuple[str, str]]
"""Result and reason of each check."""


def results(python: Path, framework: Framework, name: str) -> Results:
    """Run all checks on one integration."""
    command = [str(python), "-m", "tools.comparison", framework.key, name]
    sys.stderr.write(f"{name}\n")
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    outcomes: Results = json.loads(run.stdout)
    return outcomes


def page(results: dict[str, dict[str, Results]], versions: dict[str, str]) -> str:
    """Return the page in Markdown, from the results by framework and integration."""
    sections = [_section(FRAMEWORKS[key], results[key], versions) for key in results]
    counts = " and\n".join(_counts(FRAMEWORKS[key], results[key]) for key in results)
    return "\n".join(["# Integrations compared\n", f"`{OURS}` passes {counts}.\n", _INTRODUCTION, *sections])


def _counts(framework: Framework, by_integration: dict[str, Results]) -> str:
    peers = ", ".join(f"`{name}` {_passed(results)}" for name, results in by_integration.items() if name != OURS)
    return f"{_passed(by_integration[OURS])} of {len(framework.suite.checks)} checks for {framework.title} ({peers})"


def _passed(results: Results) -> int:
    return sum(result == PASSED for result, _ in results.values())


def _section(framework: Framework, by_integration: dict[str, Results], versions: dict[str, str]) -> str:
    names = list(by_integration)
    rows = [
        [requirement, *(by_integration[name][requirement][0] for name in names)]
        for requirement in next(iter(by_integration.values()))
    ]
    head = [_row(["", *(f"`{name}` {versions[name]}" for name in names)]), _row(["---", *(":-:" for _ in names)])]
    shared = [row for row in rows if {*row[1:]} == {PASSED}]
    lines = [
        f"## {framework.title}\n",
        _NOTES[framework.key],
        f"With `{framework.core}` {versions[framework.core]}:\n",
        *head,
        *(_row(row) for row in rows if row not in shared),
        _row([f"**passed, of {len(rows)}**", *(f"**{_passed(by_integration[name])}**" for name in names)]),
        f"\n<details markdown>\n<summary>{len(shared)} more checks, which all of them pass</summary>\n",
        *head,
        *map(_row, shared),
        "\n</details>",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def versions_of(python: Path) -> dict[str, str]:
    """Return the versions of all integrations and of their frameworks; this package is the working tree."""
    script = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    names = [name for each in FRAMEWORKS.values() for name in (each.core, *each.integrations)]
    run = subprocess.run([str(python), "-c", script, *names], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return {**dict(zip(names, run.stdout.split(), strict=True)), OURS: version(OURS)}


def run(framework: Framework, name: str, *parts: str) -> None:
    """Run the checks of one integration and print the results."""
    warnings.simplefilter("ignore")
    outcomes: Results = {}
    for requirement in framework.suite.checks:
        if not parts or any(part in requirement for part in parts):
            outcomes[requirement] = framework.outcome(name, requirement)
            sys.stderr.write(f"{outcomes[requirement][0]} {requirement}  {outcomes[requirement][1]}\n")
    json.dump(outcomes, sys.stdout)


def write() -> None:
    """Run all integrations and write the page."""
    python = environment.prepare()
    all_results = {
        framework.key: {name: results(python, framework, name) for name in framework.integrations}
        for framework in FRAMEWORKS.values()
    }
    PAGE.write_text(page(all_results, versions_of(python)), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:]:
        key, *arguments = sys.argv[1:]
        run(FRAMEWORKS[key], *arguments)
    else:
        write()
