"""The rows of what a server does with an instance: `window`, `reasoning`, `cache`, `speed` and `honesty`."""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any, NamedTuple

from typing_extensions import Unpack

from lmstudio_integrations._support.leaves import MissingLeafError
from lmstudio_integrations._support.typeguards import is_count, is_list
from lmstudio_integrations.client.certify.examiner import (
    FEW,
    OF_THE_INSTANCE,
    SEED,
    Case,
    Examiner,
    Row,
    Summary,
    most_common,
    random_words,
)
from lmstudio_integrations.client.models.loading import plan_memory
from lmstudio_integrations.client.predictions.plan import PredictionParameters, PredictionSettings
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioContextOverflowError, LMStudioServerError
from lmstudio_integrations.types.cards import Observation, failures_of, medians, outcomes, share_text
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.config import switched_off
from lmstudio_integrations.types.functions import ToolCallRequest
from lmstudio_integrations.types.machines import LOCAL
from lmstudio_integrations.types.results import PredictionResult

# Window: how long the context window is, how long it could be, and what becomes of a prompt beyond it -----------------

_LONGEST = 8_000
"""Tokens. Prompts beyond a longer window would take too long."""


def _loaded(examiner: Examiner) -> Flow[None]:
    examiner.fact("loaded", examiner.info.context_length, examiner.info.context_length)
    yield from ()


def _fits(examiner: Examiner) -> Flow[None]:
    """Record the longest context length of a further instance that fits, if the server estimates it."""
    key, most, device = (
        examiner.info.model_key,
        examiner.info.max_context_length,
        examiner.info.device_identifier or LOCAL,
    )
    if not is_count(most):
        return
    operation = Operation(examiner.model.context)
    models: list[tuple[str, dict[str, int]]] = [
        (key, {}),
        (key, {"context_length": most}),
    ]  # the first one is what is loaded
    try:
        plan = yield from plan_memory(operation, models, device, "own")
    except MissingLeafError:  # this copy of the package makes no plans
        return
    planned = plan.models[-1]
    length = planned.largest_context_length if planned.fit == "too_large" else planned.context_length
    if planned.fit != "loaded" and planned.memory_bytes is not None and length is not None:
        examiner.fact("fits", length)


def _beyond(examiner: Examiner) -> Flow[None]:
    window = examiner.info.context_length
    if window > _LONGEST:
        examiner.fact("beyond", f"not tried: longer than {_LONGEST:,}")
        return
    for _ in range(4):
        # A sixteenth longer: a template that is rendered alone may differ by a few tokens from what the server reads,
        # so one token more would not show whether something was cut.
        prompt = f"Which of these words is a color? {random_words(window + window // 16)}"
        try:
            result = yield from examiner.respond(prompt, FEW)
        except LMStudioContextOverflowError as error:
            examiner.verdict("beyond", "rejected", str(error))
        except OF_THE_INSTANCE:
            raise
        except LMStudioServerError as error:  # an overflow that cannot be handled as one
            examiner.verdict("beyond", "unclear error", str(error))
        else:
            examiner.judged("beyond", _reading(result, window), result)


def _reading(result: PredictionResult, window: int) -> str:
    if not (result.content or result.reasoning_content):
        return "empty"
    count = result.stats.prompt_tokens_count
    return "not reported" if count is None else "taken" if count > window else "cut in silence"


def _summarize_window(observations: Sequence[Observation]) -> Summary:
    facts = {each.case: each.outcome for each in observations if each.kind == "fact"}
    beyond = [each for each in observations if each.kind == "verdict"]
    loaded, fits = (int(facts.get(case, 0)) for case in ("loaded", "fits"))
    texts = [f"{loaded} tokens"] if loaded else []
    texts += [f"{fits} would fit beside it"] if fits else []
    texts += [f"beyond them {facts['beyond']}"] if "beyond" in facts else []
    texts += [f"beyond them {share_text(beyond)} as it should be ({outcomes(beyond)})"] if beyond else []
    advice = f"context_length={fits} would fit if you need more" if fits > loaded else None
    if any(each.outcome in {"cut in silence", "empty"} for each in beyond):
        advice = "check_context=True notices a prompt that the server cut or did not read"
    return Summary(", ".join(texts), advice)


