"""Core's callback decorators, with the types that they lack."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llama_index.core.llms import callbacks

from lmstudio_integrations._adapters.signature import with_signature

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def observed_chat(function: FunctionT) -> FunctionT:
    """Announce each chat to callbacks and event handlers, and each chunk of a streamed one."""
    decorate: Callable[[FunctionT], FunctionT] = cast("Any", callbacks).llm_chat_callback()
    return with_signature(decorate(function))


def observed_completion(function: FunctionT) -> FunctionT:
    """Announce each completion to callbacks and event handlers, and each chunk of a streamed one."""
    decorate: Callable[[FunctionT], FunctionT] = cast("Any", callbacks).llm_completion_callback()
    return with_signature(decorate(function))


def without_span(method: FunctionT) -> FunctionT:
    """Return a bound method of core without its span; the one that overrides it, and calls it, has the same."""
    bare: FunctionT = getattr(method, "__wrapped__", method)
    return bare
