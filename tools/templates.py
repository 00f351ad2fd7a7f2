"""Runs an agent over a folder of chat templates: `python -m tools.templates FOLDER [--page SOURCE]`.

Each `*.jinja` of the folder becomes the template of a tiny model, and llama.cpp renders it. What the model writes is
scripted: eight responses to two questions, with thoughts, three tools, and two calls in one of them. A line for each
template says what it does with thoughts and calls, what this package does about that, and how much of what the model
has read and written each prompt goes on from: as the conversation is sent, and as the template would have it, with each
thought in the field that it reads. `--page` writes them into `docs/internals/templates.md`, where templates with equal
results share a row; SOURCE is a sentence on where and of which day the templates are. Nothing is downloaded, and no
template is copied. It takes a second for each.
"""

import argparse
import json
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.base import EngineError, EngineEvent, GenerateRequest, LoadRequest, Progress
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, LlamaCppModel
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, ScriptedModel
from lmstudio_integrations.errors import LMStudioError, LMStudioUnsupportedError
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import Tool
from lmstudio_integrations.types.reasoning_replay import REJECTS, ReasoningReplay
from tests.support import recurrent_model
from tools import ROOT

PAGE = ROOT / "docs/internals/templates.md"

_HEADING = "## The templates\n"
"""The table follows until the end of the page."""

Json = dict[str, Any]


# The agent ------------------------------------------------------------------------------------------------------------


class Response(NamedTuple):
    """What the model writes. Each text, thought and argument of the agent is written once.

    Attributes:
        thought: Its thought.
        calls: The tools that it calls, and their arguments.
        text: Its text.
    """

    thought: str
    calls: Sequence[tuple[str, str]] = ()
    text: str = ""

    @property
    def end(self) -> str:
        """The last of it that is in a prompt."""
        return self.calls[-1][1] if self.calls else self.text


TURNS: Mapping[str, Sequence[Response]] = {
    "Where should I go?": (
        Response("Ask for the weather first.", [("forecast", "Rome")], "I look at the weather."),
        Response("It may rain, so compare.", [("forecast", "Oslo"), ("trains", "Bergen")]),
        Response("A bed is missing.", [("hotels", "Turin")]),
        Response("Turin has all of it.", text="Go there."),
    ),
    "And on the next day?": (
        Response("Another day, another forecast.", [("forecast", "Milan")]),
        Response("Is there a train as well?", [("trains", "Genoa")], "I look at the trains."),
        Response("Only the bed is open.", [("hotels", "Pisa")]),
        Response("Pisa is the best of them.", text="This is the place."),
    ),
}
SYSTEM = "You plan journeys."
_RESPONSES = [response for responses in TURNS.values() for response in responses]
_TWO_CALLS = next(response for response in _RESPONSES if len(response.calls) > 1)


def _result(argument: str) -> str:
    return f"Found for {argument}."


def _calls(response: Response, first: int) -> list[tuple[str, str, str]]:
    """Return the calls of a response with their ids, which some templates want to have nine characters."""
    return [(f"{first + at:09}", *call) for at, call in enumerate(response.calls)]


def _rules(gaps: "Gaps") -> Iterator[Json]:
    """Yield rules by which a scripted model responds."""
    number = 0
    for question, responses in TURNS.items():
        last = question.rstrip("?")
        for response in responses:
            calls = _calls(response, number)
            number += len(calls)
            before, after = gaps.around_thought
            then: list[Json] = [{"reasoning": f"{before}{response.thought}{after}"}]
            then.append({"text": f"{gaps.before_text if response.text else gaps.before_call}{response.text}"})
            yield {
                "when": {"last": last},
                "then": [*then, *({"tool": tool, "arguments": {"city": city}, "id": id_} for id_, tool, city in calls)],
            }
            last = _result(response.end)


def _ideal() -> Iterator[list[Json]]:
    """Yield the prompts of the agent with thoughts in a field of their own, in llama.cpp's form."""
    number, messages = 0, [{"role": "system", "content": SYSTEM}]
    for question, responses in TURNS.items():
        messages.append({"role": "user", "content": question})
        for response in responses:
            yield [*messages]
            calls = _calls(response, number)
            number += len(calls)
            message: Json = {"role": "assistant", "content": response.text, "reasoning_content": response.thought}
            if calls:
                message["tool_calls"] = [_native(*call) for call in calls]
            messages.append(message)
            messages += [
                {"role": "tool", "content": _result(city), "tool_call_id": id_, "name": tool}
                for id_, tool, city in calls
            ]


