"""Every exception and warning of the package, in one tree.

```
LMStudioError
├── LMStudioServerError                  an error from the server, with its details
│   ├── LMStudioModelNotFoundError
│   │   └── LMStudioModelUnloadedError
│   ├── LMStudioPresetNotFoundError
│   ├── LMStudioChannelClosedError
│   ├── LMStudioWrongModelKindError
│   ├── LMStudioModelLoadError
│   │   └── LMStudioInsufficientResourcesError
│   ├── LMStudioModelCrashedError
│   │   └── LMStudioEngineLostError      (also LMStudioModelUnloadedError)
│   ├── LMStudioContextOverflowError
│   ├── LMStudioPromptTemplateError
│   ├── LMStudioUnsupportedError
│   ├── LMStudioFileExpiredError
│   ├── LMStudioPluginError
│   │   └── LMStudioPluginToolError
│   ├── LMStudioAuthenticationError      (also LMStudioClientError)
│   └── LMStudioPredictionError
│       ├── LMStudioToolCallError
│       └── LMStudioStructuredOutputError   (also ValueError)
├── LMStudioClientError                  an error on this side, or on the way
│   ├── LMStudioUnreachableError
│   ├── LMStudioWebsocketError
│   │   ├── LMStudioConnectionLostError
│   │   │   └── LMStudioToolConnectionLostError   (also LMStudioRuntimeError)
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
LMStudioToolSessionWarning               (UserWarning)
LMStudioTruncationWarning                (UserWarning)
```

Classes of the official Python SDK keep their places, so that programs can switch by changing an import.
Every exception can be pickled, with its attributes.
"""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.secrets import redact