WINDOW = Row(
    name="window",
    question="How long is the context window, and does a prompt beyond it fail with a clear error?",
    anchor="check-context-overflow",
    cases=[Case("loaded", _loaded), Case("fits", _fits), Case("beyond", _beyond)],
    prompt_tokens=16_500,
    predicted_tokens=200,
    summarize=_summarize_window,
    scores={"rejected": 1, "taken": 1},
    apart=True,
)


# Reasoning: whether what a model thinks is separated from its text, and can be turned off and limited -----------------

_PROMPTS = (
    "A farmer has 17 sheep, and all but 9 run away. How many are left?",
    "Which number is larger, 9.11 or 9.9?",
    "Tom is older than Ana, and Ana is older than Li. Who is the youngest?",
    "A train leaves at 9:40 and arrives at 13:05. How long does it take?",
)

_BUDGET, _BEYOND = 32, 16
"""Tokens of reasoning, and how many more may be written: the tags, and the rest of a step."""

_TAG = re.compile(
    r"</?(?:\w+:)?(?:think|thinking|thought|reasoning)>|\[/?THINK\]|<\|?channel\|?>|SYNTHETIC_REASONING_END"
)
"""What models write around their reasoning, and what LM Studio may leave in the text."""

_REASONS = "separated/at all"
"""The fact whether the model reasons; in the part whose question finds it out."""


def _judge_reasoning(part: str, result: PredictionResult) -> str:
    is_in_text = _TAG.search(result.content) is not None
    has_reasoned = is_in_text or bool(result.reasoning_content.strip())
    if part == "off":
        return "reasons anyway" if has_reasoned else "off"
    if is_in_text:
        return "in the text"
    if part == "separated":
        return "separated" if has_reasoned else "none"
    return "kept" if result.reasoning_tokens <= _BUDGET + _BEYOND else "exceeded"


def _ask_reasoning(
    part: str, max_tokens: int, config: PredictionSettings, examiner: Examiner, *, reasoning: bool = True
) -> Flow[None]:
    """Also find out whether the model reasons; if it does so in no response, nothing else is asked of its responses.

    A part that is measured again on its own does not ask that anew. The tokens are enough to see what the model does.
    """
    if any(each.case == _REASONS and each.outcome == "no" for each in examiner.observations):
        return
    found: list[tuple[str, PredictionResult]] = []
    for prompt in map(examiner.vary, _PROMPTS):
        result = yield from examiner.respond(prompt, max_tokens, reasoning=reasoning, config=config)
        found.append((_judge_reasoning(part, result), result))
    if part == "separated":
        reasons = any(outcome != "none" for outcome, _ in found)
        examiner.fact(_REASONS, "yes" if reasons else "no")
        if not reasons:
            return
    for number, (outcome, result) in enumerate(found, 1):
        examiner.judged(f"{part}/{number}", outcome, result)


def _ask_template(examiner: Examiner) -> Flow[None]:
    replay = yield from examiner.llm.get_reasoning_replay()
    for place, treatment in replay.by_place.items():
        examiner.fact(f"template/{place.replace('_', ' ')}", treatment, treatment not in {"misplaced", "rejected"})


_REASONING_ADVICE = {
    "in the text": "set reasoning_parsing to the tags that this model writes",
    "reasons anyway": "enable_thinking=False does not turn it off: set a low reasoning_effort and a larger max_tokens",
    "exceeded": "reasoning_budget is ignored: set max_tokens, which limits all of a response",
    "none": "enable_thinking=True does not make it reason each time; a reasoning_effort may",
    "rejected": "omit enable_thinking and reasoning_budget: the server rejects them",
    "never": "its template omits what it thought before a tool call; keep_reasoning=True may change that",
}
"""What to do about each outcome, and about a template that never keeps thoughts."""


