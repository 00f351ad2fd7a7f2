"""What a prediction yields: its events while it runs, its result and statistics at the end.

See docs/protocol.md#predict-packets, docs/protocol.md#fragments and docs/protocol.md#prediction-stats. A token is an
event, so events are plain slotted classes; statistics come once and are pydantic models. `PredictionEvent` has
their table; how packets become events is in `protocol/prediction.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

import lmstudio_integrations as lms
from lmstudio_integrations._support.leaves import door
from lmstudio_integrations._support.suggestions import reason_of
from lmstudio_integrations._support.text import beginning, dumps
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.errors import LMStudioProtocolError
from lmstudio_integrations.types._wire_model import WireModel
from lmstudio_integrations.types.config import LlmLoadModelConfig, LlmPredictionConfig
from lmstudio_integrations.types.functions import ToolCallRequest
from lmstudio_integrations.types.models import LlmInstanceInfo
from lmstudio_integrations.types.reasoning import Thought
from lmstudio_integrations.types.structured import read_as

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=WireModel)

_FINISH_REASONS = {
    "eosFound": "stop",
    "stopStringFound": "stop",
    "toolCalls": "tool_calls",
    "maxPredictedTokensReached": "length",
    "contextLengthReached": "length",
}
"""The stop reasons in OpenAI's words; others, such as `userStopped` and `repetition`, stay as they are."""

_NORMALIZED = {
    "eosFound": "stop",
    "stopStringFound": "stop",
    "toolCalls": "tool_call",
    "maxPredictedTokensReached": "length",
    "contextLengthReached": "context_exceeded",
    "failed": "error",
    "modelUnloaded": "error",
}
"""The stop reasons in words that mean the same for every provider of LangChain; all others are `other`."""


