"""Types of the adapters' fields: of those that several classes have, and of parameters that accept more than is held.

Type checkers take the type of a parameter from the `__set__` of the field's type, and the type of an attribute from its
`__get__`. Classes have such fields under `TYPE_CHECKING` only; at run time, the fields have plain types, and
`input_checks.normalize_input` converts what is given.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn, Protocol, TypeVar

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, SecretStr, SerializationInfo
from pydantic_core import core_schema

from lmstudio_integrations._both_frameworks import reasoning_effort
from lmstudio_integrations._support.environment import TOKEN_VARIABLES
from lmstudio_integrations.client.predictions.repetition import characters_of
from lmstudio_integrations.types import reasoning
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
        description="API token of LM Studio; for several hosts, one for all or a dict of tokens by host. If unset, "
        "`LM_API_TOKEN` or `LMSTUDIO_API_TOKEN` is read when the object is created; without them, the client is a "
        "guest. It never appears in `repr`, pickles or dumps. `api_key` is an alias.",
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
    "How to load the model, if this object loads it: `{}` or a dict of its fields. If unset, the server's defaults "
    "for the model apply."
)

LlmLoadConfig = Annotated[
    LlmLoadModelConfig | LlmLoadModelConfigDict | None,
    _LoadConfigValidator(LlmLoadModelConfig),
    Field(description=_LOAD_CONFIG.format("LlmLoadModelConfig")),
]

EmbeddingLoadConfig = Annotated[
    EmbeddingLoadModelConfig | EmbeddingLoadModelConfigDict | None,
    _LoadConfigValidator(EmbeddingLoadModelConfig),
    Field(description=_LOAD_CONFIG.format("EmbeddingLoadModelConfig")),
]


def _checked(value: object) -> object:
    characters_of(value)
    return value


StopOnRepetition = Annotated[
    bool | int,
    BeforeValidator(_checked),
    Field(
        description="Whether a response that only repeats one block is cancelled. What was received stays, the finish "
        "reason is `length`, and the metadata has the stop reason `repetition` and `repetition_start`, a character. A "
        "number is that of the characters for which a block may be repeated. The default is `True`."
    ),
]

# Fields of chat models, which models for completion do not have -------------------------------------------------------

ReasoningEffort = Annotated[
    reasoning_effort.ReasoningEffort | None,
    Field(
        description="How much the model reasons before it responds, from `none` to `xhigh`. The server gets the "
        "nearest level that the model has. Only models of LM Studio's catalog have levels; for others, only `none` "
        "has an effect. If unset, the model's default applies."
    ),
]

SendReasoning = Annotated[
    reasoning.SendReasoning,
    Field(
        description="Which earlier thoughts go back to the model. `auto` sends those that its chat template takes, "
        "which is measured once per loaded model; `turn` those since the last user message; `always` or `True` all; "
        "`False` none. The default is `auto`."
    ),
]

KeepReasoning = Annotated[
    bool,
    Field(
        description="Whether the chat template is made to keep the thoughts of all turns. The default is `False`: what "
        "it does by itself. If no way works, a call raises an error that names what was tried."
    ),
]

ThinkFirst = Annotated[
    bool,
    Field(
        description="Whether a call that asks for reasoning and a response format may make two predictions, if the "
        "grammar leaves no room for a thought: one for the thought, and one by grammar that continues it. The default "
        "is `True`."
    ),
]

RescueToolCalls = Annotated[
    bool,
    Field(
        description="Whether calls that the server left in the text become tool calls. Only calls of offered tools "
        "count, and those that are cut off become invalid ones. The metadata has their number as `rescued_tool_calls`. "
        "The default is `True`."
    ),
]

RepairToolCalls = Annotated[
    bool,
    Field(
        description="Whether tool calls that do not fit the tools are mended: at once where exactly one reading fits, "
        "otherwise by one more prediction, by grammar. A call is held back until it is complete. The metadata has what "
        "was mended, or could not be, as `repaired_tool_calls`. The default is `True`."
    ),
]

RequiredToolFallback = Annotated[
    bool,
    Field(
        description="Whether a required tool call that the model did not make is requested again, by grammar. The "
        "metadata then has `forced_by_grammar` and the tokens of both predictions. The default is `True`."
    ),
]

WithLogprobs = Annotated[
    bool | None,
    Field(description="Whether responses contain the log-probabilities of their tokens. Off by default."),
]

TopLogprobs = Annotated[
    OrOff[LogProbs] | None,
    Field(
        description="How many alternatives to report for each token, with log-probabilities, from 0 to 100. Turns "
        "`logprobs` on. None by default."
    ),
]

AllowImageDownload = Annotated[
    bool,
    Field(
        description="Whether this process may download images from http and https URLs. The default is `False`. Each "
        "image may take 20 MB, five redirects and 30 seconds (or `timeout`), and must come from a public address."
    ),
]

AllowPrivateImageHosts = Annotated[
    bool,
    Field(
        description="Whether images may also come from addresses that are not public, such as the local network. The "
        "default is `False`; allow it only for messages that you trust."
    ),
]