class LMStudioError(Exception):
    """The base of all errors that this package raises on purpose. Tokens are removed from the message."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))


class LMStudioServerError(LMStudioError):
    """The server replied with an error (docs/protocol.md#errors).

    Args:
        message: The full text.
        title: The server's headline.
        root_title: The headline of the innermost cause, if it differs.
        cause: The reason, in the server's words.
        suggestion: What to do: the server's advice, and ours.
        display_data: The machine-readable part; its `code` decides the class of the exception.
        error_data: Further data without a fixed schema.
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
    """No model, or no loaded model, matches the key or identifier."""


class LMStudioModelUnloadedError(LMStudioModelNotFoundError):
    """The model was unloaded before or during the call. It still exists, and the next call may load it.

    Args:
        message: The full text.
        retryable: Whether the call may be repeated: not if nothing would load the model, nor if the caller has received
            a part of the response.
        details: The arguments of `LMStudioServerError`.
    """

    def __init__(self, message: str = "", *, retryable: bool = True, **details: Any) -> None:
        super().__init__(message, **details)
        self.retryable = retryable


class LMStudioPresetNotFoundError(LMStudioServerError):
    """The named preset does not exist on the server."""


class LMStudioChannelClosedError(LMStudioServerError):
    """The server closed a channel before its terminal packet."""


class LMStudioWrongModelKindError(LMStudioServerError):
    """A model of one kind was called for what another kind does, such as an embedding model for text generation."""


class LMStudioModelLoadError(LMStudioServerError):
    """The server could not load the model."""


class LMStudioInsufficientResourcesError(LMStudioModelLoadError):
    """The server has too little memory, mostly to load the model.

    Args:
        message: The full text.
        plan: What fits and what does not, a `MemoryPlan`, under `load_policy="fit"`.
        retryable: Whether the call may succeed later: if the model fits once requests to others have ended.
        details: The arguments of `LMStudioServerError`.
    """

    def __init__(self, message: str = "", *, plan: Any = None, retryable: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.plan = plan
        self.retryable = retryable


class LMStudioModelCrashedError(LMStudioServerError):
    """The engine that ran the model crashed."""


class LMStudioEngineLostError(LMStudioModelCrashedError, LMStudioModelUnloadedError):
    """The process that ran the model is gone, and with it the model. The next call may load it again."""


class LMStudioContextOverflowError(LMStudioServerError):
    """The prompt does not fit into the context window of the loaded model.

    Args:
        message: The full text.
        used: Tokens of the prompt, if known.
        limit: Context length of the loaded model in tokens, if known.
        details: The arguments of `LMStudioServerError`.
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
    """An uploaded file was deleted on the server and cannot be uploaded again."""


class LMStudioPluginError(LMStudioServerError):
    """A plugin or an MCP server could not be started, or failed, or the token does not allow to use it."""


class LMStudioPluginToolError(LMStudioPluginError):
    """A tool of a plugin or an MCP server failed. The text of the tool is `title`.

    Args:
        message: The full text.
        plugin: The identifier of the plugin.
        tool: The name of the tool.
        details: The arguments of `LMStudioServerError`.
    """

    def __init__(
        self, message: str = "", *, plugin: str | None = None, tool: str | None = None, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.plugin = plugin
        self.tool = tool


class LMStudioPredictionError(LMStudioServerError):
    """A prediction ended without a usable result."""


class LMStudioToolCallError(LMStudioPredictionError):
    """A tool call could not be parsed, was cut off, or was required and is missing.

    Args:
        message: The full text.
        raw_content: What the model wrote, if known.
        details: The arguments of `LMStudioServerError`.
    """

    def __init__(self, message: str = "", *, raw_content: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.raw_content = raw_content


class LMStudioStructuredOutputError(LMStudioPredictionError, ValueError):
    """The response is not JSON, or does not match the requested schema.

    It is a `ValueError`, which frameworks catch to recover from a response that cannot be parsed.

    Args:
        message: The full text.
        text: The response as the model wrote it.
        details: The arguments of `LMStudioServerError`.
    """

    def __init__(self, message: str = "", *, text: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.text = text


class LMStudioClientError(LMStudioError):
    """An error on this side, or on the way to the server."""


class LMStudioUnreachableError(LMStudioClientError):
    """No LM Studio responds at the address, or at any address that was tried.

    Args:
        message: The full text.
        tried: The addresses, each with its failure.
    """

    def __init__(self, message: str = "", *, tried: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.tried = tried


class LMStudioWebsocketError(LMStudioClientError):
    """The WebSocket to the server failed."""


class LMStudioConnectionLostError(LMStudioWebsocketError):
    """The connection was lost while a call waited for the server.

    Args:
        message: The full text.
        retryable: Whether the call may be repeated: not if this side closed the connection, nor if the caller has
            received a part of the response.
    """

    def __init__(self, message: str = "", *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class LMStudioProtocolError(LMStudioClientError):
    """The server sent a malformed reply, or rejected a malformed request."""


class LMStudioCancelledError(LMStudioClientError):
    """A result was requested of a prediction that was closed before its end."""


class LMStudioConfigMismatchError(LMStudioClientError):
    """The model is loaded with another configuration than the requested one.

    Args:
        message: The full text.
        differences: Requested and actual value by setting.
    """

    def __init__(self, message: str = "", *, differences: Mapping[str, tuple[Any, Any]] | None = None) -> None:
        super().__init__(message)
        self.differences: dict[str, tuple[Any, Any]] = dict(differences or {})


class LMStudioUnknownMessageWarning(LMStudioClientError, UserWarning):  # noqa: N818 - the official name
    """The server sent a message of unknown type. It exists for programs that filter it; nothing raises it."""


class LMStudioAuthenticationError(LMStudioServerError, LMStudioClientError):
    """The server rejected the credentials, or the API token has the wrong form (docs/protocol.md#authentication)."""


class LMStudioTimeoutError(LMStudioError, TimeoutError):
    """A timeout expired. The work was cancelled on the server.

    Args:
        message: The full text.
        timeout_name: Which timeout it was, such as `idle_timeout`; see `docs/guides/timeouts.md`.
        elapsed: Seconds since it started, or since the last packet that restarted it.
        unanswered: Whether the model has sent nothing at all since the call began, not even progress or the response to
            another call.
    """

    def __init__(
        self,
        message: str = "",
        *,
        timeout_name: str | None = None,
        elapsed: float | None = None,
        unanswered: bool = False,
    ) -> None:
        super().__init__(message)
        self.timeout_name = timeout_name
        self.elapsed = elapsed
        self.unanswered = unanswered


class LMStudioValueError(LMStudioError, ValueError):
    """An argument has an invalid value. Nothing was sent."""


class LMStudioRuntimeError(LMStudioError, RuntimeError):
    """A call is not possible in the present state or thread, for example on the I/O thread itself."""


class LMStudioClientClosedError(LMStudioWebsocketError, LMStudioRuntimeError):
    """A call was made on a closed client, or on a handle of one. Nothing was sent."""


class LMStudioToolConnectionLostError(LMStudioConnectionLostError, LMStudioRuntimeError):
    """The session ended while a tool of a plugin ran. What the tool has done by then is unknown.

    It is never called again automatically. It is a `RuntimeError` as well, which LangGraph does not retry by default.

    Args:
        message: The full text.
        plugin: The identifier of the plugin.
        tool: The name of the tool.
        retryable: Whether the call may be repeated.
    """

    def __init__(
        self, message: str = "", *, plugin: str | None = None, tool: str | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message, retryable=retryable)
        self.plugin = plugin
        self.tool = tool


class LMStudioOSError(LMStudioError, OSError):
    """A file could not be read."""


class LMStudioImageDownloadError(LMStudioOSError):
    """An image could not be downloaded, or the download is not allowed.

    Args:
        message: The full text.
        url: The image's URL, without user name, password and query.
    """

    def __init__(self, message: str = "", *, url: str | None = None) -> None:
        super().__init__(message)
        self.url = url


class LMStudioConfigWarning(UserWarning):
    """A model has other settings than requested, was not trained for tools, or splits a text; or a tool lacks types."""


class LMStudioEvictionWarning(UserWarning):
    """Models evict each other: with Auto-Evict, the server keeps only one that was loaded just in time."""


class LMStudioToolSessionWarning(UserWarning):
    """A session with the tools of a plugin was lost, and a new one is opened: what the plugin remembered is gone."""


class LMStudioTruncationWarning(UserWarning):
    """The server has cut a prompt that did not fit into the context window, or sent nothing of a response."""
