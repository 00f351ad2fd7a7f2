"""The rules of a scripted model: when one applies, and the steps that the model then performs.

A rule is written in Python or in TOML, with the same names. This module checks and matches rules; `playback` performs
the steps. A rule for a reranker applies by the text alone: the query and the instruction, which are the same for all
texts, would match for each of them.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from itertools import chain, pairwise
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import ConfigDict, Field, ValidationError, field_validator

from lmstudio_integrations._support.leaves import door
from lmstudio_integrations._support.secrets import without_secrets
from lmstudio_integrations._support.suggestions import explain_unknown_name
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.engines.base import FaultKind, GenerateRequest
from lmstudio_integrations.emulator.engines.scripted.error_codes import MEMBERS
from lmstudio_integrations.emulator.engines.scripted.schema import Pattern, PatternError
from lmstudio_integrations.emulator.engines.scripted.words import message_text
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._wire_model import ExplainedModel
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.functions import Tool, ToolCallRequestPart

logger: logging.Logger = logging.getLogger(__name__)

_LAST = "{last}"

_LOOP = 10
"""How often in a row a rule applies to results of tools until it is said once that this may be a loop."""

_ADVICE = "if an agent loops, end it with a rule whose when has round, or limit this one with times"

ANY_TOOL = "*"
"""Stands for any tool that is offered."""


class _Part(ExplainedModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, frozen=True)


_PartT = TypeVar("_PartT", bound=_Part)


_compiled = lru_cache(maxsize=256)(Pattern)


class When(_Part):
    """The conditions of a rule; those that are not set always hold.

    Attributes:
        last: A regular expression that matches somewhere in the last message, in the syntax of Rust's `regex`: without
            look-around and back-references, so that no message takes long to search. Only the first 1,000,000
            characters of a message are searched. In the prompt of a reranker, the last message is the text.
        role: Who wrote the last message. Without it, `round` and `times`, a rule that calls a tool does not apply to
            a tool's result if it fits the user's message, too: a tool often repeats words of the question.
        tools: Names of tools that must all be offered; `*` stands for any.
        structured: Whether JSON or a grammar is requested. Where JSON or a tool call is required, a rule that writes
            other text applies only if it has this condition, or `last` for a message of the user.
        image: Whether the last user message contains a file.
        round: The number of the model's turn since the last user message, counted from 1; for a load, the attempt.
        times: How often the rule applies at most, as long as the server runs; for a load, see `round`.
        late_system: Whether a system message comes after another message, which many templates reject.
        load: Whether the model is being loaded. A rule without it never applies to a load, a rule with it to
            nothing else.
    """

    last: str | None = None
    role: Literal["user", "tool"] | None = None
    tools: list[str] | None = None
    structured: bool | None = None
    image: bool | None = None
    round: Annotated[int, Field(ge=1)] | None = None
    times: Annotated[int, Field(ge=1)] | None = None
    late_system: bool | None = None
    load: bool = False

    @field_validator("last")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            _compiled(pattern or "")
        except PatternError as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    def matches(self, situation: "Situation") -> bool:
        """Return whether all conditions hold."""
        return (
            self.load == situation.load
            and (self.last is None or _compiled(self.last).is_found_in(situation.last))
            and self.role in {None, situation.role}
            and situation.tools.issuperset(self.tools or ())
            and self.structured in {None, situation.structured}
            and self.image in {None, situation.image}
            and self.round in {None, situation.round}
            and self.late_system in {None, situation.late_system}
        )


class Text(_Part):
    """The model writes text; `{last}` stands for the last message, here and in every other step."""

    text: str


class Reasoning(_Part):
    """The model writes reasoning, between the tags of the settings."""

    reasoning: str


class ToolCall(_Part):
    """The model calls a tool.

    Attributes:
        tool: Its name; `*` calls the first one that was not called since the user's message, with the smallest valid
            arguments, whose texts are the last capitalized word within the last message, or that message.
        arguments: Its arguments.
        id: The call's identifier; generated if not given.
        malformed: What the model writes instead of the arguments, so that the call cannot be parsed.
    """

    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict[str, Any])
    id: str | None = None
    malformed: str | None = None


class Relevance(_Part):
    """The model says `yes` or `no` as a reranker does.

    Attributes:
        relevance: The probability of `yes`, from 0 to 1, which is the score of the text; that of `no` is the rest.
    """

    relevance: Annotated[float, Field(ge=0, le=1)]

    @property
    def probabilities(self) -> dict[str, float]:
        """Those of both words."""
        return {"yes": self.relevance, "no": 1 - self.relevance}


class Probabilities(_Part):
    """The model writes one word, the most probable one.

    Attributes:
        probabilities: Those of the words that it might write.
    """

    probabilities: Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]


class Answers(_Part):
    """A decision model answers questions.

    Attributes:
        answers: Probabilities by the id of a question: that of yes, or those of some options, of which the others share
            what is left. Other questions are answered as without a rule.
    """

    answers: dict[str, float | dict[str, float]]


class Error(_Part):
    """The prediction, or the load, fails.

    Attributes:
        error: The title.
        code: One of docs/protocol.md#error-codes.
        cause: The reason behind it.
        suggestion: What would help.
        data: Members beside the code; those not given have harmless values.
        status: The HTTP status with which the questions to a decision model fail. 200 and 404 are those of servers that
            answer no questions: LM Studio reports an unknown path with 200 and an error.
    """

    error: str
    code: str | None = None
    cause: str | None = None
    suggestion: str | None = None
    data: dict[str, Any] = Field(default_factory=dict[str, Any])
    status: Annotated[int, Field(ge=200, le=599)] | None = None

    @field_validator("code")
    @classmethod
    def _check_code(cls, code: str | None) -> str | None:
        if code is not None and code not in MEMBERS:
            raise ValueError(f"no such code{_nearest(code, MEMBERS)}")
        return code


PromptFault: TypeAlias = Literal["truncate", "empty", "template"]
"""Faults that happen when the prompt is read."""


class InjectFault(_Part):
    """The connection or the model breaks, or the model does not read its prompt as it should.

    Attributes:
        fault: `drop`, `half_close`, `corrupt` and `unknown_packet` as in `base.Fault`; `stall`: nothing more is sent
            until the client cancels; `crash`: the model's process dies; `engine_exit`: that of its engine does, which
            newer servers report in other words; `out_of_memory`: a load fails. Wherever they stand among the steps,
            `truncate`: of a prompt that does not fit, as much as fits is read, whatever the policy, and nobody is told;
            `empty`: a prompt that does not fit gets an empty response; `template`: the model's template rejects the
            messages, in `applyPromptTemplate` as well.
        packet: The number of packets of the prediction after which it happens, instead of at this place among the
            steps; at the latest before the success packet.
        exit_code: The exit code of a crash.
        stop_reason: The stop reason of an empty response.
    """

    fault: Literal[FaultKind, PromptFault, "stall", "crash", "engine_exit", "out_of_memory"]
    packet: Annotated[int, Field(ge=0)] | None = None
    exit_code: int = 139
    stop_reason: Literal["contextLengthReached", "eosFound"] = "eosFound"


class Wait(_Part):
    """The model does nothing for this many seconds."""

    wait: Annotated[float, Field(ge=0)]


_FAULTS_OF_MODELS = frozenset({"stall", "crash", "engine_exit", "out_of_memory"})

Step: TypeAlias = Text | Reasoning | ToolCall | Relevance | Probabilities | Answers | Error | InjectFault | Wait

_STEPS: dict[str, type[Step]] = {
    "text": Text,
    "reasoning": Reasoning,
    "tool": ToolCall,
    "relevance": Relevance,
    "probabilities": Probabilities,
    "answers": Answers,
    "error": Error,
    "fault": InjectFault,
    "wait": Wait,
}


class Rule:
    """When all conditions in `when` hold, the model performs the steps in `then`, in order.

    Args:
        when: The conditions; without any, the rule applies to every request.
        then: The steps, or the text of the response; without any, the response is empty.

    Raises:
        LMStudioValueError: If a name is unknown (a similar one is suggested) or a value is invalid.
    """

    def __init__(
        self, when: When | Mapping[str, Any] | None = None, then: Iterable[Step | Mapping[str, Any] | str] = ()
    ) -> None:
        self.when: When = when if isinstance(when, When) else _build(When, when or {}, "when")
        steps = [then] if isinstance(then, str) else then
        self.then: tuple[Step, ...] = tuple(_step(step, f"then[{index}]") for index, step in enumerate(steps))
        if self.when.load:
            self.require_no_output("a model that is being loaded")

    def require_no_output(self, who: str, *others: type[Step]) -> None:
        """Reject steps that only a prediction can perform, but for some others.

        Raises:
            LMStudioValueError: Naming the first such step.
        """
        for step in self.then:
            if isinstance(step, (Wait, Error, *others)) or (
                isinstance(step, InjectFault) and step.packet is None and step.fault in _FAULTS_OF_MODELS
            ):
                continue
            can = ", ".join(["wait", "fail", "stall or crash", *(f"give {each.__name__.lower()}" for each in others)])
            raise LMStudioValueError(f"{who} can {can}, but not do {step!r}")

    def check_kind(self, kind: ModelKind) -> None:
        """Reject steps that a model of this kind cannot perform.

        Raises:
            LMStudioValueError: Naming one.
        """
        if kind != "decision" and any(isinstance(step, Error) and step.status for step in self.then):
            raise LMStudioValueError(
                'only a decision model is asked over HTTP; leave out status, or set kind = "decision"'
            )
        if kind == "embedding":
            self.require_no_output("an embedding model")
        elif kind == "decision":
            self.require_no_output("a decision model", Answers)
        elif any(isinstance(step, Answers) for step in self.then):
            raise LMStudioValueError('only a decision model gives answers; set kind = "decision"')

    @classmethod
    def parse(cls, value: "Rule | Mapping[str, Any]") -> "Rule":
        """Accept a rule, or its form in TOML: `{when = {…}, then = [{…}, …]}`, or `then = "…"`."""
        if isinstance(value, Rule):
            return value
        if not is_object(value):
            raise LMStudioValueError(f"a rule must be a table with when and then, got {value!r}")
        unknown = next((name for name in value if name not in {"when", "then"}), None)
        if unknown is not None:
            raise LMStudioValueError(f"unknown key {unknown!r}{_nearest(unknown, ('when', 'then'))}")
        when, then = value.get("when", {}), value.get("then")
        if not (isinstance(when, When) or is_object(when)):
            raise LMStudioValueError(f"when must be a table of conditions, got {when!r}")
        if not (is_list(then) or isinstance(then, str)):
            raise LMStudioValueError(
                f'then must be a text or a list of steps, such as [{{"text": "Hello"}}]; got {then!r}'
            )
        return cls(when, then)

    def applies_to(self, situation: "Situation") -> bool:
        """Return whether all conditions hold, and the steps are what is requested."""
        return self.when.matches(situation) and not self._repeats_its_call(situation) and self._serves(situation)

    def _repeats_its_call(self, situation: "Situation") -> bool:
        """Whether it calls a tool for the user's message, and now fits a result of a tool by chance."""
        when = self.when
        is_bound = when == When() or when.role or when.round or when.times
        if situation.question is None or is_bound or not any(isinstance(step, ToolCall) for step in self.then):
            return False
        return when.matches(replace(situation, last=situation.question))

    def _serves(self, situation: "Situation") -> bool:
        """Whether it writes what is required, or its text is meant for this message or this kind of request."""
        is_meant = self.when.structured is not None or (self.when.last is not None and situation.role != "tool")
        writes = all(isinstance(step, Text | Reasoning | Wait) for step in self.then)
        if is_meant or not writes or not (situation.required or situation.json):
            return True
        text = "".join(step.text for step in self.steps(situation.last) if isinstance(step, Text))
        return not text or (not situation.required and _is_json(text))

    def steps(self, last: str) -> tuple[Step, ...]:
        """Return the steps, with `{last}` replaced by the last message."""
        return tuple(
            step.model_copy(update={name: _fill(getattr(step, name), last) for name in step.model_fields_set})
            for step in self.then
        )

    def __repr__(self) -> str:
        return f"Rule(when={self.when!r}, then={list(self.then)!r})"


