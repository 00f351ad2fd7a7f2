"""The stats of a prediction, and packets that clients require even if an engine yields none."""

from collections.abc import Iterator
from typing import Any

from lmstudio_integrations.emulator.engines.base import Finished
from lmstudio_integrations.emulator.engines.generation import progress_details
from lmstudio_integrations.emulator.models.clock import Clock
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEvent,
    PromptProgress,
    ToolCallArguments,
    ToolCallFailed,
)

_FEWEST_FOR_A_RATE = 2
"""Tokens after the first one that are enough to compute the speed from them alone."""


class StatsCollector:
    """Collects the stats of one prediction from its events.

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
        self._first_tokens = 0
        self.received: Accumulator = Accumulator()
        """The events so far."""

    def start(self) -> None:
        """Record that the prediction has started."""
        self._started = self._first = self._clock.now()

    def add(self, event: PredictionEvent) -> Iterator[PredictionEvent]:
        """Record an event, and yield the packets for it."""
        self.received.add(event)
        if isinstance(event, PromptProgress):
            yield from self._prompt(event)
            return
        if not self._generating:
            yield from self._prompt_done()
            self._generating = True
            self._first = self._clock.now()
            self._first_tokens = _tokens_of(event)
        self._predicted_tokens += _tokens_of(event)
        yield event

    def remaining(self, finished: Finished) -> Iterator[PredictionEvent]:
        """Yield the packets before the last one: for an incomplete tool call, or if no token came."""
        call = self.received.open_call
        if call is not None:
            failed = ToolCallFailed({"title": "The tool call was broken off."}, "".join(call.fragments))
            self.received.add(failed)
            yield failed
        if not self._generating and finished.stop_reason not in {"userStopped", "modelUnloaded"}:
            self._prompt_tokens = self._prompt_tokens or finished.prompt_tokens
            yield from self._prompt_done()

    def stopped(self, reason: str) -> Finished:
        """Return the end of a prediction that was cancelled."""
        return Finished(reason, self._prompt_tokens, self._predicted_tokens)

    def stats(self, finished: Finished) -> dict[str, Any]:
        """Return the stats (docs/protocol.md#prediction-stats); values that are not known are omitted."""
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
        """Return the speed since the first event, without its tokens; for a short response, the speed of all tokens."""
        tokens, seconds = predicted - self._first_tokens, now - self._first
        if tokens < _FEWEST_FOR_A_RATE:
            tokens, seconds = predicted, now - self._started
        return tokens / seconds if self._generating and seconds > 0 else None

    def _prompt(self, event: PromptProgress) -> Iterator[PredictionEvent]:
        details = event.details or progress_details(self._prompt_tokens, round(self._prompt_tokens * event.progress))
        self._prompt_tokens = details["totalPromptTokenCount"]
        if self._progress is None and event.progress > 0:
            yield PromptProgress(0, progress_details(self._prompt_tokens, 0))
        self._progress = event.progress
        yield PromptProgress(event.progress, details)

    def _prompt_done(self) -> Iterator[PredictionEvent]:
        """Complete the progress: at least 0 and 1 are sent per prediction (docs/protocol.md#predict-packets)."""
        if self._progress is None:
            yield PromptProgress(0, progress_details(self._prompt_tokens, 0))
        if self._progress != 1:
            self._progress = 1
            yield PromptProgress(1, progress_details(self._prompt_tokens, self._prompt_tokens))


def _tokens_of(event: PredictionEvent) -> int:
    """Return how many tokens an event stands for; a fragment of arguments is about one."""
    if isinstance(event, LlmPredictionFragment):
        return event.tokens_count
    return 1 if isinstance(event, ToolCallArguments) else 0
