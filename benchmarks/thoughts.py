"""Measure what it costs if the thoughts of an agent do not go back to its model: `python -m benchmarks.thoughts`.

The model cannot rewind (`tools.recurrent_model`): what differs from the prompt before is processed again from the last
context checkpoint on, or from the beginning of the prompt. A grammar lets it write an agent of ten responses in two
turns, under each of the chat templates of `tests.support.chat_templates`, also with their switches set. What was
processed depends on no machine. Results are printed, and kept in `benchmarks/waits.json`: each cell has the prompt
tokens that were processed, and the share of what the model had read and written that came from the cache.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage

import lmstudio_integrations as lms
from benchmarks.speed import to_json
from benchmarks.waits import RESULTS, SYSTEM, TOOLS, words
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from tests.support import recurrent_model
from tests.support.chat_templates import TEMPLATES, Template, grammar_of

TURNS, CALLS = 2, 4
"""The turns of the agent, and its calls in each, before the answer."""

Mode: TypeAlias = Literal["auto"] | bool
MODES: tuple[Mode, ...] = (False, "auto")
CHECKPOINTS = (32, 0)
"""The default of llama.cpp, and none."""


class Response(NamedTuple):
    """The tokens of a response and its prompt.

    Attributes:
        prompt: Those of the prompt.
        cached: Those of them that came from the cache.
        written: Those of the response.
    """

    prompt: int
    cached: int
    written: int


Costs: TypeAlias = Mapping[str, Sequence[Response]]
"""The responses of an agent, by the names of settings."""

SETTINGS: dict[str, tuple[Mode, int]] = {
    f"{mode}, {checkpoints}": (mode, checkpoints) for checkpoints, mode in product(CHECKPOINTS, MODES)
}
"""Each `send_reasoning` and number of context checkpoints."""


class Row(NamedTuple):
    """What is measured under a template.

    Attributes:
        treatments: What it does with thoughts in each place.
        costs: The conversation under each setting.
    """

    treatments: Mapping[str, str]
    costs: Costs


def processed(responses: Sequence[Response]) -> int:
    """Return the tokens of all prompts that were processed."""
    return sum(each.prompt - each.cached for each in responses)


def share(responses: Sequence[Response]) -> float:
    """Return how much of what the model had read and written before the last prompt was not processed again."""
    *_, before, last = responses
    return last.cached / (before.prompt + before.written)


def sources() -> Iterator[tuple[str, Template, str]]:
    """Yield the chat templates: a title, the template, and its source, which may have its switch set."""
    for template in TEMPLATES.values():
        yield template.like, template, template.source
        if template.switch:
            name, value = template.switch
            yield f"{template.like}, `{name}={str(value).lower()}`", template, template.switched_source


def measure(template: Template, source: str) -> Row:
    """Have the conversation under a template and each setting."""
    with tempfile.TemporaryDirectory() as folder:
        weights = recurrent_model.write(Path(folder) / "model.gguf", source)
        found = {name: converse(weights, template, *setting) for name, setting in SETTINGS.items()}
        return Row(_treatments(weights), found)


def _treatments(weights: Path) -> dict[str, str]:
    with Emulator([_entry(weights)]) as server, lms.Client(server.address) as client:
        return dict(client.llm.model("agent").get_reasoning_replay().by_place)


def _entry(weights: Path) -> ModelEntry:
    return ModelEntry(key="agent", weights=str(weights), context_length=recurrent_model.CONTEXT_LENGTH, slots=1)


def converse(weights: Path, template: Template, mode: Mode, checkpoints: int) -> list[Response]:
    """Have the conversation of the agent under a template and a setting."""
    with Emulator([_entry(weights)]) as server:
        model = ChatLMStudio(
            model="agent",
            host=server.address,
            send_reasoning=mode,
            load_config={"context_checkpoints": checkpoints},
            temperature=0,
            repeat_penalty=1.0,
        )
        return [*_responses(model.bind_tools(TOOLS), template)]


def _responses(model: Any, template: Template) -> Iterator[Response]:
    messages: list[BaseMessage] = [SYSTEM]
    for at, text in enumerate(_script(template)):
        if at % (CALLS + 1) == 0:
            messages.append(HumanMessage(f"{words((at, 'question'), 20)}?"))
        response = model.invoke(messages, prediction_config={"raw": {**template.prediction_fields, **grammar_of(text)}})
        usage = response.usage_metadata
        yield Response(usage["input_tokens"], usage["input_token_details"].get("cache_read", 0), usage["output_tokens"])
        results = [ToolMessage(words((at, "result"), 40), tool_call_id=call["id"]) for call in response.tool_calls]
        messages += [response, *results]


def _script(template: Template) -> Iterator[str]:
    """Yield what the model writes: thoughts with calls, and in each turn one with an answer."""
    for turn, call in product(range(TURNS), range(CALLS)):
        yield template.write(words((turn, call, "thought"), 40), "", ("read", {"text": f"{turn} {call}"}))
        if call == CALLS - 1:
            yield template.write(words((turn, "thought"), 40), words((turn, "answer"), 40))


def table(rows: Mapping[str, Row]) -> str:
    """Return the results as a table in Markdown."""
    titles = [
        f"{'no' if checkpoints == 0 else checkpoints} checkpoints, `{mode}`" for mode, checkpoints in SETTINGS.values()
    ]
    lines = [
        f"| template as that of | its thoughts | {' | '.join(titles)} |",
        "| --- " * (len(titles) + 2) + "|",
    ]
    for title, row in rows.items():
        cells = [f"{processed(row.costs[name]):,}; {share(row.costs[name]):.0%}" for name in SETTINGS]
        lines.append(f"| {title} | {', '.join(row.treatments.values())} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_of(results: Mapping[str, Any]) -> dict[str, Row]:
    """Return what is kept in the results."""
    return {
        title: Row(
            row["treatments"], {name: [Response(*each) for each in found] for name, found in row["costs"].items()}
        )
        for title, row in results["thoughts"].items()
    }


def main() -> None:
    """Measure, keep the results and print a table."""
    argparse.ArgumentParser(prog="python -m benchmarks.thoughts").parse_args()
    rows: dict[str, Row] = {}
    for title, template, source in sources():
        rows[title] = measure(template, source)
        print(table({title: rows[title]}).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(rows))
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    kept["thoughts"] = {title: row._asdict() for title, row in rows.items()}
    RESULTS.write_text(to_json(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
