"""The row `honesty`: whether settings of a prediction are kept, ignored or rejected.

It has texts continued, so that no chat template and no reasoning takes part.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any, NamedTuple

from lmstudio_integrations._support.typeguards import is_list
from lmstudio_integrations.client.certify.asking import FEW, SEED, Asking, Case, Row, Summary
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.types.cards import Observation, share_text
from lmstudio_integrations.types.config import LlmPredictionConfig, switched_off
from lmstudio_integrations.types.results import PredictionResult

BEGINNINGS = (
    "Once upon a time, there was",
    "The best way to learn a language is",
    "In the year 2100, most people",
    "When the storm was over, the two sailors",
)
REPETITIONS = (
    "la la la la la la la",
    "one two one two one two one",
    "yes yes yes yes yes yes",
    "red, blue, red, blue, red, blue,",
)

MAX_TOKENS = 16
FEWEST = 4
"""Tokens of a text of which only the first ones matter."""

EXTREME = 100.0
"""A penalty that makes it all but impossible to repeat a token."""


def _complete(asking: Asking, text: str, max_tokens: int, **settings: Any) -> Flow[PredictionResult]:
    """Return the continuation of a text.

    Raises:
        LMStudioServerError: If the server rejects it.
    """
    config = LlmPredictionConfig(**settings)
    reply = yield from asking.complete(f"{asking.vary('A text')}: {text}", max_tokens, config=config)
    if reply.result is None:
        assert reply.error is not None
        raise reply.error
    return reply.result


Kept = bool | None
"""Whether a setting is kept; `None` if that cannot be seen."""


def _seed(asking: Asking, text: str) -> Flow[Kept]:
    """Where nothing varies, the seed is kept as well."""
    settings = {"temperature": 1.0, "seed": SEED + asking.repetition}
    first = yield from _complete(asking, text, MAX_TOKENS, **settings)
    second = yield from _complete(asking, text, MAX_TOKENS, **settings)
    return first.raw_content == second.raw_content if first.raw_content else None


def _stop_string(asking: Asking, text: str) -> Flow[Kept]:
    """Stop the same text at a word in its middle."""
    words = (yield from _complete(asking, text, MAX_TOKENS)).raw_content.split()
    if not words:
        return None
    word = words[len(words) // 2]
    stopped = yield from _complete(asking, text, MAX_TOKENS, stop_strings=[word])
    return word not in stopped.raw_content


def _max_tokens(asking: Asking, text: str) -> Flow[Kept]:
    stats = (yield from _complete(asking, text, FEW)).stats
    if stats.predicted_tokens_count is None:
        return None
    return stats.stop_reason in {"maxPredictedTokensReached", "eosFound"} and stats.predicted_tokens_count <= FEW


def _log_probs(asking: Asking, text: str) -> Flow[Kept]:
    tokens = (yield from _complete(asking, text, FEWEST, log_probs=2)).tokens
    return bool(tokens) and all("logProb" in each and is_list(each.get("candidates")) for each in tokens)


def _logit_bias(asking: Asking, text: str) -> Flow[Kept]:
    """Forbid the first token, whose id is known where log-probabilities are."""
    first = (yield from _complete(asking, text, FEWEST, log_probs=1)).tokens
    if not first or "id" not in first[0]:
        return None
    token = first[0]["id"]
    second = (yield from _complete(asking, text, FEWEST, log_probs=1, logit_bias={token: -inf})).tokens
    return not second or second[0].get("id") != token


def _penalty(name: str, asking: Asking, text: str) -> Flow[Kept]:
    """Penalize repetition, if there is any."""
    others = switched_off("penalty")
    free = (yield from _complete(asking, text, MAX_TOKENS, **others)).raw_content
    penalized = (yield from _complete(asking, text, MAX_TOKENS, **{**others, name: EXTREME})).raw_content
    words = free.split()
    return None if len(set(words)) == len(words) else penalized != free


class Part(NamedTuple):
    """A part of the row: its name, the setting, and what finds out whether it is kept."""

    name: str
    setting: str
    check: Callable[[Asking, str], Flow[Kept]]
    texts: Sequence[str] = BEGINNINGS


PARTS = (
    Part("seed", "seed", _seed),
    Part("stop string", "stop_strings", _stop_string),
    Part("max_tokens", "max_tokens", _max_tokens),
    Part("log-probabilities", "log_probs", _log_probs),
    Part("logit bias", "logit_bias", _logit_bias),
    Part("repeat penalty", "repeat_penalty", partial(_penalty, "repeat_penalty"), REPETITIONS),
    Part("presence penalty", "presence_penalty", partial(_penalty, "presence_penalty"), REPETITIONS),
)


def _ask(part: Part, text: str, name: str, asking: Asking) -> Flow[None]:
    is_kept = yield from part.check(asking, text)
    if is_kept is not None:
        asking.verdict(name, "kept" if is_kept else "ignored", 1 if is_kept else 0.5)


def _summarize(observations: Sequence[Observation]) -> Summary:
    failures = Counter((each.part, each.outcome) for each in observations if each.score < 1)
    text = f"{share_text(observations)} kept"
    text += "".join(f"; {part} {outcome} {count}" for (part, outcome), count in failures.items())
    names = dict.fromkeys(part.setting for part in PARTS for failed, _ in failures if part.name == failed)
    return Summary(text, f"do not rely on {', '.join(names)} here" if names else None)


HONESTY = Row(
    name="honesty",
    question="Are the settings of a prediction kept, and neither ignored nor rejected?",
    anchor="prediction-keys",
    cases=[
        Case(f"{part.name}/{number}", partial(_ask, part, text, f"{part.name}/{number}"))
        for part in PARTS
        for number, text in enumerate(part.texts, 1)
    ],
    prompt_tokens=2_400,
    predicted_tokens=1_200,
    summarize=_summarize,
    apart=True,
)
