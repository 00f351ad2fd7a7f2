"""One call of `certify`: chooses the instance that the card is of, asks the rows, compares with an earlier card."""

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, get_args

from lmstudio_integrations._support.environment import __version__
from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations._support.suggestions import explain_unknown_name
from lmstudio_integrations.client.certify import CertifyParameters
from lmstudio_integrations.client.certify.difference import Comparison
from lmstudio_integrations.client.certify.examiner import (
    OF_THE_INSTANCE,
    Case,
    Examiner,
    OutOfTokensError,
    Row,
    Summary,
)
from lmstudio_integrations.client.models.kinds import model_class
from lmstudio_integrations.client.models.loading import plan_memory
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.queries import (
    get_processing_state,
    list_all_loaded,
    list_downloaded,
    on_device,
    survey_hardware,
    version,
)
from lmstudio_integrations.client.models.state import (
    ModelState,
    identifier_of,
    is_on,
    matches,
    specifier_of_instance,
)
from lmstudio_integrations.client.support.arguments import check_names, list_of, optional_text, text_of
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.flows import Flow, call_back
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioModelNotFoundError,
    LMStudioProtocolError,
    LMStudioServerError,
    LMStudioValueError,
)
from lmstudio_integrations.types.cards import Card, CardModel, CardRow, RowName
from lmstudio_integrations.types.config import CONFIG_FILE, CONFIG_FOLDER, ModelKind, slots_of
from lmstudio_integrations.types.machines import LOCAL
from lmstudio_integrations.types.models import ModelInstanceInfo

OWN_PREFIX: Final = "lmsi-certify-"
"""What the identifiers of instances begin with that are loaded for a card."""

OWN_TTL = 600.0
"""Seconds. Such an instance disappears by itself if the connection is lost."""


def choose(context: ClientContext, name: str, device: str | None) -> Flow[Model]:
    """Return an idle instance of a model; load one if none is loaded, and it fits beside what is.

    Args:
        context: The server.
        name: The key or the identifier of the model.
        device: The machine that it must be on; `None` for any.

    Raises:
        LMStudioInsufficientResourcesError: If it does not fit.
        LMStudioModelNotFoundError: If there is no such model.
        LMStudioValueError: If all loaded instances of it are busy.
    """
    operation = Operation(context)
    where = yield from on_device(operation, device)
    loaded = yield from list_all_loaded(operation)
    matching = [each for each in loaded if matches(name, each[1]) and (device is None or is_on(each[1], where))]
    named = [each for each in matching if identifier_of(each[1]) == name]  # an identifier comes before a key
    busy: list[str] = []
    for kind, info in named or matching:
        identifier = identifier_of(info)
        with suppress(LMStudioModelNotFoundError):  # it was unloaded meanwhile
            processing = yield from get_processing_state(operation, kind, specifier_of_instance(info))
            is_of_another_call = identifier.startswith(OWN_PREFIX) and not named
            if processing.status == "idle" and not processing.queued and not is_of_another_call:
                there = info.get("deviceIdentifier")
                state = ModelState(kind, identifier, policy="require_loaded", device=there, on_config_mismatch="ignore")
                return model_class(kind)(context, state)
            busy.append(identifier)
    if busy:
        names = ", ".join(map(repr, busy))
        raise LMStudioValueError(f"{names} is in use, and would be measured wrongly; wait until it is idle")
    plan = yield from plan_memory(operation, [name], LOCAL if device is None else device, "own")
    (planned,) = plan.models
    if planned.fit != "fits":
        title = f"{planned.model_key!r} is not loaded, and does not fit beside what is loaded on {plan.place}"
        suggestion = f"load it with `lms load {planned.model_key}`, which may unload another model, or unload one"
        text = f"{title}\n{plan}\n  suggestion: {suggestion}"
        raise LMStudioInsufficientResourcesError(text, title=title, suggestion=suggestion, plan=plan)
    state = ModelState(
        planned.kind,
        planned.model_key,
        policy="new_instance",
        ttl=OWN_TTL,
        device=device,
        on_config_mismatch="ignore",
        requested_identifier=f"{OWN_PREFIX}{secrets.token_hex(3)}",
    )
    model = model_class(planned.kind)(context, state)
    yield from model.load()
    return model


def describe(model: Model) -> Flow[tuple[CardModel, ModelInstanceInfo]]:
    """Return what a card says of an instance and of its server, and the info of the instance."""
    operation = Operation(model.context)
    info = yield from model.get_info()
    fields = yield from model.get_load_fields()
    server = yield from version(operation)
    described = CardModel(
        key=info.model_key,
        identifier=info.identifier,
        kind=model.state.kind,
        path=info.path,
        format=info.format,
        architecture=info.architecture,
        quantization=info.quantization.name if info.quantization else None,
        context_length=info.context_length,
        slots=slots_of(model.state.kind, fields),
        load_config={key: value for key, value in fields.items() if key not in {CONFIG_FILE, CONFIG_FOLDER}},
        device=info.device_identifier,
        server=f"{server.version} (build {server.build})",
        runtime=(yield from _runtime(operation, info.format)),
        **(yield from _efforts(operation, info)),
    )
    return described, info


