"""The errors of this package as errors of langchain-core.

Retry, fallback and summarization middleware catches langchain-core's classes; our users catch ours. So every error that
a model of ours raises is an instance of both: our class is the first base, langchain-core's the second. The second
defines whether a retry can help (`is_retryable`).
"""

from contextlib import AbstractContextManager
from typing import Any

from langchain_core import exceptions as core

from lmstudio_integrations import errors
from lmstudio_integrations._adapters.request_model import AdapterNames

AUXILIARY_ADAPTERS: AdapterNames = (("embedding", "LMStudioEmbeddings"), ("decision", "LMStudioClassifier"))
"""What errors name for models of other kinds than language models."""

_BASES: dict[type[errors.LMStudioError], type[core.ModelError]] = {
    errors.LMStudioError: core.ModelError,
    errors.LMStudioContextOverflowError: core.ContextOverflowError,
    errors.LMStudioModelNotFoundError: core.ModelNotFoundError,
    errors.LMStudioPresetNotFoundError: core.ModelInvalidRequestError,
    errors.LMStudioAuthenticationError: core.ModelAuthenticationError,
    errors.LMStudioUnreachableError: core.ModelConnectionError,
    errors.LMStudioConnectionLostError: core.ModelConnectionError,
    errors.LMStudioWebsocketError: core.ModelConnectionError,
    errors.LMStudioClientClosedError: core.ModelError,
    errors.LMStudioModelUnloadedError: core.ModelAPIError,
    errors.LMStudioModelCrashedError: core.ModelAPIError,
    errors.LMStudioEngineLostError: core.ModelAPIError,
    errors.LMStudioChannelClosedError: core.ModelAPIError,
    errors.LMStudioWrongModelKindError: core.ModelInvalidRequestError,
    errors.LMStudioPromptTemplateError: core.ModelInvalidRequestError,
    errors.LMStudioUnsupportedError: core.ModelInvalidRequestError,
    errors.LMStudioFileExpiredError: core.ModelInvalidRequestError,
    errors.LMStudioModelLoadError: core.ModelError,
    errors.LMStudioToolCallError: core.ModelError,
    errors.LMStudioPredictionError: core.ModelAPIError,
    errors.LMStudioPluginError: core.ModelAPIError,
    errors.LMStudioPluginToolError: core.ModelError,
    errors.LMStudioToolConnectionLostError: core.ModelError,
    errors.LMStudioServerError: core.ModelAPIError,
    errors.LMStudioConfigMismatchError: core.ModelInvalidRequestError,
    errors.LMStudioProtocolError: core.ModelError,
    errors.LMStudioCancelledError: core.ModelError,
    errors.LMStudioClientError: core.ModelError,
    errors.LMStudioValueError: core.ModelInvalidRequestError,
    errors.LMStudioRuntimeError: core.ModelError,
    errors.LMStudioOSError: core.ModelInvalidRequestError,
    errors.LMStudioImageDownloadError: core.ModelInvalidRequestError,
}
"""The class of langchain-core for each of ours. It says whether a retry can help."""


class LangChainStructuredOutputError(errors.LMStudioStructuredOutputError, core.ModelError, core.OutputParserException):
    """The response does not fit the requested format. Callers of output parsers catch `OutputParserException`."""

    send_to_llm = False
    observation: str | None = None
    llm_output: str | None = None

    def __init__(self, message: str = "", *, text: str | None = None) -> None:
        errors.LMStudioStructuredOutputError.__init__(self, message, text=text)
        self.llm_output = text


class LangChainTimeoutError(errors.LMStudioTimeoutError, core.ModelTimeoutError, ConnectionError):
    """A timeout expired. LangGraph's default `RetryPolicy` retries a `ConnectionError`, but no other `OSError`."""


class _Retryable:
    """An attribute that is false for the class, and what the server's plan says for each error."""

    def __get__(self, error: errors.LMStudioInsufficientResourcesError | None, _kind: object) -> bool:
        return error is not None and error.retryable


class LangChainInsufficientResourcesError(errors.LMStudioInsufficientResourcesError, core.ModelError):
    """The model does not fit into the memory. A retry can help if it only waits for requests to others."""

    is_retryable: Any = _Retryable()


_CLASSES: dict[type[BaseException], type[errors.LMStudioError]] = {
    errors.LMStudioInsufficientResourcesError: LangChainInsufficientResourcesError,
    errors.LMStudioStructuredOutputError: LangChainStructuredOutputError,
    errors.LMStudioTimeoutError: LangChainTimeoutError,
    **{
        own: type(own.__name__.replace("LMStudio", "LangChain"), (own, base), {"__module__": __name__})
        for own, base in _BASES.items()
    },
}
"""The class with both bases, by our class."""

globals().update({kind.__name__: kind for kind in _CLASSES.values()})  # where pickle looks for them


def as_langchain_error(error: errors.LMStudioError) -> errors.LMStudioError:
    """Make the error an instance of our class and of langchain-core's, in place, so that its traceback has it once."""
    if not isinstance(error, core.ModelError):
        error.__class__ = next(_CLASSES[base] for base in type(error).__mro__ if base in _CLASSES)
    return error


class translating_errors(AbstractContextManager[object, None]):  # noqa: N801 - a context manager is named like a function
    """Translate the errors that the block raises."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, errors.LMStudioError):
            as_langchain_error(error)
