"""The scripted model's pen: text and tool calls to tokens, and every setting that marks or ends them.

The plain state of one answer, without clock and I/O. A token that is held back, because a stop string may have begun,
is yielded as `None`, so that whoever reads can pace and cancel between any two tokens.
"""

import json
import re
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from lmstudio_integrations._typeguards import is_list
from lmstudio_integrations.emulator.engines._scripted import words
from lmstudio_integrations.emulator.engines._scripted.odds import Draft, odds_of
from lmstudio_integrations.emulator.engines._scripted.refusals import unsupported
from lmstudio_integrations.emulator.engines._scripted.rules import ToolCall
from lmstudio_integrations.emulator.engines._scripted.template import call_pieces
from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

_CUT_OFF = {"title": "Failed to parse tool call: Unexpected end of content."}
_MALFORMED = {"title": "Failed to parse tool call: The arguments are not a JSON object."}


class StopFinder:
    """Finds the first stop string in an answer that comes token by token.

    A token is shown once no stop string can begin in it.

    Args:
        stops: The strings to look for.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.found: str | None = None
        self._stops = stops
        self._longest = max((len(stop) for stop in stops), default=0)
        self._held: deque[LlmPredictionFragment] = deque()

    def feed(self, token: LlmPredictionFragment) -> list[LlmPredictionFragment]:
        """Take a token; return those that may be shown. A stop string and what follows it are cut off."""
        if not self._stops:
            return [token]
        self._held.append(token)
        text = "".join(held.content for held in self._held)
        hits = [(place, -len(stop), stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if not hits:
            return self._take(len(text) - self._beginning(text))
        cut, _, self.found = min(hits)
        shown = self._take(cut)
        rest = cut - sum(len(token.content) for token in shown)
        if rest:
            shown.append(replace(self._held[0], content=self._held[0].content[:rest]))
        self._held.clear()
        return shown

    def flush(self) -> list[LlmPredictionFragment]:
        """Return what was held back, when nothing more follows."""
        held = list(self._held)
        self._held.clear()
        return held

    def _take(self, length: int) -> list[LlmPredictionFragment]:
        """Return the held tokens that lie within the first `length` characters as a whole."""
        shown: list[LlmPredictionFragment] = []
        while self._held and len(self._held[0].content) <= length:
            shown.append(self._held.popleft())
            length -= len(shown[-1].content)
        return shown

    def _beginning(self, text: str) -> int:
        """Return how long the end of the text is in which a stop string may have begun."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0


@dataclass(frozen=True, slots=True)
class Tags:
    """The marks around thoughts, and whether they are looked for."""

    start: str
    end: str
    enabled: bool

    @classmethod
    def of(cls, config: LlmPredictionConfig) -> Self:
        """Read the settings. An empty mark cannot be looked for."""
        parsing = config.reasoning_parsing or {}
        start, end = str(parsing.get("startString", "<think>")), str(parsing.get("endString", "</think>"))
        _check([start, end], "tags around reasoning")
        return cls(start, end, bool(parsing.get("enabled", True) and start and end))

    def split(self, text: str) -> Iterator[str]:
        """Yield the tokens of a text; a mark is a token of its own."""
        if not self.enabled or (self.start not in text and self.end not in text):
            yield from words.each(text)
            return
        marks = {self.start, self.end}
        for part in re.split(f"({re.escape(self.start)}|{re.escape(self.end)})", text):
            yield from [part] if part in marks else words.each(part)


