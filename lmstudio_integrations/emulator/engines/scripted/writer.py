"""The tokens of a scripted response, and the settings that label or end them: limits, stop strings, reasoning tags.

The plain state of one response, without a clock or I/O. A token that is held back, because a stop string may have
begun, is yielded as `None`, so that the caller can pace and cancel between any two tokens.
"""

import json
import math
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished
from lmstudio_integrations.emulator.engines.generation import (
    CUT_OFF,
    Tags,
    candidate_count,
    overlap,
    reasoning_tags,
    stop_strings,
)
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.emulator.engines.scripted.rules import ToolCall
from lmstudio_integrations.emulator.engines.scripted.words import call_parts
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

_MALFORMED = {"title": "Failed to parse tool call: The arguments are not a JSON object."}


class StopStringMatcher:
    """Finds the first stop string in a response that arrives token by token.

    A token is released once no stop string can begin in it.

    Args:
        stops: The strings to look for.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stop_string: str | None = None
        self._stops = stops
        self._pending: deque[LlmPredictionFragment] = deque()

    def feed(self, token: LlmPredictionFragment) -> list[LlmPredictionFragment]:
        """Receive a token; return those that are released. A stop string and what follows it are cut off."""
        if not self._stops:
            return [token]
        self._pending.append(token)
        text = "".join(token.content for token in self._pending)
        matches = [(start, -len(stop), stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        if not matches:
            return self._release(len(text) - overlap(text, self._stops))
        end, _, self.stop_string = min(matches)
        released = self._release(end)
        rest = end - sum(len(token.content) for token in released)
        if rest:
            released.append(replace(self._pending[0], content=self._pending[0].content[:rest]))
        self._pending.clear()
        return released

    def flush(self) -> list[LlmPredictionFragment]:
        """Return what was held back, as nothing more follows."""
        return self._release(sum(len(token.content) for token in self._pending))

    def _release(self, length: int) -> list[LlmPredictionFragment]:
        """Return the held tokens that lie completely within the first `length` characters."""
        released: list[LlmPredictionFragment] = []
        while self._pending and len(self._pending[0].content) <= length:
            released.append(self._pending.popleft())
            length -= len(released[-1].content)
        return released


class Writer:
    """Writes one response and records how it ended.

    Args:
        config: The settings of the prediction.
        prompt_tokens: Tokens of the prompt.
        remaining: Tokens of the context window that remain for the response; `None` if old ones are dropped.
    """

    def __init__(self, config: LlmPredictionConfig, prompt_tokens: int, remaining: int | None) -> None:
        self.written: int = 0
        self.stop_reason: str | None = None
        self._tags = reasoning_tags(config)
        stops = stop_strings(config)
        self._matcher = StopStringMatcher(stops)
        self._tool_stops = config.tool_call_stop_strings or []
        self._prompt_tokens = prompt_tokens
        limits = ((config.max_tokens or None, "maxPredictedTokensReached"), (remaining, "contextLengthReached"))
        self._limits = [(limit, reason) for limit, reason in limits if limit is not None]
        self._candidates = candidate_count(config)
        self._in_reasoning = False
        self._may_reason = config.enable_thinking is not False
        self._forbidden = {token for token, bias in (config.logit_bias or {}).items() if bias == -math.inf}
        self._budget = None if config.reasoning_budget is False else config.reasoning_budget
        self._calls = 0

    def write(
        self, text: str, probabilities: Mapping[str, float] | None = None
    ) -> Iterator[LlmPredictionFragment | None]:
        """Write text, until it or the response ends. Tokens that `logit_bias` forbids are left out.

        Args:
            text: The text.
            probabilities: Those of its tokens; made up if not given.
        """
        for token in _split(text, self._tags):
            if self._forbidden and words.token_id(token) in self._forbidden:
                continue
            if not self._count_token():
                return
            yield from self._matcher.feed(self._fragment(token, probabilities)) or (None,)
            if self._matcher.stop_string is not None:
                self.stop_reason = "toolCalls" if self._matcher.stop_string in self._tool_stops else "stopStringFound"
                return

    def write_reasoning(self, text: str) -> Iterator[LlmPredictionFragment | None]:
        """Write reasoning between tags, as far as the settings allow it."""
        if not self._may_reason:
            return
        tokens = list(words.split(text))[: self._budget]
        if self._budget is not None:
            self._budget -= len(tokens)
        yield from self.write(f"{self._tags.start}{''.join(tokens)}{self._tags.end}")

    def write_word(self, probabilities: Mapping[str, float]) -> Iterator[LlmPredictionFragment | None]:
        """Write the most probable word, with the probabilities of all."""
        listed = dict(sorted(probabilities.items(), key=lambda each: -each[1]))
        yield from self.write(next(iter(listed)), listed)

    def write_call(self, call: ToolCall) -> Iterator[EngineEvent]:
        """Write a tool call, until it or the response ends."""
        yield from self._matcher.flush()
        self._calls += 1
        # Nine digits, as some chat templates require. The prompt grows with the conversation, so ids rarely collide.
        call_id = call.id or f"{zlib.crc32(f'{self._prompt_tokens}.{self._calls}'.encode()) % 10**9:09d}"
        raw = ""
        for event, text in _call_tokens(call, call_id):
            if not self._count_token():
                if raw:
                    yield ToolCallFailed(CUT_OFF, raw)
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
        """Write the end of the sequence, unless something else has ended the response."""
        yield from self._matcher.flush()
        if self.stop_reason is None and self._count_token():
            self.stop_reason = "eosFound"
        assert self.stop_reason is not None, "a response ends with the end of the sequence or at a limit"
        yield Finished(
            self.stop_reason,
            self._prompt_tokens,
            self.written,
            stop_string=self._matcher.stop_string if self.stop_reason == "stopStringFound" else None,
        )

    def _count_token(self) -> bool:
        """Count one more token, unless a limit is reached; the end of the sequence is a token, too."""
        for limit, reason in self._limits:
            if self.written >= limit:
                self.stop_reason = reason
                return False
        self.written += 1
        return True

    def _fragment(self, token: str, probabilities: Mapping[str, float] | None) -> LlmPredictionFragment:
        logprobs = None
        if self._candidates is not None:
            logprobs = [words.log_probs(probabilities or words.probabilities_of(token), self._candidates)]
        kind = self._reasoning_type(token)
        return LlmPredictionFragment(token, 1, reasoning_type=kind, is_structural=kind.endswith("Tag"), tokens=logprobs)

    def _reasoning_type(self, token: str) -> str:
        if not self._tags.enabled:
            return "none"
        if self._in_reasoning:
            self._in_reasoning = token != self._tags.end
            return "reasoning" if self._in_reasoning else "reasoningEndTag"
        self._in_reasoning = token == self._tags.start
        return "reasoningStartTag" if self._in_reasoning else "none"


def _split(text: str, tags: Tags) -> Iterator[str]:
    """Yield the tokens of a text; a tag is a token of its own."""
    if not tags.enabled or (tags.start not in text and tags.end not in text):
        yield from words.split(text)
        return
    for part in re.split(f"({re.escape(tags.start)}|{re.escape(tags.end)})", text):
        yield from [part] if part in {tags.start, tags.end} else words.split(part)


def _call_tokens(call: ToolCall, call_id: str) -> Iterator[tuple[EngineEvent | None, str]]:
    """Yield the tokens of a tool call, each with its event; the last has none, as it comes before the end event."""
    written = json.dumps(call.arguments, ensure_ascii=False) if call.malformed is None else call.malformed
    head, name, tail = call_parts(call.tool)
    yield ToolCallStart(call_id, "json" if call.malformed is None else None), head
    yield ToolCallName(call.tool), name
    for token in words.split(written):
        yield ToolCallArguments(token), token
    yield None, tail
