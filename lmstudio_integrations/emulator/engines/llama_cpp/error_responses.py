"""llama.cpp's error responses as errors in the words of a real server."""

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.errors import EngineError, context_overflow, template_failed

ENGINE_NAME = "llama.cpp"


def unsupported(feature: str, why: str, suggestion: str | None = None) -> EngineError:
    """Return the error for something that this engine cannot do."""
    return EngineError(
        f"The engine does not support this: {why}",
        suggestion=suggestion,
        display_data={
            "code": "generic.engineDoesNotSupportFeature",
            "feature": feature,
            "engineName": ENGINE_NAME,
            "engineType": "gguf",
            "installedVersion": installed_version(),
            "supportedVersion": None,
        },
    )


def installed_version() -> str:
    """Return the engine's version; `unknown` if it is not installed."""
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def error_from_response(payload: object) -> EngineError:
    """Return the error in a response `{"error": {"code", "message", "type", …}}`."""
    error: Mapping[str, Any] = payload["error"] if is_object(payload) and is_object(payload.get("error")) else {}
    if error.get("type") == "exceed_context_size_error":
        return context_overflow(int(error.get("n_prompt_tokens", 0)), int(error.get("n_ctx", 0)))
    message = str(error.get("message") or payload)
    for fragment, explain in _KNOWN:
        if fragment in message.lower():
            return explain(message)
    return EngineError(message)


_KNOWN: tuple[tuple[str, Callable[[str], EngineError]], ...] = (
    (
        "bad_alloc",
        lambda _: EngineError(
            "The model's process ran out of memory",
            suggestion="Send less at once, or start the server with more memory for its workers (worker_memory).",
        ),
    ),
    (
        "json schema error",
        lambda message: EngineError(
            f"Invalid structured output setting: {message[message.index('JSON schema error') :]}"
        ),
    ),
    (
        "failed to parse grammar",
        lambda _: EngineError("Invalid structured output setting: the grammar cannot be parsed"),
    ),
    (
        "context size has been exceeded",
        lambda _: EngineError(
            "The predictions that run at once together exceed the available context",
            suggestion="Load the model with a larger context length, or with useUnifiedKvCache off.",
        ),
    ),
    (
        "logprobs is not supported with tools",
        lambda _: unsupported(
            "logProbs", "probabilities of tokens where tools are offered", "Leave logProbs or tools out."
        ),
    ),
    ("jinja", template_failed),
)
"""A part of llama.cpp's message, in lower case, and the error that it stands for; the first match counts."""
