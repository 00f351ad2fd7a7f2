"""`certify`: asks a loaded model what its users depend on, and what has changed since an earlier card.

`run.py` finds the instance, has the rows asked and compares. The rows with their questions are in
`tools.py`, `answers.py` (responses that are right or wrong) and `serving.py` (what the server does with requests).
`examiner.py` is what a question may use, and `difference.py` the statistics. The card itself is `types/cards.py`.

The keyword arguments are here, apart from what the rest needs: that is imported by the first call only.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from lmstudio_integrations.types.cards import Card, RowName


class CertifyParameters(TypedDict, total=False):
    """The keyword arguments of `certify`.

    Attributes:
        rows: The rows to measure, such as `["tools", "structure"]`. By default all that the model can do.
        quick: Whether to ask a sixth of the questions.
        drafts: Keys of draft models to try.
        against: An earlier card of the model, or its file. What differs is measured again, until it is confirmed or
            turns out to be noise; the card then has `changes`.
        device: The machine that the model is used on, see `ModelParameters`.
        on_row: Called with the card so far, after each row; also with what an interrupted row has.
        on_progress: Called with the name of the row that is asked, and the share of the questions that are done.
    """

    rows: Iterable[RowName] | None
    quick: bool
    drafts: Sequence[str]
    against: Card | str | Path | None
    device: str | None
    on_row: Callable[[Card], Any] | None
    on_progress: Callable[[str, float], Any] | None
