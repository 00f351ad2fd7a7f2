"""The tokens of a scripted response, and the settings that label or end them: limits, stop strings, reasoning tags.

The plain state of one response, without a clock or I/O. A stop string is found within one step of a rule.
"""

import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished
from lmstudio_integrations.emulator.engines.generation import (
    CUT_OFF,
    Tags,
    candidate_count,
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


class Writer:
    """Writes one response and records how it ended.

    Args:
        config: The settings of the prediction.
        prompt_tokens: Tokens of the prompt.
        remaining: Tokens of the context window that remain for the response; `None` if old ones are dropped.
    """

    def __init__(self, config: LlmPredictionConfig, prompt_tokens: int, remaining: int | None) -> None:
        self.stop_reason: str | None = None
        self._written = 0
        self._stop_string: str | None = None
        self._tags = reasoning_tags(config)
        self._stops = stop_strings(config)
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

    def write(self, text: str, probabilities: Mapping[str, float] | None = None) -> Iterator[LlmPredictionFragment]:
        """Write text, until it or the response ends. Tokens that `logit_bias` forbids are left out.

        Args:
            text: The text.
            probabilities: Those of its tokens; made up if not given.
        """
        if self._forbidden:
            tokens = _split(text, self._tags)
            text = "".join(token for token in tokens if words.token_id(token) not in self._forbidden)
        end, stop = self._find_stop_string(text)
        position = 0
        for token in _split(text, self._tags):
            if not self._count_token():
                return
            content = token[: max(end - position, 0)]
            position += len(token)
            if content:
                yield self._fragment(token, content, probabilities)
            if stop is not None and position >= end + len(stop):
                self._stop_string = stop
                self.stop_reason = "toolCalls" if stop in self._tool_stops else "stopStringFound"
                return

    def write_reasoning(self, text: str) -> Iterator[LlmPredictionFragment]:
        """Write reasoning between tags, as far as the settings allow it."""
        if not self._may_reason:
            return
        tokens = list(words.split(text))[: self._budget]
        if self._budget is not None:
            self._budget -= len(tokens)
        yield from self.write(f"{self._tags.start}{''.join(tokens)}{self._tags.end}")

    def write_call(self, call: ToolCall) -> Iterator[EngineEvent]:
        """Write a tool call, until it or the response ends."""
        self._calls += 1
        # Nine digits, as some chat templates require. The prompt grows with the conversation, so ids rarely collide.
        call_id = call.id or f"{zlib.crc32(f'{self._prompt_tokens}.{self._calls}'.encode()) % 10**9:09d}"
        is_json = call.malformed is None
        arguments = json.dumps(call.arguments, ensure_ascii=False) if call.malformed is None else call.malformed
        head, name, tail = call_parts(call.tool)
        raw = f"{head}{name}{arguments}{tail}"
        end = ToolCallEnd(call_id, call.tool, call.arguments, raw) if is_json else ToolCallFailed(_MALFORMED, raw)
        events: Iterable[tuple[str, EngineEvent]] = chain(
            [(head, ToolCallStart(call_id, "json" if is_json else None)), (name, ToolCallName(call.tool))],
            ((token, ToolCallArguments(token)) for token in words.split(arguments)),
            [(tail, end)],
        )
        written = ""
        for token, event in events:
            if not self._count_token():
                if written:
                    yield ToolCallFailed(CUT_OFF, written)
                return
            written += token
            yield event
        if any(stop in raw for stop in self._tool_stops):
            self.stop_reason = "toolCalls"

    def finish(self) -> Finished:
        """Write the end of the sequence, unless something else has ended the response."""
        if self.stop_reason is None and self._count_token():
            self.stop_reason = "eosFound"
        assert self.stop_reason is not None, "a response ends with the end of the sequence or at a limit"
        stop_string = self._stop_string if self.stop_reason == "stopStringFound" else None
        return Finished(self.stop_reason, self._prompt_tokens, self._written, stop_string=stop_string)

    def _find_stop_string(self, text: str) -> tuple[int, str | None]:
        """Return where a text ends, and the stop string that begins there, if one comes before a limit."""
        if not self._stops:
            return len(text), None
        room = [max(limit - self._written, 0) for limit, _ in self._limits]
        readable = "".join(islice(_split(text, self._tags), min(room, default=None)))
        starts = ((readable.find(stop), -len(stop), stop) for stop in self._stops)
        end, _, stop = min((each for each in starts if each[0] >= 0), default=(len(text), 0, None))
        return end, stop

    def _count_token(self) -> bool:
        """Count one more token, unless a limit is reached; the end of the sequence is a token, too."""
        for limit, reason in self._limits:
            if self._written >= limit:
                self.stop_reason = reason
                return False
        self._written += 1
        return True

    def _fragment(self, token: str, content: str, probabilities: Mapping[str, float] | None) -> LlmPredictionFragment:
        """Return a token, of which `content` comes before a stop string."""
        logprobs = None
        if self._candidates is not None:
            logprobs = [words.log_probs(probabilities or words.probabilities_of(token), self._candidates)]
        kind = self._reasoning_type(token)
        return LlmPredictionFragment(
            content, 1, reasoning_type=kind, is_structural=kind.endswith("Tag"), tokens=logprobs
        )

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
