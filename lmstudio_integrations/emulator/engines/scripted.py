"""The scripted engine: a model that does what its rules say, the same every time, and never pretends to be real.

Its tokens are words, its vectors bags of words. What it cannot do (follow a grammar, render Jinja) it refuses.
The clock is the caller's: pass another `sleep`, and nothing waits.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from lmstudio_integrations.emulator.engines._scripted import template, words
from lmstudio_integrations.emulator.engines._scripted.refusals import (
    ENGINE,
    crash,
    display_data,
    not_loaded,
    out_of_memory,
    unsupported,
)
from lmstudio_integrations.emulator.engines._scripted.rules import (
    Break,
    Error,
    Reasoning,
    Rule,
    Situation,
    Step,
    Text,
    ToolCall,
    Wait,
    When,
    first_match,
    offered,
    parse_rules,
    read_rules,
)
from lmstudio_integrations.emulator.engines._scripted.schema import smallest
from lmstudio_integrations.emulator.engines._scripted.writer import Writer
from lmstudio_integrations.emulator.engines.base import (
    EngineError,
    EngineEvent,
    Fault,
    Finished,
    GenerateRequest,
    LoadRequest,
    ModelFacts,
    Progress,
)
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.models import ModelKind
from lmstudio_integrations.types.results import PromptProgress
from lmstudio_integrations.types.tools import Tool

__all__ = [
    "Break",
    "Error",
    "Reasoning",
    "Rule",
    "ScriptedEngine",
    "ScriptedModel",
    "Step",
    "Text",
    "ToolCall",
    "Wait",
    "When",
    "parse_rules",
    "read_rules",
]

Sleep = Callable[[float], Awaitable[None]]

_PROGRESS_STEPS = 10
_CONTEXT_LENGTH = 32768
_EMBEDDING_LENGTH = 768

_ANY_OBJECT = {"type": "object"}

_Play = Iterator[EngineEvent | Wait | Break | None]
"""What a prediction does: events, waits, a stall, and `None` for a token that is not shown yet."""


class ScriptedEngine:
    """Loads scripted models.

    Args:
        sleep: How to wait for a number of seconds.
    """

    name = ENGINE

    def __init__(self, sleep: Sleep = asyncio.sleep) -> None:
        self._sleep = sleep
        self._loads: Counter[str] = Counter()

    def facts(self, weights: str | None, kind: ModelKind) -> ModelFacts:  # noqa: ARG002 - there are no weights
        """Return what is true of every scripted model; the architecture says that it is one."""
        return ModelFacts(
            architecture=ENGINE,
            max_context_length=_CONTEXT_LENGTH,
            embedding_length=_EMBEDDING_LENGTH if kind == "embedding" else None,
            tools=kind == "llm",
        )

    async def load(self, request: LoadRequest, on_progress: Progress) -> "ScriptedModel":
        """Load a model, in `load_seconds` and with the faults that its rules for a load ask for.

        Raises:
            EngineError: If a rule says so, or the rules are not valid.
        """
        try:
            options = _Options.of(request)
        except LMStudioValueError as error:
            raise not_loaded(str(error)) from error
        self._loads[request.key] += 1
        on_progress(0.0)
        await _act(options.rules, Situation(load=True, round=self._loads[request.key]), self._sleep)
        for step in range(1, _PROGRESS_STEPS + 1):
            await self._sleep(options.load_seconds / _PROGRESS_STEPS)
            on_progress(step / _PROGRESS_STEPS)
        return ScriptedModel(options, self._sleep)


@dataclass(frozen=True, slots=True)
class _Options:
    """What the catalogue says of one scripted model."""

    kind: ModelKind
    rules: tuple[Rule, ...]
    pause: float
    load_seconds: float
    embedding_length: int

    @classmethod
    def of(cls, request: LoadRequest) -> Self:
        """Read the options; those that are not set have the engine's defaults."""
        options = request.options
        rate = options.get("tokens_per_second")
        rules = parse_rules(options.get("rules") or ())
        if request.kind == "embedding":
            for rule in rules:
                rule.require_silence("an embedding model")
        return cls(
            kind=request.kind,
            rules=rules,
            pause=1 / rate if rate else 0.0,
            load_seconds=options.get("load_seconds") or 0.0,
            embedding_length=options.get("embedding_length") or _EMBEDDING_LENGTH,
        )


class ScriptedModel:
    """A loaded scripted model.

    Args:
        options: What it does and how fast.
        sleep: How to wait for a number of seconds.
    """

    def __init__(self, options: _Options, sleep: Sleep) -> None:
        self._options = options
        self._sleep = sleep

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        """Yield the events of one prediction; it can be cancelled before every token.

        Raises:
            EngineError: If a rule says so, the prompt does not fit, or no rule answers what cannot be made up.
        """
        for event in self._play(request):
            if isinstance(event, Wait):
                await self._sleep(event.wait)
            elif isinstance(event, Break):
                await asyncio.Event().wait()
            else:
                await self._pause(event)
                if event is not None:
                    yield event

    async def _pause(self, event: EngineEvent | None) -> None:
        """Keep the pace; without one, let the others have their turn."""
        if self._options.pause and not isinstance(event, PromptProgress):
            await self._sleep(self._options.pause)
        else:
            await asyncio.sleep(0)

    async def embed(self, text: str) -> list[float]:
        """Return the vector of a text.

        Raises:
            EngineError: If a rule says so.
        """
        await _act(self._options.rules, Situation(last=text), self._sleep)
        return words.embed(text, self._options.embedding_length)

    async def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        tokens = [words.token_id(word) for word in words.split(text)]
        return [words.START_MARK, *tokens, words.END_MARK] if self._options.kind == "embedding" else tokens

    async def apply_template(self, history: ChatHistory, tools: Sequence[Tool], config: LlmPredictionConfig) -> str:
        """Return the conversation in the plain template of `_scripted/template.py`.

        Raises:
            EngineError: If the settings ask for a Jinja template.
        """
        return template.render(history.messages, tools, config.prompt_template)

    async def close(self) -> None:
        """Give everything back, which is nothing."""

    def _play(self, request: GenerateRequest) -> _Play:
        situation = Situation.of(request)
        rule = first_match(self._options.rules, situation)
        steps = rule.steps(situation.last) if rule else _unasked(request, situation.last)
        if steps and isinstance(steps[0], Error):
            raise _error(steps[0])
        events = _perform(request, steps)
        due = [step for step in steps if isinstance(step, Break) and step.packet is not None]
        return _interrupted(events, due) if due else events


