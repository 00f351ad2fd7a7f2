"""Every exception and warning of the package, in one tree.

```
LMStudioError
├── LMStudioServerError                  the server said no; carries what it said
│   ├── LMStudioModelNotFoundError
│   │   └── LMStudioModelUnloadedError
│   ├── LMStudioPresetNotFoundError
│   ├── LMStudioChannelClosedError
│   ├── LMStudioWrongModelKindError
│   ├── LMStudioInsufficientResourcesError
│   ├── LMStudioModelLoadError
│   ├── LMStudioModelCrashedError
│   ├── LMStudioContextOverflowError
│   ├── LMStudioPromptTemplateError
│   ├── LMStudioUnsupportedError
│   ├── LMStudioFileExpiredError
│   ├── LMStudioAuthenticationError      (also LMStudioClientError)
│   └── LMStudioPredictionError
│       ├── LMStudioToolCallError
│       └── LMStudioStructuredOutputError   (also ValueError)
├── LMStudioClientError                  this side, or the line between the two
│   ├── LMStudioUnreachableError
│   ├── LMStudioWebsocketError
│   │   ├── LMStudioConnectionLostError
│   │   └── LMStudioClientClosedError    (also LMStudioRuntimeError)
│   ├── LMStudioProtocolError
│   ├── LMStudioCancelledError
│   ├── LMStudioConfigMismatchError
│   └── LMStudioUnknownMessageWarning    (also UserWarning)
├── LMStudioTimeoutError                 (also TimeoutError)
├── LMStudioValueError                   (also ValueError)
├── LMStudioRuntimeError                 (also RuntimeError)
└── LMStudioOSError                      (also OSError)
    └── LMStudioImageDownloadError

LMStudioConfigWarning                    (UserWarning)
LMStudioEvictionWarning                  (UserWarning)
```

Names that the official Python SDK has keep their places, so that code moves over by changing an import.
Every exception can be pickled, with its attributes.
"""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._secrets import redact


class LMStudioError(Exception):
    """Anything that this package raises on purpose. What is shaped like a token is not in its message."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))


class LMStudioServerError(LMStudioError):
    """The server answered with an error (protocol §3.7).

    Args:
        message: The whole text, made for people.
        title: The server's headline.
        root_title: The headline of the innermost cause, where it differs.
        cause: What went wrong, in the server's words.
        suggestion: The server's advice.
        display_data: The machine-readable part; its `code` decides the class of the exception.
        error_data: Further data, of no fixed shape.
    """

    def __init__(
        self,
        message: str = "",
        *,
        title: str | None = None,
        root_title: str | None = None,
        cause: str | None = None,
        suggestion: str | None = None,
        display_data: Mapping[str, Any] | None = None,
        error_data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.title = title
        self.root_title = root_title
        self.cause = cause
        self.suggestion = suggestion
        self.display_data = display_data
        self.error_data = error_data


class LMStudioModelNotFoundError(LMStudioServerError):
    """No model, or no loaded model, fits the given key or identifier."""


class LMStudioModelUnloadedError(LMStudioModelNotFoundError):
    """The model was unloaded before or while it was used: it exists, and the next call may load it.

    Args:
        message: The whole text, made for people.
        retryable: Whether the call may be made again: not where nothing would load the model, nor where the caller has
            seen a part of the response.
        details: What `LMStudioServerError` takes.
    """

    def __init__(self, message: str = "", *, retryable: bool = True, **details: Any) -> None:
        super().__init__(message, **details)
        self.retryable = retryable


class LMStudioPresetNotFoundError(LMStudioServerError):
    """The named preset does not exist on the server."""


class LMStudioChannelClosedError(LMStudioServerError):
    """The server closed a channel before the packet that ends it."""


class LMStudioWrongModelKindError(LMStudioServerError):
    """An embedding model was asked to chat, or a language model to embed."""


class LMStudioInsufficientResourcesError(LMStudioServerError):
    """The server refused to load the model for want of memory."""


class LMStudioModelLoadError(LMStudioServerError):
    """The server could not load the model."""


class LMStudioModelCrashedError(LMStudioServerError):
    """The engine that ran the model died."""


class LMStudioContextOverflowError(LMStudioServerError):
    """The prompt does not fit into the context window of the loaded model.

    Args:
        message: The whole text, made for people.
        used: Tokens that the prompt needs, where known.
        limit: Tokens that the loaded model holds, where known.
        details: What `LMStudioServerError` takes.
    """

    def __init__(self, message: str = "", *, used: int | None = None, limit: int | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.used = used
        self.limit = limit


class LMStudioPromptTemplateError(LMStudioServerError):
    """The model's prompt template refused the conversation."""


