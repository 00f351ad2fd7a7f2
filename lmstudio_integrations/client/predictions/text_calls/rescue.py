"""Turns calls that the server left in the text of a response into tool calls, as if the server had sent them.

What may be markup is held back until it is known to be a call or to be text. Streams and whole responses see the same
events, because both are built from what is delivered here.
"""

import json
import logging
from collections import deque
from dataclasses import replace
from typing import Any
from uuid import uuid4

from lmstudio_integrations._support.text import counted, shortened
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.text_calls.scanner import Scanner
from lmstudio_integrations.client.predictions.text_calls.tools import OfferedTools
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.confidence import FieldConfidence, confidence_of_arguments
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

logger: logging.Logger = logging.getLogger(__name__)

_ID_LENGTH = 9
"""Mistral's templates accept no other identifiers."""


class Rescue:
    """Reads calls in the text of one response.

    Args:
        tools: The tools that the request offers.
        reports_broken: Whether calls that are cut off or do not fit become failed calls; otherwise they are only text.
        keeps_misfits: Whether calls that do not fit are calls, because the caller checks the arguments itself.
    """

    def __init__(self, tools: OfferedTools, *, reports_broken: bool = True, keeps_misfits: bool = False) -> None:
        self._tools = tools
        self._reports_broken = reports_broken
        self._keeps_misfits = keeps_misfits
        self._name = ""
        self.forget()

    def begin_on(self, instance: Instance) -> None:
        """Begin with the response of an instance, or of the generator in its place."""
        self._name = instance.identifier

    def forget(self) -> None:
        """Forget what was received: the prediction starts over."""
        self._scanner: Scanner | None = Scanner(self._tools, marked_only=False)
        """Watches the text; `None` if the server reads calls itself."""
        self._is_reasoning = False
        self._has_text = False
        """Whether there was more than white space and reasoning."""
        self._length = 0
        """The characters of the text or the reasoning."""
        self._held: deque[LlmPredictionFragment] = deque()
        self._held_length = 0

    def release(self, batch: list[PredictionEvent], received: Accumulator) -> list[PredictionEvent]:
        """Return what may be delivered; at the end, change what was received accordingly."""
        if self._scanner is None:
            return batch
        released: list[PredictionEvent] = []
        for event in batch:
            match event:
                case LlmPredictionFragment():
                    self._add(event, released)
                case PromptProgress():
                    released.append(event)
                case PredictionEnd():
                    self._finish(event, received, released)
                case _:
                    self._release_held(released)
                    self._scanner = None
                    released.append(event)
        return released

    def _add(self, fragment: LlmPredictionFragment, released: list[PredictionEvent]) -> None:
        is_text = fragment.reasoning_type == "none"
        if self._scanner is None or not (is_text or fragment.reasoning_type == "reasoning"):
            self._release_held(released)
            released.append(fragment)
            if fragment.reasoning_type == "reasoningEndTag":  # calls in it are over
                self._begin(is_reasoning=False)
            return
        if is_text and fragment.is_structural:
            self._held.append(fragment)
            self._release_held(released, keeping=self._held_length)
            return
        if is_text is self._is_reasoning and fragment.content:
            self._release_held(released)
            self._begin(is_reasoning=not is_text)
        self._has_text = self._has_text or (is_text and bool(fragment.content.strip()))
        self._held.append(fragment)
        self._held_length += len(fragment.content)
        self._length += len(fragment.content)
        self._release_held(released, keeping=self._scanner.add(fragment.content))

    def _begin(self, *, is_reasoning: bool) -> None:
        """Watch a new text."""
        if self._scanner is not None:
            self._is_reasoning, self._length = is_reasoning, 0
            self._scanner = Scanner(self._tools, marked_only=is_reasoning or self._has_text)

    def _release_held(self, released: list[PredictionEvent], keeping: int = 0) -> None:
        """Release the fragments that have none of the last characters."""
        while self._held and self._held_length - _length(self._held[0]) >= keeping:
            fragment = self._held.popleft()
            self._held_length -= _length(fragment)
            released.append(fragment)

    def _finish(self, end: PredictionEnd, received: Accumulator, released: list[PredictionEvent]) -> None:
        is_possible = not (end.is_interrupted or (self._is_reasoning and self._has_text))
        found = self._scanner.finish() if self._scanner is not None and is_possible else None
        events: list[PredictionEvent] = []
        at, reading = (0, None) if found is None else found
        if reading is not None and (reading.problem is None or (self._keeps_misfits and reading.calls)):
            dropped = [fragment for fragment in self._drop_markup(at, received, released) if _length(fragment)]
            text = "".join([fragment.content for fragment in dropped])
            tokens = [token for fragment in dropped for token in fragment.tokens or ()]
            for tool, arguments in reading.calls:
                confidence = confidence_of_arguments(text, tokens, arguments, tool.schema)
                events += call_events(tool.name, arguments, reading.text, confidence)
            end.stats = {**end.stats, "rescuedToolCalls": len(reading.calls)}
            number, model = counted(len(reading.calls), "tool call"), end.model_info.get("modelKey", self._name)
            logger.warning("%r: read %s that the server left in the text (%s)", model, number, reading.family)
        elif reading is not None and self._reports_broken:
            events = failed_call_events(reading.name, reading.problem or "", reading.text)
        self._release_held(released)
        for event in events:
            received.add(event)
        released += [*events, end]

    def _drop_markup(
        self, at: int, received: Accumulator, released: list[PredictionEvent]
    ) -> list[LlmPredictionFragment]:
        """Drop the text from here on; return the fragments in which it stood."""
        self._release_held(released, keeping=self._length - at)
        held = list(self._held)
        del received.fragments[len(received.fragments) - len(held) :]
        before = self._held_length - (self._length - at)
        if before > 0:
            kept = replace(held[0], content=held[0].content[:before], tokens=_tokens_within(held[0], before))
            received.fragments.append(kept)
            released.append(kept)
        self._held.clear()
        self._held_length = 0
        return held


def call_events(
    name: str, arguments: dict[str, Any], raw_content: str, confidence: dict[str, FieldConfidence] | None
) -> list[PredictionEvent]:
    """Return the events of a complete call."""
    call_id = uuid4().hex[:_ID_LENGTH]
    return [
        ToolCallStart(call_id),
        ToolCallName(name),
        ToolCallArguments(json.dumps(arguments, ensure_ascii=False)),
        ToolCallEnd(call_id, name, arguments, raw_content, confidence),
    ]


def failed_call_events(name: str | None, problem: str, raw_content: str) -> list[PredictionEvent]:
    """Return the events of a call that cannot be made."""
    named = [] if name is None else [ToolCallName(name)]
    return [ToolCallStart(uuid4().hex[:_ID_LENGTH]), *named, ToolCallFailed({"title": shortened(problem)}, raw_content)]


def _length(fragment: LlmPredictionFragment) -> int:
    return 0 if fragment.is_structural and fragment.reasoning_type == "none" else len(fragment.content)


def _tokens_within(fragment: LlmPredictionFragment, length: int) -> list[dict[str, Any]] | None:
    """Return the tokens of the first characters of a fragment."""
    tokens = list[dict[str, Any]]()
    for token in fragment.tokens or ():
        length -= len(token.get("text") or "")
        if length < 0:
            break
        tokens.append(token)
    return tokens or None
