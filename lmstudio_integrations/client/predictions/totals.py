"""What the asks of a prediction add up to: the statistics at its end, and its result. Pure; `prediction.py` uses it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmstudio_integrations.client.predictions.middleware import Ask
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEnd, PredictionResult

_SUMMED = ("promptTokensCount", "predictedTokensCount", "totalTokensCount", "totalTimeSec", "droppedTokens")
"""The statistics of a result that are sums over all asks."""

_FIRST_DELAY, _TOTAL = "timeToFirstTokenSec", "totalTimeSec"

_FEW, _TOLERANCE = 2, 0.01
"""The tokens of responses whose speed proves nothing, and the difference at which two times count as equal."""


class Totals:
    """What the asks of a prediction add up to.

    Args:
        asks: The asks, in order. The last one may have failed.
    """

    def __init__(self, asks: Sequence[Ask]) -> None:
        self._asks = asks

    def end(self, end: PredictionEnd, load_times: Sequence[float], host: str) -> PredictionEnd:
        """Return the last event of the prediction, with what all asks have used.

        Args:
            end: The last event of the last ask.
            load_times: Seconds that each load of the model took.
            host: The server.
        """
        stats, each_end = end.stats, [ask.end for ask in self._asks if ask.end is not None]
        if len(each_end) > 1:
            used = {name: [each.stats[name] or 0 for each in each_end if name in each.stats] for name in _SUMMED}
            sums = {name: sum(values) for name, values in used.items() if values}
            if _TOTAL in sums:
                sums[_TOTAL] = sum(_whole_time(each.stats) for each in each_end)
            stats = {**stats, **sums, **self._time_to_first_token(), "predictionsCount": len(each_end)}
        if load_times:
            stats = {**stats, "modelLoadTimeSec": sum(load_times)}
        return replace(end, stats=stats, host=host)

    def result(self, end: PredictionEnd) -> PredictionResult:
        """Return the result of the prediction: what was delivered of all asks, and the end."""
        *earlier, last = self._asks
        if not (earlier or last.is_changed):
            return replace(last.response(), end=end)
        delivered = Accumulator(end=end)
        for ask in self._asks:
            delivered.add_all(ask.delivered)
        result = delivered.result()
        if not earlier:
            return result
        responses = [ask.response() for ask in self._asks if ask.raw.end is not None]
        cached = [each.cached_tokens for each in responses if each.cached_tokens is not None]
        reasoning_tokens = sum(each.reasoning_tokens for each in responses)
        return replace(result, cached_tokens=sum(cached) if cached else None, reasoning_tokens=reasoning_tokens)

    def _time_to_first_token(self) -> dict[str, float]:
        """Return how long the caller waited for the first token: it may have come with any ask, after others."""
        waited = 0.0
        for ask in self._asks:
            stats = {} if ask.end is None else ask.end.stats
            is_first = ask is self._asks[-1] or any(type(event) is LlmPredictionFragment for event in ask.delivered)
            if is_first and _FIRST_DELAY in stats:
                return {_FIRST_DELAY: waited + (stats[_FIRST_DELAY] or 0)}
            waited += _whole_time(stats)
        return {}


def _whole_time(stats: Mapping[str, Any]) -> float:
    """Return the seconds from a request to its end: the total of some servers begins with the first token.

    It does where it is shorter than the time to the first token, or where all tokens at the reported speed take just so
    long, unless those after the first token do (docs/protocol.md#prediction-stats).
    """
    total, delay = float(stats.get(_TOTAL) or 0), float(stats.get(_FIRST_DELAY) or 0)
    tokens, speed = stats.get("predictedTokensCount") or 0, stats.get("tokensPerSecond") or 0
    if not total or total < delay:
        return total + delay
    if tokens <= _FEW or not speed:
        return total
    is_whole = math.isclose((tokens - 1) / speed, total - delay, rel_tol=_TOLERANCE)
    return total if is_whole or not math.isclose(tokens / speed, total, rel_tol=_TOLERANCE) else total + delay
