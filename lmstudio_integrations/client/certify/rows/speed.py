"""The row `speed`: the time to the first token, and tokens per second alone, at once and with draft models.

Rates are predicted tokens by the time of whole requests, so that those of one and of several can be compared.
"""

from collections.abc import Mapping, Sequence

from typing_extensions import Unpack

from lmstudio_integrations.client.certify.asking import Asking, Case, Row, Summary, random_words
from lmstudio_integrations.client.predictions.requests import PredictionParameters
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.types.cards import Observation, failures_of, medians, outcomes
from lmstudio_integrations.types.results import PredictionResult

LENGTHS = {100: 3, 1_000: 3, 8_000: 1}
"""Words of the prompts of which the first token is timed, and how often."""

AT_ONCE = {2: 2, 4: 2, 8: 2}
"""Requests at once, and how often."""

TIMES = 4

SHORTEST = 8
"""Tokens. A shorter response says little about the speed."""

ACCEPTED = " accepted"
"""What the share of the drafted tokens has behind the case of its draft model."""

_RATE = "tokens/s"

NOTABLE = 1.1
"""The factor from which on another setting is worth the while."""


def _first_token(asking: Asking) -> Flow[None]:
    for length, times in LENGTHS.items():
        if 1.25 * length > asking.info.context_length:  # the words of some tokenizers are several tokens
            return
        for _ in range(times):
            reply = yield from asking.respond(f"{random_words(length)}. Which of these is a color?", 1)
            if reply.error is not None:
                raise reply.error
            measured = reply.result and reply.result.stats.time_to_first_token_sec
            asking.number(f"first token/{length}", measured or reply.seconds, "s", more_is_better=False)


def _alone(asking: Asking) -> Flow[None]:
    for _ in range(TIMES):
        yield from _measure(asking, "alone", 1, 64)


def _slots(asking: Asking) -> Flow[None]:
    (slots,) = yield from asking.llm.slots()
    asking.fact("slots", slots, slots)


def _at_once(asking: Asking) -> Flow[None]:
    for count, times in AT_ONCE.items():
        for _ in range(times):
            yield from _measure(asking, f"at once/{count}", count, 48)


def _draft(asking: Asking) -> Flow[None]:
    for key in asking.drafts:
        for _ in range(TIMES):
            for result in (yield from _measure(asking, f"draft/{key}", 1, 64, config={"draft_model": key})):
                accepted, total = result.stats.accepted_draft_tokens_count, result.stats.total_draft_tokens_count
                if accepted and total:
                    asking.number(f"draft/{key}{ACCEPTED}", 100 * accepted / total, "%")


def _measure(
    asking: Asking, case: str, count: int, max_tokens: int, **parameters: Unpack[PredictionParameters]
) -> Flow[list[PredictionResult]]:
    """Record the tokens per second of so many responses at once, and return those that are long enough."""
    prompts = [f"Write a long story about these things: {random_words(12)}" for _ in range(count)]
    replies, seconds = yield from asking.respond_at_once(prompts, max_tokens, **parameters)
    for reply in replies:
        if reply.error is not None:
            raise reply.error
    results = [each.result for each in replies if each.result]
    results = [each for each in results if (each.stats.predicted_tokens_count or 0) >= SHORTEST]
    if results:
        tokens = sum(each.stats.predicted_tokens_count or 0 for each in results)
        asking.number(case, tokens / seconds, _RATE)
    return results


def _summarize(observations: Sequence[Observation]) -> Summary:
    numbers, failures = medians(observations), failures_of(observations)
    firsts = [(f"{length:,}", numbers.get(f"first token/{length}")) for length in LENGTHS]
    first = [f"{number.outcome} ({length})" for length, number in firsts if number]
    found = {1: numbers.get("alone"), **{count: numbers.get(f"at once/{count}") for count in AT_ONCE}}
    rates = {count: rate for count, rate in found.items() if rate}
    drafts = {
        case.removeprefix("draft/"): number
        for case, number in numbers.items()
        if case.startswith("draft/") and not case.endswith(ACCEPTED)
    }
    slots = next((int(each.score) for each in observations if each.case == "slots"), 1)
    # What exceeds the slots waits, so that it does not show the speed of more slots.
    best = max((count for count in rates if count <= slots), key=lambda count: rates[count].score, default=slots)
    texts = [f"first token {', '.join(first)}"] if first else []
    texts += [f"{rates[1].outcome} alone"] if 1 in rates else []
    together = [f"{rate.outcome.removesuffix(_RATE)}with {count}" for count, rate in rates.items() if count > 1]
    texts += [f"{', '.join(together)} at once"] if together else []
    texts += [f"best parallel {best}"] if len(rates) > 1 else []
    for key, number in drafts.items():
        accepted = numbers.get(f"draft/{key}{ACCEPTED}")
        texts.append(f"draft {key} {number.outcome}" + (f", {accepted.outcome} accepted" if accepted else ""))
    texts += [outcomes(failures)] if failures else []
    return Summary("; ".join(texts), _advice(rates, slots, best, drafts))


def _advice(rates: Mapping[int, Observation], slots: int, best: int, drafts: Mapping[str, Observation]) -> str | None:
    full = max((count for count in rates if count <= slots), default=best)
    if best != full and rates[best].score >= NOTABLE * rates[full].score:
        return f"max_parallel_predictions={best} is faster than {slots}"
    slower = [key for key, number in drafts.items() if 1 in rates and number.score < rates[1].score]
    return f"leave the draft model out: draft_model={slower[0]!r} is slower" if slower else None


SPEED = Row(
    name="speed",
    question="How long does the first token take, and how many follow per second: alone, at once, with a draft model?",
    anchor="prediction-stats",
    cases=[
        Case("alone", _alone),
        Case("first token", _first_token),
        Case("slots", _slots),
        Case("at once", _at_once),
        Case("draft", _draft),
    ],
    prompt_tokens=13_500,
    predicted_tokens=1_870,
    summarize=_summarize,
    apart=True,
)
