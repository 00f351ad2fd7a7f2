"""The errors of engines, and the texts that all engines share.

`EngineError` is a `WireError`: whatever an engine raises goes to the client as it is.
"""

import re

from lmstudio_integrations.emulator.errors import WireError


class EngineError(WireError):
    """An engine cannot do what was requested; the title is in the words of a real server."""


def context_overflow(tokens: int, context_length: int) -> EngineError:
    """Return the error for a prompt that does not fit into the context window."""
    # LM Studio's own text, typing error included: programs match it.
    return EngineError(
        f"Trying to keep the first {tokens} tokens when context the overflows. However, the model is loaded with "
        f"context length of only {context_length} tokens, which is not enough. Try to load the model with a larger "
        "context length, or provide a shorter input"
    )


def template_failed(message: str) -> EngineError:
    """Return the error for a conversation that the model's template rejects."""
    return EngineError(
        f'Error rendering prompt with jinja template: "{message}"',
        suggestion="This is usually an issue with the model's prompt template.",
    )


def model_crashed(exit_code: int | None, cause: str | None = None) -> EngineError:
    """Return the error for a worker process that died."""
    title = f"The model has crashed without additional information. (Exit code: {exit_code})"
    return EngineError(title, cause=cause, fatal=True)


def load_failed(cause: str, suggestion: str | None = None) -> EngineError:
    """Return the error for a model that could not be loaded."""
    return EngineError("Failed to load model", cause=without_directories(cause), suggestion=suggestion)


def insufficient_resources(details: str) -> EngineError:
    """Return the error for a load that does not fit, in the words of a real server."""
    return load_failed(
        f"Model loading was stopped due to insufficient system resources. {details}",
        "Load the model with a shorter context, load a smaller one, or unload others.",
    )


def out_of_memory() -> EngineError:
    """Return the error for a load that needs more memory than any machine has."""
    return insufficient_resources("Under the current settings, this model requires approximately 48.00 GB of memory.")


def too_many_loaded(limit: int) -> EngineError:
    """Return the error for a load beyond the limit."""
    return insufficient_resources(
        f"This server has at most {limit} models loaded at once: the limit loaded_models is reached."
    )


def without_directories(text: str) -> str:
    """Return a text with each absolute path cut down to its last name: clients must not learn the server's paths."""
    return _DIRECTORIES.sub("", text)


_DIRECTORIES = re.compile(r"""(?<![\w.:/\\~])(?:[A-Za-z]:|~|\\)?[\\/](?:[^\\/\s'"<>|:;,()]+[\\/])*""")
