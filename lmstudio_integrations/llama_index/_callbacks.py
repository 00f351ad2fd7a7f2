"""Core's callback decorators with types, and the check for secrets that runs before them."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from llama_index.core.llms import callbacks

from lmstudio_integrations._adapters.generation_settings import GenerationSettings
from lmstudio_integrations._adapters.signature import with_signature

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
ModelT = TypeVar("ModelT", bound=GenerationSettings)

_SETTINGS_IN_KWARGS = (
    *("chat", "achat", "stream_chat", "astream_chat"),
    *("complete", "acomplete", "stream_complete", "astream_complete"),
    *("predict_and_call", "apredict_and_call"),
)
_SETTINGS_IN_LLM_KWARGS = (
    *("structured_predict", "astructured_predict"),
    *("stream_structured_predict", "astream_structured_predict"),
)
_LLM_KWARGS_POSITION = 2

CORE_ARGUMENTS = frozenset(
    {"messages", "prompt", "formatted", "user_msg", "chat_history", "verbose"}
    | {"allow_parallel_tool_calls", "error_on_no_tool_call"}
)
"""Arguments of these methods, besides tools, that are no settings. A text among them may look like a secret."""


def checked_before_spans(model: type[ModelT]) -> type[ModelT]:
    """Decorate a class: secrets among the settings of a call are rejected before core's spans and events get them."""
    for name in (*_SETTINGS_IN_KWARGS, *_SETTINGS_IN_LLM_KWARGS):
        setattr(model, name, _checked(getattr(model, name), nested=name in _SETTINGS_IN_LLM_KWARGS))
    return model


def _checked(method: Callable[..., Any], *, nested: bool) -> Callable[..., Any]:
    """Return the method with a check of its settings. `wraps` keeps core's mark that it already has a span."""

    def settings(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        if nested:
            return kwargs.get("llm_kwargs") or next(iter(args[_LLM_KWARGS_POSITION:]), None) or {}
        return kwargs

    @wraps(method)
    def call(self: GenerationSettings, *args: Any, **kwargs: Any) -> Any:
        self._reject_secrets(settings(args, kwargs))  # pyright: ignore[reportPrivateUsage]
        # Bound, because the signature of a bound method is read from `__signature__`; else, core's span computes one.
        return method.__get__(self)(*args, **kwargs)

    @wraps(method)
    async def acall(self: GenerationSettings, *args: Any, **kwargs: Any) -> Any:
        return await call(self, *args, **kwargs)

    return acall if inspect.iscoroutinefunction(method) else call


def observed_chat(function: FunctionT) -> FunctionT:
    """Emit the events of each chat, and of each chunk of a streamed one."""
    decorate: Callable[[FunctionT], FunctionT] = cast("Any", callbacks).llm_chat_callback()
    return with_signature(decorate(function))


def observed_completion(function: FunctionT) -> FunctionT:
    """Emit the events of each completion, and of each chunk of a streamed one."""
    decorate: Callable[[FunctionT], FunctionT] = cast("Any", callbacks).llm_completion_callback()
    return with_signature(decorate(function))


def without_span(method: FunctionT) -> FunctionT:
    """Return a bound method of core without its span, because the overriding method that calls it has one."""
    bare: FunctionT = getattr(method, "__wrapped__", method)
    return bare
