"""The card of a model: what it was asked, what came of it, and what has changed since an earlier card.

A card is JSON, so that one that was kept can be compared with a later one. Its schema is
`docs/reference/types/card.schema.json`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import from_json

from lmstudio_integrations._support.environment import regular
from lmstudio_integrations._support.text import counted
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.types._wire_model import ExplainedModel
from lmstudio_integrations.types.config import ModelKind

FORMAT = 1
"""The version of the format; a reader of another version cannot compare the card."""

RowName = Literal[
    "tools",
    "structure",
    "window",
    "reasoning",
    "cache",
    "speed",
    "honesty",
    "embedding",
    "reranking",
    "decisions",
    "vision",
]

Verdict = Literal["worse", "better", "changed", "unclear", "noise", "same"]
"""What became of a measurement: `changed` is neither better nor worse; `noise` differs, and chance explains it;
`unclear` differs, and the earlier card has too few questions to tell."""

TOO_FEW = "none: the earlier card has too few"
"""The smallest change that is seen of a part, if none is."""

Kind = Literal["verdict", "number", "fact"]
"""What an observation is: one of a few outcomes, a measured number, or what does not depend on chance."""

MARGIN = 1.25
"""The factor by which a measured number must have changed: speeds of one machine differ from day to day."""

_WIDTH = 11
"""Columns before what is found."""

_NAMED = 8
"""How many failures are named in a text; the JSON has all."""


class _Part(ExplainedModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Observation(_Part):
    """One thing that was observed.

    Attributes:
        case: What was asked.
        kind: What it is.
        outcome: What came of it, such as `right`, `ignored` or `41.3 tokens/s`.
        score: Of a verdict, 1 if it is as it should be, and less if not. Of a number, the number, or what it is divided
            into 1, so that more is better.
        detail: What the model or the server did instead.
    """

    case: str
    kind: Kind
    outcome: str
    score: float = 0.0
    detail: str = ""

    @property
    def part(self) -> str:
        """The part of the row that it belongs to: what stands before the first slash of the case."""
        return self.case.partition("/")[0]


class CardRow(_Part):
    """One row of a card.

    Attributes:
        name: Its name.
        summary: What was found, in one line.
        advice: What to set, or to do, because of it.
        observations: Everything that was observed.
        unasked: How many cases were not asked, because the row had used up its tokens.
        missing: Why nothing was asked.
        prompt_tokens: The tokens of all prompts.
        predicted_tokens: The tokens of all responses.
        seconds: How long it took.
    """

    name: RowName
    summary: str = ""
    advice: str | None = None
    observations: tuple[Observation, ...] = ()
    unasked: int = 0
    missing: str | None = None
    prompt_tokens: int = 0
    predicted_tokens: int = 0
    seconds: float = 0.0

    @property
    def verdicts(self) -> list[Observation]:
        """Those of its observations that are as they should be, or not."""
        return [each for each in self.observations if each.kind == "verdict"]

    @property
    def failures(self) -> list[Observation]:
        """The verdicts that are not as they should be."""
        return failures_of(self.observations)

    @property
    def share(self) -> float:
        """The share of the verdicts that are as they should be, from 0 to 1.

        Raises:
            LMStudioValueError: If there are none.
        """
        if not self.verdicts:
            raise LMStudioValueError(f"{self.name} was not measured{f': {self.missing}' if self.missing else ''}")
        return 1 - len(self.failures) / len(self.verdicts)


class Change(_Part):
    """A part of a row, beside that of an earlier card.

    Attributes:
        row: The row.
        part: The part of the row; empty if the row is compared as a whole.
        kind: The kind of its observations.
        verdict: Whether it has changed.
        before: What the earlier card has.
        now: What was observed now.
        repetitions: How often it was measured now.
        smallest: The smallest change that so many repetitions can confirm, in words.
    """

    row: RowName
    part: str = ""
    kind: Kind
    verdict: Verdict
    before: str
    now: str
    repetitions: int = 1
    smallest: str = ""

    @property
    def name(self) -> str:
        """The row and the part, in words."""
        return f"{self.row} {self.part}".strip()


class CardModel(_Part):
    """The instance that a card is of, and its server.

    Attributes:
        key: The key of the model.
        identifier: The identifier of the instance.
        kind: `llm` or `embedding`.
        path: Its file.
        format: The format of its file.
        architecture: Its architecture.
        quantization: Its quantization, such as `Q4_K_M`.
        context_length: Its context length, in tokens.
        slots: How many predictions it runs at once; `None` if only its engine knows it.
        load_config: The settings that it was loaded with, by their wire keys, without a configuration file.
        device: The identifier of the linked device that it is on.
        server: The version and build of the server.
        runtime: The engine that runs files of this format, with its version, if the server says it.
        efforts: The efforts of reasoning that it allows, as the server calls them; empty if it does not say them.
        default_effort: Which of them applies by default, if the server says it.
    """

    key: str
    identifier: str
    kind: ModelKind = "llm"
    path: str = ""
    format: str = ""
    architecture: str | None = None
    quantization: str | None = None
    context_length: int
    slots: int | None = 1
    load_config: dict[str, Any] = Field(default_factory=dict[str, Any])
    device: str | None = None
    server: str
    runtime: str | None = None
    efforts: tuple[str, ...] = ()
    default_effort: str | None = None

    def __str__(self) -> str:
        """Return the instance and the server, in one line."""
        quantization = f"{self.quantization}, " if self.quantization else ""
        slots = f", {self.slots} at once" if self.slots else ""
        default = f" (default {self.default_effort})" if self.default_effort else ""
        efforts = f", efforts {', '.join(self.efforts)}{default}" if self.efforts else ""
        return (
            f"{self.key} ({quantization}context {self.context_length:,}{slots}{efforts}) on {self.server}"
            f"{f', {self.runtime}' if self.runtime else ''}"
        )

    def differences(self, other: "CardModel") -> list[str]:
        """Return where this one differs from another, as `name: theirs, now ours`; identifiers aside."""
        ours, theirs = ({**each.model_dump(exclude={"identifier"}), **each.load_config} for each in (self, other))
        del ours["load_config"], theirs["load_config"]
        return [
            f"{name}: {theirs.get(name)}, now {ours.get(name)}"
            for name in {**theirs, **ours}
            if theirs.get(name) != ours.get(name)
        ]


class Card(_Part):
    """What a model can do on a server, measured.

    Attributes:
        format_version: The version of the format.
        measured_at: When, as an ISO date and time in UTC.
        client: The version of this package.
        model: The instance, and its server.
        quick: Whether only a sixth was asked.
        complete: Whether it came to its end.
        rows: The rows.
        changes: What became of each part since the earlier card that it was compared with; `None` without one.
        model_changes: Where the instance or the server differs from those of the earlier card.
    """

    format_version: int = FORMAT
    measured_at: str
    client: str
    model: CardModel
    quick: bool = False
    complete: bool = False
    rows: tuple[CardRow, ...] = ()
    changes: tuple[Change, ...] | None = None
    model_changes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a card that was kept.

        Raises:
            LMStudioOSError: If the file cannot be read.
            LMStudioValueError: If it is no card, or has another format.
        """
        no_card = f"{str(path)!r} is no card of `lmsi certify`"
        try:
            value = from_json(regular(Path(path)).read_bytes())
        except OSError as error:
            raise LMStudioOSError(f"cannot read the card {str(path)!r}: {error.strerror or error}") from error
        except ValueError as error:
            raise LMStudioValueError(no_card) from error
        version = value.get("format_version", FORMAT) if is_object(value) else FORMAT
        if version != FORMAT:
            raise LMStudioValueError(f"{str(path)!r} has format {version}, and this is for {FORMAT}; make it again")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise LMStudioValueError(no_card) from error

    def to_json(self) -> str:
        """Return it as JSON text."""
        return self.model_dump_json(indent=1)

    def __str__(self) -> str:
        """Return it as text: what has changed, if it was compared; otherwise a line for each row, and its advice."""
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """Return the lines of its text. In those, names of the server are as it sent them, also with line breaks."""
        lines = self._rows() if self.changes is None else self._changes(self.changes)
        end = [] if self.complete else ["It was interrupted; the rows so far:"]
        return [str(self.model), *end, *lines]

    def _rows(self) -> Iterable[str]:
        for row in self.rows:
            yield f"{row.name:<{_WIDTH}}{row.missing or row.summary or 'not asked'}"
            if row.unasked:
                why = ": too few tokens were left" if self.complete else ""
                yield f"{'':<{_WIDTH}}{counted(row.unasked, 'question')} not asked{why}"
            if row.failures:
                yield f"{'':<{_WIDTH}}failed: {_names(row.failures)}"
            if row.advice:
                yield f"{'':<{_WIDTH}}advice: {row.advice}"

    def _changes(self, changes: Iterable[Change]) -> Iterable[str]:
        yield from (f"{'differs':<{_WIDTH}}{each}" for each in self.model_changes)
        by_verdict: defaultdict[str, list[Change]] = defaultdict(list)
        for change in changes:
            by_verdict[change.verdict].append(change)
        for verdict in ("worse", "better", "changed", "unclear", "noise"):
            for change in by_verdict[verdict]:
                times = f" (measured {change.repetitions} times)" if change.repetitions > 1 else ""
                yield f"{verdict:<{_WIDTH}}{change.name}: {change.before}, now {change.now}{times}"
        same = dict.fromkeys(change.name for change in by_verdict["same"])
        yield f"{'same':<{_WIDTH}}{', '.join(same) or 'nothing'}"
        unseen = [change.name for change in changes if change.smallest == TOO_FEW]
        if unseen:
            yield f"{'not seen':<{_WIDTH}}{', '.join(unseen)}: the earlier card has too few questions of it"
        smallest = [
            f"{change.name} {change.smallest}"
            for change in changes
            if change.kind == "verdict" and not change.part and change.name not in unseen
        ]
        smallest += ["any other part if all of it fails", f"speeds a factor of {MARGIN:g}"]
        yield f"{'seen from':<{_WIDTH}}{'; '.join(smallest)}"

    def row(self, name: RowName) -> CardRow:
        """Return a row.

        Raises:
            LMStudioValueError: If it was not asked.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise LMStudioValueError(f"the card has no row {name!r}; it has {', '.join(each.name for each in self.rows)}")

    @property
    def worse(self) -> list[Change]:
        """What has become worse since the earlier card."""
        return [change for change in self.changes or () if change.verdict == "worse"]


def _names(observations: Sequence[Observation]) -> str:
    names = list(dict.fromkeys(each.case for each in observations))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def outcomes(observations: Iterable[Observation]) -> str:
    """Return how often each outcome was observed, the most frequent first: `right 37, wrong tool 3`."""
    counts = Counter(each.outcome for each in observations)
    return ", ".join(f"{outcome} {count}" for outcome, count in counts.most_common())


def failures_of(observations: Iterable[Observation]) -> list[Observation]:
    """Return the verdicts that are not as they should be."""
    return [each for each in observations if each.kind == "verdict" and each.score < 1]


def medians(observations: Iterable[Observation]) -> dict[str, Observation]:
    """Return the median of each number, by its case."""
    by_case: defaultdict[str, list[Observation]] = defaultdict(list)
    for each in observations:
        if each.kind == "number":
            by_case[each.case].append(each)
    return {case: sorted(some, key=lambda each: each.score)[len(some) // 2] for case, some in by_case.items()}


def share_text(verdicts: Iterable[Observation]) -> str:
    """Return how many verdicts are as they should be: `37 of 40`."""
    scores = [each.score for each in verdicts]
    return f"{scores.count(1)} of {len(scores)}"
