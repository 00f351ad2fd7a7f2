"""What `ChatLMStudio` and `LMStudioLLM` share besides their settings: identity, tokens, profiles.

The settings and the resolution of a call are in `_adapters/settings_generation.py`.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from langchain_core.language_models import LangSmithParams
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.utils import AnyConfigurableField
from pydantic import BaseModel, Field

from lmstudio_integrations._adapters.request_effort import reasoning_profile
from lmstudio_integrations._adapters.settings_checks import ALIASES
from lmstudio_integrations._adapters.settings_generation import GenerationSettings
from lmstudio_integrations._support.environment import __version__
from lmstudio_integrations._support.installation import NAME
from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.concurrency.mailboxes import callers_loop
from lmstudio_integrations.client.support.arguments import checked_string
from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain._errors import translating_errors
from lmstudio_integrations.langchain._responses import PROVIDER

FIELDS_OF_OBJECT: frozenset[str] = frozenset(
    {"name", "cache", "verbose", "callbacks", "tags", "metadata", "custom_get_token_ids", "rate_limiter"}
    | {"disable_streaming", "output_version", "profile", "unload_on_close"}
)
"""Fields of the object itself, most of them langchain-core's; not call arguments."""

_NOT_IDENTIFYING = FIELDS_OF_OBJECT | frozenset(
    {
        "api_token",
        "headers",
        "ca_file",
        "on_load_progress",
        "on_prompt_progress",
        "show_progress",
        "check_context",
        "max_retries",
        "timeout",
        "timeouts",
    }
    | {"ttl", "on_config_mismatch", "streaming", "allow_image_download"}
)
"""Fields that do not change the response of a model."""

CORE_DESCRIPTIONS = {
    "name": "Name of this object in traces. The default is the name of its class.",
    "cache": "Whether to cache responses, or the cache to use. By default, the global cache is used if there is one. "
    "Streams and calls without `model` are never cached.",
    "verbose": "Whether langchain-core prints the responses. Its global `verbose` is the default.",
    "callbacks": "Callback handlers for every call. None by default.",
    "tags": "Tags for every call in traces. None by default.",
    "metadata": "Metadata for every call in traces. By default, it has only the packages' versions.",
    "custom_get_token_ids": "Called with a text to get its tokens. By default, the model's own tokenizer is called.",
    "rate_limiter": "Limits how often calls start, for example an `InMemoryRateLimiter`. No limit by default.",
    "disable_streaming": "Whether streams wait for the whole response: `True`, `False` (the default), or "
    "`tool_calling` for calls with tools.",
    "output_version": "Content format of messages: `v0`, or `v1` for standard content blocks. If unset, "
    "`LC_OUTPUT_VERSION` applies, else `v0`.",
    "profile": "What the model can do, for example its context length. If unset, `load` or the first response "
    "completes it.",
}
"""Descriptions of langchain-core's fields, which have none."""

Streaming = Annotated[
    bool | None,
    Field(
        description="Whether `invoke` streams internally, so that callbacks see the tokens; `False` forbids streams. "
        "If unset, a chat model does so when something reads the tokens, such as `astream_events`.",
    ),
]

# Arguments ------------------------------------------------------------------------------------------------------------