def _native(id_: str, tool: str, city: str) -> Json:
    function = {"name": tool, "arguments": json.dumps({"city": city})}
    return {"type": "function", "id": id_, "function": function}


def _apart(messages: Sequence[Json]) -> list[Json]:
    """Return messages with one call in each."""
    found: list[Json] = []
    results = {message["tool_call_id"]: message for message in messages if message["role"] == "tool"}
    for message in messages:
        calls = message.get("tool_calls", ())
        if message["role"] != "tool" and len(calls) < 2:
            found.append(message)
        first = message
        for call in calls:
            if len(calls) > 1:
                found.append({**first, "tool_calls": [call]})
                first = {"role": "assistant", "content": ""}
            found.append(results[call["id"]])
    return found


# One template ---------------------------------------------------------------------------------------------------------


class Gaps(NamedTuple):
    """The white space that a model writes.

    Attributes:
        around_thought: Between its tags and its thought.
        before_text: Between its thought and its text.
        before_call: Between its thought and a call.
    """

    around_thought: tuple[str, str] = ("\n", "\n")
    before_text: str = "\n\n"
    before_call: str = "\n\n"


class Row(NamedTuple):
    """What is found out about a template.

    Attributes:
        name: The name of its file.
        replay: What it does with thoughts.
        calls: What its prompts show of calls.
        two_calls: The same for two calls in one message.
        can_keep: Whether `keep_reasoning=True` is possible.
        sent: The share of what the model has read and written that its next prompts go on from.
        kept: The same with `keep_reasoning=True`.
        ideal: The same with thoughts in the field that the template reads; `None` if it reads none.
        error: What has failed.
    """

    name: str
    replay: ReasoningReplay = REJECTS
    calls: str = ""
    two_calls: str = ""
    can_keep: bool = False
    sent: float = 0.0
    kept: float | None = None
    ideal: float | None = None
    error: str = ""


class _Engine(ScriptedEngine):
    """Loads scripted models whose prompts llama.cpp renders with a template.

    Args:
        template: The template.
        weights: The tiny model.

    Attributes:
        prompts: The prompts of the agent, as it has sent them.
        together: Those with thoughts in a field; none if the template rejects one of them.
        apart: The same with one call in each message.
        tags: What the model writes around thoughts.
    """

    def __init__(self, template: str, weights: Path) -> None:
        super().__init__()
        self.prompts: list[str] = []
        self.together: list[str] = []
        self.apart: list[str] = []
        self.tags = "<think>", "</think>"
        self._fields = {"llm.load.promptTemplate": {"type": "jinja", "jinjaPromptTemplate": {"template": template}}}
        self._weights = str(weights)

    @property
    def two_calls(self) -> str:
        """What the template does with two calls in one message."""
        if not self.together:
            return "rejected" if self.apart else "like any call, rejected"
        return _shown(self.together[-1], [_TWO_CALLS])

    @property
    def ideal(self) -> list[str]:
        """The prompts of the agent with thoughts in a field, and calls as the template takes them."""
        return self.together if self.two_calls == "shown" else self.apart

    def written(self, response: Response, before: str, after: str) -> str:
        """Return a response as the model writes it, which is in its next prompt if the template shows it."""
        rest = after[len(before) :] if after.startswith(before) else ""
        shown = rest[: rest.find(response.end) + len(response.end)]
        if response.thought in shown:
            return shown
        gaps = _gaps_of(self.ideal, self.tags[1])
        return f"{self.tags[0]}{response.thought.join(gaps.around_thought)}{self.tags[1]}{gaps.before_text}{shown}"

    async def load(self, request: LoadRequest, on_progress: Progress) -> ScriptedModel:
        """Load a model."""
        real = replace(request, weights=self._weights, fields=self._fields)
        renderer = await LlamaCppEngine(threads=1, offline=True).load(real, on_progress)
        self.together = await _ideal_prompts(renderer, [*_ideal()])
        self.apart = await _ideal_prompts(renderer, [*map(_apart, _ideal())])
        parsing = renderer.base_fields.get("llm.prediction.reasoning.parsing", {})
        self.tags = parsing.get("startString", "<think>"), parsing.get("endString", "</think>")
        rules = tuple(_rules(_gaps_of(self.ideal, self.tags[1])))
        model = await super().load(replace(request, engine_settings={"rules": rules}), on_progress)
        model.__class__ = _Model
        assert isinstance(model, _Model)
        model.renderer, model.prompts = renderer, self.prompts
        model.chat_template, model.base_fields = renderer.chat_template, dict(renderer.base_fields)
        return model