class Writer:
    """Writes one answer, and knows how it ended.

    Args:
        config: The settings of the prediction.
        prompt_tokens: Tokens that were read.
        room: Tokens that the window has left for the answer; `None` if the window moves along.
    """

    def __init__(self, config: LlmPredictionConfig, prompt_tokens: int, room: int | None) -> None:
        self.tags = Tags.of(config)
        self.written = 0
        self.stop_reason: str | None = None
        self._prompt_tokens = prompt_tokens
        limits = ((config.max_tokens or None, "maxPredictedTokensReached"), (room, "contextLengthReached"))
        self._limits = [(limit, reason) for limit, reason in limits if limit is not None]
        self._tool_stops = config.tool_call_stop_strings or []
        stops = [*_stop_strings(config), *self._tool_stops]
        _check(stops, "stop strings")
        self._finder = StopFinder(stops)
        self._candidates = None if config.log_probs is None or config.log_probs is False else config.log_probs
        self._draft = Draft.of(config)
        self._thinking = False
        self._calls = 0

    def write(self, text: str) -> Iterator[LlmPredictionFragment | None]:
        """Write text, until it or the answer ends."""
        for token in self.tags.split(text):
            if not self._take_room():
                return
            shown = self._finder.feed(self._fragment(token))
            yield from shown or (None,)
            if self._finder.found is not None:
                self.stop_reason = "toolCalls" if self._finder.found in self._tool_stops else "stopStringFound"
                return

    def call(self, call: ToolCall) -> Iterator[EngineEvent]:
        """Write a tool call, until it or the answer ends."""
        yield from self._finder.flush()
        self._calls += 1
        call_id = call.id or _call_id(self._prompt_tokens, self._calls)
        raw = ""
        for event, text in _call_tokens(call, call_id):
            if not self._take_room():
                if raw:
                    yield ToolCallFailed(_CUT_OFF, raw)
                return
            raw += text
            if event is not None:
                yield event
        if call.malformed is None:
            yield ToolCallEnd(call_id, call.tool, call.arguments, raw)
        else:
            yield ToolCallFailed(_MALFORMED, raw)
        if any(stop in raw for stop in self._tool_stops):
            self.stop_reason = "toolCalls"

    def finish(self) -> Iterator[LlmPredictionFragment | Finished]:
        """Write the end of the sequence, unless something else has ended the answer."""
        yield from self._finder.flush()
        if self.stop_reason is None and self._take_room():
            self.stop_reason = "eosFound"
        assert self.stop_reason is not None, "an answer ends by the end of the sequence or for want of room"
        yield Finished(
            self.stop_reason,
            self._prompt_tokens,
            self.written,
            stop_string=self._finder.found if self.stop_reason == "stopStringFound" else None,
            stats=self._draft.stats() if self._draft else {},
        )

    def _take_room(self) -> bool:
        """Count one more token, if there is room for it; the end of the sequence is a token, too."""
        for limit, reason in self._limits:
            if self.written >= limit:
                self.stop_reason = reason
                return False
        self.written += 1
        return True

    def _fragment(self, token: str) -> LlmPredictionFragment:
        drafted = self._draft.take() if self._draft else False
        odds = None if self._candidates is None else [odds_of(token, self._candidates)]
        kind = self._reasoning_type(token)
        return LlmPredictionFragment(token, 1, drafted, kind, kind in _TAG_TYPES, odds)

    def _reasoning_type(self, token: str) -> str:
        if not self.tags.enabled:
            return "none"
        if self._thinking:
            self._thinking = token != self.tags.end
            return "reasoning" if self._thinking else "reasoningEndTag"
        self._thinking = token == self.tags.start
        return "reasoningStartTag" if self._thinking else "none"


_TAG_TYPES = frozenset({"reasoningStartTag", "reasoningEndTag"})


MOST_STRINGS = 64
LONGEST_STRING = 1_000
"""Bounds of what is looked for in each token."""


def _check(strings: Sequence[str], what: str) -> None:
    """Reject more, or longer, strings than can be looked for in each token.

    Raises:
        EngineError: If there are.
    """
    if len(strings) > MOST_STRINGS or any(len(string) > LONGEST_STRING for string in strings):
        raise unsupported(f"more than {MOST_STRINGS} {what}, or longer ones than {LONGEST_STRING} characters")


def _stop_strings(config: LlmPredictionConfig) -> list[str]:
    """Return the stop strings of the settings and of their prompt template."""
    of_template = (config.prompt_template or {}).get("stopStrings")
    return [
        *(config.stop_strings or ()),
        *(str(stop) for stop in (of_template if is_list(of_template) else ()) if stop),
    ]


def _call_tokens(call: ToolCall, call_id: str) -> Iterator[tuple[EngineEvent | None, str]]:
    """Yield the tokens of a tool call, each with its event; the last has none, the call's end is told after it."""
    written = json.dumps(call.arguments, ensure_ascii=False) if call.malformed is None else call.malformed
    head, name, tail = call_pieces(call.tool)
    yield ToolCallStart(call_id), head
    yield ToolCallName(call.tool), name
    for piece in words.split(written):
        yield ToolCallArguments(piece), piece
    yield None, tail


def _call_id(prompt_tokens: int, number: int) -> str:
    """Return nine digits that differ within a conversation, for its prompt grows from turn to turn."""
    return f"{zlib.crc32(f'{prompt_tokens}.{number}'.encode()) % 10**9:09d}"
