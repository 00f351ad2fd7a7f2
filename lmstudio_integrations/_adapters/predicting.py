"""How to generate: the fields that all adapters of language models share, and how a call reads them.

A call argument ranks above the field, which ranks above the preset and the server's defaults. `None` unsets; `stop`
replaces; `load_config` and `extra` are merged key by key.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from lmstudio_integrations._adapters.runtime import Runtime, Server, Wanted
from lmstudio_integrations._adapters.settings import (
    ALIASES,
    ConnectionSettings,
    LlmLoadConfig,
    checked,
    own_names,
    reject_secrets,
)
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._numbers import Count, Float, Fraction, Int, Natural, OrOff
from lmstudio_integrations.types.config import LlmLoadModelConfig, LlmPredictionConfig, LoadSettings, ModelKind

if TYPE_CHECKING:
    from lmstudio_integrations.client._requests import PredictionOptions
    from lmstudio_integrations.client.asynchronous import AsyncLLM
    from lmstudio_integrations.client.sync import LLM


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


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


def alternatives(values: Mapping[str, Any]) -> int | None:
    """Return for how many alternatives of each token log-probabilities are requested; `None` if for no token."""
    number: int | None = values["top_logprobs"]
    if number is None or number is False:
        return 0 if values["logprobs"] else None
    return number


class Call(NamedTuple):
    """One call, with everything settled.

    Attributes:
        values: The settings by our names.
        runtime: The clients of the object that is called.
        server: The server.
        wanted: The model.
        load_config: How to load it.
        config: How to generate.
    """

    values: Mapping[str, Any]
    runtime: Runtime
    server: Server
    wanted: Wanted
    load_config: LoadSettings | None
    config: LlmPredictionConfig

    def model(self) -> "LLM":
        """Return the model, for threads."""
        model = self.runtime.llm(self.server, self.wanted, self.load_config)
        return model.with_retries(self.values["max_retries"]) if self.values["max_retries"] else model

    def async_model(self) -> "AsyncLLM":
        """Return the model, for coroutines."""
        model = self.runtime.async_llm(self.server, self.wanted, self.load_config)
        return model.with_retries(self.values["max_retries"]) if self.values["max_retries"] else model

    def options(self) -> "PredictionOptions":
        """Return what goes with the request besides the prompt; a callback costs something for each token."""
        options: PredictionOptions = {
            "config": self.config,
            "check_response": False,
        }  # the frameworks' parsers check it
        if self.values["preset"] is not None:
            options["preset"] = self.values["preset"]
        if self.values["on_prompt_progress"] is not None:
            options["on_prompt_processing_progress"] = self.values["on_prompt_progress"]
        return options


class Predicting(ConnectionSettings):
    """How to generate. What is not set is left to the preset, else to the server's defaults for the model."""

    _kind: ClassVar[ModelKind] = "llm"
    _load_settings: ClassVar[type[LoadSettings]] = LlmLoadModelConfig
    _not_in_call: ClassVar[frozenset[str]] = frozenset()
    _no_settings: ClassVar[frozenset[str]] = frozenset()
    """Call arguments that are no fields."""

    load_config: LlmLoadConfig = None
    """How to load the model, if a call of this object loads it: `LlmLoadModelConfig` or a dict of its fields."""

    preset: str | None = None
    """A preset on the server, by its (fuzzy) identifier; ranks below everything that is set here."""

    temperature: Annotated[Float, Field(ge=0)] | None = None
    """0 always takes the likeliest token."""

    max_tokens: OrOff[Count] | None = None
    """The most tokens of a response, 1 or more; `False` lifts the limit of a preset."""

    top_k: Annotated[Int, Field(ge=-1, le=500)] | None = None
    """Choose among so many likeliest tokens."""

    top_p: OrOff[Fraction] | None = None
    """Sample from the most likely tokens that have this probability together, 0 to 1; `False` switches it off."""

    min_p: OrOff[Fraction] | None = None
    """Leave out tokens below this part of the most likely one's probability, 0 to 1; `False` switches it off."""

    repeat_penalty: OrOff[Float] | None = None
    """Above 1, tokens that came already become less likely; `False` switches it off."""

    presence_penalty: OrOff[Float] | None = None
    """Above 0, tokens that came already become less likely; `False` switches it off."""

    stop: Annotated[list[str], BeforeValidator(_listed)] | None = None
    """Texts, or one text, at which the answer ends. A `stop` given to a call replaces these."""

    seed: OrOff[Int] | None = None
    """Makes the response repeatable; `False` lifts the seed of a preset."""

    draft_model: str | None = None
    """Key of a smaller model for speculative decoding."""

    context_overflow_policy: Literal["stopAtLimit", "truncateMiddle", "rollingWindow"] | None = None
    """What happens when the window is full."""

    enable_thinking: bool | None = None
    """Whether a reasoning model thinks before it answers."""

    reasoning_budget: OrOff[Natural] | None = None
    """The most tokens of reasoning; 0 allows none, `False` lifts the limit of a preset."""

    extra: dict[str, Any] | None = None
    """Further settings of a prediction by their full wire keys (protocol §5.6)."""

    on_prompt_progress: Callable[[float], Any] | None = Field(default=None, exclude=True)
    """Takes growing values from 0.0 to 1.0 while the prompt is read; called by the thread or task that waits."""

    def _values(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings of one call by our names.

        Raises:
            LMStudioValueError: If an argument is unknown, or one that says where the server is cannot be used.
        """
        fields = vars(self)
        if not given:
            return fields
        named = checked(own_names(given, self._call_names()))
        values = {**fields, **named}
        if named.get("extra") and fields["extra"]:
            values["extra"] = {**fields["extra"], **named["extra"]}
        if named.get("load_config") is not None:
            config = LlmLoadModelConfig.parse(named["load_config"])
            values["load_config"] = LlmLoadModelConfig.parse(self.load_config).merged(config)
            if config.context_length is not None and "context_length" not in named:
                values["context_length"] = None
        return values

    def _reject_secrets(self, given: Mapping[str, Any]) -> None:
        """Reject the arguments of a call that would show a secret in a trace; called before a framework traces them.

        Raises:
            LMStudioValueError: If a token is no `SecretStr`, or another argument holds a secret.
        """
        if given:
            reject_secrets(given, self._call_names().keys() | ALIASES.keys() | self._no_settings)

    @classmethod
    def _call_names(cls) -> Mapping[str, Any]:
        """Return the names that a call may give."""
        return {name: field for name, field in cls.model_fields.items() if name not in cls._not_in_call}

    def _settled(self, values: Mapping[str, Any], more: Mapping[str, Any]) -> Call:
        """Settle a call.

        Args:
            values: The settings by our names.
            more: Settings by their native names.
        """
        retries: object = values["max_retries"]
        if type(retries) is not int or retries < 0:
            raise LMStudioValueError(f"max_retries must be 0 or more; got {retries!r}")
        settings = {native: values[name] for name, native in SETTINGS.items() if values[name] is not None}
        if "stop_strings" in settings:
            settings["stop_strings"] = _listed(settings["stop_strings"])
        config = LlmPredictionConfig.parse({**settings, **more} or None)
        load_config, runtime = self._load_config(values), self._runtime
        server = self._server(values, runtime)
        return Call(values, runtime, server, self._wanted(values, load_config), load_config, config)
