"""What the chat model and the raw completion share.

The settings themselves are `_adapters/predicting.py`'s; here is what langchain-core wants of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.runnables import RunnableConfig, ensure_config

from lmstudio_integrations._adapters import predicting
from lmstudio_integrations._adapters.predicting import Call
from lmstudio_integrations._adapters.runtime import Facts
from lmstudio_integrations._adapters.settings import ALIASES, TIMEOUTS
from lmstudio_integrations._typeguards import is_count
from lmstudio_integrations.client.transport.addresses import resolved_host
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain._chunks import PROVIDER
from lmstudio_integrations.langchain._errors import translated
from lmstudio_integrations.types.config import LlmLoadModelConfig, LoadSettings
from lmstudio_integrations.types.results import PredictionEnd

_PER_OBJECT = frozenset(
    {"name", "cache", "verbose", "callbacks", "tags", "metadata", "custom_get_token_ids", "rate_limiter"}
    | {"disable_streaming", "output_version", "profile", "unload_on_close"}
)
"""Fields of the object itself, most of them langchain-core's; they mean nothing in a call."""

_NOT_IN_KEY = frozenset(
    {
        "api_token",
        "headers",
        "ca_file",
        "on_load_progress",
        "on_prompt_progress",
        "show_progress",
        "max_retries",
        "stream_usage",
        *TIMEOUTS,
    }
    | {"ttl", "on_config_mismatch", "streaming", "allow_image_download", "allow_private_image_hosts"}
)
"""Fields that do not change what a model answers."""

DEFAULT_CONCURRENCY = 4
"""Predictions that LM Studio runs at once by default."""

_PACKAGE = "lmstudio-integrations"
_PARALLEL = "llm.load.numParallelSessions"
_MOST_PARALLEL = 1023


