"""What `ChatLMStudio` and `LMStudioLLM` share: cache keys, serialization, traces, token counts, limits of batches.

The settings and the resolution of a call are in `_both_frameworks/generation_settings.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from langchain_core.runnables import RunnableConfig, ensure_config
from pydantic import Field, model_validator

from lmstudio_integrations._both_frameworks.connection_settings import TIMEOUTS
from lmstudio_integrations._both_frameworks.generation_settings import GenerationSettings, ResolvedCall
from lmstudio_integrations._both_frameworks.input_checks import ALIASES
from lmstudio_integrations._both_frameworks.runtime import LoadedModelInfo
from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.errors import LMStudioError, LMStudioValueError
from lmstudio_integrations.langchain import _chunks
from lmstudio_integrations.langchain._errors import translated
from lmstudio_integrations.types._logit_bias import to_pairs
from lmstudio_integrations.types.config import LlmLoadModelConfig, LoadSettings
from lmstudio_integrations.types.hosts import DEFAULT_PARALLEL, PARALLEL_KEY, parallel_of
from lmstudio_integrations.types.results import PredictionEnd

_PER_OBJECT = frozenset(
    {"name", "cache", "verbose", "callbacks", "tags", "metadata", "custom_get_token_ids", "rate_limiter"}
    | {"disable_streaming", "output_version", "profile", "unload_on_close"}
)
"""Fields of the object itself, most of them langchain-core's; not call arguments."""

_NOT_IN_KEY = frozenset(
    {
        "api_token",
        "headers",
        "ca_file",
        "max_message_bytes",
        "on_load_progress",
        "on_prompt_progress",
        "show_progress",
        "check_context",
        "max_retries",
        "stream_usage",
        *TIMEOUTS,
    }
    | {"ttl", "on_config_mismatch", "streaming", "allow_image_download", "allow_private_image_hosts"}
)
"""Fields that do not change the response of a model."""

_CORE_DESCRIPTIONS = {
    "name": "Name of this object in traces. Unset: the name of its class.",
    "cache": "Whether responses are cached: `True` for the global cache, `False`, or a cache of its own. Unset: the "
    "global cache, if one is set. Streams are never cached, nor anything without `model`.",
    "verbose": "Whether langchain-core prints the responses. Default: its global `verbose`.",
    "callbacks": "Callback handlers of every call. Unset: none besides those of the call.",
    "tags": "Tags of every call in traces. Unset: none besides those of the call.",
    "metadata": "Metadata of every call in traces. Unset: only the versions of the packages.",
    "custom_get_token_ids": "Called with a text to get its tokens. Unset: the model's own tokenizer is called.",
    "rate_limiter": "Limits how often calls start, for example an `InMemoryRateLimiter`. Unset: no limit.",
    "disable_streaming": "Whether streams generate the whole response first: `True`, `False` (default), or "
    "`tool_calling` for calls with tools.",
    "output_version": "Format of the content of messages: `v0`, or `v1` for standard content blocks. Unset: "
    "`LC_OUTPUT_VERSION`, else `v0`.",
    "profile": "What the model can do, for example its context length. Unset: what is true of every model, and "
    "what `load` or the first response reports.",
}
"""Descriptions of langchain-core's fields, which have none."""

_PACKAGE = "lmstudio-integrations"
_version = cache(version)


