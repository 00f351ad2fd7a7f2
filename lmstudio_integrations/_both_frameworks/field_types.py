"""Types of the adapters' fields: of those that several classes have, and of parameters that accept more than is held.

Type checkers take the type of a parameter from the `__set__` of the field's type, and the type of an attribute from its
`__get__`. Classes have such fields under `TYPE_CHECKING` only; at run time, the fields have plain types, and
`input_checks.normalize_input` converts what is given.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn, Protocol, TypeVar

from pydantic import Field, GetCoreSchemaHandler, SecretStr, SerializationInfo
from pydantic_core import core_schema

from lmstudio_integrations._both_frameworks import reasoning_effort
from lmstudio_integrations._support.environment import TOKEN_VARIABLES
from lmstudio_integrations.types._numbers import LogProbs, OrOff
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LoadSettings
from lmstudio_integrations.types.config_dicts import EmbeddingLoadModelConfigDict, LlmLoadModelConfigDict

AcceptedT_contra = TypeVar("AcceptedT_contra", contravariant=True)
HeldT_co = TypeVar("HeldT_co", covariant=True)

UNSET: Any = None
"""Default of these parameters: no value that they accept has their type."""


class Parameter(Protocol[AcceptedT_contra, HeldT_co]):
    """A parameter and attribute of two types: what the constructor and assignments accept, and what is read.

    A concrete adapter repeats the declaration: pydantic's plugin for mypy gives an inherited one a single type.
    """

    def __get__(self, instance: object, owner: Any, /) -> HeldT_co: ...
    def __set__(self, instance: object, value: AcceptedT_contra, /) -> None: ...


class ParameterOnly(Protocol[AcceptedT_contra]):
    """Another name of a parameter. It is no attribute, so reading it from an object is an error."""

    def __get__(self, instance: None, owner: Any, /) -> NoReturn: ...
    def __set__(self, instance: object, value: AcceptedT_contra, /) -> None: ...


Secret = Parameter[SecretStr | str | Mapping[str, SecretStr] | Mapping[str, str] | None, SecretStr | None]
StopStrings = Parameter[str | Sequence[str] | None, list[str] | None]

# Fields ---------------------------------------------------------------------------------------------------------------


def token_from_environment() -> SecretStr | None:
    """Return the API token of this process, if it has one."""
    found = next(filter(None, map(os.environ.get, TOKEN_VARIABLES)), None)
    return None if found is None else SecretStr(found)


ApiToken = Annotated[
    SecretStr | None,
    Field(
        default_factory=token_from_environment,
        description="LM Studio API token; for several hosts, one for all, or a dict of tokens by host. Unset: "
        "`LM_API_TOKEN`, else `LMSTUDIO_API_TOKEN`, read when the object is made; else the client connects as a guest. "
        "Never in `repr`, pickles, `dumpd` or `to_dict`. An alias is `api_key`.",
    ),
]


def _dumped(config: LoadSettings | None, info: SerializationInfo) -> dict[str, Any] | None:
    """Return only what is set: a dumped `None` would unset a setting when it is read again."""
    return None if config is None else config.model_dump(mode=info.mode, exclude_unset=True)


class _LoadConfigValidator:
    """Parses a field with load settings. pydantic would also make schemas of the types that only editors need."""

    def __init__(self, settings: type[LoadSettings]) -> None:
        self.settings = settings

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: None if value is None else self.settings.parse(value),
            serialization=core_schema.plain_serializer_function_ser_schema(_dumped, info_arg=True),
        )


_LOAD_CONFIG = (
    "How to load the model, if a call of this object loads it: `{}` or a dict of its fields; `raw` takes further "
    "settings by their full wire keys. Unset: the server's defaults for the model."
)

LlmLoadConfig = Annotated[
    LlmLoadModelConfig | LlmLoadModelConfigDict | Mapping[str, Any] | None,
    _LoadConfigValidator(LlmLoadModelConfig),
    Field(description=_LOAD_CONFIG.format("LlmLoadModelConfig")),
]

EmbeddingLoadConfig = Annotated[
    EmbeddingLoadModelConfig | EmbeddingLoadModelConfigDict | Mapping[str, Any] | None,
    _LoadConfigValidator(EmbeddingLoadModelConfig),
    Field(description=_LOAD_CONFIG.format("EmbeddingLoadModelConfig")),
]

# Fields of chat models, which models for completion do not have -------------------------------------------------------

ReasoningEffort = Annotated[
    reasoning_effort.ReasoningEffort | None,
    Field(
        description="How much the model reasons before it responds: `none`, `minimal`, `low`, `medium`, `high` or "
        "`xhigh`. It is sent as what the model has: a level of its own, the nearest to this one, or whether it reasons "
        "at all. Unset: the model's default."
    ),
]

SendReasoning = Annotated[
    bool,
    Field(description="Whether earlier reasoning is sent back to the model, in `<think>` tags. Default: `False`."),
]

RescueToolCalls = Annotated[
    bool,
    Field(
        description="Whether calls that the server left in the text become tool calls. Default: `True`. Only calls of "
        "tools that are offered, with arguments that fit; their number is in the metadata as `rescued_tool_calls`. "
        "Calls that are cut off or do not fit become invalid ones."
    ),
]

RequiredToolFallback = Annotated[
    bool,
    Field(
        description="Whether a required tool call that did not come is requested once more, by grammar. Default: "
        "`True`. The metadata then has `forced_by_grammar`, and the tokens of both predictions."
    ),
]

WithLogprobs = Annotated[
    bool | None,
    Field(description="Whether responses contain the log-probabilities of their tokens. Unset: they do not."),
]

TopLogprobs = Annotated[
    OrOff[LogProbs] | None,
    Field(
        description="For how many alternatives of each token a response contains log-probabilities, 0 to 100. Implies "
        "`logprobs`, unless it is `False`. Unset: none."
    ),
]

AllowImageDownload = Annotated[
    bool,
    Field(
        description="Whether this process may download images with an http or https URL, and upload them. Default: "
        "`False`. At most 20 MB and five redirects each, from public addresses only; within `timeout` if that is set, "
        "else 30 seconds each."
    ),
]

AllowPrivateImageHosts = Annotated[
    bool,
    Field(
        description="Whether those downloads may come from addresses that are not public: this machine, the local "
        "network. Default: `False`. Only for messages that you trust."
    ),
]
