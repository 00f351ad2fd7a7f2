"""What the asks of a prediction add up to, without a server."""

from typing import Any

import pytest

from lmstudio_integrations.client.predictions.middleware import Ask
from lmstudio_integrations.client.predictions.totals import Totals
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEnd, PromptProgress

CACHED = PromptProgress(1.0, {"cachedTokenCount": 5})
TEXT, THOUGHT = LlmPredictionFragment("a"), LlmPredictionFragment("b", 2, reasoning_type="reasoning")


def end(**stats: Any) -> PredictionEnd:
    return PredictionEnd(stats, {}, {}, {})


def asked(*events: Any, delivered: bool = True, **stats: Any) -> Ask:
    """Return an ask that was responded to, of which all or nothing was delivered."""
    ask = Ask(raw=Accumulator(end=end(**stats)), delivered=[*events] if delivered else [], end=end(**stats))
    ask.raw.add_all(events)
    return ask


def test_one_ask_has_the_numbers_of_the_server() -> None:
    stats: dict[str, Any] = {
        "promptTokensCount": 3,
        "totalTimeSec": 1.5,
        "timeToFirstTokenSec": 2.0,
        "stopReason": "eosFound",
    }
    asks = Totals([asked(CACHED, TEXT, THOUGHT, **stats)])
    last = asks.end(end(**stats), [], "ws://host")
    assert (last.stats, last.host) == (stats, "ws://host")
    result = asks.result(last)
    assert (result.content, result.reasoning_content, result.end) == ("a", "b", last)
    assert (result.cached_tokens, result.reasoning_tokens) == (5, 2)
    assert asks.end(end(), [1.0, 0.5], "").stats == {"modelLoadTimeSec": 1.5}


def test_several_asks_are_summed_and_the_result_has_what_was_delivered() -> None:
    first = asked(CACHED, TEXT, THOUGHT, delivered=False, promptTokensCount=3, predictedTokensCount=2, totalTimeSec=1.0)
    second = asked(
        CACHED, TEXT, promptTokensCount=4, predictedTokensCount=None, totalTimeSec=2.0, timeToFirstTokenSec=0.5
    )
    asks = Totals([first, second])
    assert asks.end(end(stopReason="eosFound"), [], "").stats == {
        "stopReason": "eosFound",
        "promptTokensCount": 7,
        "predictedTokensCount": 2,
        "totalTimeSec": 3.0,
        "timeToFirstTokenSec": 1.5,  # nothing of the first was delivered
        "predictionsCount": 2,
    }
    result = asks.result(end())
    assert (result.content, result.reasoning_content) == ("a", "")
    assert (result.cached_tokens, result.reasoning_tokens) == (10, 2)


def test_an_ask_that_failed_adds_only_what_was_delivered_of_it() -> None:
    asks = Totals([asked(TEXT, promptTokensCount=3), Ask(delivered=[TEXT])])
    assert asks.end(end(promptTokensCount=3), [], "").stats == {"promptTokensCount": 3}
    result = asks.result(end())
    assert (result.content, result.cached_tokens) == ("aa", None)


MLX = {"timeToFirstTokenSec": 0.504, "totalTimeSec": 1.658, "predictedTokensCount": 73, "tokensPerSecond": 44.01773}
MLX_SHORT = {"timeToFirstTokenSec": 0.599, "totalTimeSec": 0.05, "predictedTokensCount": 4, "tokensPerSecond": 80}
LLAMA_CPP = {
    "timeToFirstTokenSec": 0.057613,
    "totalTimeSec": 0.092553,
    "predictedTokensCount": 3,
    "tokensPerSecond": 57.24098454493418,
}


@pytest.mark.parametrize(
    ("stats", "whole"),
    [
        (MLX, 1.658 + 0.504),
        (MLX_SHORT, 0.05 + 0.599),
        (LLAMA_CPP, 0.092553),
        ({**MLX, "totalTimeSec": 2 * MLX["totalTimeSec"]}, 2 * 1.658),
        ({**MLX, "tokensPerSecond": None}, 1.658),
        ({**MLX, "predictedTokensCount": 1}, 1.658),
        ({"timeToFirstTokenSec": 0.5, "totalTimeSec": None}, 0.5),
        ({"timeToFirstTokenSec": None, "totalTimeSec": 2, "tokensPerSecond": 5}, 2.0),
    ],
    ids=["mlx", "mlx short", "llama.cpp", "neither", "no speed", "one token", "no total", "no first"],
)
def test_the_total_of_several_asks_has_each_time_to_the_first_token_once(stats: dict[str, Any], whole: float) -> None:
    """As observed: the total of MLX begins with the first token, and that of llama.cpp with the request."""
    summed = Totals([asked(TEXT, delivered=False, **stats), asked(TEXT, **stats)]).end(end(**stats), [], "").stats
    assert summed["predictionsCount"] == 2
    assert summed["totalTimeSec"] == pytest.approx(2 * whole)
    assert summed["timeToFirstTokenSec"] == pytest.approx(whole + (stats["timeToFirstTokenSec"] or 0))
