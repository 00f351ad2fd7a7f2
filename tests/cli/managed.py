"""The types of the fixtures that run a command, a server with models to list, and which commands are there."""

from collections.abc import Callable
from typing import TypeVar

from typer.main import get_group

from lmstudio_integrations.cli._app import app
from lmstudio_integrations.emulator import Emulator, ModelEntry

SMALL, LARGE, EMBEDDER = "vendor/small", "vendor/large", "vendor/embedder"

Run = Callable[..., int | str | None]
"""Runs a command; returns its exit status or error."""

Piped = Callable[..., tuple[int, str, str]]
"""Runs a command with pipes; returns its exit status, and what it printed on stdout and stderr."""

OnScreen = Callable[..., str]
"""Runs a command on a terminal of so many `columns`; returns what it printed."""


COMMANDS = tuple(get_group(app).commands)
"""The commands that are in this installation: each may be deleted."""

RowT = TypeVar("RowT")


def of_commands(rows: dict[str, RowT]) -> dict[str, RowT]:
    """Return the rows of a table that begin with a command that is in this installation."""
    return {key: row for key, row in rows.items() if key.split()[0] in COMMANDS}


def managed_server() -> Emulator:
    """Return a server with two language models and an embedding model."""
    entries = [
        ModelEntry(
            key=SMALL, size_bytes=2_500_000, params="3M", architecture="tiny", max_context_length=8192, vision=True
        ),
        ModelEntry(key=LARGE, size_bytes=4_000_000_000, params="7B"),
        ModelEntry(key=EMBEDDER, kind="embedding", size_bytes=90_000),
    ]
    return Emulator(entries)
