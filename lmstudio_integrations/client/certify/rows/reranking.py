"""The row `reranking`: twenty queries, each with a relevant text and another one."""

from collections.abc import Sequence
from functools import partial

from lmstudio_integrations.client.certify.asking import Asking, Case, Row, Summary
from lmstudio_integrations.client.predictions.reranking import family_of
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioUnsupportedError
from lmstudio_integrations.types.cards import Observation, share_text
from lmstudio_integrations.types.models import ModelInstanceInfo

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


def _ask(number: int, asking: Asking) -> Flow[None]:
    asking.budget.take(2)
    query, relevant, other = PAIRS[number]
    place = number % 2  # the order of the texts must not matter
    texts = [other, relevant] if place else [relevant, other]
    results = yield from asking.llm.rerank(asking.vary(query), texts, {})
    asking.budget.used_predicted += 2
    scores = {result.index: result.score or 0.0 for result in results}
    is_right = scores[place] > scores[1 - place]
    detail = "" if is_right else f"{scores[place]:.2f} for {relevant} {scores[1 - place]:.2f} for {other}"
    asking.verdict(f"pair/{number + 1}", "right" if is_right else "wrong", is_right, detail)


def _missing(info: ModelInstanceInfo) -> str | None:
    try:
        is_reranker = family_of(info.model_key, info.path) is not None
    except LMStudioUnsupportedError as error:
        return str(error)
    return None if is_reranker else "the model is no reranker"


def _summarize(observations: Sequence[Observation]) -> Summary:
    text = f"{share_text(observations)} pairs of texts in the right order"
    failures = sum(each.score < 1 for each in observations)
    if 2 * failures > len(observations):
        return Summary(text, "use another reranker, or name the prompt of this one with template=")
    return Summary(text, "say with instruction= what relevant means" if failures else None)


RERANKING = Row(
    name="reranking",
    question="Does the model put the relevant one of two texts first?",
    anchor="fragments",
    cases=[Case(f"pair/{number + 1}", partial(_ask, number)) for number in range(len(PAIRS))],
    prompt_tokens=3_500,
    predicted_tokens=120,
    summarize=_summarize,
    missing=_missing,
)
