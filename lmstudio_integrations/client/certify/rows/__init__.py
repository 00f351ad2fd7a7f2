"""The rows of the card, a file for each; this is their order."""

from collections.abc import Iterable

from lmstudio_integrations._support.suggestions import explain_unknown_name
from lmstudio_integrations.client.certify.asking import Row
from lmstudio_integrations.client.certify.rows.cache import CACHE
from lmstudio_integrations.client.certify.rows.embedding import EMBEDDING
from lmstudio_integrations.client.certify.rows.honesty import HONESTY
from lmstudio_integrations.client.certify.rows.reasoning import REASONING
from lmstudio_integrations.client.certify.rows.reranking import RERANKING
from lmstudio_integrations.client.certify.rows.speed import SPEED
from lmstudio_integrations.client.certify.rows.structure import STRUCTURE
from lmstudio_integrations.client.certify.rows.tools import TOOLS
from lmstudio_integrations.client.certify.rows.vision import VISION
from lmstudio_integrations.client.certify.rows.window import WINDOW
from lmstudio_integrations.client.support.arguments import list_of
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.config import ModelKind

ROWS: tuple[Row, ...] = (
    TOOLS,
    STRUCTURE,
    WINDOW,
    REASONING,
    CACHE,
    SPEED,
    HONESTY,
    EMBEDDING,
    RERANKING,
    VISION,
)

KINDS: tuple[ModelKind, ...] = ("llm", "embedding")

QUICK = 6
"""Every so many questions are asked if it must be quick."""

TOKENS, TOKENS_QUICK = (90_000, 12_000), (15_000, 2_000)
"""The most tokens of a card and of a quick one: those of prompts, and of responses. A row takes from what is left."""


def rows_of(names: Iterable[str] | None) -> list[Row]:
    """Return the rows of these names, in the order of the card; all without names.

    Raises:
        LMStudioValueError: If there is no such row, or none is named.
    """
    known = {row.name: row for row in ROWS}
    requested: list[str] = list(known) if names is None else list_of(names, "rows", of_texts=True)
    if not requested:
        raise LMStudioValueError(f"rows must name at least one of {', '.join(known)}")
    for name in requested:
        if name not in known:
            raise LMStudioValueError(f"the card has no row {name!r}; {explain_unknown_name(name, list(known))}")
    return [row for row in ROWS if row.name in requested]


def tokens_of(names: Iterable[str] | None, *, quick: bool) -> tuple[int, int]:
    """Return the most tokens that rows use, of whichever kind the model is: those of prompts, and of responses."""
    requested, (most_prompt, most_predicted) = rows_of(names), TOKENS_QUICK if quick else TOKENS
    of_kinds = [[row for row in requested if kind in row.kinds] for kind in KINDS]
    prompt = max(sum(row.prompt_tokens for row in rows) for rows in of_kinds)
    predicted = max(sum(row.predicted_tokens for row in rows) for rows in of_kinds)
    return min(prompt, most_prompt), min(predicted, most_predicted)
