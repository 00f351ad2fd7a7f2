"""Models on the server: specifiers in requests, and the info that the server reports.

See `docs/protocol.md#model-specifiers` and `docs/protocol.md#model-info`.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from lmstudio_integrations._support.suggestions import reason_of
from lmstudio_integrations._support.text import beginning
from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._config_base import reject_unknown_names
from lmstudio_integrations.types._wire_model import TaggedModel, WireInteger, WireModel, WireNumber


def _check_name(value: str) -> str:
    # LM Studio is JavaScript, where __proto__ is no ordinary key.
    if value == "__proto__" or any(unicodedata.category(character).startswith("C") for character in value):
        raise ValueError(
            "a name must not be __proto__ or contain control, format, private-use or unassigned characters"
        )
    return value


Name = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_check_name)]
"""An identifier or a path in a query."""


class ModelQuery(WireModel):
    """A query for a loaded model. All fields that are set must match; an empty query matches any model."""

    domain: str | None = None
    identifier: Name | None = None
    path: Name | None = None
    vision: bool | None = None
    device_identifier: str | None = None


class QuerySpecifier(TaggedModel):
    """Specify a model by a query. Stays valid when the model is loaded again under the same identifier."""

    type: Literal["query"] = "query"
    query: ModelQuery


class InstanceSpecifier(TaggedModel):
    """Specify one loaded instance. Invalid once the instance is unloaded."""

    type: Literal["instanceReference"] = "instanceReference"
    instance_reference: str


ModelSpecifier = Annotated[QuerySpecifier | InstanceSpecifier, Field(discriminator="type")]
"""Specifies the model of a request."""


@lru_cache(maxsize=256)
def by_identifier(identifier: str) -> QuerySpecifier:
    """Return the specifier of the loaded instance with this identifier.

    Raises:
        LMStudioValueError: If it cannot be the identifier of an instance.
    """
    try:
        return QuerySpecifier(query=ModelQuery.from_dict({"identifier": identifier}))
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise LMStudioValueError(f"{beginning(identifier)} cannot name a model: {reason}") from error


class Quantization(WireModel):
    """How the weights are stored. Not every server says in how many bits."""

    name: str
    bits: WireInteger | None = None


class ModelInfoBase(TaggedModel):
    """The info of a downloaded model, of any kind.

    `size_bytes` is the size on disk, `max_context_length` the longest supported context in tokens.
    A `device_identifier` of `None` means this machine.
    """

    type: str
    model_key: str
    format: str
    display_name: str
    path: str
    size_bytes: WireInteger
    max_context_length: WireInteger
    publisher: str | None = None
    indexed_model_identifier: str | None = None
    device_identifier: str | None = None
    params_string: str | None = None
    architecture: str | None = None
    quantization: Quantization | None = None
    variants: list[str] | None = None
    selected_variant: str | None = None


class _Instance(WireModel):
    """The info of a loaded instance, of any kind.

    `context_length` is the one it was loaded with, in tokens; `ttl_ms` its idle time to live in milliseconds
    (`None`: it is never unloaded); `last_used_time` a Unix time in milliseconds.
    """

    nullable: ClassVar[frozenset[str]] = WireModel.nullable | {"ttl_ms", "last_used_time"}

    identifier: str
    instance_reference: str
    context_length: WireInteger
    ttl_ms: WireNumber | None = None
    last_used_time: WireNumber | None = None


class LlmInfo(ModelInfoBase):
    """A downloaded language model. `vision`: it accepts images. `trained_for_tool_use`: it was trained for tools."""

    type: str = "llm"
    vision: bool = False
    trained_for_tool_use: bool = False


class EmbeddingModelInfo(ModelInfoBase):
    """A downloaded embedding model."""

    type: str = "embedding"


class DecisionModelInfo(ModelInfoBase):
    """A downloaded decision model.

    `decision_type`: what its file says of its kind. `has_vision_adapter`: it sees images. A `max_context_length` of 0
    is not known.
    """

    type: str = "decision"
    max_context_length: WireInteger = 0
    decision_type: str | None = None
    has_vision_adapter: bool = False


class LlmInstanceInfo(LlmInfo, _Instance):
    """A loaded language model."""


class EmbeddingModelInstanceInfo(EmbeddingModelInfo, _Instance):
    """A loaded embedding model."""


class DecisionModelInstanceInfo(DecisionModelInfo, _Instance):
    """A loaded decision model."""


ModelInfo = LlmInfo | EmbeddingModelInfo | DecisionModelInfo
ModelInstanceInfo = LlmInstanceInfo | EmbeddingModelInstanceInfo | DecisionModelInstanceInfo

INFO_TYPES: dict[str, type[LlmInfo] | type[EmbeddingModelInfo] | type[DecisionModelInfo]] = {
    "llm": LlmInfo,
    "embedding": EmbeddingModelInfo,
    "decision": DecisionModelInfo,
}
INSTANCE_INFO_TYPES: dict[
    str, type[LlmInstanceInfo] | type[EmbeddingModelInstanceInfo] | type[DecisionModelInstanceInfo]
] = {
    "llm": LlmInstanceInfo,
    "embedding": EmbeddingModelInstanceInfo,
    "decision": DecisionModelInstanceInfo,
}


def read_info(item: Mapping[str, Any]) -> ModelInfo | None:
    """Return a listed model; `None` if its kind is unknown.

    Raises:
        KeyError: If it has no kind.
    """
    kind = item["type"]
    return INFO_TYPES[kind].read(item) if kind in INFO_TYPES else None


class InstanceProcessingState(WireModel):
    """What an instance is doing. `queued` counts the waiting requests and the running one."""

    status: str
    queued: WireInteger


class MemoryEstimate(WireModel):
    """How many bytes a model would take. `confidence` is `high` or `low`; totals are model + context.

    A number that the server cannot estimate is `None`.
    """

    confidence: str = "low"
    model_vram_bytes: WireNumber | None = None
    context_vram_bytes: WireNumber | None = None
    total_vram_bytes: WireNumber | None = None
    model_bytes: WireNumber | None = None
    context_bytes: WireNumber | None = None
    total_bytes: WireNumber | None = None


class ModelUsageEstimate(WireModel):
    """What loading a model would take, and whether the server's guardrails would let it pass."""

    memory: MemoryEstimate = Field(default_factory=MemoryEstimate)
    passes_guardrails: bool