def _summarize_reasoning(observations: Sequence[Observation]) -> Summary:
    verdicts = [each for each in observations if each.kind == "verdict"]
    if not verdicts:
        return Summary("does not reason")
    failures = failures_of(verdicts)
    parts = dict.fromkeys(each.part for each in verdicts)
    text = "; ".join(f"{part} {share_text(each for each in verdicts if each.part == part)}" for part in parts)
    text += f" ({outcomes(failures)})" if failures else ""
    advice = most_common(_REASONING_ADVICE, verdicts)
    template = {each.case.partition("/")[2]: each.outcome for each in observations if each.part == "template"}
    if template:
        kept = "always" if set(template.values()) == {"kept"} else "never"
        if kept == "never" and template.get("current call") in {"kept", "copied"}:
            kept = "within a turn"
        text += f"; thoughts kept {kept}"
        advice = advice or _REASONING_ADVICE.get(kept)
    return Summary(text, advice)


REASONING = Row(
    name="reasoning",
    question="Is what the model thinks separated from its text, and can it be turned off and limited?",
    anchor="fragments",
    cases=[
        Case("separated", partial(_ask_reasoning, "separated", 64, {})),
        # Without the tokens that a response gets in addition if the model reasons: it is not read.
        Case("off", partial(_ask_reasoning, "off", 16, {"max_tokens": 16}, reasoning=False)),
        Case("budget", partial(_ask_reasoning, "budget", 96, {"reasoning_budget": _BUDGET})),
        Case("template", _ask_template),
    ],
    prompt_tokens=1_500,
    predicted_tokens=1_560,
    summarize=_summarize_reasoning,
    scores={"separated": 1, "off": 1, "kept": 1},
    apart=True,
)


# Cache: whether what a conversation begins with comes from the prompt cache in each further turn ----------------------

_MOST = 0.8
"""The share of the tokens of the turn before that must come from the cache: templates change the last ones."""

_THOUGHT = 32
"""Tokens of a response that may begin with a thought."""

