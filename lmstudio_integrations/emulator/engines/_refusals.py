"""What llama.cpp's refusals become: errors in the words of a real server (protocol §3.7)."""

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from typing import Any

from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.emulator.engines.base import EngineError

ENGINE_NAME = "llama.cpp"
INSTALL_HINT = 'pip install "lmstudio-integrations[emulator]"'


def unsupported(feature: str, why: str, suggestion: str | None = None) -> EngineError:
    """Refuse something that this engine cannot do."""
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


def overflow(tokens: int, window: int) -> EngineError:
    """Refuse a prompt that does not fit into the window."""
    return EngineError(
        f"Trying to keep the first {tokens} tokens when context the overflows. However, the model is loaded with "
        f"context length of only {window} tokens, which is not enough. Try to load the model with a larger context "
        "length, or provide a shorter input"
    )


def crashed(code: int | None, cause: str | None = None) -> EngineError:
    """Say that the worker is gone."""
    title = f"The model has crashed without additional information. (Exit code: {code})"
    return EngineError(title, cause=cause, fatal=True)


def not_loaded(cause: str, suggestion: str | None = None) -> EngineError:
    """Say why a model could not be loaded."""
    return EngineError("Failed to load model", cause=without_directories(cause), suggestion=suggestion)


def without_directories(text: str) -> str:
    """Return a text in which of each absolute path only the last name is left: clients need not know the others."""
    return _DIRECTORIES.sub("", text)


_DIRECTORIES = re.compile(r"""(?<![\w.:/\\~])(?:[A-Za-z]:|~|\\)?[\\/](?:[^\\/\s'"<>|:;,()]+[\\/])*""")


def wrong_kind(path: str, actual: str, expected: str) -> EngineError:
    """Refuse a model of the other kind."""
    return EngineError(
        "Failed to load model",
        cause=f"Model is not {expected}.",
        display_data={
            "code": "generic.domainMismatch",
            "path": path,
            "actualDomain": actual,
            "expectedDomain": expected,
        },
    )


def from_engine(payload: object) -> EngineError:
    """Return the error of llama.cpp's answer `{"error": {"code", "message", "type", …}}`."""
    error: Mapping[str, Any] = payload["error"] if is_object(payload) and is_object(payload.get("error")) else {}
    if error.get("type") == "exceed_context_size_error":
        return overflow(int(error.get("n_prompt_tokens", 0)), int(error.get("n_ctx", 0)))
    message = str(error.get("message") or payload)
    for mark, explain in _KNOWN:
        if mark in message.lower():
            return explain(message)
    return EngineError(message)


def _template_failed(message: str) -> EngineError:
    return EngineError(
        f'Error rendering prompt with jinja template: "{message}"',
        suggestion="This is usually an issue with the model's prompt template.",
    )


def _schema_failed(message: str) -> EngineError:
    return EngineError(f"Invalid structured output setting: {message[message.index('JSON schema error') :]}")


def _grammar_failed(_message: str) -> EngineError:
    return EngineError("Invalid structured output setting: the grammar cannot be parsed")


def _no_probabilities(_message: str) -> EngineError:
    return unsupported("logProbs", "probabilities of tokens where tools are offered", "Leave logProbs or tools out.")


def _out_of_memory(_message: str) -> EngineError:
    return EngineError(
        "The model's process ran out of memory",
        suggestion="Send less at once, or start the server with more memory for its workers (worker_memory).",
    )


def _cache_full(_message: str) -> EngineError:
    return EngineError(
        "The predictions that run at once together exceed the available context",
        suggestion="Load the model with a larger context length, or with useUnifiedKvCache off.",
    )


_KNOWN: tuple[tuple[str, Callable[[str], EngineError]], ...] = (
    ("bad_alloc", _out_of_memory),
    ("json schema error", _schema_failed),
    ("failed to parse grammar", _grammar_failed),
    ("context size has been exceeded", _cache_full),
    ("logprobs is not supported with tools", _no_probabilities),
    ("jinja", _template_failed),
)
"""What llama.cpp says, in lower case, and what it means."""


def installed_version() -> str:
    """Return the engine's version; `unknown` if it is not installed."""
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
