"""Types of the adapters' fields that several classes have, and the native names of settings.

`ServerSettings` checks and converts what is given, also to calls, copies and assignments, and accepts more than the
types say: a token as a `str`, one stop string, and other names of settings.
"""

import os
from collections.abc import Callable, Collection, Mapping
from operator import attrgetter
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, SecretStr, SerializationInfo, WithJsonSchema
from pydantic.alias_generators import to_snake
from pydantic_core import core_schema

from lmstudio_integrations._adapters.settings_checks import HostSecret
from lmstudio_integrations._support.environment import TOKEN_VARIABLES
from lmstudio_integrations._support.suggestions import NAME_CUTOFF, closest_names, counterpart, explain_unknown_name
from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.client.support.arguments import TIMEOUTS, checked_timeouts
from lmstudio_integrations.client.transport.connect.addresses import (
    hosts_of,
    normalized,
    public_candidates,
    servers_of_environment,
)
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._config_base import Settings, wire_keys
from lmstudio_integrations.types._numbers import parsed_number
from lmstudio_integrations.types._prediction_settings import AdapterPredictionSettings
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig
from lmstudio_integrations.types.config_dicts import (
    EmbeddingLoadModelConfigDict,
    LlmLoadModelConfigDict,
    LlmPredictionConfigDict,
    TimeoutParameters,
)

MODEL_NAME: Any = property(attrgetter("model"), lambda adapter, name: setattr(adapter, "model", name))
"""`model_name`, another name of `model`, which programs for other integrations read."""


def _base_url(adapter: Any) -> str:
    first, *_ = hosts_of(adapter.host)
    address = str(public_candidates()[0]) if first is None else normalized(first)
    return f"http{address.removeprefix('ws')}/v1"


BASE_URL: Any = property(_base_url, lambda adapter, host: setattr(adapter, "host", host))
"""`base_url`, another name of `host`, read as the first server's address for OpenAI's clients. A program that takes a
model apart, such as CrewAI, would otherwise send its prompts to OpenAI."""

# Fields ---------------------------------------------------------------------------------------------------------------


def token_from_environment() -> SecretStr | None:
    """Return the API token of this process, if it has one; it is for the hosts that the environment names now."""
    text = next(filter(None, map(os.environ.get, TOKEN_VARIABLES)), None)
    return None if text is None else HostSecret(text, servers_of_environment(), is_for_default=False)


def api_token_field(*, exclude: bool | None = None) -> Any:
    """Return the field `api_token`, which some classes exclude from dumps."""
    return Field(
        default_factory=token_from_environment,
        exclude=exclude,
        description="API token of LM Studio; for several hosts, one for all or a dict of tokens by host. If unset, "
        "`LM_API_TOKEN` or `LMSTUDIO_API_TOKEN` is read when the object is created, for the hosts in `LMSTUDIO_HOST` "
        "if that is set; without them, the client is a guest. A copy or a call with another host needs its own. It "
        "never appears in `repr`, pickles or dumps. `api_key` is an alias.",
    )


def _dumped(config: Settings | dict[str, Any] | None, info: SerializationInfo) -> dict[str, Any] | None:
    """Return only what is set: a dumped `None` would unset a setting when it is read again."""
    return config.model_dump(mode=info.mode, exclude_unset=True) if isinstance(config, Settings) else config


class DictValidator:
    """Reads a field that a dict may set. pydantic would also make schemas of the types that only editors need."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: None if value is None else self._read(value),
            serialization=core_schema.plain_serializer_function_ser_schema(_dumped, info_arg=True),
        )


_BY_KEY = {wire_key.key: name for name, wire_key in wire_keys(LlmPredictionConfig).items()}
NATIVE_NAMES = {
    **{name: _BY_KEY[wire_key.key] for name, wire_key in wire_keys(AdapterPredictionSettings).items()},
    "stop": "stop_strings",
}
"""The fields of `LlmPredictionConfig` by the names of the adapters' fields."""

PLACES_OF_NATIVE = {
    **{native: name for name, native in NATIVE_NAMES.items()},
    "structured": "response_format",
    "raw_tools": "tools",
    "tool_choice": "tool_choice",
    "log_probs": "top_logprobs",
}
"""Where adapters take the fields of `LlmPredictionConfig` that `prediction_config` does not have."""


