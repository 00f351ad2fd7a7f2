"""Writes the pages about the comparison from `results.json`: `python -m tests.contract.comparison.pages`.

`docs/guides/comparison.md` counts the checks by topic, for users; `docs/internals/comparison.md` lists those in which
the integrations differ.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.contract.frameworks import FRAMEWORKS, RESULTS, Framework, recorded
from tests.contract.suite import FAILED, MISSING, PASSED
from tools import ROOT

SUMMARY, DIFFERENCES = ROOT / "docs/guides/comparison.md", ROOT / "docs/internals/comparison.md"

TOPICS = {
    "Chat and streaming": (
        r"^a stream adds|return a response\b|chunks\b|one chunk|deltas add|empty response|`content` is|log-probability|"
        r"`model_name`|complete or was cut off|`class_name`"
    ),
    "Embeddings": r"^embeddings:",
    "Context window, token counts": r"context (window|length)|counts",
    "Reasoning": r"reasoning|Thinking",
    "Structured output": r"structured|json_|include_raw|strict|function_calling|response_format",
    "Tools and agents": r"tool|agent|chat_history",
    "Images and messages": r"image|content|roles|cache points|additional_kwargs",
    "Callbacks and traces": r"callbacks|on_llm_error|events` reports|trace",
    "Cancelling": r"cancels",
    "Batches, threads, event loops": r"event loop|threads|fork|batch|return_exceptions|max_concurrency|parallel calls",
    "Errors, timeouts, retries": r"server's message|unreachable|retr|timeout",
    "Pickling, caches, secrets": r"pickled|copied|secret|collected|restores|InMemoryCache",
    "Settings": r"setting|configurable|init_chat_model|is sent|are sent|overrides|no server|`metadata`",
}
"""The topics in the order of the tables: a check belongs to the first whose pattern its requirement contains."""

_SUMMARY = """\
# Integrations compared

How this package compares with `ChatOpenAI(base_url=…)`, `langchain-ollama`, `llama-index-llms-lmstudio` and others:
it passes {counts}.

A check states what users of the framework rely on. The tables count the checks that each package passes; it passes no
check of a feature that it lacks. This package runs against the [emulator](../tools/emulator.md), the others against a
server that speaks their HTTP protocols, OpenAI's as LM Studio does, with the same scripted models and with the settings
that give the best results. The [checks in which they differ](../internals/comparison.md) are on a page of their own.

No check of this project has met a real LM Studio: the numbers say what each package does with a server that keeps to
the published protocols.
"""

_DIFFERENCES = """\
# Checks in which the integrations differ

[Integrations compared](../guides/comparison.md) counts the checks by topic. These are the checks that not every
integration passes; this package passes all of them. They are in `tests/contract`;
`python -m tests.contract.comparison` writes both pages.

What is sent is read from the requests. Reasoning counts as sent back if it is in the field that a protocol has for it,
`reasoning_content` or `reasoning` in OpenAI's and `thinking` in Ollama's, or in the text, between the model's own tags.
The server implements OpenAI's protocol as LM Studio does: it rejects a named `tool_choice` and the response format
`json_object`, and sends a malformed tool call as text.
"""

_NOTES = {
    "langchain": """\
`langchain-openai` runs with `stream_usage=True` and `check_embedding_ctx_length=False`, `langchain-ollama` with
`reasoning=True`. The suite translates the names of `langchain-ollama` for some standard parameters.
""",
    "llama_index": """\
`llama-index-llms-openai-like` runs with `llama-index-embeddings-openai`, `should_use_structured_outputs`,
`is_function_calling_model` and `stream_options`; `llama-index-llms-ollama` with `llama-index-embeddings-ollama`.
""",
}

Results = Mapping[str, Sequence[str]]
"""The results of each check, in the order of the integrations."""


def topic_of(requirement: str) -> str:
    """Return the topic of a check."""
    return next(topic for topic, pattern in TOPICS.items() if re.search(pattern, requirement))


def render() -> dict[Path, str]:
    """Return the pages."""
    versions = json.loads(RESULTS.read_text(encoding="utf-8"))["versions"]
    results = recorded()
    counts = " and ".join(_counts(FRAMEWORKS[key], each) for key, each in results.items())
    summary = [_SUMMARY.format(counts=counts)]
    differences = [_DIFFERENCES]
    for key, each in results.items():
        framework = FRAMEWORKS[key]
        summary.append(_table(framework, each, versions))
        differences += [f"## {framework.title}\n", _NOTES[key], *_groups([*framework.integrations], each)]
    return {SUMMARY: "\n".join(summary), DIFFERENCES: "\n".join(differences)}


def _counts(framework: Framework, results: Results) -> str:
    passed = sum(marks[0] == PASSED for marks in results.values())
    return f"{passed} of {len(results)} checks for {framework.title}"


def _table(framework: Framework, results: Results, versions: Mapping[str, str]) -> str:
    """Return the table of a framework: how many checks of each topic the integrations pass."""
    names = list(framework.integrations)
    rows = [[topic, *_passed(results, topic)] for topic in TOPICS]
    lines = [
        f"## {framework.title}\n",
        _row(
            [
                f"{framework.core} {versions[framework.core]}",
                "checks",
                *(f"`{name}` {versions[name]}" for name in names),
            ]
        ),
        _row(["---", *("--:" for _ in ("checks", *names))]),
        *(_row(map(str, row)) for row in rows if row[1]),
        _row(f"**{cell}**" for cell in ("all", *_passed(results))),
    ]
    return "\n".join(lines) + "\n"


def _passed(results: Results, topic: str = "") -> list[int]:
    """Return the number of checks of a topic, or of all, and how many of them each integration passes."""
    rows = [marks for requirement, marks in results.items() if topic in {"", topic_of(requirement)}]
    return [len(rows), *(sum(mark == PASSED for mark in column) for column in zip(*rows, strict=True))]


def _groups(names: Sequence[str], results: Results) -> Iterable[str]:
    """Yield the checks that not all pass, below the names of those that do not."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for requirement, marks in results.items():
        groups.setdefault(tuple(marks), []).append(requirement)
    groups.pop((PASSED,) * len(names), None)
    for marks, requirements in groups.items():
        failing, without = (
            ", ".join(f"`{name}`" for name, mark in zip(names, marks, strict=True) if mark == sought)
            for sought in (FAILED, MISSING)
        )
        parts = [f"fails: {failing}"] * bool(failing) + [f"not offered: {without}"] * bool(without)
        yield f"### {'; '.join(parts).capitalize()}\n"
        yield "\n".join(f"- {requirement}" for requirement in requirements) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the pages."""
    for path, page in render().items():
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
