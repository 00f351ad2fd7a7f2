"""The figures of a prediction, and the packets that strict clients expect even where an engine gives none."""

from collections.abc import Iterator
from typing import Any

from lmstudio_integrations.emulator.clock import Clock
from lmstudio_integrations.emulator.engines.base import Finished
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEvent, PromptProgress


class Meter:
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
        if isinstance(event, LlmPredictionFragment):
            self._predicted_tokens += event.tokens_count
        yield event

    def rest(self, finished: Finished) -> Iterator[PredictionEvent]:
        """Yield what is still to be sent before the end, for a prediction that ended without a token."""
        if not self._generating and finished.stop_reason not in {"userStopped", "modelUnloaded"}:
            self._prompt_tokens = self._prompt_tokens or finished.prompt_tokens
            yield from self._prompt_done()

    def stopped(self, reason: str) -> Finished:
        """Return the end of a prediction that was stopped from outside."""
        return Finished(reason, self._prompt_tokens, self._predicted_tokens)

    def stats(self, finished: Finished) -> dict[str, Any]:
        """Return the statistics (protocol §6.5); what has no sensible value is left out."""
        now = self._clock.now()
        generating = now - self._first
        stats: dict[str, Any] = {
            "stopReason": finished.stop_reason,
            "stopString": finished.stop_string,
            "tokensPerSecond": finished.predicted_tokens / generating if self._generating and generating > 0 else None,
            "numGpuLayers": -1,
            "timeToFirstTokenSec": self._first - self._started if self._generating else None,
            "totalTimeSec": now - self._started,
            "promptTokensCount": finished.prompt_tokens,
            "predictedTokensCount": finished.predicted_tokens,
            "totalTokensCount": finished.prompt_tokens + finished.predicted_tokens,
        }
        return {name: value for name, value in (stats | dict(finished.stats)).items() if value is not None}

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


def _details(total: int, progress: float) -> dict[str, int]:
    processed = round(total * progress)
    return {
        "cachedTokenCount": 0,
        "totalPromptTokenCount": total,
        "processedPromptTokenCount": processed,
        "unprocessedPromptTokenCount": total - processed,
    }
