"""The keyword arguments of `certify`, apart from what it needs: that is imported by its first call only."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from lmstudio_integrations.types.cards import Card, RowName


class CertifyParameters(TypedDict, total=False):
    """The keyword arguments of `certify`.

    Attributes:
        rows: The rows to measure, such as `["tools", "structure"]`. By default all that the model can do.
        quick: Whether to ask a sixth of the questions.
        load: Whether to load further instances of the model for a moment, to see what happens at the end of a small
            context window, and whether a larger one fits.
        drafts: Keys of draft models to try.
        temperature: The temperature of the requests, 0 by default.
        against: An earlier card of the model, or its file. What differs is measured again, until it is confirmed or
            turns out to be noise; the card then has `changes`.
        device: The machine that the model is used on, see `ModelParameters`.
        on_row: Called with the card so far, after each row; also with what an interrupted row has.
        on_progress: Called with the name of the row that is asked, and the share of the questions that are done.
    """

    rows: Iterable[RowName] | None
    quick: bool
    load: bool
    drafts: Sequence[str]
    temperature: float
    against: Card | str | Path | None
    device: str | None
    on_row: Callable[[Card], Any] | None
    on_progress: Callable[[str, float], Any] | None
