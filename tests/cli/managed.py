"""A server with models to list, load and unload."""

from collections.abc import Callable

from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.support.gate import AT_THE_GATE, Gate

SMALL, LARGE, EMBEDDER = "vendor/small", "vendor/large", "vendor/embedder"

Command = Callable[..., tuple[int | str | None, str, str]]
"""Runs a command on the server; returns its exit status or error, and what it printed on stdout and stderr."""

Piped = Callable[..., tuple[int, str, str]]
"""Runs a command with a text as stdin; returns its exit status, and what it printed on stdout and stderr."""


def managed_server() -> Emulator:
    """Return a server with two language models and an embedding model; the load of `stuck` never ends."""
    entries = [
        ModelEntry(
            key=SMALL, size_bytes=2_500_000, params="3M", architecture="tiny", max_context_length=8192, vision=True
        ),
        ModelEntry(key=LARGE, size_bytes=4_000_000_000, params="7B"),
        ModelEntry(key=EMBEDDER, kind="embedding", size_bytes=90_000),
        ModelEntry(key="stuck", rules=({"when": {"load": True}, "then": [AT_THE_GATE]},)),
    ]
    return Emulator(entries, engines=Gate().engines())


def cells(line: str) -> list[str]:
    """Return the words of a line of a table."""
    return line.split()