def _perform(request: GenerateRequest, steps: Sequence[Step]) -> _Play:
    """Do what the steps say, until something ends the answer."""
    tokens, room = _read(request)
    for progress, processed in ((0.0, 0), (1.0, tokens)):
        yield PromptProgress(progress, _details(tokens, processed))
    writer = Writer(request.config, tokens, room)
    thoughts = _Thoughts(request.config, writer)
    for step in steps:
        yield from _do(step, writer, thoughts)
        if writer.stop_reason is not None:
            break
    yield from writer.finish()


def _do(step: Step, writer: Writer, thoughts: "_Thoughts") -> _Play:
    match step:
        case Text():
            yield from writer.write(step.text)
        case Reasoning():
            yield from thoughts.write(step.reasoning)
        case ToolCall():
            yield from writer.call(step)
        case Error():
            raise _error(step)
        case Wait():
            yield step
        case Break(packet=None):
            yield _broken(step)
        case Break():
            pass  # due after a number of packets, see _interrupted


class _Thoughts:
    """What the settings leave of the model's reasoning."""

    def __init__(self, config: LlmPredictionConfig, writer: Writer) -> None:
        self._writer = writer
        self._wanted = config.enable_thinking is not False
        self._budget = None if config.reasoning_budget is False else config.reasoning_budget

    def write(self, text: str) -> _Play:
        if not self._wanted:
            return
        thought = words.split(text)[: self._budget]
        if self._budget is not None:
            self._budget -= len(thought)
        tags = self._writer.tags
        yield from self._writer.write(f"{tags.start}{''.join(thought)}{tags.end}")


def _interrupted(events: _Play, due: Sequence[Break]) -> _Play:
    """Break things after the number of packets that they name, at the latest before the end."""
    waiting = sorted(due, key=lambda step: step.packet or 0)
    packets = 0
    for event in events:
        is_packet = not isinstance(event, Wait | Break | Fault | None)
        while waiting and is_packet and (packets >= (waiting[0].packet or 0) or isinstance(event, Finished)):
            yield _broken(waiting.pop(0))
        packets += is_packet
        yield event


def _broken(step: Break) -> Fault | Break:
    """Return the order to the server, or the stall; or raise what the fault is."""
    if step.fault == "crash":
        raise crash(step.exit_code)
    if step.fault == "out_of_memory":
        raise out_of_memory()
    return step if step.fault == "stall" else Fault(step.fault)


def _error(step: Error) -> EngineError:
    return EngineError(
        step.error,
        cause=step.cause,
        suggestion=step.suggestion,
        display_data=None if step.code is None else display_data(step.code, step.data),
    )


async def _act(rules: Sequence[Rule], situation: Situation, sleep: Sleep) -> None:
    """Do what the rules say where nothing is written."""
    rule = first_match(rules, situation)
    for step in rule.steps(situation.last) if rule else ():
        if isinstance(step, Wait):
            await sleep(step.wait)
        elif isinstance(step, Error):
            raise _error(step)
        else:
            assert isinstance(step, Break), "no other step is silent"
            _broken(step)
            await asyncio.Event().wait()


def _read(request: GenerateRequest) -> tuple[int, int | None]:
    """Return the tokens of the prompt, and how many more the window has room for (`None`: it moves along)."""
    limit, policy = request.context_length, request.config.context_overflow_policy or "truncateMiddle"
    if request.history is None:
        tokens = template.fit_text(request.prompt or "", limit=limit, policy=policy)
    else:
        marks = request.config.prompt_template
        tokens = template.fit_history(request.history, offered(request), limit=limit, policy=policy, marks=marks)
    return tokens, limit - tokens if policy == "stopAtLimit" else None


def _details(total: int, processed: int) -> dict[str, int]:
    return {
        "cachedTokenCount": 0,
        "totalPromptTokenCount": total,
        "processedPromptTokenCount": processed,
        "unprocessedPromptTokenCount": total - processed,
    }


def _unasked(request: GenerateRequest, last: str) -> Sequence[Step]:
    """Return what the model does when no rule applies."""
    structured = request.config.structured or {}
    if structured.get("type") == "gbnf":
        raise unsupported("GBNF grammars")
    if structured.get("type") == "json":
        return [Text(text=json.dumps(smallest(structured.get("jsonSchema", _ANY_OBJECT)), ensure_ascii=False))]
    if request.tool_choice == "required":
        if not request.tools:
            raise EngineError("A tool call is required, but no tools are given", suggestion="Offer at least one tool.")
        tool = request.tools[0].function
        return [ToolCall(tool=tool.name, arguments=smallest(tool.parameters or _ANY_OBJECT))]
    return [Text(text=f'You said "{last}". What shall we talk about next?')]
