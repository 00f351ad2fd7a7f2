"""The row `decisions`: questions about eight messages, of which the right answers are known."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from lmstudio_integrations.client.certify.asking import Asking, Case, Row, Summary
from lmstudio_integrations.client.predictions.decisions.decider import decide
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.types.cards import Observation, failures_of, share_text
from lmstudio_integrations.types.decisions import Choice, ChoiceAnswer, Noul, NoulAnswer, Question, check_answered

MESSAGES = (
    ("I was charged twice this month.", "billing", True),
    ("Thank you, the invoice has arrived.", "billing", False),
    ("The app crashes whenever I open a file.", "support", True),
    ("After the update, search works well again.", "support", False),
    ("How much is the plan for ten people?", "sales", False),
    ("I still have no offer, and I asked for one a week ago.", "sales", True),
    ("My refund has still not arrived.", "billing", True),
    ("Do you sell gift cards?", "sales", False),
)
"""What a customer writes, who answers it, and whether it is a complaint."""

TEAM = Choice(
    instructions="Who answers this?",
    criteria={"billing": "invoices and refunds", "support": "errors in the app", "sales": "prices and offers"},
)
COMPLAINT = Noul(instructions="Is this a complaint?")

ORDERED = 4
"""How many choices are also asked with their options in another order."""


def _decide(asking: Asking, number: int, question: Question, permutations: int = 2) -> Flow[Any]:
    asking.take(permutations)
    state = asking.vary(MESSAGES[number - 1][0])
    decision = yield from decide(asking.model, state, {"it": question}, permutations)
    asking.prompt_tokens += decision.input_tokens
    asking.predicted_tokens += decision.output_tokens
    return check_answered(decision).answers["it"]


def _choose(number: int, asking: Asking) -> Flow[None]:
    _, team, _ = MESSAGES[number - 1]
    answer: ChoiceAnswer = yield from _decide(asking, number, TEAM)
    is_right = answer.choice == team
    asking.verdict(f"choice/{number}", "right" if is_right else "wrong", "" if is_right else answer.choice)
    asking.number(f"choice/{number}", answer.confidence, "sure")


def _affirm(number: int, asking: Asking) -> Flow[None]:
    _, _, is_complaint = MESSAGES[number - 1]
    answer: NoulAnswer = yield from _decide(asking, number, COMPLAINT)
    is_right = (answer.noul > 0.5) == is_complaint
    asking.verdict(f"yes or no/{number}", "right" if is_right else "wrong", "" if is_right else f"{answer.noul:.2f}")


def _reorder(number: int, asking: Asking) -> Flow[None]:
    turned = TEAM.model_copy(update={"criteria": dict(reversed(TEAM.criteria.items()))})
    first: ChoiceAnswer = yield from _decide(asking, number, TEAM, permutations=1)
    second: ChoiceAnswer = yield from _decide(asking, number, turned, permutations=1)
    is_same = first.choice == second.choice
    detail = "" if is_same else f"{first.choice}, then {second.choice}"
    asking.verdict(f"order/{number}", "same" if is_same else "another answer", detail)


def _summarize(observations: Sequence[Observation]) -> Summary:
    verdicts = [each for each in observations if each.kind == "verdict"]
    choices = [each for each in verdicts if each.part == "choice"]
    answers = [each for each in verdicts if each.part != "order"]
    orders = [each for each in verdicts if each.part == "order"]
    sure = [each.score for each in observations if each.kind == "number"]
    texts = [f"{share_text(answers)} right"] if answers else []
    if sure:
        right = 1 - len(failures_of(choices)) / len(choices)
        texts.append(f"{sum(sure) / len(sure):.0%} sure of choices, of which {right:.0%} are right")
    texts += [f"{share_text(orders)} the same in another order"] if orders else []
    is_weak = 4 * len(failures_of(verdicts)) > len(verdicts)
    return Summary("; ".join(texts), "use a larger model, or a decision model" if is_weak else None)


_NUMBERS = range(1, len(MESSAGES) + 1)

DECISIONS = Row(
    name="decisions",
    question="Are typed questions answered right, as surely as they are right, and in whatever order options stand?",
    anchor="decisions",
    cases=[
        *(Case(f"choice/{number}", partial(_choose, number)) for number in _NUMBERS),
        *(Case(f"yes or no/{number}", partial(_affirm, number)) for number in _NUMBERS),
        *(Case(f"order/{number}", partial(_reorder, number)) for number in _NUMBERS[:ORDERED]),
    ],
    prompt_tokens=3_000,
    predicted_tokens=60,
    summarize=_summarize,
    scores={"right": 1, "same": 1},
    kinds=("llm", "decision"),
    apart=True,
)
