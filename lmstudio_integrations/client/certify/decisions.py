"""The row `decisions`: two questions about each of eight messages, of which the right answers are known."""

from collections.abc import Sequence
from functools import partial

from lmstudio_integrations.client.certify.asking import Asking, Case, Row, Summary, successes
from lmstudio_integrations.client.predictions.decisions.decider import Decider
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.types.cards import Observation, failures_of
from lmstudio_integrations.types.decisions import Choice, ChoiceAnswer, Noul, NoulAnswer

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


def _ask(number: int, asking: Asking) -> Flow[None]:
    message, team, is_complaint = MESSAGES[number - 1]
    state, questions = asking.vary(message), {"team": TEAM, "complaint": COMPLAINT}
    asking.take(3)
    model = asking.model
    if isinstance(model, Decider):
        decision = yield from model.decide(state, questions)
    else:
        decision = yield from asking.llm.decide(state, questions, {})
    asking.prompt_tokens += decision.input_tokens
    asking.predicted_tokens += decision.output_tokens
    choice, noul = decision.answers["team"], decision.answers["complaint"]
    assert isinstance(choice, ChoiceAnswer), "it was asked"
    assert isinstance(noul, NoulAnswer), "it was asked"
    _judge(asking, f"choice/{number}", f"{choice.choice}: {message}", is_right=choice.choice == team)
    asking.number(f"confidence/{number}", choice.confidence, "for the answer")
    asking.number(f"spread/{number}", choice.spread, "between two orders", more_is_better=False)
    is_right = (noul.noul > 0.5) == is_complaint
    _judge(asking, f"yes or no/{number}", f"{noul.noul:.2f}: {message}", is_right=is_right)


def _judge(asking: Asking, case: str, detail: str, *, is_right: bool) -> None:
    asking.verdict(case, "right" if is_right else "wrong", "" if is_right else detail)


def _summarize(observations: Sequence[Observation]) -> Summary:
    choices = [each for each in observations if each.part == "choice"]
    sure = [each.score for each in observations if each.part == "confidence"]
    spreads = [1 / each.score for each in observations if each.part == "spread"]
    verdicts = [each for each in observations if each.kind == "verdict"]
    text = successes(verdicts, "right")
    if sure:
        right = 1 - len(failures_of(choices)) / len(choices)
        text += f"; {sum(sure) / len(sure):.0%} sure of choices, {right:.0%} right"
        text += f"; their order changes {sum(spreads) / len(sure):.0%}"
    is_weak = 4 * len(failures_of(verdicts)) > len(verdicts)
    return Summary(text, "use a larger model, or a decision model" if is_weak else None)


DECISIONS = Row(
    name="decisions",
    question="Are typed questions answered right, as surely as they are right, and in whatever order options stand?",
    anchor="decisions",
    cases=[Case(f"choice/{number}", partial(_ask, number)) for number in range(1, len(MESSAGES) + 1)],
    prompt_tokens=3_000,
    predicted_tokens=60,
    summarize=_summarize,
    scores={"right": 1},
    kinds=("llm", "decision"),
    apart=True,
)
