"""The row `reasoning`: whether what a model thinks is separated from its text, and can be turned off and limited."""

import re
from collections.abc import Callable, Sequence

from lmstudio_integrations.client.certify.asking import Asking, Case, Row, Summary
from lmstudio_integrations.client.predictions.requests import PredictionSettings
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.types.cards import Observation, failures_of, outcomes, share_text
from lmstudio_integrations.types.results import PredictionResult

PROMPTS = (
    "A farmer has 17 sheep, and all but 9 run away. How many are left?",
    "Which number is larger, 9.11 or 9.9?",
    "Tom is older than Ana, and Ana is older than Li. Who is the youngest?",
    "A train leaves at 9:40 and arrives at 13:05. How long does it take?",
)

MAX_TOKENS, MAX_TOKENS_OFF, MAX_TOKENS_LIMITED = 64, 16, 96
"""Tokens of a response that reasons, that should not, and that should not for long: enough to see what it does."""

BUDGET, BEYOND = 32, 16
"""Tokens of reasoning, and how many more may be written: the tags, and the rest of a step."""

_TAG = re.compile(
    r"</?(?:\w+:)?(?:think|thinking|thought|reasoning)>|\[/?THINK\]|<\|?channel\|?>|SYNTHETIC_REASONING_END"
)
"""What models write around their reasoning, and what LM Studio may leave in the text."""


def _separation(result: PredictionResult) -> str:
    if _TAG.search(result.content):
        return "in the text"
    return "separated" if result.reasoning_content.strip() else "none"


def _absence(result: PredictionResult) -> str:
    return "off" if _separation(result) == "none" else "reasons anyway"


def _length(result: PredictionResult) -> str:
    if _separation(result) == "in the text":
        return "in the text"
    return "kept" if result.reasoning_tokens <= BUDGET + BEYOND else "exceeded"


def _ask(
    judge: Callable[[PredictionResult], str],
    max_tokens: int,
    asking: Asking,
    *,
    reasoning: bool = True,
    config: PredictionSettings | None = None,
) -> Flow[list[tuple[str, str]]]:
    """Return what the response to each prompt is, and its text if it is not as it should be."""
    judged: list[tuple[str, str]] = []
    for prompt in PROMPTS:
        reply = yield from asking.respond(asking.vary(prompt), max_tokens, reasoning=reasoning, config=config)
        outcome = judge(reply.result) if reply.result else "rejected"
        judged.append((outcome, "" if outcome in GOOD else reply.text))
    return judged


GOOD = ("separated", "off", "kept")

_REASONS = "separated/at all"
"""The fact whether the model reasons; in the part whose question finds it out."""


def _record(asking: Asking, part: str, judged: Sequence[tuple[str, str]]) -> None:
    for number, (outcome, detail) in enumerate(judged, 1):
        asking.verdict(f"{part}/{number}", outcome, outcome in GOOD, detail)


def _ask_separated(asking: Asking) -> Flow[None]:
    """Also find out whether the model reasons; if it does so in no response, nothing else is asked of its responses."""
    judged = yield from _ask(_separation, MAX_TOKENS, asking)
    reasons = any(outcome in {"separated", "in the text"} for outcome, _ in judged)
    asking.fact(_REASONS, "yes" if reasons else "no")
    if any(outcome != "none" for outcome, _ in judged):
        _record(asking, "separated", judged)


def _may_reason(observations: Sequence[Observation]) -> bool:
    """Whether the model may reason: a part that is measured again on its own does not ask that anew."""
    return not any(each.case == _REASONS and each.outcome == "no" for each in observations)


def _ask_off(asking: Asking) -> Flow[None]:
    if _may_reason(asking.observations):
        # Without the tokens that a response gets in addition if the model reasons: it is not read.
        config: PredictionSettings = {"max_tokens": MAX_TOKENS_OFF}
        judged = yield from _ask(_absence, MAX_TOKENS_OFF, asking, reasoning=False, config=config)
        _record(asking, "off", judged)


def _ask_budget(asking: Asking) -> Flow[None]:
    if _may_reason(asking.observations):
        judged = yield from _ask(_length, MAX_TOKENS_LIMITED, asking, config={"reasoning_budget": BUDGET})
        _record(asking, "budget", judged)


def _ask_template(asking: Asking) -> Flow[None]:
    replay = yield from asking.llm.get_reasoning_replay()
    for place, treatment in replay.by_place.items():
        asking.fact(f"template/{place.replace('_', ' ')}", treatment, treatment not in {"misplaced", "rejected"})


ADVICE = {
    "in the text": "set reasoning_parsing to the tags that this model writes",
    "reasons anyway": "enable_thinking=False does not turn it off: set a low reasoning_effort and a larger max_tokens",
    "exceeded": "reasoning_budget is ignored: set max_tokens, which limits all of a response",
    "none": "enable_thinking=True does not make it reason each time; a reasoning_effort may",
    "rejected": "omit enable_thinking and reasoning_budget: the server rejects them",
    "never": "its template omits what it thought before a tool call; keep_reasoning=True may change that",
}
"""What to do about each outcome, and about a template that never keeps thoughts; the most important first."""


def _summarize(observations: Sequence[Observation]) -> Summary:
    verdicts = [each for each in observations if each.kind == "verdict"]
    if not verdicts:
        return Summary("does not reason")
    failures = failures_of(verdicts)
    parts = dict.fromkeys(each.part for each in verdicts)
    text = "; ".join(f"{part} {share_text(each for each in verdicts if each.part == part)}" for part in parts)
    text += f" ({outcomes(failures)})" if failures else ""
    template = {each.case.partition("/")[2]: each.outcome for each in observations if each.part == "template"}
    kept = "always" if set(template.values()) == {"kept"} else "never"
    if kept == "never" and template.get("current call") in {"kept", "copied"}:
        kept = "within a turn"
    found = {*(each.outcome for each in failures), kept if template else ""}
    advice = next((advice for outcome, advice in ADVICE.items() if outcome in found), None)
    return Summary(f"{text}; thoughts kept {kept}" if template else text, advice)


REASONING = Row(
    name="reasoning",
    question="Is what the model thinks separated from its text, and can it be turned off and limited?",
    anchor="fragments",
    cases=[
        Case("separated", _ask_separated),
        Case("off", _ask_off),
        Case("budget", _ask_budget),
        Case("template", _ask_template),
    ],
    prompt_tokens=1_500,
    predicted_tokens=1_560,
    summarize=_summarize,
    apart=True,
)