class LMStudioUnsupportedError(LMStudioServerError):
    """The engine or the server lacks a feature that was asked for."""


class LMStudioFileExpiredError(LMStudioServerError):
    """An uploaded file is gone from the server and cannot be uploaded again."""


class LMStudioPredictionError(LMStudioServerError):
    """A prediction ended without a usable result."""


class LMStudioToolCallError(LMStudioPredictionError):
    """A tool call could not be parsed, was cut off, or was required and did not come.

    Args:
        message: The whole text, made for people.
        raw_content: What the model wrote, where known.
        details: What `LMStudioServerError` takes.
    """

    def __init__(self, message: str = "", *, raw_content: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.raw_content = raw_content


class LMStudioStructuredOutputError(LMStudioPredictionError, ValueError):
    """The response is not the JSON, or not the instance, that was requested.

    A `ValueError`, because frameworks recover from a response that does not parse by catching that.

    Args:
        message: The whole text, made for people.
        text: The response as the model wrote it.
        details: What `LMStudioServerError` takes.
    """

    def __init__(self, message: str = "", *, text: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.text = text


class LMStudioClientError(LMStudioError):
    """Something failed on this side, or on the way to the server."""


class LMStudioUnreachableError(LMStudioClientError):
    """No LM Studio answers at the address, or at any address that was tried.

    Args:
        message: The whole text, made for people.
        tried: The addresses, each with what happened there.
    """

    def __init__(self, message: str = "", *, tried: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.tried = tried


class LMStudioWebsocketError(LMStudioClientError):
    """The WebSocket to the server failed."""


class LMStudioConnectionLostError(LMStudioWebsocketError):
    """The connection broke while something was waiting for the server.

    Args:
        message: The whole text, made for people.
        retryable: Whether the call may be made again: not where this side closed the connection, nor where the caller
            has seen a part of the response.
    """

    def __init__(self, message: str = "", *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class LMStudioProtocolError(LMStudioClientError):
    """The server sent what this client cannot make sense of, or did not know what it was asked."""


class LMStudioCancelledError(LMStudioClientError):
    """A result was asked of a prediction that had been cancelled before it had one."""


class LMStudioConfigMismatchError(LMStudioClientError):
    """The model is loaded with another configuration than the one asked for.

    Args:
        message: The whole text, made for people.
        differences: Per setting, the value asked for and the actual one.
    """

    def __init__(self, message: str = "", *, differences: Mapping[str, tuple[Any, Any]] | None = None) -> None:
        super().__init__(message)
        self.differences: dict[str, tuple[Any, Any]] = dict(differences or {})


class LMStudioUnknownMessageWarning(LMStudioClientError, UserWarning):  # noqa: N818 - the official name
    """The server sent a message of a kind unknown here. Kept for code that filters it; nothing raises it."""


class LMStudioAuthenticationError(LMStudioServerError, LMStudioClientError):
    """The server refused the credentials, or the API token has the wrong shape (protocol §2)."""


class LMStudioTimeoutError(LMStudioError, TimeoutError):
    """A timeout expired. The work was cancelled on the server.

    Args:
        message: The whole text, made for people.
        timeout_name: Which one: `connect_timeout`, `load_timeout`, `queue_timeout`, `first_token_timeout`,
            `idle_timeout` or `timeout`.
        elapsed: Seconds since it began to run, or since the last packet that restarted it.
    """

    def __init__(self, message: str = "", *, timeout_name: str | None = None, elapsed: float | None = None) -> None:
        super().__init__(message)
        self.timeout_name = timeout_name
        self.elapsed = elapsed


class LMStudioValueError(LMStudioError, ValueError):
    """An argument has a value that cannot work. Nothing was sent."""


class LMStudioRuntimeError(LMStudioError, RuntimeError):
    """A call came at the wrong moment, for example on the I/O thread itself."""


class LMStudioClientClosedError(LMStudioWebsocketError, LMStudioRuntimeError):
    """A call was made on a client, or on a handle of a client, that was closed before. Nothing was sent."""


class LMStudioOSError(LMStudioError, OSError):
    """A file could not be read."""


class LMStudioImageDownloadError(LMStudioOSError):
    """An image could not be downloaded, or must not be.

    Args:
        message: The whole text, made for people.
        url: The image's URL, without user name, password and query.
    """

    def __init__(self, message: str = "", *, url: str | None = None) -> None:
        super().__init__(message)
        self.url = url


class LMStudioConfigWarning(UserWarning):
    """The model is loaded with another configuration than the one asked for."""


class LMStudioEvictionWarning(UserWarning):
    """A model will not stay loaded: just-in-time loads evict each other while Auto-Evict is on."""