_LEVEL_TOOL = {
    "type": "function",
    "function": {"name": "get_level", "parameters": {"type": "object", "properties": {"river": {"type": "string"}}}},
}
_WITH_TOOL: PredictionSettings = {"raw_tools": {"type": "toolArray", "tools": [_LEVEL_TOOL]}}
_WITH_THOUGHTS: PredictionSettings = {"reasoning_budget": _THOUGHT // 2}
_RIVERS = ("Rhine", "Loire", "Tagus", "Danube", "Thames")


def _next_question(chat: Chat, number: int, result: PredictionResult) -> None:
    chat.add_assistant_response(result)
    chat.add_user_message(f"Now name word {number} of the list.")


def _next_result(chat: Chat, number: int, _result: PredictionResult) -> None:
    identifier = f"call{number:05}"  # some chat templates require nine characters
    river = _RIVERS[number - 2]
    chat.add_assistant_response("", [ToolCallRequest(id=identifier, name="get_level", arguments={"river": river})])
    chat.add_tool_result({"content": f"{number} meters", "toolCallId": identifier})


def _converse(
    part: str,
    requests: int,
    grow: Callable[[Chat, int, PredictionResult], None],
    config: PredictionSettings,
    examiner: Examiner,
) -> Flow[None]:
    """Make a conversation, and record for each request but the first one what came from the cache.

    Args:
        part: The part of the row.
        requests: How many requests; the first one finds nothing.
        grow: Adds the next step to the conversation: its number, and the response to the one before.
        config: The settings of the requests.
        examiner: Makes them.
    """
    chat = Chat(f"{random_words(220)}. This was a list of words.")  # nothing of it is in a cache
    chat.add_user_message("Name word 1 of the list.")
    is_thinking = part == "thoughts"
    before: int | None = None
    for number in range(2, requests + 2):
        max_tokens = _THOUGHT if is_thinking else FEW
        result = yield from examiner.respond(
            chat, max_tokens, reasoning=is_thinking, config=config, check_response=False
        )
        if before is None and is_thinking and not result.reasoning_content:
            return  # it does not reason
        if before is not None:
            cached = result.cached_tokens
            if cached is None or not before:
                examiner.verdict(part, "not reported")
            else:
                detail = f"{min(cached, before)} of {before} tokens"
                examiner.verdict(part, "reused" if cached >= _MOST * before else "lost", detail)
        before = result.stats.prompt_tokens_count or 0
        grow(chat, number, result)


def _summarize_cache(observations: Sequence[Observation]) -> Summary:
    counts = [re.findall(r"\d+", each.detail) for each in observations if each.outcome in {"reused", "lost"}]
    cached, before = (sum(int(each[index]) for each in counts) for index in (0, 1))
    text = outcomes(observations)
    if before:
        share = f"{100 * cached / before:.0f} % of the earlier tokens ({cached} of {before})"
        text = f"{share} came from the cache; {text}"
    lost = {each.part for each in observations if each.outcome == "lost"}
    advice = "max_parallel_predictions=1 keeps conversations in one cache, and keep_warm=True the system prompt"
    if lost == {"thoughts"}:
        advice = 'send_reasoning="always" sends thoughts as they are in the cache'
    return Summary(text, advice if lost else None)


CACHE = Row(
    name="cache",
    question="Does each turn find the earlier ones in the prompt cache, also with tool results and thoughts?",
    anchor="parallel-requests",
    cases=[
        Case("turn", partial(_converse, "turn", 10, _next_question, {}), verdicts=9),
        Case("tool result", partial(_converse, "tool result", 5, _next_result, _WITH_TOOL), verdicts=4),
        Case("thoughts", partial(_converse, "thoughts", 5, _next_question, _WITH_THOUGHTS), verdicts=4),
    ],
    prompt_tokens=8_500,
    predicted_tokens=300,
    summarize=_summarize_cache,
    scores={"reused": 1},
    apart=True,
)


# Speed: the time to the first token, and tokens per second alone, at once and with draft models -----------------------
#
# Rates are predicted tokens by the time of whole requests, so that those of one and of several can be compared.

_LENGTHS = {100: 3, 1_000: 3, 8_000: 1}
"""Words of the prompts of which the first token is timed, and how often."""

_SHORTEST = 8
"""Tokens. A shorter response says little about the speed."""

_ACCEPTED = " accepted"
"""What the share of the drafted tokens has behind the case of its draft model."""

_NOTABLE = 1.1
"""The factor from which on another setting is worth the while."""


def _first_token(examiner: Examiner) -> Flow[None]:
    for length, times in _LENGTHS.items():
        if 1.25 * length > examiner.info.context_length:  # the words of some tokenizers are several tokens
            return
        for _ in range(times):
            began = time.perf_counter()
            result = yield from examiner.respond(f"{random_words(length)}. Which of these is a color?", 1)
            seconds = result.stats.time_to_first_token_sec or time.perf_counter() - began
            examiner.number(f"first token/{length}", seconds, "s", more_is_better=False)


def _slots(examiner: Examiner) -> Flow[None]:
    (slots,) = yield from examiner.llm.slots()
    examiner.fact("slots", "not known" if slots is None else slots, slots or 0)


def _alone(examiner: Examiner) -> Flow[None]:
    for _ in range(4):
        yield from _measure(examiner, "alone", 1, 64)


def _at_once(examiner: Examiner) -> Flow[None]:
    for count in (2, 2, 4, 4, 8, 8):
        yield from _measure(examiner, f"at once/{count}", count, 48)


def _draft(examiner: Examiner) -> Flow[None]:
    for key in [key for key in examiner.drafts for _ in range(4)]:
        for result in (yield from _measure(examiner, f"draft/{key}", 1, 64, config={"draft_model": key})):
            accepted, total = result.stats.accepted_draft_tokens_count, result.stats.total_draft_tokens_count
            if accepted and total:
                examiner.number(f"draft/{key}{_ACCEPTED}", 100 * accepted / total, "%")


def _measure(
    examiner: Examiner, case: str, count: int, max_tokens: int, **parameters: Unpack[PredictionParameters]
) -> Flow[list[PredictionResult]]:
    """Record the tokens per second of so many responses at once, and return those that are long enough."""
    prompts = [f"Write a long story about these things: {random_words(12)}" for _ in range(count)]
    results, seconds = yield from examiner.respond_at_once(prompts, max_tokens, **parameters)
    counted = [(each, each.stats.predicted_tokens_count or 0) for each in results]
    long = [(each, tokens) for each, tokens in counted if tokens >= _SHORTEST]
    examiner.number(case, sum(tokens for _, tokens in long) / seconds, "tokens/s")
    return [each for each, _ in long]


def _summarize_speed(observations: Sequence[Observation]) -> Summary:
    numbers, failures = medians(observations), failures_of(observations)
    firsts = [(f"{length:,}", numbers.get(f"first token/{length}")) for length in _LENGTHS]
    first = [f"{number.outcome} ({length})" for length, number in firsts if number]
    found = {1: numbers.get("alone"), **{count: numbers.get(f"at once/{count}") for count in (2, 4, 8)}}
    rates = {count: rate for count, rate in found.items() if rate}
    drafts = {
        case.removeprefix("draft/"): number
        for case, number in numbers.items()
        if case.startswith("draft/") and not case.endswith(_ACCEPTED)
    }
    slots = next((int(each.score) for each in observations if each.case == "slots"), 1)
    # What exceeds the slots waits, so that it does not show the speed of more slots; 0 are not known.
    possible = [count for count in rates if count <= slots or slots == 0]
    best = max(possible, key=lambda count: rates[count].score, default=slots)
    texts = [f"first token {', '.join(first)}"] if first else []
    texts += [f"{rates[1].outcome} alone"] if 1 in rates else []
    together = [f"{rate.outcome.removesuffix('tokens/s')}with {count}" for count, rate in rates.items() if count > 1]
    texts += [f"{', '.join(together)} at once"] if together else []
    texts += [f"best parallel {best}"] if len(rates) > 1 else []
    for key, number in drafts.items():
        accepted = numbers.get(f"draft/{key}{_ACCEPTED}")
        texts.append(f"draft {key} {number.outcome}" + (f", {accepted.outcome} accepted" if accepted else ""))
    texts += [outcomes(failures)] if failures else []
    return Summary("; ".join(texts), _advise_on_speed(rates, slots, best, drafts))


def _advise_on_speed(
    rates: Mapping[int, Observation], slots: int, best: int, drafts: Mapping[str, Observation]
) -> str | None:
    full = max((count for count in rates if count <= slots), default=best)  # an engine with a file takes no advice
    if best != full and rates[best].score >= _NOTABLE * rates[full].score:
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
    summarize=_summarize_speed,
    scores={},
    apart=True,
)