class Predicting(predicting.Predicting):
    """What langchain-core wants of the settings besides their values: a cache's key, serialisation, token counts."""

    _not_in_call: ClassVar[frozenset[str]] = _PER_OBJECT

    streaming: bool | None = None
    """Whether `invoke` generates as a stream, so that callbacks see the tokens; `False` forbids streams."""

    def _call_values(self, stop: list[str] | None, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings of one call by our names; a `stop` that is given replaces the field.

        Raises:
            LMStudioValueError: If an argument is unknown, or a token would show in traces.
        """
        self._reject_secrets(given)
        return self._values(given if stop is None else {**given, "stop": stop})

    if not TYPE_CHECKING:  # for type checkers these are langchain-core's own, with its own result types

        def bind(self, **kwargs: Any) -> Any:
            """Bind settings for the calls; a token must be a `pydantic.SecretStr`."""
            with translated():
                self._reject_secrets(kwargs)
            return super().bind(**kwargs)

        def configurable_fields(self, **kwargs: Any) -> Any:
            """Make fields configurable. LangSmith gets every configurable value but that of `api_key`."""
            token = kwargs.get("api_token")
            with translated():
                if "headers" in kwargs:
                    raise LMStudioValueError("headers cannot be configurable, because their values would be traced")
                if token is not None and token.id != "api_key":
                    raise LMStudioValueError(
                        "a configurable api_token is traced unless it is ConfigurableField(id='api_key')"
                    )
            return super().configurable_fields(**kwargs)

    def _own(self) -> Call:
        """Return a call with nothing but the object's own settings."""
        return self._settled(vars(self), {})

    # Tokens ---------------------------------------------------------------------------------------------------------

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, as the model has them."""
        custom = vars(self)["custom_get_token_ids"]
        if custom is not None:
            return list(custom(text))
        with translated():
            return self._own().model().tokenize(text)

    def get_num_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, as the model has them."""
        if vars(self)["custom_get_token_ids"] is not None:
            return len(self.get_token_ids(text))
        with translated():
            return self._own().model().count_tokens(text)

    # What the server has told ---------------------------------------------------------------------------------------

    def _learn(self, call: Call, end: PredictionEnd) -> Facts:
        """Keep what the end of a prediction says of the model."""
        return call.runtime.learn(call.server, call.wanted, end.model_info, partial(_parallel, end))

    def _facts(self) -> Facts | None:
        """Return what is known of this object's own model."""
        values, runtime = vars(self), self._runtime
        return runtime.facts(self._server(values, runtime), self._wanted(values, self._load_config(values)))

    def _concurrency(self) -> int:
        """Return how many predictions the model runs at once, as far as is known without asking."""
        config = self.load_config
        asked = config.max_parallel_predictions if isinstance(config, LlmLoadModelConfig) else None
        facts = self._facts()
        return (facts.parallel if facts else None) or asked or DEFAULT_CONCURRENCY

    def _bounded(self, config: RunnableConfig | Sequence[RunnableConfig] | None) -> Any:
        """Return configs that start no more predictions at once than the model runs, unless they say otherwise."""
        if isinstance(config, Sequence):
            return [self._bounded(one) for one in config]
        if ensure_config(config).get("max_concurrency") is not None:  # given, or inherited from whoever calls this
            return config
        return {**(config or {}), "max_concurrency": self._concurrency()}

    # What identifies the object -------------------------------------------------------------------------------------

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that is set and changes what the model answers; the cache's key is built from it."""
        return identity(vars(self), _identifying(type(self)))

    def _cache_key(self, stop: list[str] | None, given: Mapping[str, Any]) -> str:
        """Return the key of a call: the settings that it resolves to, whichever way they were given."""
        extras = {name: value for name, value in given.items() if name in self._no_settings - {"stream"}}
        with translated():
            values = self._call_values(stop, {name: given[name] for name in given.keys() - self._no_settings})
        parts = {
            "class": type(self).__name__,
            "output_version": values.get("output_version"),
            "settings": sorted(identity(values, _identifying(type(self))).items()),
            "call": sorted(extras.items()),
        }
        return repr(parts)

    def _as_cached(self, given: Mapping[str, Any]) -> Any:
        """Return the object whose `cache` is read for a call: none where any loaded model may answer."""
        named = {ALIASES.get(name, name): value for name, value in given.items()}
        return _Uncached(self) if named.get("model", self.model) is None else self

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


class _Uncached:
    """An object as it would be without a cache. No key can say which model is loaded at the moment."""

    cache = False

    def __init__(self, original: Predicting) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


@cache
def _identifying(kind: type[Predicting]) -> tuple[str, ...]:
    """Return the fields that change an answer; asked for at every call."""
    return tuple(name for name in kind.model_fields if name not in _NOT_IN_KEY | _PER_OBJECT)


def identity(values: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Return those of some settings that are set, as plain data; the host as the address that it means."""
    found: dict[str, Any] = {"model": values["model"]}
    for name, value in {**{name: values[name] for name in fields}, "host": _server(values["host"])}.items():
        if value is not None:
            found[name] = value.to_dict() if isinstance(value, LoadSettings) else value
    return found


def _server(host: str | None) -> str | None:
    try:
        return resolved_host(host)
    except LMStudioValueError:  # the call itself raises it
        return host


def ls_params(values: Mapping[str, Any], kind: str, stop: list[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tracing wants to know of a call."""
    current = {**values, **{ALIASES.get(name, name): value for name, value in given.items()}}
    wanted = {
        "ls_model_name": current["model"],
        "ls_temperature": current["temperature"],
        "ls_max_tokens": current["max_tokens"] or None,
        "ls_stop": stop or current["stop"] or None,
    }
    known = {name: value for name, value in wanted.items() if value is not None}
    return {"ls_provider": PROVIDER, "ls_model_type": kind, **known}


@cache
def own_version() -> tuple[str, str]:
    """Return the name and the version of this package, for traces."""
    return _PACKAGE, version(_PACKAGE)


def _parallel(end: PredictionEnd) -> int | None:
    for field in end.load_model_config.get("fields", ()):
        if field["key"] == _PARALLEL:
            value = field.get("value")
            return value if is_count(value) and 0 < value <= _MOST_PARALLEL else None
    return None


def refuse_several(number: object) -> None:
    """Refuse more than one answer to one prompt.

    Raises:
        LMStudioValueError: If more is asked for.
    """
    if number not in (None, 1):
        raise LMStudioValueError(f"n must be 1, got {number!r}; for several answers use batch()")