def arguments(stop: list[str] | None, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of a call; `stop` replaces the field if it is given."""
    return given if stop is None else {**given, "stop": stop}


# Cache keys -----------------------------------------------------------------------------------------------------------


_CONFIGS = {"prediction_config", "load_config"}
"""The fields that hold several settings."""


def identity(values: Mapping[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of a kind of model that are set, as plain data, with the resolved address as host."""
    identifying: dict[str, Any] = {"model": values["model"]}
    for name in kind.model_fields:
        if values[name] is not None and name not in _NOT_IDENTIFYING:
            identifying[name] = values[name].to_dict() if name in _CONFIGS else values[name]
    with suppress(LMStudioValueError):  # the call itself raises it
        resolved = addresses.resolved_hosts(values["host"])
        if resolved != (None,):
            identifying["host"] = resolved[0] if len(resolved) == 1 else resolved
    return identifying


# The common base ------------------------------------------------------------------------------------------------------


class BaseLMStudio(GenerationSettings):
    """A language model of LangChain: what langchain-core asks for besides responses."""

    _framework_descriptions: ClassVar[Mapping[str, str]] = CORE_DESCRIPTIONS
    _translating = translating_errors

    _ls_model_type: ClassVar[str]
    """What LangSmith shows as the kind of model: `chat` or `llm`."""

    def model_post_init(self, context: Any, /) -> None:
        """Record the versions in traces: core's, and ours.

        Core has this method, too. Pydantic before 2.14 calls only the first one.
        """
        super().model_post_init(context)
        cast("Any", self)._add_version(NAME, __version__)  # noqa: SLF001 - core's, for packages like this one

    if TYPE_CHECKING:  # core's field
        custom_get_token_ids: Callable[[str], list[int]] | None = None
    else:  # core's methods, whose types are those of the kind of model

        def bind(self, **kwargs: Any) -> Any:
            """Bind settings to the calls; a token must be a `pydantic.SecretStr`. An unknown `None` is left out.

            Raises:
                LMStudioValueError: If a setting is unknown or invalid.
            """
            with translating_errors():
                return _Binding(bound=self, kwargs=self._bindable(kwargs))

        def with_config(self, config: Any = None, **kwargs: Any) -> Any:
            """Return this model with a `RunnableConfig` for each call; what is bound to it is checked as well."""
            return _Binding(bound=self, kwargs={}, config={**(config or {}), **kwargs})

        async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002 - core's
            """Do the same as `invoke`, without blocking the event loop."""
            with translating_errors():
                callers_loop()  # here, because core gathers tasks first
                return await super().ainvoke(input, config, **kwargs)

        def configurable_fields(self, **kwargs: AnyConfigurableField) -> Any:
            """Make fields configurable. LangSmith records every configurable value except that of `api_key`."""
            with translating_errors():
                if "headers" in kwargs:
                    raise LMStudioValueError("headers cannot be configurable, because their values would be traced")
                token = kwargs.get("api_token")
                if token is not None and token.id != "api_key":
                    raise LMStudioValueError(
                        "a configurable api_token is traced unless it is ConfigurableField(id='api_key')"
                    )
            return super().configurable_fields(**kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, from the model's own tokenizer."""
        if self.custom_get_token_ids is not None:
            return list(self.custom_get_token_ids(text))
        with translating_errors():
            checked_string(text, "the text")
            return cast("list[int]", run(self._resolve_call({}).model().tokenize(text)))

    def get_num_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, from the model's own tokenizer."""
        if self.custom_get_token_ids is not None:
            return len(self.get_token_ids(text))
        with translating_errors():
            checked_string(text, "the text")
            return cast("int", run(self._resolve_call({}).model().count_tokens(text)))

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All settings that change the response."""
        return identity(vars(self), type(self))

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        """Return what LangSmith shows of a call. Core calls this before its tracers get the arguments."""
        current = vars(self)
        if kwargs:
            with translating_errors():
                self._reject_secrets(kwargs)
            current = {**current, **{ALIASES.get(name, name): value for name, value in kwargs.items()}}
        parameters = {
            "ls_provider": PROVIDER,
            "ls_model_type": self._ls_model_type,
            "ls_model_name": current["model"],
            "ls_temperature": current["temperature"],
            "ls_max_tokens": current["max_tokens"] or None,
            "ls_stop": stop or current["stop"] or None,
        }
        return cast("LangSmithParams", {name: value for name, value in parameters.items() if value is not None})

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The token, which serialization replaces by the variable that holds it."""
        return {"api_token": "LM_API_TOKEN"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Attributes that core cannot serialize by itself."""
        fields = vars(self)
        return {name: fields[name].to_dict() for name in _CONFIGS if fields[name] is not None}

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """The public module, so that what is saved does not depend on where a class is written."""
        return ["lmstudio_integrations", "langchain"]

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """`dumpd` and `load` work."""
        return True


class _Binding(RunnableBinding[Any, Any]):
    """A model with bound settings. What is bound besides is checked as well."""

    @classmethod
    def lc_id(cls) -> list[str]:
        """Serialize as core's class, which `load` knows."""
        return RunnableBinding.lc_id()

    def bind(self, **kwargs: Any) -> Runnable[Any, Any]:
        """Bind more settings; they replace those that are bound.

        Raises:
            LMStudioValueError: If a setting is unknown or invalid.
        """
        model = self.bound
        while isinstance(model, RunnableBindingBase):  # of `with_retry`
            model = model.bound
        if isinstance(model, BaseLMStudio):
            kwargs = cast("Any", model.bind(**kwargs)).kwargs
        return super().bind(**kwargs)


# Profiles -------------------------------------------------------------------------------------------------------------

ABILITIES = ModelProfile(
    text_inputs=True,
    text_outputs=True,
    image_url_inputs=False,
    audio_inputs=False,
    video_inputs=False,
    pdf_inputs=False,
    tool_choice=True,
    tool_call_streaming=True,
    structured_output=True,
    temperature=True,
    open_weights=True,
)
"""What every model can do, in LM Studio."""

_REPORTED = {"max_input_tokens": "contextLength", "name": "displayName", "reasoning_replay": "reasoningReplay"}
_REPORTED_ABILITIES = {
    "image_inputs": "vision",
    "image_tool_message": "vision",
    "tool_calling": "trainedForToolUse",
    "mid_conversation_system_messages": "takesLateSystemMessages",
}
"""Members of a profile, and those of the model's info, and of `Runtime.template_info`, that they come from."""


def reported_profile(info: Mapping[str, Any]) -> ModelProfile:
    """Return the members of a profile that a model's info in wire form has."""
    reported = {name: info[member] for name, member in _REPORTED.items() if info.get(member)}
    abilities = {name: bool(info[member]) for name, member in _REPORTED_ABILITIES.items() if member in info}
    return cast("ModelProfile", {**reported, **abilities, **reasoning_profile(info)})
