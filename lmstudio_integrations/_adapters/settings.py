"""The settings, the runtime and the repetitions that the adapters share."""

from lmstudio_integrations.langchain._retry import arepeat, events, repeat
from lmstudio_integrations.langchain._runtime import Runtime, Server, Wanted
from lmstudio_integrations.langchain._settings import (
    CLOCKS,
    Connected,
    LlmLoadConfig,
    own_names,
    token_from_environment,
)

__all__ = [
    "CLOCKS",
    "Connected",
    "LlmLoadConfig",
    "Runtime",
    "Server",
    "Wanted",
    "arepeat",
    "events",
    "own_names",
    "repeat",
    "token_from_environment",
]