class _Model(ScriptedModel):
    renderer: LlamaCppModel
    prompts: list[str]

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        assert request.history is not None, "the agent has a conversation"
        self.prompts.append(await self.apply_template(request.history, request.tools, request.config))
        config = request.config.model_copy(update={"prompt_template": None})  # which only rules could obey
        async for event in super().generate(replace(request, config=config)):
            yield event

    async def apply_template(self, history: ChatHistory, tools: Sequence[Tool], config: LlmPredictionConfig) -> str:
        return await self.renderer.apply_template(history, tools, config)

    async def close(self) -> None:
        await self.renderer.close()


def forecast(city: str) -> str:
    """Look up the weather of a city."""
    return _result(city)


def trains(city: str) -> str:
    """Look up the trains to a city."""
    return _result(city)


def hotels(city: str) -> str:
    """Look up the hotels of a city."""
    return _result(city)


FUNCTIONS = (forecast, trains, hotels)


def examine(name: str, template: str, weights: Path) -> Row:
    """Run the agent under a template, and return what is found out about it."""
    engine = _Engine(template, weights)
    models = [ModelEntry(key=name, context_length=recurrent_model.CONTEXT_LENGTH)]
    with Emulator(models, engines={engine.name: engine}) as server, lms.Client(server.address) as client:
        try:
            model = client.llm.model(name)
            row = Row(name, model.get_reasoning_replay(), can_keep=_can_keep(model))
            prompts = _run(model, engine)
            kept = _run(model, engine, keep=True) if row.can_keep else []
        except LMStudioError as error:
            return Row(name, error=str(error).partition("\n")[0])
    ideal = engine.ideal
    reads_field = bool(ideal) and _RESPONSES[0].thought in ideal[1]
    return row._replace(
        calls=_shown(prompts[-1], _RESPONSES[:-1]),
        two_calls=engine.two_calls,
        sent=_share(prompts, engine),
        kept=_share(kept, engine) if kept else None,
        ideal=_share(ideal, engine) if reads_field else None,
    )


def _can_keep(model: lms.LLM) -> bool:
    try:
        model.apply_prompt_template(SYSTEM, keep_reasoning=True)
    except LMStudioUnsupportedError:
        return False
    return True


def _run(model: lms.LLM, engine: _Engine, *, keep: bool = False) -> list[str]:
    """Run the agent, and return its prompts."""
    engine.prompts.clear()
    chat = lms.Chat(SYSTEM)
    for question in TURNS:
        chat.add_user_message(question)
        model.act(chat, FUNCTIONS, on_message=chat.append, keep_reasoning=keep)
    return [*engine.prompts]


async def _ideal_prompts(renderer: LlamaCppModel, conversations: Sequence[list[Json]]) -> list[str]:
    """Return the prompts of conversations in llama.cpp's form; none if the template rejects one of them."""
    tools = [lms.ToolFunctionDef.from_callable(each).to_tool().to_dict() for each in FUNCTIONS]
    try:
        return [await renderer._render({"messages": messages, "tools": tools}) for messages in conversations]
    except EngineError:
        return []


def _gaps_of(prompts: Sequence[str], end_tag: str) -> Gaps:
    """Return the white space that a template writes around thoughts; if it shows none, that of most models."""
    first, second = _RESPONSES[:2]
    if not prompts or first.thought not in prompts[1] or second.thought not in prompts[2]:
        return Gaps()
    before, _, after = prompts[1].partition(first.thought)
    _, _, call = prompts[2].partition(second.thought)
    around = before[len(before.rstrip()) :], _blank(after)
    return Gaps(around, _blank(after.partition(end_tag)[2]), _blank(call.partition(end_tag)[2]))


def _blank(text: str) -> str:
    """Return the white space at the beginning of a text."""
    return text[: len(text) - len(text.lstrip())]


