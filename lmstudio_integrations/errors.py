"""Every exception and warning of the package, in one tree.

```
LMStudioError
├── LMStudioServerError                  the server reported an error
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
├── LMStudioClientError                  this side, or the connection
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
    """Base class of all errors of this package. Messages contain nothing that looks like a token."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))


class LMStudioServerError(LMStudioError):
    """The server [reported an error](docs/protocol.md#errors).

    Args:
        message: The whole text, for users.
        title: The server's title of the error.
        root_title: The title of the root cause, if it differs.
        cause: The server's description of the cause.
        suggestion: The server's advice.
        display_data: The machine-readable part; its `code` decides the class of the error.
        error_data: Further data of any form.
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
    """No model, or no loaded model, has the given key or identifier."""


class LMStudioModelUnloadedError(LMStudioModelNotFoundError):
    """The model was unloaded before or while it was used. It exists, and the next call may load it.

    Args:
        message: The whole text, for users.
        retryable: Whether the call may be repeated: not if nothing would load the model, nor if the caller has seen a
            part of the response.
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
    """The call needs a language model and got an embedding model, or the reverse."""


class LMStudioInsufficientResourcesError(LMStudioServerError):
    """The server has not enough memory to load the model."""


class LMStudioModelLoadError(LMStudioServerError):
    """The server could not load the model."""


class LMStudioModelCrashedError(LMStudioServerError):
    """The engine of the model crashed."""


class LMStudioContextOverflowError(LMStudioServerError):
    """The prompt does not fit into the context window of the loaded model.

    Args:
        message: The whole text, for users.
        used: The tokens of the prompt, if known.
        limit: The context length of the loaded model in tokens, if known.
        details: What `LMStudioServerError` takes.
    """

    def __init__(self, message: str = "", *, used: int | None = None, limit: int | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.used = used
        self.limit = limit


class LMStudioPromptTemplateError(LMStudioServerError):
    """The model's prompt template rejected the conversation."""


class LMStudioUnsupportedError(LMStudioServerError):
    """The engine or the server does not support a requested feature."""


class LMStudioFileExpiredError(LMStudioServerError):
    """The server has dropped an uploaded file, and it cannot be uploaded again."""


class LMStudioPredictionError(LMStudioServerError):
    """A prediction ended without a usable result."""


class LMStudioToolCallError(LMStudioPredictionError):
    """A tool call could not be parsed, was cut off, or was required and is missing.

    Args:
        message: The whole text, for users.
        raw_content: What the model wrote, if known.
        details: What `LMStudioServerError` takes.
    """

    def __init__(self, message: str = "", *, raw_content: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.raw_content = raw_content


class LMStudioStructuredOutputError(LMStudioPredictionError, ValueError):
    """The response is not the JSON, or not the instance, that was requested.

    It is a `ValueError`, because frameworks catch that to recover from a response that cannot be parsed.

    Args:
        message: The whole text, for users.
        text: The response as the model wrote it.
        details: What `LMStudioServerError` takes.
    """

    def __init__(self, message: str = "", *, text: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.text = text


class LMStudioClientError(LMStudioError):
    """An error on this side, or of the connection."""


class LMStudioUnreachableError(LMStudioClientError):
    """No LM Studio answers at the address, or at any of the tried addresses.

    Args:
        message: The whole text, for users.
        tried: The addresses, each with what happened there.
    """

    def __init__(self, message: str = "", *, tried: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.tried = tried


class LMStudioWebsocketError(LMStudioClientError):
    """The WebSocket to the server failed."""


class LMStudioConnectionLostError(LMStudioWebsocketError):
    """The connection was lost while a call was waiting for the server.

    Args:
        message: The whole text, for users.
        retryable: Whether the call may be repeated: not if this side closed the connection, nor if the caller has seen
            a part of the response.
    """

    def __init__(self, message: str = "", *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class LMStudioProtocolError(LMStudioClientError):
    """The server sent something that this client cannot read, or rejected a request as invalid."""


class LMStudioCancelledError(LMStudioClientError):
    """The prediction was cancelled or closed before it had a result."""


class LMStudioConfigMismatchError(LMStudioClientError):
    """The model is loaded with other settings than requested.

    Args:
        message: The whole text, for users.
        differences: The requested and the actual value of each setting that differs.
    """

    def __init__(self, message: str = "", *, differences: Mapping[str, tuple[Any, Any]] | None = None) -> None:
        super().__init__(message)
        self.differences: dict[str, tuple[Any, Any]] = dict(differences or {})


class LMStudioUnknownMessageWarning(LMStudioClientError, UserWarning):  # noqa: N818 - the official name
    """The server sent a message of a kind unknown here. It exists for code that filters it; nothing raises it."""


class LMStudioAuthenticationError(LMStudioServerError, LMStudioClientError):
    """The server rejected the [credentials](docs/protocol.md#authentication), or the token is malformed."""


class LMStudioTimeoutError(LMStudioError, TimeoutError):
    """A timeout expired. The work was cancelled on the server.

    Args:
        message: The whole text, for users.
        timeout_name: Which one: `connect_timeout`, `load_timeout`, `queue_timeout`, `first_token_timeout`,
            `idle_timeout` or `timeout`.
        elapsed: Seconds since it started, or since the last packet that restarted it.
    """

    def __init__(self, message: str = "", *, timeout_name: str | None = None, elapsed: float | None = None) -> None:
        super().__init__(message)
        self.timeout_name = timeout_name
        self.elapsed = elapsed


class LMStudioValueError(LMStudioError, ValueError):
    """An argument has an invalid value. Nothing was sent."""


class LMStudioRuntimeError(LMStudioError, RuntimeError):
    """A call is not possible now, for example on the I/O thread itself."""


class LMStudioClientClosedError(LMStudioWebsocketError, LMStudioRuntimeError):
    """The client, or the client of the handle, was closed before the call. Nothing was sent."""


class LMStudioOSError(LMStudioError, OSError):
    """A file could not be read."""


class LMStudioImageDownloadError(LMStudioOSError):
    """An image could not or must not be downloaded.

    Args:
        message: The whole text, for users.
        url: The image's URL, without user name, password and query.
    """

    def __init__(self, message: str = "", *, url: str | None = None) -> None:
        super().__init__(message)
        self.url = url


class LMStudioConfigWarning(UserWarning):
    """The model is loaded with other settings than requested."""


class LMStudioEvictionWarning(UserWarning):
    """A model does not stay loaded, because just-in-time loads evict each other while Auto-Evict is on."""