# Honesty: whether settings of a prediction are kept, ignored or rejected ----------------------------------------------
#
# It has texts continued, so that no chat template and no reasoning takes part.

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

_MANY, _FEWEST = 16, 4
"""Tokens of a text, and of one of which only the first ones matter."""

_EXTREME = 100.0
"""A penalty that makes it all but impossible to repeat a token."""


def _continue(examiner: Examiner, text: str, max_tokens: int, **settings: Any) -> Flow[PredictionResult]:
    return (yield from examiner.complete(f"{examiner.vary('A text')}: {text}", max_tokens, **settings))


Kept = bool | None
"""Whether a setting is kept; `None` if that cannot be seen."""


def _seed(examiner: Examiner, text: str) -> Flow[Kept]:
    """Where nothing varies, the seed is kept as well."""
    settings = {"temperature": 1.0, "seed": SEED + examiner.repetition}
    first = yield from _continue(examiner, text, _MANY, **settings)
    second = yield from _continue(examiner, text, _MANY, **settings)
    return first.raw_content == second.raw_content if first.raw_content else None


def _stop_string(examiner: Examiner, text: str) -> Flow[Kept]:
    """Stop the same text at a word in its middle."""
    words = (yield from _continue(examiner, text, _MANY)).raw_content.split()
    if not words:
        return None
    word = words[len(words) // 2]
    stopped = yield from _continue(examiner, text, _MANY, stop_strings=[word])
    return word not in stopped.raw_content


def _max_tokens(examiner: Examiner, text: str) -> Flow[Kept]:
    stats = (yield from _continue(examiner, text, FEW)).stats
    if stats.predicted_tokens_count is None:
        return None
    return stats.stop_reason in {"maxPredictedTokensReached", "eosFound"} and stats.predicted_tokens_count <= FEW


def _log_probs(examiner: Examiner, text: str) -> Flow[Kept]:
    tokens = (yield from _continue(examiner, text, _FEWEST, log_probs=2)).tokens
    return bool(tokens) and all("logProb" in each and is_list(each.get("candidates")) for each in tokens)


def _logit_bias(examiner: Examiner, text: str) -> Flow[Kept]:
    """Forbid the first token, whose id is known where log-probabilities are."""
    first = (yield from _continue(examiner, text, _FEWEST, log_probs=1)).tokens
    if not first or "id" not in first[0]:
        return None
    token = first[0]["id"]
    second = (yield from _continue(examiner, text, _FEWEST, log_probs=1, logit_bias={token: -inf})).tokens
    return not second or second[0].get("id") != token


def _penalty(name: str, examiner: Examiner, text: str) -> Flow[Kept]:
    """Penalize repetition, if there is any."""
    others = switched_off("penalty")
    free = (yield from _continue(examiner, text, _MANY, **others)).raw_content
    penalized = (yield from _continue(examiner, text, _MANY, **{**others, name: _EXTREME})).raw_content
    words = free.split()
    return None if len(set(words)) == len(words) else penalized != free


class Setting(NamedTuple):
    """A part of the row, the name of the setting, and what finds out whether it is kept."""

    part: str
    name: str
    check: Callable[[Examiner, str], Flow[Kept]]
    texts: Sequence[str] = BEGINNINGS


SETTINGS = (
    Setting("seed", "seed", _seed),
    Setting("stop string", "stop_strings", _stop_string),
    Setting("max_tokens", "max_tokens", _max_tokens),
    Setting("log-probabilities", "log_probs", _log_probs),
    Setting("logit bias", "logit_bias", _logit_bias),
    Setting("repeat penalty", "repeat_penalty", partial(_penalty, "repeat_penalty"), REPETITIONS),
    Setting("presence penalty", "presence_penalty", partial(_penalty, "presence_penalty"), REPETITIONS),
)


def _ask_setting(setting: Setting, number: int, examiner: Examiner) -> Flow[None]:
    is_kept = yield from setting.check(examiner, setting.texts[number])
    if is_kept is not None:
        examiner.verdict(f"{setting.part}/{number + 1}", "kept" if is_kept else "ignored")


def _summarize_honesty(observations: Sequence[Observation]) -> Summary:
    failures = Counter((each.part, each.outcome) for each in failures_of(observations))
    text = f"{share_text(observations)} kept"
    text += "".join(f"; {part} {outcome} {count}" for (part, outcome), count in failures.items())
    names = dict.fromkeys(setting.name for setting in SETTINGS for part, _ in failures if setting.part == part)
    return Summary(text, f"do not rely on {', '.join(names)} here" if names else None)


HONESTY = Row(
    name="honesty",
    question="Are the settings of a prediction kept, and neither ignored nor rejected?",
    anchor="prediction-keys",
    cases=[
        Case(f"{setting.part}/{number + 1}", partial(_ask_setting, setting, number))
        for setting in SETTINGS
        for number in range(len(setting.texts))
    ],
    prompt_tokens=2_400,
    predicted_tokens=1_200,
    summarize=_summarize_honesty,
    scores={"kept": 1, "ignored": 0.5},
    apart=True,
)
