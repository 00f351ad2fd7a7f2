"""Agents that stay sane for 50 turns with a model that makes every mistake: `python -m tools.fifty_turns --seeds 100`.

In each turn the user asks for the values of some entries, which three tools return. The model is scripted. By a seeded
chance its calls do not fit, are left in the text, or come again and again, and its responses repeat themselves, or say
nothing. It goes on as soon as it sees a result, or reads what was wrong. The tools check that each of their runs is a
call that the model has just made, with the arguments that it meant. With `--real`, a real model responds: then only the
reasons for stopping are judged.
"""

import argparse
import asyncio
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, NamedTuple, TypeAlias

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.agent.workflow import AgentOutput, FunctionAgent
from llama_index.core.memory import ChatMemoryBuffer
from pydantic import validate_call

from lmstudio_integrations import AsyncClient, Chat
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished, GenerateRequest
from lmstudio_integrations.emulator.engines.scripted import chat_template
from lmstudio_integrations.errors import LMStudioToolCallError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.langchain.middleware import InvalidToolCallMiddleware, RepeatedToolCallMiddleware
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.chat import Message
from lmstudio_integrations.types.results import LlmPredictionFragment, ToolCallArguments
from tools.call_mistakes import FORMATS, Written, misfit
from tools.long_agent import REAL
from tools.played_models import PlayedEngine, perform, running_turn

TURNS, WINDOW = 50, 32_768
Way = Literal["LangChain", "LlamaIndex", "act"]
WAYS: tuple[Way, ...] = ("LangChain", "LlamaIndex", "act")
MODEL = "clerk"

_SYSTEM = "You look up entries with the tools, and answer with their values."
_QUESTION = re.compile(r"Question (\d+)")
_RESULT = re.compile(r"Entry (\d+) is ([A-Z]{5})")

_MISTAKEN, _AGAIN = 0.5, 0.1
"""How likely a response has a mistake, and how likely the next one of the turn."""

_LEFT_IN_TEXT = 0.3
"""How likely a call is left in the text."""

_HEEDS = 0.6
"""How likely the model does something else after a call that was answered in place of its tool."""

_MENDS = 0.85
"""How likely the model writes the right call when it is asked to, by grammar."""

_MOST_RUNS = 8
"""How often a question is asked at most."""

_MOST_STEPS = 60
"""Predictions after which LlamaIndex ends a run."""

_REAL_WINDOW = 8192

_LONG = "Nobody has read this entry in a long time, and the next one is just as old. " * 4
"""An argument that a request to mend a call does not contain."""

_BATCH = 8
"""Tokens in a fragment."""

COPIES = 2_000
"""How often a response repeats its block unless it is stopped."""

# The model ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Call:
    """A call that the model has made.

    Attributes:
        meant: What it meant.
        mistake: What is wrong with it; `None` if nothing is.
        in_text: Whether it was left in the text.
        is_repeated: Whether the turn has the result.
        is_asked: Whether the model was asked to mend it.
        runs: How often it has run.
    """

    meant: Written
    mistake: str | None = None
    in_text: str | None = None
    is_repeated: bool = False
    is_asked: bool = False
    runs: int = 0

    def key(self) -> str:
        """Return what it has in common with runs of it."""
        return _key(self.meant.tool, self.meant.arguments)


def _key(tool: str, arguments: Mapping[str, Any]) -> str:
    return json.dumps([tool, arguments], sort_keys=True)


@dataclass(slots=True, eq=False)
class Response:
    """A response of the model.

    Attributes:
        kind: What it is: an answer, calls, one of the mistakes.
        calls: Its calls.
        has_ended: Whether all of it was sent.
    """

    kind: str
    calls: list[Call] = field(default_factory=list[Call])
    has_ended: bool = False


_Made: TypeAlias = tuple[Response, list[dict[str, Any]]]
"""A response, and the steps of it."""

ANSWER, CALLS, EMPTY, ALL_THOUGHT = "answer", "calls", "empty", "all thought"
LOOPS = ("text repeats itself", "reasoning repeats itself", "arguments repeat themselves")
BY_GRAMMAR = "response by grammar repeats itself"