def _shown(prompt: str, responses: Sequence[Response]) -> str:
    """Return whether a prompt shows the calls of responses."""
    calls = [call for response in responses for call in response.calls]
    shown = sum(re.search(rf"{city}(?<!Found for {city})\b", prompt) is not None for _, city in calls)
    return "shown" if shown == len(calls) else f"{shown} of {len(calls)} shown" if shown else "not shown"


def _share(prompts: Sequence[str], engine: _Engine) -> float:
    """Return the share of what the model has read and written that its next prompts go on from.

    What it writes is what the template shows of it. If that is no thought, it writes one between its tags first.
    """
    common = total = 0
    steps = zip(pairwise(prompts), pairwise(engine.ideal or prompts), _RESPONSES, strict=False)
    for (before, after), (ideal_before, ideal_after), response in steps:
        read = before + engine.written(response, ideal_before, ideal_after)
        common += next(
            (at for at, (one, other) in enumerate(zip(read, after, strict=False)) if one != other), len(read)
        )
        total += len(read)
    return common / total


# The page -------------------------------------------------------------------------------------------------------------

COLUMNS = ("reasoning as text", "two calls", "what is done about it", "templates")
NEVER = "–"


def cells_of(row: Row) -> list[str]:
    """Return what the table says of a template: its name, the cells that it shares with others, and its shares."""
    if row.error:
        return [row.name, f"an error: {row.error}", NEVER, NEVER, NEVER]
    treatments = [*row.replay.by_place.values()]
    reasoning = treatments[0] if len({*treatments}) == 1 else ", ".join(treatments)
    return [
        row.name,
        f"{reasoning}, without tags" if row.replay.is_bare else reasoning,
        row.two_calls,
        "; ".join(_remedies(row)) or NEVER,
        ", ".join(_shares(row)),
    ]


def _shares(row: Row) -> Iterator[str]:
    """Yield the share that the next prompts go on from, and those with `keep_reasoning` and from the field, if any."""
    yield f"{row.sent:.1%}"
    if row.kept is not None or row.ideal is not None:
        yield from (NEVER if share is None else f"{share:.1%}" for share in (row.kept, row.ideal))


def _remedies(row: Row) -> Iterator[str]:
    """Yield what this package does about what a template does."""
    sent = row.replay.sent_by_place
    if not any(sent.values()):
        yield "reasoning is not sent"
    elif not sent["current_call"]:
        yield "reasoning before calls is not sent"
    elif not sent["answer"]:
        yield "reasoning before answers is not sent"
    if row.two_calls in {"rejected", "1 of 2 shown"} and row.calls == "shown":
        yield "one call in a message"
    if row.can_keep and not row.replay.keeps_all:
        is_moved = row.replay.current_call == "misplaced" and row.replay.answer == "misplaced"
        yield f"`keep_reasoning` {'moves reasoning to its field' if is_moved else 'sets its switch'}"


def render_page(old: str, rows: Sequence[Row], source: str) -> str:
    """Return the page with a table of today.

    Args:
        old: The page.
        rows: What was found out.
        source: Where the templates are from, as a sentence.
    """
    before, heading, _ = old.partition(_HEADING)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, *shared, shares in map(cells_of, rows):
        groups.setdefault((*shared,), []).append(f"{name} ({shares})")
    table = [COLUMNS, ["---"] * len(COLUMNS), *((*shared, "; ".join(names)) for shared, names in groups.items())]
    lines = "".join(f"| {' | '.join(cells)} |\n" for cells in table)
    return f"{before}{heading}\n{source}\n\n{lines}"


def examine_all(folder: Path) -> Iterator[Row]:
    """Yield what is found out about each template of a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        weights = recurrent_model.write(Path(scratch) / "tiny.gguf")
        for path in sorted(folder.glob("*.jinja"), key=lambda path: path.stem.casefold()):
            yield examine(path.stem, path.read_text(encoding="utf-8"), weights)


def main() -> None:
    """Examine the templates of a folder, print a line for each, and write the page on request."""
    parser = argparse.ArgumentParser(prog="python -m tools.templates")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="has the templates, *.jinja")
    parser.add_argument("--page", metavar="SOURCE", help="write the page; a sentence on where the templates are from")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for row in examine_all(arguments.folder):
        rows.append(row)
        print(" | ".join(cells_of(row)), flush=True)
    if arguments.page:
        PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8"), rows, arguments.page), encoding="utf-8")


if __name__ == "__main__":
    main()
