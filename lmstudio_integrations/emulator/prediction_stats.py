"""The figures of a prediction, and the packets that strict clients expect even where an engine gives none."""

from collections.abc import Iterator
from typing import Any

from lmstudio_integrations.emulator.clock import Clock
from lmstudio_integrations.emulator.engines.base import Finished
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEvent,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallStart,
)

_FEWEST_FOR_A_RATE = 2
"""Tokens that must follow the first one shown, to tell the speed from them alone."""


class StatsCollector:
    """Watches the events of one prediction.

    Args:
        clock: The time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = self._first = clock.now()
        self._progress: float | None = None
        self._prompt_tokens = 0
        self._predicted_tokens = 0
        self._generating = False
        self._shown_first = 0
        self._open_call: list[str] | None = None

    def start(self) -> None:
        """Take note that the prediction's turn has come."""
        self._started = self._first = self._clock.now()

    def take(self, event: PredictionEvent) -> Iterator[PredictionEvent]:
        """Take note of an event, and yield what is to be sent for it."""
        if isinstance(event, PromptProgress):
            yield from self._prompt(event)
            return
        if not self._generating:
            yield from self._prompt_done()
            self._generating = True
            self._first = self._clock.now()
            self._shown_first = _tokens_of(event)
        self._predicted_tokens += _tokens_of(event)
        self._follow_call(event)
        yield event

    def rest(self, finished: Finished) -> Iterator[PredictionEvent]:
        """Yield what is still to be sent before the end: of a call that was broken off, or where no token came."""
        if self._open_call is not None:
            yield ToolCallFailed({"title": "The tool call was broken off."}, "".join(self._open_call))
            self._open_call = None
        if not self._generating and finished.stop_reason not in {"userStopped", "modelUnloaded"}:
            self._prompt_tokens = self._prompt_tokens or finished.prompt_tokens
            yield from self._prompt_done()

    def stopped(self, reason: str) -> Finished:
        """Return the end of a prediction that was stopped from outside."""
        return Finished(reason, self._prompt_tokens, self._predicted_tokens)

    def stats(self, finished: Finished) -> dict[str, Any]:
        """Return the statistics (protocol §6.5); what has no sensible value is left out."""
        now = self._clock.now()
        stats: dict[str, Any] = {
            "stopReason": finished.stop_reason,
            "stopString": finished.stop_string,
            "tokensPerSecond": self._rate(finished.predicted_tokens, now),
            "numGpuLayers": -1,
            "timeToFirstTokenSec": self._first - self._started if self._generating else None,
            "totalTimeSec": now - self._started,
            "promptTokensCount": finished.prompt_tokens,
            "predictedTokensCount": finished.predicted_tokens,
            "totalTokensCount": finished.prompt_tokens + finished.predicted_tokens,
        }
        return {name: value for name, value in (stats | dict(finished.stats)).items() if value is not None}

    def _rate(self, predicted: int, now: float) -> float | None:
        """Return the speed since the first event, whose tokens came before it; of a short response, the whole speed."""
        tokens, seconds = predicted - self._shown_first, now - self._first
        if tokens < _FEWEST_FOR_A_RATE:
            tokens, seconds = predicted, now - self._started
        return tokens / seconds if self._generating and seconds > 0 else None

    def _follow_call(self, event: PredictionEvent) -> None:
        if isinstance(event, ToolCallStart):
            self._open_call = []
        elif isinstance(event, ToolCallEnd | ToolCallFailed):
            self._open_call = None
        elif isinstance(event, ToolCallArguments) and self._open_call is not None:
            self._open_call.append(event.content)

    def _prompt(self, event: PromptProgress) -> Iterator[PredictionEvent]:
        details = event.details or _details(self._prompt_tokens, event.progress)
        self._prompt_tokens = details["totalPromptTokenCount"]
        if self._progress is None and event.progress > 0:
            yield PromptProgress(0, _details(self._prompt_tokens, 0))
        self._progress = event.progress
        yield PromptProgress(event.progress, details)

    def _prompt_done(self) -> Iterator[PredictionEvent]:
        """Complete the progress: at least 0 and 1 are sent per prediction (protocol §4.3)."""
        if self._progress is None:
            yield PromptProgress(0, _details(self._prompt_tokens, 0))
        if self._progress != 1:
            self._progress = 1
            yield PromptProgress(1, _details(self._prompt_tokens, 1))


def _tokens_of(event: PredictionEvent) -> int:
    """Return how many tokens an event stands for; a piece of arguments is about one."""
    if isinstance(event, LlmPredictionFragment):
        return event.tokens_count
    return 1 if isinstance(event, ToolCallArguments) else 0


def _details(total: int, progress: float) -> dict[str, int]:
    processed = round(total * progress)
    return {
        "cachedTokenCount": 0,
        "totalPromptTokenCount": total,
        "processedPromptTokenCount": processed,
        "unprocessedPromptTokenCount": total - processed,
    }