def parse_rules(values: Sequence[Rule | Mapping[str, Any]], kind: ModelKind = "llm") -> tuple[Rule, ...]:
    """Check the rules of a model of this kind.

    Raises:
        LMStudioValueError: Naming the rule, counted from 1, and what is wrong with it.
    """
    if not isinstance(values, list | tuple):
        raise LMStudioValueError(f"rules must be a list of tables, got {values!r}")
    return tuple(_parse_rule(value, number, kind) for number, value in enumerate(values, 1))


def _parse_rule(value: Rule | Mapping[str, Any], number: int, kind: ModelKind) -> Rule:
    try:
        rule = Rule.parse(value)
        rule.check_kind(kind)
    except LMStudioValueError as error:
        raise LMStudioValueError(f"rule {number}: {error}") from None
    return rule


def _step(value: Step | Mapping[str, Any] | str, place: str) -> Step:
    if isinstance(value, str):
        return Text(text=value)
    if isinstance(value, _Part):
        return value
    if not is_object(value):
        raise LMStudioValueError(f"{place} must be a text or a table, got {value!r}")
    kinds = [name for name in _STEPS if name in value]
    if len(kinds) != 1:
        names = f"both {kinds[0]!r} and {kinds[1]!r}" if kinds else "none of them"
        guess = next((_nearest(str(name), _STEPS) for name in value), "")
        raise LMStudioValueError(
            f"{place} needs exactly one of {', '.join(_STEPS)}, and has {names}{'' if kinds else guess}"
        )
    return _build(_STEPS[kinds[0]], value, place)


