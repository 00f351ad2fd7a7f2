"""A response that a second prediction may replace: one with tools and a response format, which no server does in one.

The first prediction has the tools alone, because the grammar of a format keeps a model from calling them. If the model
calls none and its response does not fit the format, the second one has the format alone. `prediction.py` runs both
as one.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.results import PredictionEvent, PredictionResult, PromptProgress

RequestT = TypeVar("RequestT")

_SUMMED = ("promptTokensCount", "predictedTokensCount", "totalTokensCount", "totalTimeSec", "droppedTokens")


class SecondStep(Generic[RequestT]):
    """Holds a response back until it is known to stay.

    Args:
        requests: How to request the second prediction.
        fits: Whether a response stays.
    """

    def __init__(self, requests: Sequence[RequestT], fits: Callable[[PredictionResult], bool]) -> None:
        self.requests = requests
        self._fits = fits
        self._held: list[PredictionEvent] | None = []
        self.replaced: PredictionResult | None = None
        """The first response, once it is replaced."""

    def forget(self) -> None:
        """Forget what was received: the prediction starts over."""
        if self._held is not None:
            self._held.clear()

    def release(self, batch: list[PredictionEvent], received: Accumulator) -> list[PredictionEvent]:
        """Return what may be delivered: only progress, until the first response is known to stay or is replaced."""
        if self._held is None:
            return batch
        progress: list[PredictionEvent] = [event for event in batch if type(event) is PromptProgress]
        self._held += [event for event in batch if type(event) is not PromptProgress]
        if not received.tool_calls:
            if received.end is None:
                return progress
            result = received.result()
            if not (result.end.is_interrupted or self._fits(result)):
                self.replaced, self._held = result, None
                return progress
        held, self._held = self._held, None
        return [*progress, *held]

    def with_usage_of_both(self, result: PredictionResult) -> PredictionResult:
        """Return the response with the tokens of both predictions, if there were two."""
        if self.replaced is None:
            return result
        first, second = self.replaced.end.stats, result.end.stats
        sums = {name: (first.get(name) or 0) + (second.get(name) or 0) for name in _SUMMED if name in {*first, *second}}
        result.end.stats = {**second, **sums, "predictionsCount": 2}
        cached = [each.cached_tokens for each in (self.replaced, result) if each.cached_tokens is not None]
        reasoning = self.replaced.reasoning_tokens + result.reasoning_tokens
        return replace(result, cached_tokens=sum(cached) if cached else None, reasoning_tokens=reasoning)
