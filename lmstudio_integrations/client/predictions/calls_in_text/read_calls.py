"""Turns calls that the server left in the text of a response into tool calls, as if the server had sent them.

What may be markup is held back until it is known to be a call or to be text.
"""

import logging
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from lmstudio_integrations._support.text import counted
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.predictions.calls_in_text.call_parser import ParsedCall
from lmstudio_integrations.client.predictions.calls_in_text.call_repair import MeantTools, name_in, split_calls
from lmstudio_integrations.client.predictions.calls_in_text.formats import OfferedTools
from lmstudio_integrations.client.predictions.calls_in_text.lenient_json import NoCallError, json_of
from lmstudio_integrations.client.predictions.calls_in_text.parser import UNMARKED, ParseResult, StreamingToolParser
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware, call_events, failed_call_events
from lmstudio_integrations.client.predictions.plan import tools_in
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEnd, PredictionEvent

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(eq=False)
class ReadCalls(Middleware):
    """Reads calls in the text of a response.

    Calls that are cut off or do not fit become failed calls, unless a call is forced: a broken one is none, then.
    """

    def __post_init__(self) -> None:
        self._repairs: bool = self.plan.options.repair_tool_calls
        self._tools = MeantTools(self.plan.tools) if self._repairs else OfferedTools(self.plan.tools)
        self._ask: Ask | None = None

    def _begin_response(self, ask: Ask) -> None:
        self._ask = ask
        self._parser: StreamingToolParser | None = (
            self._new_parser(marked_only=False) if tools_in(ask.parameter) else None
        )
        """Watches the text; `None` if no tool is offered, or the server reads calls itself."""
        self._is_reasoning = False
        self._has_text = False
        """Whether there was more than white space and reasoning."""
        self._length = 0
        """The characters of the text or the reasoning."""
        self._buffer: deque[LlmPredictionFragment] = deque()
        self._buffer_length = 0

    def events(self, batch: Events, ask: Ask) -> Events:
        """Return the events without fragments that may be markup."""
        if ask is not self._ask:
            self._begin_response(ask)
        if self._parser is None:
            return batch
        released: list[PredictionEvent] = []
        for event in batch:
            if event.kind == "text":
                self._add(event, released)
            elif event.kind == "progress":
                released.append(event)
            else:  # the server reads calls itself, or it has ended
                self._release(released)
                self._parser = None
                released.append(event)
        return released

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the rest of the text, with calls in place of the markup."""
        yield from ()
        released = self.events(batch, ask)
        if self._parser is None:
            return released, end
        is_possible = not (end.is_interrupted or (self._is_reasoning and self._has_text))
        ending = self._parser.finish() if is_possible else None
        name = end.model_info.get("modelKey") or ask.instance.identifier
        if is_possible and ending is None and (shown := self._parser.shown()) is not None:
            number = counted(len(shown.calls) or 1, "tool call")
            logger.warning("%r: left %s in the text that may be an example (%s)", name, number, shown.family)
        keeps_misfits = (self.plan.keeps_misfits or not self.plan.options.check_response) and not self.plan.forces_call
        at, result = (self._length, None) if ending is None else ending
        self._release_before(at, released)
        if result is not None and result.family == UNMARKED:
            keeps_misfits = False  # without a marker, they stay text unless they are mended
        if result is not None and (result.problem is None or (keeps_misfits and result.calls)):
            self._buffer.clear()
            for tool, arguments in result.calls:
                released += call_events(tool.name, json_of(arguments), result.text)
            number = counted(len(result.calls), "tool call")
            logger.warning("%r: read %s that the server left in the text (%s)", name, number, result.family)
            return released, replace(end, stats={**end.stats, "rescuedToolCalls": len(result.calls)})
        self._release(released)
        if result is not None and not self.plan.forces_call:
            released += self._parts_of(result) or failed_call_events(result.name, result.problem or "", result.text)
        return released, end

    def _parts_of(self, result: ParseResult) -> Events:
        """Return the calls of a text of which some cannot be read, each by itself, unless they are mended later."""
        parts = [] if self._repairs or result.calls else split_calls(result.text, self._tools)
        problems = [result.problem if isinstance(part, str) else _problem(part) for part in parts]
        if len(parts) < 2 or all(problems):
            return []
        events: Events = []
        for part, problem in zip(parts, problems, strict=True):
            if isinstance(part, str):
                events += failed_call_events(name_in(part, self._tools), problem or "", part)
            elif problem is not None:
                events += failed_call_events(part.tool.name, problem, result.text)
            else:
                events += call_events(part.tool.name, json_of(part.arguments), result.text)
        return events

    def _add(self, fragment: LlmPredictionFragment, released: list[PredictionEvent]) -> None:
        is_text = fragment.reasoning_type == "none"
        if self._parser is None or not (is_text or fragment.reasoning_type == "reasoning"):
            self._release(released)
            released.append(fragment)
            if fragment.reasoning_type == "reasoningEndTag":  # calls in it are over
                self._begin(is_reasoning=False)
            return
        if is_text and fragment.is_structural:
            self._buffer.append(fragment)
            self._release(released, keeping=self._buffer_length)
            return
        if is_text is self._is_reasoning and fragment.content:
            self._release(released)
            self._begin(is_reasoning=not is_text)
        self._has_text = self._has_text or (is_text and bool(fragment.content.strip()))
        self._buffer.append(fragment)
        self._buffer_length += len(fragment.content)
        self._length += len(fragment.content)
        self._release(released, keeping=self._parser.add(fragment.content))

    def _begin(self, *, is_reasoning: bool) -> None:
        if self._parser is not None:
            self._is_reasoning, self._length = is_reasoning, 0
            self._parser = self._new_parser(marked_only=is_reasoning or self._has_text)

    def _new_parser(self, *, marked_only: bool) -> StreamingToolParser:
        return StreamingToolParser(self._tools, marked_only=marked_only, repairs=self._repairs)

    def _release(self, released: list[PredictionEvent], keeping: int = 0) -> None:
        """Release the fragments that have none of the last characters."""
        while self._buffer and self._buffer_length - _length(self._buffer[0]) >= keeping:
            fragment = self._buffer.popleft()
            self._buffer_length -= _length(fragment)
            released.append(fragment)

    def _release_before(self, at: int, released: list[PredictionEvent]) -> None:
        self._release(released, keeping=self._length - at)
        before = self._buffer_length - (self._length - at)
        if before > 0:
            fragment, within = self._buffer[0], _tokens_within(self._buffer[0], before)
            released.append(replace(fragment, content=fragment.content[:before], tokens=within or None))
            rest = (fragment.tokens or [])[len(within) :]
            self._buffer[0] = replace(fragment, content=fragment.content[before:], tokens_count=0, tokens=rest or None)
            self._buffer_length -= before


def _problem(call: ParsedCall) -> str | None:
    try:
        return call.tool.problem(call.arguments)
    except NoCallError:
        return "its schema cannot be used"


def _length(fragment: LlmPredictionFragment) -> int:
    return 0 if fragment.is_structural and fragment.reasoning_type == "none" else len(fragment.content)


def _tokens_within(fragment: LlmPredictionFragment, length: int) -> list[dict[str, Any]]:
    """Return the tokens of the first characters of a fragment."""
    tokens = list[dict[str, Any]]()
    for token in fragment.tokens or ():
        length -= len(token.get("text") or "")
        if length < 0:
            break
        tokens.append(token)
    return tokens
