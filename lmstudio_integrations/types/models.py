"""Models on the server: how one is named in a request, and what is known of it (protocol §5.1, §6.6)."""

import unicodedata
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationError

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._base import TaggedModel, WireModel


def _is_nameable(value: str) -> str:
    if value == "__proto__" or any(unicodedata.category(character).startswith("C") for character in value):
        raise ValueError("a name must not be __proto__ nor have control or unassigned characters")
    return value


Name = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_is_nameable)]
"""An identifier or a path in a query."""


class ModelQuery(WireModel):
    """Which loaded models fit; an empty query fits any. All members that are set must match."""

    domain: str | None = None
    identifier: Name | None = None
    path: Name | None = None
    vision: bool | None = None
    device_identifier: str | None = None


class QuerySpecifier(TaggedModel):
    """Name a model by what it is; survives a reload under the same identifier."""

    type: Literal["query"] = "query"
    query: ModelQuery


class InstanceSpecifier(TaggedModel):
    """Name one loading of a model; void once that is unloaded."""

    type: Literal["instanceReference"] = "instanceReference"
    instance_reference: str


ModelSpecifier = Annotated[QuerySpecifier | InstanceSpecifier, Field(discriminator="type")]
"""How a request says which model it is for (protocol §5.1)."""


@lru_cache(maxsize=256)
def by_identifier(identifier: str) -> QuerySpecifier:
    """Return the specifier of the loaded instance with this identifier.

    Raises:
        LMStudioValueError: If no instance can be called that.
    """
    try:
        return QuerySpecifier(query=ModelQuery(identifier=identifier))
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise LMStudioValueError(f"{identifier!r} cannot name a model: {reason}") from error


class Quantization(WireModel):
    """How the weights are stored."""

    name: str
    bits: int


class ModelInfoBase(TaggedModel):
    """What the server knows of a downloaded model, of either kind.

    `size_bytes` is the size on disk, `max_context_length` the most tokens the model was made for.
    A `device_identifier` of `None` means this machine.
    """

    type: str
    model_key: str
    format: str
    display_name: str
    path: str
    size_bytes: int
    max_context_length: int
    publisher: str | None = None
    indexed_model_identifier: str | None = None
    device_identifier: str | None = None
    params_string: str | None = None
    architecture: str | None = None
    quantization: Quantization | None = None
    variants: list[str] | None = None
    selected_variant: str | None = None


class _Instance(WireModel):
    """What the server knows of one loaded instance, of either kind.

    `context_length` is the window that it was loaded with, in tokens; `ttl_ms` its idle time to live in
    milliseconds (`None`: it stays); `last_used_time` a Unix time in milliseconds.
    """

    nullable: ClassVar[frozenset[str]] = WireModel.nullable | {"ttl_ms", "last_used_time"}

    identifier: str
    instance_reference: str
    context_length: int
    ttl_ms: int | float | None = None
    last_used_time: int | float | None = None


class LlmInfo(ModelInfoBase):
    """A downloaded language model. `vision`: it sees images. `trained_for_tool_use`: it was taught tools."""

    type: str = "llm"
    vision: bool = False
    trained_for_tool_use: bool = False


class EmbeddingModelInfo(ModelInfoBase):
    """A downloaded embedding model."""

    type: str = "embedding"


class LlmInstanceInfo(LlmInfo, _Instance):
    """A loaded language model."""


class EmbeddingModelInstanceInfo(EmbeddingModelInfo, _Instance):
    """A loaded embedding model."""


ModelInfo = LlmInfo | EmbeddingModelInfo
ModelInstanceInfo = LlmInstanceInfo | EmbeddingModelInstanceInfo

INFO_TYPES: dict[str, type[LlmInfo] | type[EmbeddingModelInfo]] = {
    "llm": LlmInfo,
    "embedding": EmbeddingModelInfo,
}
INSTANCE_INFO_TYPES: dict[str, type[LlmInstanceInfo] | type[EmbeddingModelInstanceInfo]] = {
    "llm": LlmInstanceInfo,
    "embedding": EmbeddingModelInstanceInfo,
}


def parse_infos(items: list[dict[str, Any]]) -> list[ModelInfo]:
    """Read a listing of downloaded models; kinds that are unknown here are left out (protocol §4.5)."""
    return [INFO_TYPES[item["type"]].from_dict(item) for item in items if item.get("type") in INFO_TYPES]


class InstanceProcessingState(WireModel):
    """What an instance is doing. `queued` counts the waiting requests and the running one."""

    status: str
    queued: int


class MemoryEstimate(WireModel):
    """How many bytes a model would take. `confidence` is `high` or `low`; totals are model + context."""

    confidence: str
    model_vram_bytes: int | float
    context_vram_bytes: int | float
    total_vram_bytes: int | float
    model_bytes: int | float
    context_bytes: int | float
    total_bytes: int | float


class ModelUsageEstimate(WireModel):
    """What loading a model would take, and whether the server's guardrails would let it pass."""

    memory: MemoryEstimate
    passes_guardrails: bool


class ServerVersion(WireModel):
    """The version of LM Studio."""

    version: str
    build: int


class ContextUse(WireModel):
    """How much of the context window a conversation takes, in tokens."""

    used: int
    limit: int

    @property
    def fits(self) -> bool:
        """Whether there is room for it, and for at least one token of an answer."""
        return self.used < self.limit
