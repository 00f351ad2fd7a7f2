"""A prediction of a scripted model from request to last event: what it does, in which order, and what breaks.

Plain generators without a clock: what must be waited for is yielded, and the model waits.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmstudio_integrations.emulator.engines._refusals import crashed
from lmstudio_integrations.emulator.engines._scripted import template, words
from lmstudio_integrations.emulator.engines._scripted.refusals import display_data, out_of_memory, unsupported
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
    first_match,
    offered,
)
from lmstudio_integrations.emulator.engines._scripted.schema import smallest
from lmstudio_integrations.emulator.engines._scripted.writer import Writer
from lmstudio_integrations.emulator.engines.base import EngineError, EngineEvent, Fault, Finished, GenerateRequest
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import PromptProgress

_ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Stall:
    """From here on nothing happens any more."""


Play = Iterator[EngineEvent | Wait | Stall | None]
"""What a prediction does: events, waits, a stall, and `None` for a token that is not shown yet."""


def play(rules: Sequence[Rule], request: GenerateRequest) -> Play:
    """Return what a model with these rules does.

    Raises:
        EngineError: If the first thing it does is to fail, or no rule answers what cannot be made up. The play itself
            raises what comes later.
    """
    situation = Situation.of(request)
    rule = first_match(rules, situation)
    steps = rule.steps(situation.last) if rule else _unasked(request, situation.last)
    if steps and isinstance(steps[0], Error):
        raise _error(steps[0])
    events = _perform(request, steps)
    due = [step for step in steps if isinstance(step, Break) and step.packet is not None]
    return _interrupted(events, due) if due else events


def play_silently(rules: Sequence[Rule], situation: Situation) -> Iterator[Wait | Stall]:
    """Return what a model does where nothing is written: on a load, or to an embedding.

    Raises:
        EngineError: While it plays, if a rule says so.
    """
    rule = first_match(rules, situation)
    for step in rule.steps(situation.last) if rule else ():
        if isinstance(step, Wait):
            yield step
        elif isinstance(step, Error):
            raise _error(step)
        else:
            assert isinstance(step, Break), "no other step is silent"
            broken = _broken(step)
            assert isinstance(broken, Stall), "a line cannot break where there is none"
            yield broken


def _perform(request: GenerateRequest, steps: Sequence[Step]) -> Play:
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


def _do(step: Step, writer: Writer, thoughts: "_Thoughts") -> Play:
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

    def write(self, text: str) -> Play:
        if not self._wanted:
            return
        thought = words.split(text)[: self._budget]
        if self._budget is not None:
            self._budget -= len(thought)
        tags = self._writer.tags
        yield from self._writer.write(f"{tags.start}{''.join(thought)}{tags.end}")


def _interrupted(events: Play, due: Sequence[Break]) -> Play:
    """Break things after the number of packets that they name, at the latest before the end."""
    waiting = sorted(due, key=lambda step: step.packet or 0)
    packets = 0
    for event in events:
        is_packet = not isinstance(event, Wait | Stall | Fault | None)
        while waiting and is_packet and (packets >= (waiting[0].packet or 0) or isinstance(event, Finished)):
            yield _broken(waiting.pop(0))
        packets += is_packet
        yield event


def _broken(step: Break) -> Fault | Stall:
    """Return the order to the server, or the stall; or raise what the fault is."""
    if step.fault == "crash":
        raise crashed(step.exit_code)
    if step.fault == "out_of_memory":
        raise out_of_memory()
    return Stall() if step.fault == "stall" else Fault(step.fault)


def _error(step: Error) -> EngineError:
    return EngineError(
        step.error,
        cause=step.cause,
        suggestion=step.suggestion,
        display_data=None if step.code is None else display_data(step.code, step.data),
    )


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
        return [ToolCall(tool=tool.name, arguments=smallest({**(tool.parameters or {}), **_ANY_OBJECT}))]
    return [Text(text=f'You said "{last}". What shall we talk about next?')]
