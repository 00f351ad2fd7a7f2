"""Types of the adapters' fields: of those that several classes have, and of parameters that accept more than is held.

These are for editors. pydantic has `validation_alias` and converts a `str` to a `SecretStr`, but pyright, which Visual
Studio Code runs, then rejects `base_url=` and `api_key="…"`, and a union as the type makes `model.api_token` one, too.
Type checkers take the type of a parameter from the `__set__` of the field's type, and the type of an attribute from its
`__get__`. Classes have such fields under `TYPE_CHECKING` only; at run time, the fields have plain types, and
`ServerSettings` checks and converts what is given, also to calls, copies and assignments.
"""

import os
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, NoReturn, Protocol, TypeVar

from pydantic import Field, GetCoreSchemaHandler, SecretStr, SerializationInfo, WithJsonSchema
from pydantic_core import core_schema

from lmstudio_integrations._support.environment import TOKEN_VARIABLES
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LoadSettings
from lmstudio_integrations.types.config_dicts import EmbeddingLoadModelConfigDict, LlmLoadModelConfigDict

AcceptedT_contra = TypeVar("AcceptedT_contra", contravariant=True)
HeldT_co = TypeVar("HeldT_co", covariant=True)

DECLARED: Any = None
"""Default of these parameters: no value that they accept has their type."""


class TypedDescriptor(Protocol[AcceptedT_contra, HeldT_co]):
    """A parameter and attribute of two types: what the constructor and assignments accept, and what is read.

    A concrete adapter repeats the declaration: for users of mypy with pydantic's plugin, which gives an inherited one a
    single type, that of the parameter.
    """

    def __get__(self, instance: object, owner: Any, /) -> HeldT_co: ...
    def __set__(self, instance: object, value: AcceptedT_contra, /) -> None: ...


class InputAlias(Protocol[AcceptedT_contra]):
    """Another name of a parameter. It is no attribute, so reading it from an object is an error."""

    def __get__(self, instance: None, owner: Any, /) -> NoReturn: ...
    def __set__(self, instance: object, value: AcceptedT_contra, /) -> None: ...


ModelName = TypedDescriptor[str | None, str | None]
MODEL_NAME: Any = property(attrgetter("model"), lambda adapter, name: setattr(adapter, "model", name))
"""`model_name`, another name of `model`, which programs for other integrations read."""

Secret = TypedDescriptor[SecretStr | str | Mapping[str, SecretStr] | Mapping[str, str] | None, SecretStr | None]
StopStrings = TypedDescriptor[str | Sequence[str] | None, list[str] | None]

# Fields ---------------------------------------------------------------------------------------------------------------


def token_from_environment() -> SecretStr | None:
    """Return the API token of this process, if it has one."""
    text = next(filter(None, map(os.environ.get, TOKEN_VARIABLES)), None)
    return None if text is None else SecretStr(text)


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
            lambda value: None if value is None else self.settings.parse(value, "load_config"),
            serialization=core_schema.plain_serializer_function_ser_schema(_dumped, info_arg=True),
        )


_LOAD_CONFIG = (
    "How to load the model, if this object loads it: `{}` or a dict of its fields. If unset, the server's defaults "
    "for the model apply."
)

_LOAD_CONFIG_SCHEMA = WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "null"}]})

LlmLoadConfig = Annotated[
    LlmLoadModelConfig | LlmLoadModelConfigDict | None,
    _LoadConfigValidator(LlmLoadModelConfig),
    _LOAD_CONFIG_SCHEMA,
    Field(description=_LOAD_CONFIG.format("LlmLoadModelConfig")),
]

EmbeddingLoadConfig = Annotated[
    EmbeddingLoadModelConfig | EmbeddingLoadModelConfigDict | None,
    _LoadConfigValidator(EmbeddingLoadModelConfig),
    _LOAD_CONFIG_SCHEMA,
    Field(description=_LOAD_CONFIG.format("EmbeddingLoadModelConfig")),
]