def _efforts(operation: Operation, info: ModelInstanceInfo) -> Flow[dict[str, Any]]:
    """Return what a card says of the efforts of reasoning."""
    try:
        with door("efforts of reasoning"):
            from lmstudio_integrations.client.models.efforts import efforts_of  # noqa: PLC0415 - a leaf
    except MissingLeafError:
        return {}
    efforts = yield from efforts_of(operation, info.model_key, info.identifier)
    return {"efforts": efforts.allowed_options, "default_effort": efforts.default}


_FORMATS_OF_ENGINES = {"safetensors": "mlx"}
"""What engines call a format that infos call otherwise (docs/protocol.md#formats)."""


def _runtime(operation: Operation, file_format: str) -> Flow[str | None]:
    """Return the engine for a format, with its version; `None` if the server does not say it."""
    name = _FORMATS_OF_ENGINES.get(file_format, file_format)
    try:
        survey = yield from survey_hardware(operation)
    except (LMStudioServerError, LMStudioProtocolError):
        return None
    engines = [each for each in survey.engines if name.lower() in map(str.lower, each.supported_model_format_names)]
    return ", ".join(f"{each.name} {each.version}".strip() for each in engines) or None


_ROWS = (
    *("tools.TOOLS", "answers.STRUCTURE"),
    *("serving.WINDOW", "serving.REASONING", "serving.CACHE", "serving.SPEED", "serving.HONESTY"),
    *("answers.EMBEDDING", "decisions.RERANKING", "decisions.DECISIONS", "answers.VISION"),
)
"""The places of the rows, in the order of the card."""


@cache
def all_rows() -> Sequence[Row]:
    """Return the rows, in the order of the card; without those of parts of the package that were deleted."""
    rows: list[Row] = []
    for place in _ROWS:
        module, _, name = place.partition(".")
        with suppress(MissingLeafError), door(f"the row {name}"):
            rows.append(getattr(import_module(f"{__package__}.{module}"), name))
    return rows


QUICK = 6
"""Every so many questions are asked if it must be quick."""

TOKENS, TOKENS_QUICK = (90_000, 12_000), (15_000, 2_000)
"""The most tokens of a card and of a quick one: those of prompts, and of responses. A row takes from what is left."""


def rows_of(names: Iterable[str] | None) -> list[Row]:
    """Return the rows of these names, in the order of the card; all without names.

    Raises:
        LMStudioValueError: If there is no such row, or none is named.
    """
    known = [row.name for row in all_rows()]
    requested: list[str] = [*known] if names is None else list_of(names, "rows", of_texts=True)
    if not requested:
        raise LMStudioValueError(f"rows must name at least one of {', '.join(known)}")
    for name in requested:
        if name not in known:
            raise LMStudioValueError(f"the card has no row {name!r}; {explain_unknown_name(name, known)}")
    return [row for row in all_rows() if row.name in requested]


def tokens_of(names: Iterable[str] | None, *, quick: bool) -> tuple[int, int]:
    """Return the most tokens that rows use, of whichever kind the model is: those of prompts, and of responses."""
    rows, most = rows_of(names), TOKENS_QUICK if quick else TOKENS
    prompt = max(sum(row.prompt_tokens for row in rows if kind in row.kinds) for kind in get_args(ModelKind))
    predicted = max(sum(row.predicted_tokens for row in rows if kind in row.kinds) for kind in get_args(ModelKind))
    return min(prompt, most[0]), min(predicted, most[1])


