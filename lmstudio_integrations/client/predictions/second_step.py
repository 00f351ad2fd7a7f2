"""A second prediction that may follow on the first. `prediction.py` runs both as one, `review.py` decides with this.

No server takes the grammar of a format together with tools. So a call with both makes a prediction with the tools
alone and, if the model calls none and its response does not fit the format, one with the format alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.results import PredictionEvent, PredictionResult, PromptProgress

RequestT = TypeVar("RequestT")

_SUMMED = ("promptTokensCount", "predictedTokensCount", "totalTokensCount", "totalTimeSec", "droppedTokens")


class SecondStep(ABC, Generic[RequestT]):
    """The second prediction.

    Attributes:
        is_begun: Whether it is to be requested, or was.
        first: The first response; `None` if there was none.
    """

    def __init__(self) -> None:
        self.is_begun: bool = False
        self.first: PredictionResult | None = None

    def begin_on(self, instance: Instance) -> None:
        """Record which instance responds; begin with the second prediction if there is to be no first one."""

    @property
    @abstractmethod
    def requests(self) -> Sequence[RequestT]:
        """How to request it."""

    def forget(self) -> None:
        """Forget what was received of this response: the prediction starts over, perhaps on another instance."""
        if self.first is None:
            self.is_begun = False

    @abstractmethod
    def release(self, batch: list[PredictionEvent], received: Accumulator) -> list[PredictionEvent]:
        """Return what may be delivered; begin with the second prediction at the end of the first, if necessary."""

    @property
    def kept(self) -> PredictionResult | None:
        """The first response, if it is the result where there is no second one."""
        return None

    def _begin(self, first: PredictionResult | None) -> None:
        """Begin with the second prediction, after a response if there was one."""
        self.is_begun = True
        self.first = first

    def completed(self, result: PredictionResult) -> PredictionResult:
        """Return the response with the tokens of both predictions, if there were two."""
        if self.first is None:
            return result
        first, second = self.first.end.stats, result.end.stats
        sums = {name: (first.get(name) or 0) + (second.get(name) or 0) for name in _SUMMED if name in {*first, *second}}
        result.end.stats = {**second, **sums, "predictionsCount": 2}
        cached = [each.cached_tokens for each in (self.first, result) if each.cached_tokens is not None]
        return replace(result, cached_tokens=sum(cached) if cached else None)


class FormatStep(SecondStep[RequestT]):
    """The prediction with the format. Its response replaces the first one, which is held back until that is known.

    Args:
        requests: How to request it.
        fits: Whether a response stays.
    """

    def __init__(self, requests: Sequence[RequestT], fits: Callable[[PredictionResult], bool]) -> None:
        super().__init__()
        self._requests = requests
        self._fits = fits
        self._held: list[PredictionEvent] | None = []

    @property
    def requests(self) -> Sequence[RequestT]:
        """How to request it."""
        return self._requests

    def forget(self) -> None:
        """Forget what was held back."""
        super().forget()
        if self._held is not None:
            self._held.clear()

    def release(self, batch: list[PredictionEvent], received: Accumulator) -> list[PredictionEvent]:
        """Return progress only, until the first response is known to stay or is replaced."""
        if self._held is None:
            return batch
        progress: list[PredictionEvent] = [event for event in batch if type(event) is PromptProgress]
        self._held += [event for event in batch if type(event) is not PromptProgress]
        if not received.tool_calls:
            if received.end is None:
                return progress
            result = received.result()
            if not (result.end.is_interrupted or self._fits(result)):
                self._begin(result)
                self._held = None
                return progress
        held, self._held = self._held, None
        return [*progress, *held]

    def completed(self, result: PredictionResult) -> PredictionResult:
        """Return the response with the tokens of both predictions, and of both reasonings."""
        first_tokens = 0 if self.first is None else self.first.reasoning_tokens
        return replace(super().completed(result), reasoning_tokens=first_tokens + result.reasoning_tokens)