EMULATOR_SUFFIX = "+emulator"
"""The end of the version that the emulator reports."""


class ServerVersion(WireModel):
    """The version of LM Studio, or of the emulator."""

    version: str
    build: int

    @property
    def is_emulator(self) -> bool:
        """Whether the server is the emulator of this package."""
        return self.version.endswith(EMULATOR_SUFFIX)


@dataclass(frozen=True, slots=True)
class ChatTemplateInfo:
    """What the chat template of a model does with conversations.

    Attributes:
        added_tokens: How many tokens it adds to a conversation of one message; `None` if the model has no template.
        takes_late_system_messages: Whether it shows a system message after the first turn, and shows it in its place.
    """

    added_tokens: int | None = None
    takes_late_system_messages: bool = False


class ContextUse(WireModel):
    """How much of the context window a conversation takes, in tokens."""

    used: WireInteger
    limit: WireInteger

    @property
    def fits(self) -> bool:
        """Whether the conversation fits, with at least one token to spare for the response."""
        return self.used < self.limit


# References to a loaded model -----------------------------------------------------------------------------------------

_SPECIFIERS: TypeAdapter[QuerySpecifier | InstanceSpecifier] = TypeAdapter(
    ModelSpecifier, config=ConfigDict(defer_build=True)
)


ModelReference = str | ModelQuery | QuerySpecifier | InstanceSpecifier | Mapping[str, Any]
"""A loaded model: an identifier, a query, a specifier, or one of these as a dict."""


def specifier_of(reference: ModelReference) -> QuerySpecifier | InstanceSpecifier:
    """Return the specifier of a reference.

    Raises:
        LMStudioValueError: If it is invalid.
    """
    if isinstance(reference, str):
        return by_identifier(reference)
    if isinstance(reference, QuerySpecifier | InstanceSpecifier):
        return reference
    if isinstance(reference, ModelQuery):
        return QuerySpecifier(query=reference)
    try:
        query = reference.get("query", {}) if "type" in reference else reference
        if is_mapping(query):  # a mistyped name would make an empty query, which matches any model
            reject_unknown_names(query, ModelQuery)
        if "type" not in reference:
            return QuerySpecifier(query=ModelQuery.from_dict(reference))
        return _SPECIFIERS.validate_python(reference)
    except (ValidationError, TypeError) as error:
        raise LMStudioValueError(f"{reference!r} does not say which model is meant: {reason_of(error)}") from error