class Certification:
    """One call of `certify`.

    Args:
        context: Whose call it is.
        name: The model, by key or identifier.
        parameters: The keyword arguments.

    Raises:
        LMStudioOSError: If the earlier card cannot be read.
        LMStudioValueError: If an argument is invalid.
    """

    def __init__(self, context: ClientContext, name: str, parameters: CertifyParameters) -> None:
        check_names(parameters, CertifyParameters.__annotations__, async_callbacks=context.is_async)
        self._context = context
        self._name = text_of(name, "model")
        self._rows = rows_of(parameters.get("rows"))
        self._quick = parameters.get("quick", False)
        self._drafts: list[str] = list_of(parameters.get("drafts", ()), "drafts", of_texts=True)
        self._device = optional_text(parameters.get("device"), "device")
        self._on_row = parameters.get("on_row")
        self._on_progress = parameters.get("on_progress")
        against: Any = parameters.get("against")
        self._old = Card.read(against) if isinstance(against, str | Path) else against
        if not isinstance(self._old, Card | None):
            raise LMStudioValueError(f"against must be a Card or its file; got {against!r}")
        self._prompt_left, self._predicted_left = TOKENS_QUICK if self._quick else TOKENS
        self._reasons_anyway = False

    def run(self) -> Flow[Card]:
        began = datetime.now(UTC)
        model = yield from choose(self._context, self._name, self._device)
        try:
            yield from self._check_drafts()
            described, info = yield from describe(model)
            if self._old and self._old.model.key != described.key:
                raise LMStudioValueError(
                    f"the earlier card is of {self._old.model.key!r}, not of {described.key!r}; compare cards of one "
                    "model"
                )
            card = Card(
                measured_at=began.isoformat(timespec="seconds"),
                client=__version__,
                model=described,
                model_changes=tuple(described.differences(self._old.model)) if self._old else (),
                quick=self._quick,
            )
            card = yield from self._measure_all(card, model, info)
            if self._old:
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
            cases, asked, began = self._cases(row), 0, time.perf_counter()
            examiner = Examiner(
                row,
                model,
                info,
                min(row.prompt_tokens, self._prompt_left),
                min(row.predicted_tokens, self._predicted_left),
                drafts=self._drafts,
            )
            missing = row.missing(info)
            try:
                for case in () if missing else cases:
                    yield from call_back("on_progress", self._on_progress, row.name, (done + asked) / total)
                    yield from self._ask(case, examiner)
                    asked += 1
            except OutOfTokensError:
                pass
            finally:  # also what an interrupted row has
                done += len(cases)
                self._prompt_left -= examiner.prompt_tokens
                self._predicted_left -= examiner.predicted_tokens
                summary = row.summarize(examiner.observations) if examiner.observations else Summary("")
                measured = CardRow(
                    name=row.name,
                    summary=summary.text,
                    advice=summary.advice,
                    observations=tuple(examiner.observations),
                    unasked=0 if missing else len(cases) - asked,
                    missing=missing,
                    prompt_tokens=examiner.prompt_tokens,
                    predicted_tokens=examiner.predicted_tokens,
                    seconds=time.perf_counter() - began,
                )
                card = card.model_copy(update={"rows": (*card.rows, measured)})
                yield from call_back("on_row", self._on_row, card)
        return card

    def _compare(self, card: Card, old: Card, model: Model, info: ModelInstanceInfo) -> Flow[Card]:
        """Measure what differs again, until it is confirmed or turns out to be noise."""
        apart: list[RowName] = [row.name for row in self._rows if row.apart]
        comparison = Comparison(old.rows, card.rows, apart, self._asked(card.rows))
        while pending := comparison.undecided():
            for row in self._rows:
                parts = pending.get(row.name, set())
                if parts:
                    yield from call_back("on_progress", self._on_progress, f"{row.name} again", 1.0)
                    limits = row.prompt_tokens, row.predicted_tokens
                    examiner = Examiner(row, model, info, *limits, comparison.repetitions, self._drafts)
                    with suppress(OutOfTokensError):
                        for case in self._cases(row):
                            if "" in parts or case.part in parts:
                                yield from self._ask(case, examiner)
                    comparison.add(row.name, examiner.observations)
        return card.model_copy(update={"changes": comparison.changes()})

    def _asked(self, measured: Iterable[CardRow]) -> Iterator[tuple[RowName, str]]:
        """Yield the questions that were asked, with the names of their rows."""
        rows = {row.name: row for row in self._rows}
        for each in measured:
            cases = self._cases(rows[each.name])
            for case in cases[: len(cases) - each.unasked]:
                names = [f"draft/{key}" for key in self._drafts] if case.name == "draft" else [case.name]
                for name in names:
                    yield each.name, name

    def _ask(self, case: Case, examiner: Examiner) -> Flow[None]:
        """Ask one question; what a server cannot do at all is an observation, too.

        Raises:
            LMStudioError: If nothing more can be asked: the model is gone, or the connection.
            OutOfTokensError: If the row has used up its tokens.
        """
        examiner.reasons_anyway = self._reasons_anyway
        try:
            yield from case.ask(examiner)
        except OF_THE_INSTANCE:
            raise
        except LMStudioServerError as error:
            outcome = "does not fit" if isinstance(error, LMStudioContextOverflowError) else "rejected"
            observed = sum((each.kind, each.case) == ("verdict", case.name) for each in examiner.observations)
            for _ in range(observed, case.verdicts):
                examiner.failure(case.name, outcome, str(error))
        self._reasons_anyway = examiner.reasons_anyway

    def _check_drafts(self) -> Flow[None]:
        """Reject a draft model that there is not, before minutes of measuring."""
        downloaded = (yield from list_downloaded(Operation(self._context), "llm")) if self._drafts else []
        keys = [info.model_key for info in downloaded]
        for draft in self._drafts:
            if draft not in keys:
                raise LMStudioValueError(f"no draft model {draft!r} is downloaded; {explain_unknown_name(draft, keys)}")

    def _cases(self, row: Row) -> Sequence[Case]:
        return row.cases[:: QUICK if self._quick else 1]
