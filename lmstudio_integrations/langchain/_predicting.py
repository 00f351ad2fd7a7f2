"""The fields that the chat model and the raw completion share, and how a call reads them.

A call argument ranks above a bound one, which ranks above the field, which ranks above the preset and the server's
defaults. `None` unsets; `stop` replaces; `load_config` and `extra` are merged key by key.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Literal

from langchain_core.runnables import RunnableConfig
from pydantic import Field

from lmstudio_integrations.client._requests import PredictionOptions
from lmstudio_integrations.client.asynchronous import AsyncLLM
from lmstudio_integrations.client.sync import LLM
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain._chunks import PROVIDER
from lmstudio_integrations.langchain._errors import translated
from lmstudio_integrations.langchain._retry import repeat
from lmstudio_integrations.langchain._runtime import Facts, Server, Wanted
from lmstudio_integrations.langchain._settings import CLOCKS, Connected, LlmLoadConfig, own_names
from lmstudio_integrations.types.config import LlmLoadModelConfig, LlmPredictionConfig, LoadSettings
from lmstudio_integrations.types.models import ModelKind
from lmstudio_integrations.types.results import PredictionEnd

Fraction = Annotated[float, Field(ge=0, le=1)]
Off = Literal[False]

SETTINGS = {
    "temperature": "temperature",
    "max_tokens": "max_tokens",
    "top_k": "top_k_sampling",
    "top_p": "top_p_sampling",
    "min_p": "min_p_sampling",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "stop": "stop_strings",
    "seed": "seed",
    "draft_model": "draft_model",
    "context_overflow_policy": "context_overflow_policy",
    "enable_thinking": "enable_thinking",
    "reasoning_budget": "reasoning_budget",
    "extra": "raw",
}
"""Our fields by the names that the native settings have for them."""

_PER_OBJECT = frozenset(
    {"name", "cache", "verbose", "callbacks", "tags", "metadata", "custom_get_token_ids", "rate_limiter"}
    | {"disable_streaming", "output_version", "profile"}
)
"""Fields that langchain-core reads; they mean nothing in a call."""

_NOT_IN_KEY = frozenset(
    {"api_token", "on_load_progress", "on_prompt_progress", "show_progress", "max_retries", "stream_usage", *CLOCKS}
    | {"ttl", "on_config_mismatch", "streaming", "allow_image_download"}
)
"""Fields that do not change what a model answers."""

DEFAULT_CONCURRENCY = 4
"""Predictions that LM Studio runs at once by default."""

_PARALLEL = "llm.load.numParallelSessions"


@dataclass(frozen=True, slots=True)
class Call:
    """One call, with everything settled.

    Attributes:
        values: The settings by our names.
        server: The server.
        wanted: The model.
        load_config: How to load it.
        config: How to generate.
    """

    values: Mapping[str, Any]
    server: Server
    wanted: Wanted
    load_config: LoadSettings | None
    config: LlmPredictionConfig

    def options(self) -> PredictionOptions:
        """Return what goes with the request besides the prompt."""
        return {
            "config": self.config,
            "preset": self.values["preset"],
            "on_prompt_processing_progress": self.values["on_prompt_progress"],
        }


class Predicting(Connected):
    """How to generate. What is not set is left to the preset, else to the server's defaults for the model."""

    _kind: ClassVar[ModelKind] = "llm"
    _load_settings: ClassVar[type[LoadSettings]] = LlmLoadModelConfig

    load_config: LlmLoadConfig = None
    """How to load the model, if a call of this object loads it: `LlmLoadModelConfig` or a dict of its fields."""

    preset: str | None = None
    """A preset on the server, by its (fuzzy) identifier; ranks below everything that is set here."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    """0 always takes the likeliest token."""

    max_tokens: Annotated[int, Field(ge=1)] | Off | None = None
    """The most tokens of an answer; `False` lifts the limit of a preset."""

    top_k: Annotated[int, Field(ge=-1, le=500)] | None = None
    """Choose among so many likeliest tokens."""

    top_p: Fraction | Off | None = None
    """Choose among the likeliest tokens that have this probability together; `False` switches it off."""

    min_p: Fraction | Off | None = None
    """Leave out tokens below this part of the likeliest one's probability; `False` switches it off."""

    repeat_penalty: float | Off | None = None
    """Above 1, tokens that came already become less likely; `False` switches it off."""

    presence_penalty: float | Off | None = None
    """Above 0, tokens that came already become less likely; `False` switches it off."""

    stop: list[str] | None = None
    """Texts at which the answer ends. A `stop` given to a call replaces these."""

    seed: int | None = None
    """Makes the answer repeatable."""

    draft_model: str | None = None
    """Key of a smaller model for speculative decoding."""

    context_overflow_policy: Literal["stopAtLimit", "truncateMiddle", "rollingWindow"] | None = None
    """What happens when the window is full."""

    extra: dict[str, Any] | None = None
    """Further settings of a prediction by their full wire keys (protocol §5.6)."""

    streaming: bool | None = None
    """Whether `invoke` generates as a stream, so that callbacks see the tokens; `False` forbids streams."""

    on_prompt_progress: Callable[[float], Any] | None = Field(default=None, exclude=True)
    """Takes growing values from 0.0 to 1.0 while the prompt is read; called by the thread or task that waits."""

    # Reading the settings -------------------------------------------------------------------------------------------

    def _values(self, stop: list[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of one call by our names.

        Raises:
            LMStudioValueError: If an argument is unknown.
        """
        fields = vars(self)
        if stop is None and not given:
            return fields
        if not given:
            return {**fields, "stop": stop}
        named = own_names(given, call_names(type(self)))
        values = {**fields, **named}
        if named.get("extra") and fields["extra"]:
            values["extra"] = {**fields["extra"], **named["extra"]}
        if named.get("load_config") is not None:
            values["load_config"] = self._merged_load_config(named["load_config"])
        if stop is not None:
            values["stop"] = stop
        return values

    def _merged_load_config(self, given: Any) -> LoadSettings:
        settings = LlmLoadModelConfig.parse(given)
        return LlmLoadModelConfig.parse(self.load_config).merged(settings) if self.load_config else settings

    def _call(self, values: Mapping[str, Any], more: Mapping[str, Any]) -> Call:
        """Settle a call.

        Args:
            values: The settings by our names.
            more: Settings by their native names.
        """
        settings = {native: values[name] for name, native in SETTINGS.items() if values.get(name) is not None}
        config = LlmPredictionConfig.parse({**settings, **more})
        load_config = self._load_config(values)
        return Call(values, self._server(values), self._wanted(values, load_config), load_config, config)

    def _model(self, call: Call) -> LLM:
        return self._runtime.llm(call.server, call.wanted, call.load_config)

    def _async_model(self, call: Call) -> AsyncLLM:
        return self._runtime.async_llm(call.server, call.wanted, call.load_config)

    def _own(self) -> Call:
        """Return a call with nothing but the object's own settings."""
        return self._call(vars(self), {})

    # Tokens ---------------------------------------------------------------------------------------------------------

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, as the model has them."""
        custom = vars(self)["custom_get_token_ids"]
        if custom is not None:
            return list(custom(text))
        with translated():
            return repeat(partial(self._model(self._own()).tokenize, text), self.max_retries)

    def get_num_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, as the model has them."""
        if vars(self)["custom_get_token_ids"] is not None:
            return len(self.get_token_ids(text))
        with translated():
            return repeat(partial(self._model(self._own()).count_tokens, text), self.max_retries)

    # What the server has told ---------------------------------------------------------------------------------------

    def _learn(self, call: Call, end: PredictionEnd) -> Facts:
        """Keep what the end of a prediction says of the model."""
        facts = self._runtime.facts.get(call.wanted)
        if facts is None:
            facts = self._runtime.facts[call.wanted] = Facts(end.model_info, _parallel(end))
        return facts

    def _facts(self) -> Facts | None:
        """Return what is known of this object's own model."""
        values = vars(self)
        return self._runtime.facts.get(self._wanted(values, self._load_config(values)))

    def _concurrency(self) -> int:
        """Return how many predictions the model runs at once, as far as is known without asking."""
        config = self.load_config
        asked = config.max_parallel_predictions if isinstance(config, LlmLoadModelConfig) else None
        facts = self._facts()
        return (facts.parallel if facts else None) or asked or DEFAULT_CONCURRENCY

    def _bounded(self, config: RunnableConfig | list[RunnableConfig] | None) -> Any:
        """Return configs that start no more predictions at once than the model runs, unless they say otherwise."""
        if isinstance(config, list):
            return [self._bounded(one) for one in config]
        if config is not None and config.get("max_concurrency") is not None:
            return config
        return {**(config or {}), "max_concurrency": self._concurrency()}

    # What identifies the object -------------------------------------------------------------------------------------

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that is set and changes what the model answers; the cache's key is built from it."""
        return identity(vars(self), type(self).model_fields)

    def _cache_key(self, stop: list[str] | None, given: Mapping[str, Any]) -> str:
        parts = {"class": type(self).__name__, **self._identifying_params, "output_version": self._output_version()}
        return repr((sorted(parts.items()), sorted({**given, "stop": stop}.items())))

    def _output_version(self) -> str | None:
        return vars(self).get("output_version")

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The token, which serialisation replaces by a note of where it comes from."""
        return {"api_token": "LM_API_TOKEN"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """What serialisation cannot write by itself."""
        config = self.load_config
        return {"load_config": config.to_dict()} if isinstance(config, LlmLoadModelConfig) else {}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """`dumpd` and `load` work."""
        return True


@cache
def call_names(adapter: type[Predicting]) -> Mapping[str, Any]:
    """Return the settings that a call may give."""
    return {name: field for name, field in adapter.model_fields.items() if name not in _PER_OBJECT}


def identity(values: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Return the settings that change an answer, as plain data."""
    found: dict[str, Any] = {"model": values["model"]}
    for name in fields:
        value = values[name]
        if value is not None and name not in _NOT_IN_KEY and name not in _PER_OBJECT:
            found[name] = value.to_dict() if isinstance(value, LoadSettings) else value
    return found


def ls_params(values: Mapping[str, Any], kind: str, stop: list[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tracing wants to know of a call."""
    current = {**values, **given}
    wanted = {
        "ls_model_name": current["model"],
        "ls_temperature": current["temperature"],
        "ls_max_tokens": current["max_tokens"] or None,
        "ls_stop": stop or current["stop"] or None,
    }
    known = {name: value for name, value in wanted.items() if value is not None}
    return {"ls_provider": PROVIDER, "ls_model_type": kind, **known}


def _parallel(end: PredictionEnd) -> int | None:
    for field in end.load_model_config.get("fields") or ():
        if field.get("key") == _PARALLEL:
            value = field.get("value")
            return value if isinstance(value, int) else None
    return None


def refuse_several(number: object) -> None:
    """Refuse more than one answer to one prompt.

    Raises:
        LMStudioValueError: If more is asked for.
    """
    if number not in {None, 1}:
        raise LMStudioValueError(f"n must be 1, got {number!r}; for several answers use batch()")