def _build(kind: type[_PartT], value: Mapping[str, Any], place: str) -> _PartT:
    for name in value:
        if name not in kind.model_fields:
            raise LMStudioValueError(f"{place}: unknown key {name!r}{_nearest(name, kind.model_fields)}")
    try:
        return kind.model_validate(dict(value))
    except ValidationError as error:
        shown = without_secrets(error)
    problem = shown.errors(include_url=False)[0]
    where = ".".join([place, *(str(part) for part in problem["loc"])])
    raise LMStudioValueError(f"{where}={problem['input']!r}: {problem['msg']}")


def _nearest(name: str, names: Iterable[str]) -> str:
    return f"; {explain_unknown_name(name, list(names))}"


Word: TypeAlias = Callable[[Sequence[Rule]], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Situation:
    """What the conditions of a rule are checked against.

    Attributes:
        word: Returns the probabilities of the word that answers a raw prompt, with the rules of the model.
        question: The user's message, where the last one is the result of a tool.
        called: The tools that were called since.
    """

    last: str = ""
    question: str | None = None
    called: frozenset[str] = frozenset()
    word: Word | None = None
    role: str = "user"
    tools: frozenset[str] = frozenset()
    required: bool = False
    structured: bool = False
    json: bool = False
    image: bool = False
    round: int = 1
    late_system: bool = False
    load: bool = False

    @classmethod
    def of(cls, request: GenerateRequest) -> "Situation":
        """Describe a request. A raw prompt counts as a user message, that of a reranker as its text."""
        form = (request.config.structured or {}).get("type")
        names = frozenset(tool.function.name for tool in offered(request))
        requested = cls(
            tools=names | {ANY_TOOL} if names else names,
            required=request.tool_choice == "required",
            structured=form in {"json", "gbnf"},
            json=form == "json",
        )
        if request.history is None:
            last, word = request.prompt or "", None
            with suppress(ImportError):
                last, word = scripted_decisions().read_prompt(last)
            return replace(requested, last=last, word=word)
        messages = request.history.messages
        users = [index for index, message in enumerate(messages) if message.role == "user"]
        turn = messages[users[-1] :] if users else messages
        role = messages[-1].role if messages else "user"
        parts = chain.from_iterable(message.content for message in turn)
        return replace(
            requested,
            last=message_text(messages[-1]) if messages else "",
            question=message_text(turn[0]) if users and role == "tool" else None,
            called=frozenset(part.tool_call_request.name for part in parts if isinstance(part, ToolCallRequestPart)),
            role=role,
            image=bool(users) and any(isinstance(part, FileHandle) for part in turn[0].content),
            round=1 + sum(before != "tool" == after for before, after in pairwise(message.role for message in turn)),
            late_system=any(message.role == "system" for message in messages[1:]),
        )


def offered(request: GenerateRequest) -> Sequence[Tool]:
    """Return the tools that the model may call."""
    return () if request.tool_choice == "none" else request.tools


class AppliedRules:
    """How often each rule of a model has applied, and the last one in a row.

    Args:
        model: The key of the model.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self.counts: Counter[int] = Counter()
        self._row: tuple[int | None, int] = (None, 0)
        self._is_logged = False

    def add(self, place: int | None, situation: Situation) -> None:
        """Add that a rule applies, or none. Log once that a conversation seems to loop."""
        if place is not None:
            self.counts[place] += 1
        before = self._row[1] if self._row[0] == place else 0
        self._row = (place, 0 if situation.question is None else before + 1)
        if self._row[1] == _LOOP and not self._is_logged:
            self._is_logged = True
            name = "no rule" if place is None else f"rule {place + 1}"
            logger.warning("%r: %s applied to %d results of tools in a row; %s", self._model, name, _LOOP, _ADVICE)


def first_match(rules: Sequence[Rule], situation: Situation, applied: AppliedRules | None = None) -> Rule | None:
    """Return the first rule that applies.

    Args:
        rules: The rules.
        situation: What their conditions are checked against.
        applied: How often each rule has applied; this time is added. Without it, that does not count.
    """
    fitting = ((place, rule) for place, rule in enumerate(rules) if rule.applies_to(situation))
    if applied is None:
        return next((rule for _, rule in fitting), None)
    allowed = (each for each in fitting if (most := each[1].when.times) is None or applied.counts[each[0]] < most)
    place, rule = next(allowed, (None, None))
    applied.add(place, situation)
    return rule


def _fill(value: Any, last: str) -> Any:
    if isinstance(value, str):
        return value.replace(_LAST, last)
    if is_object(value):
        return {name: _fill(member, last) for name, member in value.items()}
    if is_list(value):
        return [_fill(item, last) for item in value]
    return value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def scripted_decisions() -> Any:
    """Return the module that answers like decision models and rerankers.

    Raises:
        ImportError: It is not in this copy.
    """
    with door("decisions and rerankers"):
        decisions: Any = import_module("lmstudio_integrations.emulator.engines.scripted.decisions")
    return decisions
