"""The rows of the card as questions of the probe, so that one recording has the evidence of both."""

from functools import partial

from lmstudio_integrations.client.certify.run import all_rows
from lmstudio_integrations.types.cards import RowName
from tools.probe.context import ProbeContext
from tools.probe.question import Question


def _measure(context: ProbeContext, row: RowName) -> None:
    card = context.client.certify(context.main.identifier, rows=[row])
    earlier = () if context.card is None else context.card.rows
    rows = (*earlier, *card.rows)
    context.card = card.model_copy(update={"rows": rows, "complete": len(rows) == len(QUESTIONS)})


QUESTIONS: list[Question] = [
    Question(f"card-{row.name}", row.anchor, row.question, partial(_measure, row=row.name), is_about_model=True)
    for row in all_rows()
    if "llm" in row.kinds
]
