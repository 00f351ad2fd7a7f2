"""The rows of what a model decides: `decisions`, about eight messages, and `reranking`, of pairs of texts."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from lmstudio_integrations.client.certify.examiner import Case, Examiner, Row, Summary
from lmstudio_integrations.client.predictions.decisions.decider import decide
from lmstudio_integrations.client.predictions.decisions.reranking import family_of
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioUnsupportedError
from lmstudio_integrations.types.cards import Observation, failures_of, share_text
from lmstudio_integrations.types.decisions import Choice, ChoiceAnswer, Noul, NoulAnswer, Question, check_answered
from lmstudio_integrations.types.models import ModelInstanceInfo

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


def _decide(examiner: Examiner, number: int, question: Question, permutations: int = 2) -> Flow[Any]:
    examiner.take(permutations)
    state = examiner.vary(MESSAGES[number - 1][0])
    decision = yield from decide(examiner.model, state, {"it": question}, permutations)
    examiner.prompt_tokens += decision.input_tokens
    examiner.predicted_tokens += decision.output_tokens
    return check_answered(decision).answers["it"]


def _choose(number: int, examiner: Examiner) -> Flow[None]:
    _, team, _ = MESSAGES[number - 1]
    answer: ChoiceAnswer = yield from _decide(examiner, number, TEAM)
    is_right = answer.choice == team
    examiner.verdict(f"choice/{number}", "right" if is_right else "wrong", "" if is_right else answer.choice)
    examiner.number(f"choice/{number}", answer.confidence, "sure")


def _affirm(number: int, examiner: Examiner) -> Flow[None]:
    _, _, is_complaint = MESSAGES[number - 1]
    answer: NoulAnswer = yield from _decide(examiner, number, COMPLAINT)
    is_right = (answer.noul > 0.5) == is_complaint
    examiner.verdict(f"yes or no/{number}", "right" if is_right else "wrong", "" if is_right else f"{answer.noul:.2f}")


def _reorder(number: int, examiner: Examiner) -> Flow[None]:
    turned = TEAM.model_copy(update={"criteria": dict(reversed(TEAM.criteria.items()))})
    first: ChoiceAnswer = yield from _decide(examiner, number, TEAM, permutations=1)
    second: ChoiceAnswer = yield from _decide(examiner, number, turned, permutations=1)
    is_same = first.choice == second.choice
    detail = "" if is_same else f"{first.choice}, then {second.choice}"
    examiner.verdict(f"order/{number}", "same" if is_same else "another answer", detail)


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


# Reranking: twenty queries, each with a relevant text and another one -------------------------------------------------

PAIRS = (
    ("When does the library open?", "The library opens at nine.", "The library was built of red brick."),
    ("How much is a ferry ticket?", "A ticket for the ferry is five euros.", "The ferry is painted white."),
    ("Who wrote the play Hamlet?", "Shakespeare wrote the play Hamlet.", "A play has several acts."),
    ("How tall is the tower?", "The tower is 90 meters tall.", "The tower closes in winter."),
    ("What do pandas eat?", "Pandas eat bamboo almost all day.", "Pandas live in China."),
    ("Where do penguins live?", "Penguins live in the southern oceans.", "Penguins cannot fly."),
    ("How do I reset my password?", "To reset a password, choose Forgot password.", "A password has ten characters."),
    ("Which gas do plants absorb?", "Plants absorb carbon dioxide, a gas.", "Plants need water to grow."),
    ("How long do I boil an egg?", "Boil an egg for six minutes.", "An egg has a yolk and a white."),
    ("What is the capital of Peru?", "The capital of Peru is Lima.", "Peru has high mountains."),
    ("When was the bridge built?", "The bridge was built in 1932.", "The bridge has four lanes."),
    ("What causes tides?", "Tides are caused by the pull of the moon.", "Sailors read tables of tides."),
    ("Who repairs bicycles here?", "Ana repairs bicycles in this street.", "Bicycles must have a light."),
    ("How many legs has a spider?", "A spider has eight legs.", "A spider spins a web."),
    ("Is the museum free on Sunday?", "On Sunday, the museum is free for all.", "The museum shows old clocks."),
    ("What is the return period?", "You may return goods within 30 days.", "The goods arrive in a box."),
    ("Why does iron rust?", "Iron rusts because it reacts with oxygen.", "Iron is used for bridges."),
    ("Which bus goes to the airport?", "The bus 12 goes to the airport.", "The airport has two terminals."),
    ("How do bees make honey?", "Bees make honey from nectar.", "A beekeeper wears gloves."),
    ("Can I bring my dog?", "You can bring a dog if it is on a leash.", "A puppy sleeps a lot."),
)
"""A query, a text that answers it, and one about the same that does not."""


def _ask_pair(number: int, examiner: Examiner) -> Flow[None]:
    examiner.take(2)
    query, relevant, other = PAIRS[number - 1]
    place = (number - 1) % 2  # the order of the texts must not matter
    texts = [other, relevant] if place else [relevant, other]
    results = yield from examiner.llm.rerank(examiner.vary(query), texts, {})
    examiner.predicted_tokens += 2
    scores = {result.index: result.score or 0.0 for result in results}
    is_right = scores[place] > scores[1 - place]
    detail = "" if is_right else f"{scores[place]:.2f} for {relevant} {scores[1 - place]:.2f} for {other}"
    examiner.verdict(f"pair/{number}", "right" if is_right else "wrong", detail)


def _is_no_reranker(info: ModelInstanceInfo) -> str | None:
    try:
        return "the model is no reranker" if family_of(info.model_key, info.path) is None else None
    except LMStudioUnsupportedError as error:
        return str(error)


def _summarize_reranking(observations: Sequence[Observation]) -> Summary:
    text = f"{share_text(observations)} pairs of texts in the right order"
    failures = len(failures_of(observations))
    if 2 * failures > len(observations):
        return Summary(text, "use another reranker, or name the prompt of this one with template=")
    return Summary(text, "say with instruction= what relevant means" if failures else None)


RERANKING = Row(
    name="reranking",
    question="Does the model put the relevant one of two texts first?",
    anchor="fragments",
    cases=[Case(f"pair/{number}", partial(_ask_pair, number)) for number in range(1, len(PAIRS) + 1)],
    prompt_tokens=3_500,
    predicted_tokens=120,
    summarize=_summarize_reranking,
    scores={"right": 1},
    missing=_is_no_reranker,
)
