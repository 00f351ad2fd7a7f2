"""The errors of this package as errors of langchain-core.

Retry, fallback and summarization middleware catches langchain-core's classes; our users catch ours. So every error that
an adapter raises is an instance of both: our class is the first base, langchain-core's the second. The second defines
whether a retry can help (`is_retryable`).
"""

from collections.abc import Generator
from contextlib import contextmanager

from langchain_core import exceptions as core

from lmstudio_integrations import errors


class LangChainError(errors.LMStudioError, core.ModelError):
    """Any other error."""


class LangChainContextOverflowError(errors.LMStudioContextOverflowError, core.ContextOverflowError):
    """The prompt does not fit into the context window; summarisation middleware may shorten it."""


class LangChainModelNotFoundError(errors.LMStudioModelNotFoundError, core.ModelNotFoundError):
    """No model fits the key or identifier."""


class LangChainPresetNotFoundError(errors.LMStudioPresetNotFoundError, core.ModelInvalidRequestError):
    """The preset does not exist."""


class LangChainAuthenticationError(errors.LMStudioAuthenticationError, core.ModelAuthenticationError):
    """The server rejected the API token."""


class LangChainUnreachableError(errors.LMStudioUnreachableError, core.ModelConnectionError):
    """No LM Studio answers; a retry may help."""


class LangChainConnectionLostError(errors.LMStudioConnectionLostError, core.ModelConnectionError):
    """The connection broke; a retry may help."""


class LangChainWebsocketError(errors.LMStudioWebsocketError, core.ModelConnectionError):
    """The WebSocket failed; a retry may help."""


class LangChainClientClosedError(errors.LMStudioClientClosedError, core.ModelError):
    """The client was closed before the call; a retry cannot help."""


class LangChainTimeoutError(errors.LMStudioTimeoutError, core.ModelTimeoutError):
    """A timeout expired; a retry may help."""


class LangChainModelUnloadedError(errors.LMStudioModelUnloadedError, core.ModelAPIError):
    """The model was unloaded during the call; a retry loads it again."""


class LangChainModelCrashedError(errors.LMStudioModelCrashedError, core.ModelAPIError):
    """The engine died; a retry may help."""


class LangChainChannelClosedError(errors.LMStudioChannelClosedError, core.ModelAPIError):
    """The server ended the response early; a retry may help."""


class LangChainWrongModelKindError(errors.LMStudioWrongModelKindError, core.ModelInvalidRequestError):
    """A model of the other kind was named."""


class LangChainPromptTemplateError(errors.LMStudioPromptTemplateError, core.ModelInvalidRequestError):
    """The prompt template rejected the conversation."""


class LangChainUnsupportedError(errors.LMStudioUnsupportedError, core.ModelInvalidRequestError):
    """The engine lacks a requested feature."""


class LangChainFileExpiredError(errors.LMStudioFileExpiredError, core.ModelInvalidRequestError):
    """An uploaded file has expired."""


class LangChainInsufficientResourcesError(errors.LMStudioInsufficientResourcesError, core.ModelError):
    """There is no memory for the model."""


class LangChainModelLoadError(errors.LMStudioModelLoadError, core.ModelError):
    """The model cannot be loaded."""


class LangChainToolCallError(errors.LMStudioToolCallError, core.ModelError):
    """A tool call failed."""


class LangChainStructuredOutputError(errors.LMStudioStructuredOutputError, core.ModelError, core.OutputParserException):
    """The response does not fit the requested format. Callers of output parsers catch `OutputParserException`."""

    send_to_llm = False
    observation: str | None = None
    llm_output: str | None = None

    def __init__(self, message: str = "", *, text: str | None = None) -> None:
        errors.LMStudioStructuredOutputError.__init__(self, message, text=text)
        self.llm_output = text


class LangChainPredictionError(errors.LMStudioPredictionError, core.ModelAPIError):
    """The prediction failed on the server; a retry may help."""


class LangChainServerError(errors.LMStudioServerError, core.ModelAPIError):
    """The server failed; a retry may help."""


class LangChainConfigMismatchError(errors.LMStudioConfigMismatchError, core.ModelInvalidRequestError):
    """The model is loaded with another configuration."""


class LangChainProtocolError(errors.LMStudioProtocolError, core.ModelError):
    """The server sent an invalid message."""


class LangChainCancelledError(errors.LMStudioCancelledError, core.ModelError):
    """A result was requested of a prediction that was cancelled before it had one."""


class LangChainClientError(errors.LMStudioClientError, core.ModelError):
    """An error of the client."""


class LangChainValueError(errors.LMStudioValueError, core.ModelInvalidRequestError):
    """An argument is invalid; nothing was sent."""


class LangChainRuntimeError(errors.LMStudioRuntimeError, core.ModelError):
    """A call was made at the wrong time."""


class LangChainOSError(errors.LMStudioOSError, core.ModelInvalidRequestError):
    """A file could not be read."""


class LangChainImageDownloadError(errors.LMStudioImageDownloadError, core.ModelInvalidRequestError):
    """An image could not be downloaded, or is not allowed to be."""


_CLASSES: dict[type[BaseException], type[errors.LMStudioError]] = {
    kind.__bases__[0]: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, errors.LMStudioError) and issubclass(kind, core.ModelError)
}
"""The class with both bases, by our class."""


def both(error: errors.LMStudioError) -> errors.LMStudioError:
    """Return the error as an instance of our class and of langchain-core's, with the same text and attributes."""
    if isinstance(error, core.ModelError):
        return error
    kind = next(_CLASSES[base] for base in type(error).__mro__ if base in _CLASSES)
    translated = kind.__new__(kind, *error.args)
    translated.args = error.args
    translated.__dict__.update(error.__dict__)
    return translated


@contextmanager
def translated() -> Generator[None]:
    """Translate the errors that the block raises; the original is the cause."""
    try:
        yield
    except errors.LMStudioError as error:
        translation = both(error)
        if translation is error:
            raise
        raise translation from error
