"""The errors of this package as errors of langchain-core.

Retry, fallback and summarization middleware catches langchain-core's classes; our users catch ours. So every error that
an adapter raises is an instance of both: our class is the first base, langchain-core's the second. The second defines
whether a retry can help (`is_retryable`).
"""

from langchain_core import exceptions as core

from lmstudio_integrations import errors

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
    errors.LMStudioTimeoutError: core.ModelTimeoutError,
    errors.LMStudioModelUnloadedError: core.ModelAPIError,
    errors.LMStudioModelCrashedError: core.ModelAPIError,
    errors.LMStudioChannelClosedError: core.ModelAPIError,
    errors.LMStudioWrongModelKindError: core.ModelInvalidRequestError,
    errors.LMStudioPromptTemplateError: core.ModelInvalidRequestError,
    errors.LMStudioUnsupportedError: core.ModelInvalidRequestError,
    errors.LMStudioFileExpiredError: core.ModelInvalidRequestError,
    errors.LMStudioInsufficientResourcesError: core.ModelError,
    errors.LMStudioModelLoadError: core.ModelError,
    errors.LMStudioToolCallError: core.ModelError,
    errors.LMStudioPredictionError: core.ModelAPIError,
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


_CLASSES: dict[type[BaseException], type[errors.LMStudioError]] = {
    errors.LMStudioStructuredOutputError: LangChainStructuredOutputError,
    **{
        own: type(own.__name__.replace("LMStudio", "LangChain"), (own, base), {"__module__": __name__})
        for own, base in _BASES.items()
    },
}
"""The class with both bases, by our class."""

globals().update({kind.__name__: kind for kind in _CLASSES.values()})  # where pickle looks for them


def as_langchain_error(error: errors.LMStudioError) -> errors.LMStudioError:
    """Return the error as an instance of our class and of langchain-core's, with the same text and attributes."""
    if isinstance(error, core.ModelError):
        return error
    kind = next(_CLASSES[base] for base in type(error).__mro__ if base in _CLASSES)
    translated = kind.__new__(kind, *error.args)
    translated.args = error.args
    translated.__dict__.update(error.__dict__)
    return translated


class translating_errors:  # noqa: N801 - a context manager is named like a function
    """Translate the errors that the block raises. The translation has the original's traceback, cause and context."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, errors.LMStudioError):
            return
        translation = as_langchain_error(error)
        if translation is error:
            return
        try:
            raise translation.with_traceback(error.__traceback__)
        finally:  # `raise` has made the original the context, so that a traceback would show each message twice
            translation.__cause__, translation.__context__ = error.__cause__, error.__context__
            translation.__suppress_context__ = error.__suppress_context__