class Clerk(PlayedEngine):
    """An engine whose models look up entries, and are as unreliable as chance will have it.

    Args:
        chance: What decides.
        plans: The calls that each question needs.

    Attributes:
        responses: What they have responded.
        mended: What they have written by grammar.
    """

    def __init__(self, chance: Random, plans: Mapping[int, Sequence[Written]]) -> None:
        super().__init__()
        self.responses: list[Response] = []
        self.mended: Counter[str] = Counter()
        self._chance = chance
        self._plans = plans
        self._is_warned = False
        """Whether the last response of the turn had a mistake."""
        self._repeating: Written | None = None
        self._repetitions = 0

    def play(self, request: GenerateRequest) -> Iterator[EngineEvent]:
        """Yield what a model does."""
        structured = request.config.structured or {}
        if structured.get("type") == "json":
            response = Response(BY_GRAMMAR)
            steps = [{"text": self._mend(structured["jsonSchema"], self.responses[-1])}]
        else:
            assert request.history is not None, "agents have conversations"
            response, steps = self._respond(request.history.messages)
            self.responses.append(response)
        for event in _batch(perform(steps, request)):
            response.has_ended = isinstance(event, Finished)
            yield event

    def _respond(self, messages: Sequence[Message]) -> _Made:
        turn = running_turn(messages)
        if len(turn) == 1:
            self._repeating, self._is_warned = None, False
        number = int(_QUESTION.findall(chat_template.message_text(turn[0]))[-1])
        # The whole conversation counts: a question may be asked again.
        results = "\n".join(chat_template.message_text(each) for each in messages if each.role == "tool")
        values = dict(_RESULT.findall(results))
        open_ = [call for call in self._plans[number] if str(call.arguments["entry_number"]) not in values]
        if self._repeating is not None and (again := self._repeat(turn)):
            return again
        self._is_warned = self._chance.random() < (_AGAIN if self._is_warned else _MISTAKEN)
        mistake = self._make_mistake(number, open_, turn) if self._is_warned else None
        return mistake or self._go_on(number, open_, values)

    def _make_mistake(self, number: int, open_: Sequence[Written], turn: Sequence[Message]) -> _Made | None:
        """Make a mistake, if there is occasion for it."""
        kind = self._chance.choices(["call", "loop", "again", "nothing", "two"], [8, 1, 1, 1, 1])[0]
        done = [call for call in self._plans[number] if call not in open_]
        if kind == "again" and done:
            self._repeating, self._repetitions = self._chance.choice(done), self._chance.randrange(1, 9)
            return self._repeat(turn)
        if kind == "nothing":
            thought = {"reasoning": f"Question {number} is about entries."}
            return (Response(EMPTY), []) if self._chance.random() < 1 / 2 else (Response(ALL_THOUGHT), [thought])
        if kind == "loop":
            return self._loop(number, open_)
        if kind == "two" and len(open_) > 1:
            mistake, written = misfit(self._chance, open_[0], None)
            calls = [(Call(open_[0], mistake), written), (Call(open_[1]), open_[1])]
            self._chance.shuffle(calls)
            return Response("two calls", [call for call, _ in calls]), [each.step() for _, each in calls]
        return self._write(open_[0], is_mistaken=True) if open_ else None

    def _go_on(self, number: int, open_: Sequence[Written], values_by_entry: Mapping[str, str]) -> _Made:
        """Do what is right."""
        if open_:
            return self._write(open_[0], is_mistaken=False)
        values = " ".join(values_by_entry[str(call.arguments["entry_number"])] for call in self._plans[number])
        thought = {"reasoning": "I know all of them."}
        return Response(ANSWER), [thought, {"text": f"Answer {number}: {values}"}]

    def _write(self, meant: Written, *, is_mistaken: bool) -> _Made:
        """Make a call."""
        thought = {"reasoning": f"I need entry {meant.arguments['entry_number']}."}
        form = self._chance.choice(list(FORMATS)) if self._chance.random() < _LEFT_IN_TEXT else None
        kind, written = misfit(self._chance, meant, form) if is_mistaken else (None, meant)
        step = written.step() if form is None else {"text": FORMATS[form](written)}
        return Response(CALLS, [Call(meant, kind, form)]), [thought, step]

    def _repeat(self, turn: Sequence[Message]) -> _Made | None:
        """Make a call again whose result is known, unless the model heeds that its call did not run."""
        call, self._repetitions = self._repeating, self._repetitions - 1
        is_answered = "did not run" in chat_template.message_text(turn[-1])
        if call is None or self._repetitions < 0 or (is_answered and self._chance.random() < _HEEDS):
            self._repeating = None
            return None
        return Response("the same call again", [Call(call, is_repeated=True)]), [call.step()]

    def _loop(self, number: int, open_: Sequence[Written]) -> _Made:
        block = f"I look at question {number} once more, because it may have changed. "
        kind = self._chance.choice(LOOPS if open_ else LOOPS[:2])
        if kind == LOOPS[0]:
            return Response(kind), [{"text": block * COPIES}]
        if kind == LOOPS[1]:
            return Response(kind), [{"reasoning": block * COPIES}]
        malformed = f'{{"entry_number": {open_[0].arguments["entry_number"]}, "query": "{block * COPIES}'
        written = Written(open_[0].tool, {}, malformed)
        return Response(kind, [Call(open_[0], kind)]), [written.step()]

    def _mend(self, schema: Mapping[str, Any], response: Response) -> str:
        """Return what the model writes by grammar."""
        (call,) = (each for each in response.calls if each.mistake is not None)
        call.is_asked = True
        allowed = _arguments_of(schema, call.meant.tool)
        arguments = {name: value for name, value in call.meant.arguments.items() if name in allowed}
        right = json.dumps({"name": call.meant.tool, "arguments": arguments})
        wrong = {
            "right": right,
            "not JSON": "I would rather not.",
            "cut off": right[: len(right) // 2],
            "another name": right.replace(call.meant.tool, "do_it"),
            "no arguments": json.dumps({"name": call.meant.tool, "arguments": {}}),
            "white space": '{"name":' + "\n" * 4000,
        }
        others = list(wrong)[1:]
        kind = "right" if self._chance.random() < _MENDS else self._chance.choice(others)
        self.mended[kind] += 1
        return wrong[kind]


def _batch(events: Iterator[EngineEvent]) -> Iterator[EngineEvent]:
    """Yield events with several tokens in each fragment, as a fast server sends them."""
    pending: list[Any] = []
    for event in events:
        kind = _kind_of_fragment(event)
        if pending and (len(pending) == _BATCH or kind != _kind_of_fragment(pending[0])):
            yield _join(pending)
            pending = []
        if kind is None:
            yield event
        else:
            pending.append(event)


def _join(fragments: Sequence[Any]) -> Any:
    return replace(fragments[0], content="".join(each.content for each in fragments))


def _kind_of_fragment(event: EngineEvent) -> object:
    """Return what fragments have in common that may be sent as one; `None` if the event is none."""
    if isinstance(event, LlmPredictionFragment):
        return event.reasoning_type
    return ToolCallArguments if isinstance(event, ToolCallArguments) else None


def _arguments_of(schema: Mapping[str, Any], tool: str) -> Mapping[str, Any]:
    """Return the arguments that a grammar lets the model write."""
    for each in schema.get("anyOf", [schema]):
        if each["properties"]["name"] == {"const": tool}:
            allowed: Mapping[str, Any] = each["properties"]["arguments"]["properties"]
            return allowed
    return {}


# The tools ----------------------------------------------------------------------------------------------------------


class Registry:
    """The entries, and the tools that return them.

    Args:
        is_call: Whether the model has just made a call that has not run yet; it then counts as run.

    Attributes:
        runs: How often a tool ran.
        wrong: The runs that no call has asked for.
    """

    def __init__(self, is_call: Callable[[str], bool]) -> None:
        self.runs = 0
        self.wrong: list[str] = []
        self._is_call = is_call

    def read_meter(self, entry_number: int, unit: Literal["celsius", "fahrenheit", "kelvin"], hours: list[int]) -> str:
        """Return the entry of a meter."""
        return self._entry("read_meter", entry_number=entry_number, unit=unit, hours=hours)

    def search_reports(self, entry_number: int, query: str, tags: list[str]) -> str:
        """Return the entry of a report."""
        return self._entry("search_reports", entry_number=entry_number, query=query, tags=tags)

    def write_note(self, entry_number: int, title: str, is_urgent: bool) -> str:
        """Write a note into an entry, and return that."""
        return self._entry("write_note", entry_number=entry_number, title=title, is_urgent=is_urgent)

    def tools(self) -> list[Callable[..., str]]:
        """Return the tools."""
        # The other two check arguments by themselves; an agent of LlamaIndex passes on whatever the model wrote.
        return [validate_call(each) for each in (self.read_meter, self.search_reports, self.write_note)]

    def _entry(self, tool: str, **arguments: Any) -> str:
        self.runs += 1
        key = _key(tool, arguments)
        if not self._is_call(key):
            self.wrong.append(key)
        return f"Entry {arguments['entry_number']} is {value_of(arguments['entry_number'])}"


def value_of(entry: object) -> str:
    """Return the value of an entry."""
    chance = Random(str(entry))
    return "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=5))


def make_plans(chance: Random, turns: int) -> dict[int, list[Written]]:
    """Return the calls that each question needs, one or two."""

    def call(entry: int) -> Written:
        tool = chance.choice(["read_meter", "search_reports", "write_note"])
        if tool == "read_meter":
            hours = chance.sample(range(24), k=chance.randrange(1, 4))
            rest: dict[str, Any] = {"unit": chance.choice(["celsius", "fahrenheit", "kelvin"]), "hours": hours}
        elif tool == "search_reports":
            tags = chance.sample(["old", "new", "lost"], k=chance.randrange(1, 3))
            rest = {"query": chance.choice(["rain", "wind", _LONG]), "tags": tags}
        else:
            rest = {"title": f"Note {entry}", "is_urgent": chance.random() < 1 / 2}
        return Written(tool, {"entry_number": entry, **rest})

    return {turn: [call(10 * turn + at) for at in range(chance.randrange(1, 3))] for turn in range(1, turns + 1)}


# The agents ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """What came of asking an agent.

    Attributes:
        answer: Its answer.
        metadata: Those of its predictions, and of what ended it.
        invalid: The invalid calls of its last message.
        error: The error that has ended it.
    """

    answer: str
    metadata: Sequence[Mapping[str, Any]]
    invalid: Sequence[Any] = ()
    error: LMStudioToolCallError | None = None


Ask = Callable[[str], Awaitable[Run]]


class Setup(NamedTuple):
    """What an agent gets: its tools, the model and the server, further settings, and whether it streams."""

    registry: Registry
    model: str
    host: str
    settings: dict[str, Any]
    is_streaming: bool


def langchain_agent(setup: Setup) -> Ask:
    """Return an agent of LangChain."""
    model = ChatLMStudio(model=setup.model, host=setup.host, **setup.settings)
    middleware: list[Any] = [RepeatedToolCallMiddleware(), InvalidToolCallMiddleware()]
    agent: Any = create_agent(model, setup.registry.tools(), system_prompt=_SYSTEM, middleware=middleware)
    messages: list[Any] = []

    async def ask(question: str) -> Run:
        before = len(messages) + 1
        inputs, config = {"messages": [*messages, HumanMessage(question)]}, {"recursion_limit": 10 * _MOST_STEPS}
        if setup.is_streaming:
            async for kind, state in agent.astream(inputs, config, stream_mode=["messages", "values"]):
                messages[:] = state["messages"] if kind == "values" else messages
        else:
            messages[:] = (await agent.ainvoke(inputs, config))["messages"]
        responses = [each for each in messages[before:] if isinstance(each, AIMessage)]
        last = messages[-1]
        return Run(
            str(last.text), [each.response_metadata for each in responses], getattr(last, "invalid_tool_calls", ())
        )

    return ask


def llama_index_agent(setup: Setup) -> Ask:
    """Return an agent of LlamaIndex."""
    llm = LMStudio(model=setup.model, host=setup.host, **setup.settings)
    memory = ChatMemoryBuffer.from_defaults(token_limit=WINDOW, tokenizer_fn=str.split)
    agent = FunctionAgent(tools=[*setup.registry.tools()], llm=llm, system_prompt=_SYSTEM, streaming=setup.is_streaming)

    async def ask(question: str) -> Run:
        metadata: list[Mapping[str, Any]] = []
        handler = agent.run(question, memory=memory, max_iterations=_MOST_STEPS)
        async for event in handler.stream_events():
            raw: Mapping[str, Any] = event.raw or {} if isinstance(event, AgentOutput) else {}
            metadata += [{**raw, **raw["stats"]}] if raw else []
        try:
            answer = str(await handler)
        except LMStudioToolCallError as error:
            return Run("", metadata, error=error)
        return Run(answer, metadata)

    return ask


def native_agent(setup: Setup) -> Ask:
    """Return an agent that is `act`, with one chat."""
    chat = Chat(_SYSTEM)
    model = AsyncClient(setup.host).llm.lazy_model(setup.model)

    async def ask(question: str) -> Run:
        results: list[Any] = []
        chat.add_user_message(question)
        try:
            acted = await model.act(
                chat,
                setup.registry.tools(),
                on_message=chat.append,
                on_prediction_completed=results.append,
                **setup.settings,
            )
        except LMStudioToolCallError as error:
            return Run("", [_stats(each) for each in results], error=error)
        ended = [{"stop_reason": acted.stop_reason}] if acted.stop_reason else []
        return Run(results[-1].content, [*(_stats(each) for each in results), *ended])

    return ask


def _stats(result: Any) -> Mapping[str, Any]:
    stats: dict[str, Any] = result.stats.model_dump()
    return stats


_AGENTS: dict[Way, Callable[[Setup], Ask]] = {
    "LangChain": langchain_agent,
    "LlamaIndex": llama_index_agent,
    "act": native_agent,
}


# Judging ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Report:
    """How it went.

    Attributes:
        counts: What happened how often, by its name in the table.
        failures: What must not happen: runs that ended early, tools that ran wrongly, reasons that are missing.
    """

    counts: Counter[str] = field(default_factory=Counter[str])
    failures: list[str] = field(default_factory=list[str])


_REASONS: dict[str, tuple[str, ...]] = {
    "repetition": (*LOOPS,),
    "repeated_tool_call": ("the same call again",),
    "an invalid call": (CALLS, "two calls", LOOPS[2]),
    "a call that was not mended": (CALLS,),
    "nothing was said": (EMPTY, ALL_THOUGHT),
}
"""Why runs end without an answer, and the kinds of the last response that explain it."""


def reason_of(run: Run) -> str | None:
    """Return why a run ended without an answer, by its metadata or its error; `None` if they do not say."""
    last = run.metadata[-1] if run.metadata else {}
    if run.error is not None:
        return "repetition" if "repeated itself" in str(run.error) else "an invalid call"
    if last.get("stop_reason") in {"repetition", "repeated_tool_call"}:
        return str(last["stop_reason"])
    if run.invalid:
        return "an invalid call"
    if last.get("stop_reason") == "eosFound" and not run.answer.strip():
        return "nothing was said"
    if any(each["replaced_by"] is None for each in last.get("repaired_tool_calls") or ()):
        return "a call that was not mended"
    return None


def _judge(report: Report, run: Run, responses: Sequence[Response], *, is_answered: bool) -> None:
    """Add what a run was, and what was wrong with it."""
    counts = report.counts
    counts["runs"] += 1
    if not is_answered:
        reason = reason_of(run)
        counts[f"ended by: {reason}"] += 1
        if reason is None or responses[-1].kind not in _REASONS[reason]:
            report.failures.append(f"ended early ({reason}) after {responses[-1]}: {run}")
    repaired = [each["replaced_by"] for metadata in run.metadata for each in metadata.get("repaired_tool_calls") or ()]
    rescued = sum(metadata.get("rescued_tool_calls") or 0 for metadata in run.metadata)
    for response in responses:
        _count(counts, response)
        for call in response.calls:
            is_told = {"name": call.meant.tool, "arguments": dict(call.meant.arguments)} in repaired
            is_told = is_told or (call.in_text is not None and rescued > 0)
            if call.mistake and call.runs and not is_told:
                report.failures.append(f"not in the metadata: {call}")
    loops = sum(response.kind in LOOPS for response in responses)
    reported = sum(metadata.get("stop_reason") == "repetition" for metadata in run.metadata)
    reported += run.error is not None and "repeated itself" in str(run.error)
    if loops != reported:
        report.failures.append(f"{loops} responses repeated themselves, {reported} are in the metadata of {run}")


def _count(counts: Counter[str], response: Response) -> None:
    counts["predictions"] += 1
    if response.kind in {*LOOPS, EMPTY, ALL_THOUGHT}:
        counts[f"mistake: {response.kind}"] += 1
    if response.kind in LOOPS:
        counts["repetitions that went on" if response.has_ended else "repetitions stopped"] += 1
        return
    for call in response.calls:
        if call.is_repeated:
            counts["mistake: the same call again"] += 1
            counts["repeated calls run" if call.runs else "repeated calls answered"] += 1
        elif call.mistake is not None:
            where = "" if call.in_text is None else ", in the text"
            counts[f"mistake: {call.mistake}{where}"] += 1
            how = "not mended" if not call.runs else "mended by a request" if call.is_asked else "mended without one"
            counts[how] += 1
        elif call.in_text is not None:
            counts["mistake: left in the text"] += 1
            counts["read from the text" if call.runs else "not read from the text"] += 1
        elif not call.runs:
            counts["right calls beside an invalid one that did not run"] += 1
    counts["mistake: two calls, one of which does not fit"] += response.kind == "two calls"


async def run(way: Way, seed: int, turns: int = TURNS, **settings: Any) -> Report:
    """Let an agent answer questions.

    Args:
        way: Whose agent.
        seed: Decides about the questions, and about what goes wrong.
        turns: The number of questions.
        settings: Settings of the adapter, or of `act`.
    """
    chance = Random(seed)
    plans = make_plans(chance, turns)
    engine, report = Clerk(chance, plans), Report()

    def is_call(key: str) -> bool:
        call = next((each for each in engine.responses[-1].calls if each.key() == key and not each.runs), None)
        if call is not None:
            call.runs += 1
        return call is not None

    registry = Registry(is_call)
    with Emulator([{"key": MODEL, "context_length": WINDOW}], engines={engine.name: engine}) as server:
        ask = _AGENTS[way](Setup(registry, MODEL, server.address, settings, is_streaming=seed % 2 == 1))
        for turn, plan in plans.items():
            right = f"Answer {turn}: " + " ".join(value_of(call.arguments["entry_number"]) for call in plan)
            for _ in range(_MOST_RUNS):
                before = len(engine.responses)
                result = await ask(f"Question {turn}: what are the values of {len(plan)} entries?")
                is_answered = result.answer.strip() == right
                _judge(report, result, engine.responses[before:], is_answered=is_answered)
                if is_answered:
                    report.counts["turns"] += 1
                    break
            else:
                report.failures.append(f"question {turn} was not answered")
    report.counts["tools run"] = registry.runs
    report.counts.update({f"by grammar: {kind}": count for kind, count in engine.mended.items()})
    report.failures += [f"a tool ran wrongly: {key}" for key in registry.wrong]
    return report


async def run_real(way: Way, turns: int = 10) -> Report:
    """Ask an agent with a real model, which understands nothing of it; each prediction must say why it ended.

    Args:
        way: Whose agent.
        turns: The number of questions.
    """
    report, registry = Report(), Registry(lambda _: True)
    # Long responses of a small model repeat themselves, and those that call tools do so for ever.
    config: dict[str, Any] = {"max_tokens": 60, "temperature": 0}
    settings = {"config": config} if way == "act" else config
    with Emulator([{"key": REAL, "weights": REAL, "context_length": _REAL_WINDOW}]) as server:
        ask = _AGENTS[way](Setup(registry, REAL, server.address, settings, is_streaming=True))
        for turn in range(1, turns + 1):
            result = await ask(f"Question {turn}: what is entry {turn}?")
            report.counts["turns"] += 1
            reasons = [str(made.get("stop_reason")) for made in result.metadata]
            report.counts.update(f"stopped by: {reason}" for reason in reasons)
            if "None" in reasons or not (reasons or result.error):
                report.failures.append(f"no reason in {result}")
    report.counts["tools run"] = registry.runs
    return report


def _time(agent: tuple[Way, int | None]) -> tuple[Report, float]:
    way, seed = agent
    logging.getLogger("lmstudio_integrations").setLevel(logging.CRITICAL)
    began = time.monotonic()
    report = asyncio.run(run_real(way) if seed is None else run(way, seed))
    return report, time.monotonic() - began


def main() -> None:
    """Run agents of both frameworks and of `act`, with many seeds or with a real model.

    Raises:
        SystemExit: If anything happened that must not.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many scripted models to run (default: 100)")
    parser.add_argument("--real", action="store_true", help="run a real model for 10 turns instead")
    arguments = parser.parse_args()
    seeds = [None] if arguments.real else range(arguments.seeds)
    sums: dict[Way, Counter[str]] = {way: Counter() for way in WAYS}
    failed = 0
    agents: list[tuple[Way, int | None]] = [(way, seed) for seed in seeds for way in WAYS]
    with ProcessPoolExecutor() as processes:
        for (way, seed), (report, seconds) in zip(agents, processes.map(_time, agents), strict=True):
            sums[way].update(report.counts)
            failed += len(report.failures)
            print(f"{way}, seed {seed}: {seconds:.1f} s", *report.failures, sep="\n  ", flush=True)
    print(f"|  | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
    for name in sorted({name for counts in sums.values() for name in counts}):
        print(f"| {name} | {' | '.join(str(sums[way][name]) for way in WAYS)} |")
    raise SystemExit(f"{failed} failures" if failed else 0)


if __name__ == "__main__":
    main()