def _reject_misplaced(given: Mapping[Any, Any]) -> None:
    """Reject unknown names that are, or resemble, those of settings which `prediction_config` does not have."""
    native = wire_keys(LlmPredictionConfig).keys() | {"raw"}
    places = {**{name: name for name in (*NATIVE_NAMES, *PLACES_OF_NATIVE.values())}, **PLACES_OF_NATIVE}
    for name in given:
        own = to_snake(str(name))
        if own not in native:
            meant = counterpart(own, [*places, *native])
            meant = meant or next(iter(closest_names(own, [*places, *native], cutoff=NAME_CUTOFF)), None)
            place = places.get(str(meant))
            if place is not None:
                typo = "" if own in {meant, place} else f"did you mean {place!r}? "
                raise LMStudioValueError(f"prediction_config takes no {name!r}; {typo}write {place}=…")


def _read_config(value: Any) -> LlmPredictionConfig:
    """Read prediction settings, among which there must be none that has another place.

    Raises:
        LMStudioValueError: If there is one, or a setting is unknown or invalid.
    """
    if is_mapping(value):
        _reject_misplaced(value)
    config = LlmPredictionConfig.parse(value, "prediction_config")
    for name, place in PLACES_OF_NATIVE.items():
        if name in config.model_fields_set:
            raise LMStudioValueError(f"prediction_config takes no {name!r}; write {place}=…")
    return config


_TIMEOUT_REMEDY = "write 'total_timeout' for the whole call, or 'idle_timeout' for the longest silence"


def reads_timeouts(names: Collection[str]) -> Callable[[Any], Mapping[str, float | None]]:
    def read(value: Any) -> Mapping[str, float | None]:
        if not is_mapping(value):
            raise LMStudioValueError(f"timeouts must be a dict, such as {{'idle_timeout': 120}}; got {value!r}")
        for name in value:
            if name not in names:
                remedy = _TIMEOUT_REMEDY if name == "timeout" else explain_unknown_name(str(name), names)
                raise LMStudioValueError(f"timeouts takes no {name!r}; {remedy}")
        return checked_timeouts({name: parsed_number(seconds) for name, seconds in value.items()})

    return read


_LOAD_CONFIG = (
    "How to load the model, if this object loads it: `{}` or a dict of its fields. If unset, the server's defaults "
    "for the model apply."
)

DICT_SCHEMA = WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "null"}]})

LlmLoadConfig = Annotated[
    LlmLoadModelConfig | LlmLoadModelConfigDict | None,
    DictValidator(lambda value: LlmLoadModelConfig.parse(value, "load_config")),
    DICT_SCHEMA,
    Field(description=_LOAD_CONFIG.format("LlmLoadModelConfig")),
]

EmbeddingLoadConfig = Annotated[
    EmbeddingLoadModelConfig | EmbeddingLoadModelConfigDict | None,
    DictValidator(lambda value: EmbeddingLoadModelConfig.parse(value, "load_config")),
    DICT_SCHEMA,
    Field(description=_LOAD_CONFIG.format("EmbeddingLoadModelConfig")),
]

PredictionConfig = Annotated[
    LlmPredictionConfig | LlmPredictionConfigDict | None,
    DictValidator(_read_config),
    DICT_SCHEMA,
    Field(
        description="Prediction settings that have no field here, by their names in `LlmPredictionConfig`, such as "
        "`draft_model` or `logit_bias`; `raw` takes full wire keys. A dict or a `LlmPredictionConfig`. Those of a call "
        "override those of the object one by one. None by default.",
    ),
]

TIMEOUTS_DESCRIPTION = "How many seconds to wait, as a dict with any of {}; `None` waits forever."

ModelTimeoutsDict = Annotated[
    TimeoutParameters | None,
    DictValidator(reads_timeouts(TIMEOUTS)),
    DICT_SCHEMA,
    Field(
        description=TIMEOUTS_DESCRIPTION.format(
            "`connect_timeout` (5: to connect, or for a ping), `queue_timeout` (600: in the model's queue), "
            "`load_timeout` (300: between signs of progress of a load), `first_token_timeout` (300: while the prompt "
            "is processed), `idle_timeout` (60: for the next packet), `total_timeout` (none: for the whole call) and "
            "`keepalive` (20: of silence before a ping)"
        )
        + " Those of a call override those of the object one by one. None by default."
    ),
]