class LangChainSettings(GenerationSettings):
    """The generation settings with what langchain-core needs of them: cache keys, serialization, token counts."""

    _framework_descriptions: ClassVar[Mapping[str, str]] = _CORE_DESCRIPTIONS
    _not_in_call: ClassVar[frozenset[str]] = _PER_OBJECT
    _ls_model_type: ClassVar[Literal["chat", "llm"]]

    streaming: bool | None = Field(
        default=None,
        description="Whether `invoke` generates as a stream, so that callbacks see the tokens; `False` forbids "
        "streams. Unset: a chat model does so if something reads the tokens, such as `astream_events`; other models "
        "do not.",
    )

    @model_validator(mode="after")
    def _set_lmstudio_version(self) -> Self:
        # Must not share a name with a validator of langchain-core: pydantic would replace it.
        cast("Any", self)._add_version(_PACKAGE, _version(_PACKAGE))  # noqa: SLF001 - core's, for partner packages
        return self

    def _arguments(self, stop: list[str] | None, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments of a call; `stop` replaces the field if it is given.

        Raises:
            LMStudioValueError: If more than one response is requested, or a token would show in traces.
        """
        number = given.get("n")
        if number not in (None, 1):
            raise LMStudioValueError(f"n must be 1, got {number!r}; for several responses use batch()")
        self._reject_secrets(given)
        return given if stop is None else {**given, "stop": stop}

    def _resolve(self, stop: list[str] | None, given: Mapping[str, Any]) -> ResolvedCall:
        """Resolve a call from the arguments that langchain-core passes.

        Raises:
            LMStudioValueError: If an argument is unknown, or a value is invalid.
        """
        return self._resolve_call(self._arguments(stop, given))

    if not TYPE_CHECKING:  # for type checkers these are langchain-core's own, with its own result types

        def bind(self, **kwargs: Any) -> Any:
            """Bind settings to the calls; a token must be a `pydantic.SecretStr`."""
            with translated():
                self._reject_secrets(kwargs)
            return super().bind(**kwargs)

        def configurable_fields(self, **kwargs: Any) -> Any:
            """Make fields configurable. LangSmith records every configurable value except that of `api_key`."""
            token = kwargs.get("api_token")
            with translated():
                if "headers" in kwargs:
                    raise LMStudioValueError("headers cannot be configurable, because their values would be traced")
                if token is not None and token.id != "api_key":
                    raise LMStudioValueError(
                        "a configurable api_token is traced unless it is ConfigurableField(id='api_key')"
                    )
            return super().configurable_fields(**kwargs)

        def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
            """Return what LangSmith shows of a call. Core calls this before its tracers get the arguments."""
            if kwargs:
                with translated():
                    self._reject_secrets(kwargs)
            current = {**vars(self), **{ALIASES.get(name, name): value for name, value in kwargs.items()}}
            parameters = {
                "ls_provider": _chunks.PROVIDER,
                "ls_model_type": self._ls_model_type,
                "ls_model_name": current["model"],
                "ls_temperature": current["temperature"],
                "ls_max_tokens": current["max_tokens"] or None,
                "ls_stop": stop or current["stop"] or None,
            }
            return {name: value for name, value in parameters.items() if value is not None}

    # Tokens ---------------------------------------------------------------------------------------------------------
    # `vars` reads `custom_get_token_ids`: it is a field of core's base classes, which this class does not inherit.

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, from the model's own tokenizer."""
        custom = vars(self)["custom_get_token_ids"]
        if custom is not None:
            return list(custom(text))
        with translated():
            return self._resolve_call({}).model().tokenize(text)

    def get_num_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, from the model's own tokenizer."""
        if vars(self)["custom_get_token_ids"] is not None:
            return len(self.get_token_ids(text))
        with translated():
            return self._resolve_call({}).model().count_tokens(text)

    # Info about the loaded model --------------------------------------------------------------------------------------

    def _record_info(self, call: ResolvedCall, end: PredictionEnd) -> LoadedModelInfo:
        """Record what the end of a prediction reports about the model."""
        return call.record_info(end, partial(_parallel_predictions, end))

    def _concurrency(self, values: Mapping[str, Any]) -> int:
        """Return how many predictions the model of a call runs at once: as reported, as configured, or the default."""
        handle = self._resolve_model(values)
        on_hosts = self._runtime.parallel(handle)
        if on_hosts is not None:
            return on_hosts
        loaded, config = self._runtime.model_info(handle.model), values["load_config"]
        configured = config.max_parallel_predictions if isinstance(config, LlmLoadModelConfig) else None
        return (loaded.parallel if loaded else None) or configured or DEFAULT_PARALLEL["llm"]

    def _bounded(self, config: RunnableConfig | Sequence[RunnableConfig] | None, given: Mapping[str, Any]) -> Any:
        """Return configs that start no more predictions at once than the calls' model runs, unless they set a limit."""
        if isinstance(config, Sequence):
            return [self._bounded(one, given) for one in config]
        if ensure_config(config).get("max_concurrency") is not None:  # given, or inherited from the calling runnable
            return config
        try:
            limit = self._concurrency(self._call_values(None, given))
        except LMStudioError:  # each call raises it, and a batch may keep the errors of its calls
            limit = DEFAULT_PARALLEL["llm"]
        return {**(config or {}), "max_concurrency": limit}

    # Identity -------------------------------------------------------------------------------------------------------

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All settings that change the response; the cache key is built from them."""
        return identity(vars(self), _identifying(type(self)))

    def _call_values(self, stop: list[str] | None, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the resolved settings of a call, without what it requests besides settings, such as tools."""
        others = self._request_arguments | self._framework_arguments
        return self._merged(self._arguments(stop, {name: given[name] for name in given.keys() - others}))

    def _cache_key(self, stop: list[str] | None, given: Mapping[str, Any]) -> str:
        """Return the cache key of a call: its resolved settings, whether they are fields or arguments."""
        # `stream` changes how a response arrives, not the response.
        others = (self._request_arguments | self._framework_arguments) - {"stream"}
        extras = {name: value for name, value in given.items() if name in others}
        with translated():
            values = self._call_values(stop, given)
        parts = {
            "class": type(self).__name__,
            "output_version": values.get("output_version"),
            "settings": sorted(identity(values, _identifying(type(self))).items()),
            "call": sorted(extras.items()),
        }
        return repr(parts)

    def _as_cached(self, given: Mapping[str, Any]) -> Any:
        """Return the object whose `cache` core reads for a call: a stand-in without a cache if no model is named."""
        named = {ALIASES.get(name, name): value for name, value in given.items()} if given else given
        return _Uncached(self) if named.get("model", self.model) is None else self

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The token, which serialization replaces by the variable that holds it."""
        return {"api_token": "LM_API_TOKEN"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Attributes that core cannot serialize by itself."""
        config, bias = self.load_config, self.logit_bias
        attributes: dict[str, Any] = {"load_config": config.to_dict()} if isinstance(config, LlmLoadModelConfig) else {}
        return attributes if bias is None else {**attributes, "logit_bias": to_pairs(bias)}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """`dumpd` and `load` work."""
        return True


class _Uncached:
    """Stands in for an adapter without `model`: any loaded model may respond, so responses must not be cached."""

    cache = False

    def __init__(self, original: LangChainSettings) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


@cache
def _identifying(kind: type[LangChainSettings]) -> tuple[str, ...]:
    """Return the fields that change a response. Cached, because every call needs them."""
    return tuple(name for name in kind.model_fields if name not in _NOT_IN_KEY | _PER_OBJECT)


def identity(values: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Return the fields that are set, as plain data, with the resolved address as host."""
    found: dict[str, Any] = {"model": values["model"]}
    for name in fields:
        value = values[name] if name != "host" else _resolved_or_given(values["host"])
        if value is not None:
            found[name] = value.to_dict() if isinstance(value, LoadSettings) else value
    return found


def _resolved_or_given(host: str | Sequence[str] | None) -> str | Sequence[str] | None:
    try:
        resolved = addresses.resolved_hosts(host)
    except LMStudioValueError:  # the call itself raises it
        return host
    return resolved[0] if len(resolved) == 1 else cast("tuple[str, ...]", resolved)


def _parallel_predictions(end: PredictionEnd) -> int | None:
    for field in end.load_model_config.get("fields", ()):
        if field["key"] == PARALLEL_KEY:
            return parallel_of(field.get("value"))
    return None