@dataclass(slots=True)
class LlmPredictionFragment:
    """A fragment of text, usually one token.

    Attributes:
        content: The text.
        tokens_count: How many tokens it has, approximately.
        contains_drafted: Whether a draft model proposed part of it.
        reasoning_type: `none` for the response; `reasoning`, `reasoningStartTag`, `reasoningEndTag` for reasoning.
        is_structural: Whether it is markup between the parts rather than content.
        tokens: Each token with text, id and log-probability, if `log_probs` was set.
    """

    kind: ClassVar[Literal["text"]] = "text"
    content: str
    tokens_count: int = 1
    contains_drafted: bool = False
    reasoning_type: str = "none"
    is_structural: bool = False
    tokens: list[dict[str, Any]] | None = None

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LlmPredictionFragment":
        """Build the fragment from its wire form."""
        return _fragments().validate_python(data)

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form: camelCase keys, without `tokens` if there are none."""
        members: dict[str, Any] = {
            "content": self.content,
            "tokensCount": self.tokens_count,
            "containsDrafted": self.contains_drafted,
            "reasoningType": self.reasoning_type,
            "isStructural": self.is_structural,
        }
        return members if self.tokens is None else {**members, "tokens": self.tokens}

    def to_json(self) -> str:
        """Return the wire form as JSON text."""
        return dumps(self.to_dict())


@dataclass(slots=True)
class PromptProgress:
    """How much of the prompt has been processed.

    Attributes:
        progress: 0.0 to 1.0.
        details: Token counts (`totalPromptTokenCount`, `cachedTokenCount`, …), if the server sent them.
    """

    kind: ClassVar[Literal["progress"]] = "progress"
    progress: float
    details: dict[str, int] | None = None


@dataclass(slots=True)
class ToolCallStart:
    """The model begins a tool call.

    Attributes:
        id: The identifier of the call.
        arguments_format: `json` if the server promises that the fragments of the arguments are JSON; otherwise that is
            not known (docs/protocol.md#predict-packets).
    """

    kind: ClassVar[Literal["call"]] = "call"
    id: str | None = None
    arguments_format: str | None = None


@dataclass(slots=True)
class ToolCallName:
    """The name of the tool that is being called."""

    kind: ClassVar[Literal["call"]] = "call"
    name: str


@dataclass(slots=True)
class ToolCallArguments:
    """A fragment of the arguments, as the model writes them; see `ToolCallStart.arguments_format`."""

    kind: ClassVar[Literal["call"]] = "call"
    content: str


@dataclass(slots=True)
class ToolCallEnd:
    """A tool call is complete.

    Attributes:
        id: Its identifier.
        name: The name of the tool.
        arguments: The arguments, parsed.
        raw_content: What the model wrote.
        confidence: How sure the model was of each argument, if `log_probs` was set and the call was made by grammar or
            read from the text: others have no tokens. See `docs/guides/confidence.md`.
    """

    kind: ClassVar[Literal["call"]] = "call"
    id: str | None
    name: str
    arguments: dict[str, Any] | None = None
    raw_content: str | None = None
    confidence: "dict[str, lms.FieldConfidence] | None" = None

    def to_request(self) -> ToolCallRequest:
        """Return the call as a part of a chat."""
        return ToolCallRequest(name=self.name, id=self.id, arguments=self.arguments or {})


@dataclass(slots=True)
class ToolCallFailed:
    """The server could not parse a tool call. `error` is its error object (docs/protocol.md#errors)."""

    kind: ClassVar[Literal["call"]] = "call"
    error: Mapping[str, Any]
    raw_content: str | None = None


@dataclass(slots=True)
class ToolCallRecord:
    """What was received of one tool call. Without `end` and `failure` it was cut off, or given up for the next one.

    Attributes:
        id: The id in the first packet of the call; `None` if the server sent none.
        name: The name of the tool, once it was received.
        fragments: The arguments as the model wrote them.
        end: The complete call.
        failure: The server's error, if it could not parse the call.
    """

    id: str | None = None
    name: str | None = None
    fragments: list[str] = field(default_factory=list[str])
    end: ToolCallEnd | None = None
    failure: ToolCallFailed | None = None


@dataclass(slots=True)
class PredictionEnd:
    """The last event: statistics, model and configurations, in wire form, and the host that responded."""

    kind: ClassVar[Literal["end"]] = "end"
    stats: dict[str, Any]
    model_info: dict[str, Any]
    load_model_config: dict[str, Any]
    prediction_config: dict[str, Any]
    host: str | None = None

    @property
    def has_stats(self) -> bool:
        """Whether the server has sent statistics, of which the stop reason is the essential one."""
        return "stopReason" in self.stats

    @property
    def stop_reason(self) -> str:
        """Why the prediction ended, in the server's word; `unknown` if it sent none."""
        return str(self.stats.get("stopReason") or "unknown")

    @property
    def is_interrupted(self) -> bool:
        """Whether the prediction did not come to an end of its own."""
        return self.stats.get("stopReason") in {"userStopped", "repetition", "failed", "modelUnloaded"}


ToolCallEvent = ToolCallStart | ToolCallName | ToolCallArguments | ToolCallEnd | ToolCallFailed
"""What a tool call consists of."""

PredictionEvent = PromptProgress | LlmPredictionFragment | ToolCallEvent | PredictionEnd
"""What a prediction yields.

Each event says by its `kind` what it is. A reader that asks for the kind knows what to do with an event that it does
not know:

| `kind` | About | Without more knowledge, a reader | After it was delivered, a failed request |
|---|---|---|---|
| `progress` | the request: nothing of the response | passes it on at once, or leaves it out | is repeated |
| `text` | the response, or by its `reasoning_type` a thought | treats it like other text | is not repeated |
| `call` | a tool call, from its start to its end | keeps it with that call | is not repeated |
| `end` | the whole, and comes last | reads nothing after it | has ended |
"""


class LlmPredictionStats(WireModel):
    """Statistics of one prediction.

    Times are in seconds, counts in tokens. The total is prompt plus predicted tokens; the end-of-sequence token counts
    as predicted. What the server did not measure is `None`. `total_time_sec` is as the server measured it: that of some
    begins with the first token. Where several predictions are summed, it has the time to the first token of each. The
    client adds `model_load_time_sec`, the time that the
    call waited for the model if it loaded it; `dropped_tokens`, the tokens of the prompt that the server did not read
    (see `check_context`); `predictions_count`, if the response took several predictions, whose tokens are summed (see
    `tools_first`, `think_first` and `required_tool_fallback`); `rescued_tool_calls`, the calls that were found in the
    text; `repaired_tool_calls`, of each call that was mended what was `sent`, and the `name` and `arguments` that it
    was `replaced_by`, or `None` if the model was asked for them in vain; `forced_by_grammar`, if a required call was
    requested by grammar; `repetition_start`, the character of the text, the reasoning or the tool calls (names and
    arguments) at which one block begins to repeat, if the stop reason is `repetition` (see `stop_on_repetition`);
    `structured_from`, which is `reasoning` if the server took a response in the requested format for reasoning; and
    `reasoning_replay`, what the chat template does with the earlier reasoning that the conversation has
    (`ReasoningReplay.by_place`).
    """

    stop_reason: str = "unknown"
    stop_string: str | None = None
    tokens_per_second: float | None = None
    num_gpu_layers: int | float | None = None
    time_to_first_token_sec: float | None = None
    total_time_sec: float | None = None
    model_load_time_sec: float | None = None
    prompt_tokens_count: int | None = None
    predicted_tokens_count: int | None = None
    total_tokens_count: int | None = None
    used_draft_model_key: str | None = None
    total_draft_tokens_count: int | None = None
    accepted_draft_tokens_count: int | None = None
    rejected_draft_tokens_count: int | None = None
    ignored_draft_tokens_count: int | None = None
    dropped_tokens: int | None = None
    predictions_count: int | None = None
    rescued_tool_calls: int | None = None
    repaired_tool_calls: list[dict[str, Any]] | None = None
    forced_by_grammar: bool | None = None
    repetition_start: int | None = None
    structured_from: str | None = None
    reasoning_replay: dict[str, str] | None = None


@dataclass(frozen=True, repr=False)
class PredictionResult:
    """A finished prediction; `str()` of it is the response, structured output as indented JSON.

    Attributes:
        content: The response, without reasoning.
        reasoning_content: The reasoning, without its tags.
        parsed: The response as a dict, if structured output was requested and it is a JSON object; otherwise `content`.
            It is not validated; `parsed_as` does that.
        structured: Whether `parsed` is a dict.
        tool_call_requests: The complete tool calls.
        end: The last event, in wire form.
        tool_calls: Every tool call that the model began, in order.
        raw_content: Everything that the model wrote, reasoning and tags included.
        tokens: The tokens of response and reasoning, each with text, id and log-probability, if `log_probs` was set.
        response_tokens: Those of the response alone.
        cached_tokens: Tokens of the prompt that the server took from its cache; `None` if it did not report them.
        reasoning_tokens: About how many tokens were reasoning, its tags included.
        thoughts: The reasoning with its tags, and where in the response it was: what a chat keeps to send it again.
    """

    content: str
    reasoning_content: str
    end: PredictionEnd
    parsed: Any = None
    structured: bool = False
    tool_call_requests: tuple[ToolCallRequest, ...] = ()
    tool_calls: tuple[ToolCallRecord, ...] = field(default=(), repr=False)
    raw_content: str = field(default="", repr=False)
    tokens: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    response_tokens: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    cached_tokens: int | None = None
    reasoning_tokens: int = 0
    thoughts: tuple[Thought, ...] = field(default=(), repr=False)

    @cached_property
    def stats(self) -> LlmPredictionStats:
        """The statistics of the prediction."""
        return _read(LlmPredictionStats, self.end.stats)

    @cached_property
    def model_info(self) -> LlmInstanceInfo:
        """The instance that generated it."""
        return _read(LlmInstanceInfo, self.end.model_info)

    @cached_property
    def load_config(self) -> LlmLoadModelConfig:
        """The configuration that the instance was loaded with."""
        return LlmLoadModelConfig.from_fields(settings_by_key(self.end.load_model_config))

    @cached_property
    def prediction_config(self) -> LlmPredictionConfig:
        """The configuration of the prediction."""
        return LlmPredictionConfig.from_fields(settings_by_key(self.end.prediction_config))

    @cached_property
    def confidence(self) -> "dict[str, lms.FieldConfidence] | None":
        """How sure the model was of each field of a JSON response, or of each argument of the first tool call.

        It is by the path of the field, such as `items[0].price`; see `docs/guides/confidence.md`. `None` if `log_probs`
        was not set, the response is not JSON, or the server sent no tokens of it, as of tool calls.
        """
        ends = [call.end for call in self.tool_calls if call.end]
        if ends:
            return ends[0].confidence
        structured = settings_by_key(self.end.prediction_config).get("llm.prediction.structured")
        schema = structured.get("jsonSchema") if is_object(structured) else None
        tokens = self.response_tokens
        if not tokens:
            return None
        with door("confidence"):
            from lmstudio_integrations.types.confidence import confidence_of  # noqa: PLC0415 - a leaf
        return confidence_of(self.content, tokens, schema)

    def parsed_as(self, model: type[T]) -> T:
        """Return the response as an instance of a type, for example of the class that was the `response_format`.

        Args:
            model: A pydantic class, or another type that pydantic validates: a dataclass, a `TypedDict`, `list[int]`.

        Raises:
            LMStudioStructuredOutputError: If the response does not match, for example because it was cut off. Its
                `text` is the response.
            LMStudioValueError: If pydantic cannot validate the type.
        """
        return read_as(model, self.content, self.end.stop_reason, self.reasoning_content)

    def __repr__(self) -> str:
        stop_reason = self.end.stats.get("stopReason")
        return f"{type(self).__name__}(content={beginning(self.content)}, stop_reason={stop_reason!r})"

    def __str__(self) -> str:
        return (
            json.dumps(self.parsed, indent=2, sort_keys=True, ensure_ascii=False) if self.structured else self.content
        )


@dataclass(frozen=True, repr=False)
class PredictionRoundResult(PredictionResult):
    """A finished prediction of the tool loop. `round_index` counts from 0."""

    round_index: int = 0

    @classmethod
    def of(cls, result: PredictionResult, round_index: int) -> Self:
        """Return a result with its round."""
        return cls(**{each.name: getattr(result, each.name) for each in fields(result)}, round_index=round_index)


def finish_reason(result: PredictionResult) -> str | None:
    """Return why a prediction ended, in OpenAI's words; a turn with tool calls may end like any other."""
    stop_reason = result.end.stats.get("stopReason")
    if result.tool_call_requests and stop_reason == "eosFound":
        return "tool_calls"
    return _FINISH_REASONS.get(str(stop_reason), stop_reason)


def normalized_finish_reason(result: PredictionResult) -> str | None:
    """Return why a prediction ended, in a word that means the same for every provider; `None` if that is not known."""
    stop_reason = result.end.stats.get("stopReason")
    normalized = None if stop_reason is None else _NORMALIZED.get(str(stop_reason), "other")
    return "tool_call" if normalized == "stop" and result.tool_call_requests else normalized


def _read(kind: type[ModelT], data: Mapping[str, Any]) -> ModelT:
    try:
        return kind.from_dict(data)
    except ValidationError as error:
        raise LMStudioProtocolError(f"the server sent a malformed {kind.__name__}: {reason_of(error)}") from error


@cache
def _fragments() -> TypeAdapter[LlmPredictionFragment]:
    return TypeAdapter(LlmPredictionFragment)


def settings_by_key(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a server has reported, by their wire keys."""
    fields = config.get("fields")
    return {
        field["key"]: field.get("value")
        for field in (fields if is_list(fields) else ())
        if is_object(field) and isinstance(field.get("key"), str)
    }
