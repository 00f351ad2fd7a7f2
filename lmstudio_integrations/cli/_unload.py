"""`unload`: unloads one model, or all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lmstudio_integrations._support.suggestions import closest_names
from lmstudio_integrations.cli._common import Host, Token, note
from lmstudio_integrations.cli._completion import loaded_identifiers
from lmstudio_integrations.errors import LMStudioValueError

if TYPE_CHECKING:
    from lmstudio_integrations.types.models import ModelInstanceInfo


def unload(
    identifier: Annotated[
        str | None,
        typer.Argument(
            metavar="IDENTIFIER",
            help="The identifier, or the key. Not needed if one model is loaded.",
            show_default=False,
            autocompletion=loaded_identifiers,
        ),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", "-a", help="Unload all models.")] = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """Unload a model."""
    from lmstudio_integrations.cli._loaded_models import loaded_models, namespace_of  # noqa: PLC0415 - slow
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415

    if every and identifier is not None:
        raise typer.BadParameter("an identifier and --all exclude each other", param_hint="--all")
    with Client(host, token) as client:
        loaded = loaded_models(client)
        instances = loaded if every else [choose_loaded(identifier, loaded)]
        if not instances:
            note("No model is loaded.")
        for info in instances:
            namespace_of(client, info).unload(info.identifier)
            note(f"Unloaded {info.identifier}.")


def choose_loaded(name: str | None, loaded: Sequence["ModelInstanceInfo"]) -> "ModelInstanceInfo":
    """Return the loaded model that the user means.

    Raises:
        LMStudioValueError: If it is not clear which.
    """
    from lmstudio_integrations.cli._model_names import listed  # noqa: PLC0415 - slow
    from lmstudio_integrations.cli._questions import has_terminal, pick  # noqa: PLC0415

    identifiers = [info.identifier for info in loaded]
    if not loaded:
        raise LMStudioValueError("no model is loaded")
    if name is None:
        if len(loaded) > 1 and not has_terminal():
            raise LMStudioValueError(f"several models are loaded; name one, or use --all: {listed(identifiers)}")
        return loaded[pick("Unload", identifiers) if len(loaded) > 1 else 0]
    matches = [info for info in loaded if info.identifier == name] or [
        info for info in loaded if info.model_key == name
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise LMStudioValueError(
            f"{name!r} is loaded {len(matches)} times; name an identifier: {listed(i.identifier for i in matches)}"
        )
    similar = [each for each in identifiers if name in each] or closest_names(name, identifiers)
    suggestion = f"did you mean {similar[0]!r}?" if similar else f"loaded are {listed(identifiers)}"
    raise LMStudioValueError(f"no loaded model has the identifier {name!r}; {suggestion}")
