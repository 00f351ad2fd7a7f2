"""Completes the names of models in a shell, with the names that the server has.

The server has a second for it. If it is off, or anything else is wrong, nothing is offered.
"""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import Client

_SECONDS = 1.0
"""How long completion waits for a connection, and for each response of the server."""

_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)
"""Names that are offered. zsh evaluates what it is offered, and no name of a server may run a command."""


def downloaded_keys(context: typer.Context) -> list[str]:
    """Return the keys of the downloaded models."""
    return _complete(context, lambda client: (each.model_key for each in client.list_downloaded_models()))


def embedding_keys(context: typer.Context) -> list[str]:
    """Return the keys of the downloaded embedding models."""
    return _complete(context, lambda client: (each.model_key for each in client.list_downloaded_models("embedding")))


def llm_names(context: typer.Context) -> list[str]:
    """Return the keys of the downloaded language models, and the identifiers of the loaded ones."""

    def names(client: "Client") -> Iterable[str]:
        yield from (each.model_key for each in client.list_downloaded_models("llm"))
        yield from (each.identifier for each in client.list_loaded_models("llm"))

    return _complete(context, names)


def loaded_identifiers(context: typer.Context) -> list[str]:
    """Return the identifiers of the loaded models."""
    return _complete(context, lambda client: (each.identifier for each in client.list_loaded_models()))


def _complete(context: typer.Context, names: "Callable[[Client], Iterable[str]]") -> list[str]:
    """Return the names of the server that the command line so far is about."""
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415 - slow

    host, token = context.params.get("host"), context.params.get("token")
    with (
        contextlib.suppress(Exception),
        warnings.catch_warnings(action="ignore"),
        Client(host, token, connect_timeout=_SECONDS, timeout=_SECONDS) as client,
    ):
        return [name for name in dict.fromkeys(names(client)) if _PLAIN.fullmatch(name)]
    return []
