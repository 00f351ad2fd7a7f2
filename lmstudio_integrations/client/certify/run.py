"""One call of `certify`: asks the rows, and compares the card with an earlier one."""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmstudio_integrations._support.suggestions import explain_unknown_name
from lmstudio_integrations._support.version import __version__
from lmstudio_integrations.client.certify.asking import (
    OF_THE_INSTANCE,
    Asking,
    Budget,
    Case,
    OutOfTokensError,
    Row,
    Summary,
)
from lmstudio_integrations.client.certify.choosing import choose, describe
from lmstudio_integrations.client.certify.difference import Comparison
from lmstudio_integrations.client.certify.parameters import CertifyParameters
from lmstudio_integrations.client.certify.rows import QUICK, TOKENS, TOKENS_QUICK, rows_of
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.queries import list_downloaded
from lmstudio_integrations.client.support.arguments import check_names, list_of, optional_text, text_of
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.flows import Flow, call_back
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioValueError,
)
from lmstudio_integrations.types.cards import Card, CardRow, RowName
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.models import ModelInstanceInfo


class Certification:
    """One call of `certify`.

    Args:
        context: Whose call it is.
        model: The model, by key or identifier.
        parameters: The keyword arguments.

    Raises:
        LMStudioOSError: If the earlier card cannot be read.
        LMStudioValueError: If an argument is invalid, or the earlier card is of another temperature.
    """

    def __init__(self, context: ClientContext, model: str, parameters: CertifyParameters) -> None:
        check_names(parameters, CertifyParameters.__annotations__, async_callbacks=context.is_async)
        self._context = context
        self._name = text_of(model, "model")
        self._rows = rows_of(parameters.get("rows"))
        self._quick = parameters.get("quick", False)
        self._may_load = parameters.get("load", False)
        self._drafts: list[str] = list_of(parameters.get("drafts", ()), "drafts", of_texts=True)
        self._temperature = LlmPredictionConfig(temperature=parameters.get("temperature", 0.0)).temperature or 0.0
        self._device = optional_text(parameters.get("device"), "device")
        self._on_row = parameters.get("on_row")
        self._on_progress = parameters.get("on_progress")
        against: Any = parameters.get("against")
        old = Card.read(against) if isinstance(against, str | Path) else against
        if not isinstance(old, Card | None):
            raise LMStudioValueError(f"against must be a Card or its file; got {against!r}")
        self._old = old
        self._left = Budget(*TOKENS_QUICK) if self._quick else Budget(*TOKENS)
        self._reasons_anyway = self._is_lost = False
        if self._old is not None and self._old.temperature != self._temperature:
            raise LMStudioValueError(
                f"the earlier card was measured at temperature={self._old.temperature:g}; measure at the same one, not "
                f"at {self._temperature:g}"
            )

    def run(self) -> Flow[Card]:
        began = datetime.now(UTC)
        model = yield from choose(self._context, self._name, self._device)
        try:
            yield from self._check_drafts()
            described, info = yield from describe(model)
            card = Card(
                measured_at=began.isoformat(timespec="seconds"),
                client=__version__,
                model=described,
                temperature=self._temperature,
                quick=self._quick,
            )
            if self._old is not None:
                card = card.model_copy(update={"model_changes": _model_changes(card, self._old)})
            card = yield from self._measure_all(card, model, info)
            if self._old is not None:
                card = yield from self._compare(card, self._old, model, info)
            return card.model_copy(update={"complete": True})
        finally:
            with suppress(LMStudioError):  # of a lost connection, after which the TTL unloads it
                yield from model.unload_if_loaded_here()

    def _measure_all(self, card: Card, model: Model, info: ModelInstanceInfo) -> Flow[Card]:
        rows = [row for row in self._rows if info.type in row.kinds]
        if not rows:
            raise LMStudioValueError(f"{self._name!r} is of the kind {info.type!r}, which has none of these rows")
        total = sum(len(self._cases(row)) for row in rows)
        done = 0
        for row in rows:
            asking = self._asking(row, model, info)
            began = time.perf_counter()
            is_missing, unasked = row.missing(info), len(self._cases(row))
            done += unasked if is_missing else 0
            try:
                for case in () if is_missing else self._cases(row):
                    yield from call_back("on_progress", self._on_progress, row.name, done / total)
                    yield from self._ask(case, asking)
                    done += 1
                    unasked -= 1
            except OutOfTokensError:
                done += unasked
            finally:  # also what an interrupted row has
                self._left.add(asking.budget)
                measured = _row_of(row, asking, time.perf_counter() - began, unasked, is_missing)
                card = card.model_copy(update={"rows": (*card.rows, measured)})
                yield from call_back("on_row", self._on_row, card)
        return card

    def _compare(self, card: Card, old: Card, model: Model, info: ModelInstanceInfo) -> Flow[Card]:
        """Measure what differs again, until it is confirmed or turns out to be noise."""
        apart: list[RowName] = [row.name for row in self._rows if row.apart]
        comparison = Comparison(old.rows, card.rows, apart)
        while pending := comparison.undecided():
            for row in self._rows:
                parts = pending.get(row.name, set())
                if parts:
                    yield from call_back("on_progress", self._on_progress, f"{row.name} again", 1.0)
                    asking = self._asking(row, model, info, comparison.repetitions)
                    with suppress(OutOfTokensError):
                        for case in self._cases(row):
                            if "" in parts or case.part in parts:
                                yield from self._ask(case, asking)
                    comparison.add(row.name, asking.observations)
        return card.model_copy(update={"changes": comparison.changes()})

    def _ask(self, case: Case, asking: Asking) -> Flow[None]:
        """Ask one question; what a server cannot do at all is an observation, too.

        Raises:
            LMStudioError: If nothing more can be asked: the model is gone, or the connection for the second time.
        """
        try:
            yield from case.ask(asking)
            self._is_lost = False
        except OF_THE_INSTANCE:
            raise
        except LMStudioServerError as error:
            asking.verdict(case.name, "rejected", 0, str(error))
        except (LMStudioConnectionLostError, LMStudioTimeoutError) as error:
            if self._is_lost:
                raise
            self._is_lost = True
            asking.verdict(case.name, "lost", 0, str(error))
        self._reasons_anyway = asking.reasons_anyway

    def _asking(self, row: Row, model: Model, info: ModelInstanceInfo, repetition: int = 0) -> Asking:
        limits = Budget(row.prompt_tokens, row.predicted_tokens)
        return Asking(
            model=model,
            info=info,
            budget=limits if repetition else self._left.part(limits),
            repetition=repetition,
            temperature=self._temperature,
            may_load=self._may_load,
            drafts=self._drafts,
            reasons_anyway=self._reasons_anyway,
        )

    def _check_drafts(self) -> Flow[None]:
        """Reject a draft model that there is not, before minutes of measuring."""
        if not self._drafts:
            return
        downloaded = yield from list_downloaded(Operation(self._context), "llm")
        keys = [info.model_key for info in downloaded]
        for draft in self._drafts:
            if draft not in keys:
                raise LMStudioValueError(f"no draft model {draft!r} is downloaded; {explain_unknown_name(draft, keys)}")

    def _cases(self, row: Row) -> Sequence[Case]:
        return row.cases[:: QUICK if self._quick else 1]


def _row_of(row: Row, asking: Asking, seconds: float, unasked: int, missing: str | None) -> CardRow:
    summary = row.summarize(asking.observations) if asking.observations else Summary("")
    return CardRow(
        name=row.name,
        summary=summary.text,
        advice=summary.advice,
        observations=tuple(asking.observations),
        unasked=0 if missing else unasked,
        missing=missing,
        prompt_tokens=asking.budget.used_prompt,
        predicted_tokens=asking.budget.used_predicted,
        seconds=seconds,
    )


def _model_changes(card: Card, old: Card) -> tuple[str, ...]:
    """Return where the instance and the server differ from those of an earlier card.

    Raises:
        LMStudioValueError: If that is of another model.
    """
    if old.model.key != card.model.key:
        raise LMStudioValueError(
            f"the earlier card is of {old.model.key!r}, not of {card.model.key!r}; compare cards of one model"
        )
    return tuple(card.model.differences(old.model))
