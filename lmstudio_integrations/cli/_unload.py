"""`unload`: unloads one model, or all."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lmstudio_integrations._support.suggestions import closest_names
from lmstudio_integrations.cli._common import Host, OnDevice, Token, note
from lmstudio_integrations.cli._completion import loaded_identifiers
from lmstudio_integrations.cli._formatting import device_name
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.machines import LOCAL

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
    device: OnDevice = None,
    host: Host = None,
    token: Token = None,
) -> None:
    """Unload a model."""
    from lmstudio_integrations.cli._devices import device_names, on_device  # noqa: PLC0415 - slow
    from lmstudio_integrations.cli._loaded_models import loaded_models, namespace_of  # noqa: PLC0415
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415

    if every and identifier is not None:
        raise typer.BadParameter("an identifier and --all exclude each other", param_hint="--all")
    with Client(host, token) as client:
        loaded = loaded_models(client)
        devices = device_names(client, loaded)
        loaded = on_device(client, loaded, device)
        instances = loaded if every else [choose_loaded(identifier, loaded, devices)]
        if not instances:
            note("No model is loaded.")
        for info in instances:
            # A server without linked devices may not know the member that names one.
            where = (info.device_identifier or LOCAL) if devices else device
            namespace_of(client, info).unload(info.identifier, device=where)
            note(f"Unloaded {full_name(info, devices)}.")


def full_name(info: "ModelInstanceInfo", devices: Mapping[str | None, str]) -> str:
    """Return the identifier of an instance, with its device if models are on several."""
    name = device_name(info, devices)
    return f"{info.identifier} on {name}" if name else info.identifier


def choose_loaded(
    name: str | None, loaded: Sequence["ModelInstanceInfo"], devices: Mapping[str | None, str]
) -> "ModelInstanceInfo":
    """Return the loaded model that the user means.

    Raises:
        LMStudioValueError: If it is not clear which.
    """
    from lmstudio_integrations.cli._model_names import listed  # noqa: PLC0415 - slow
    from lmstudio_integrations.cli._questions import has_terminal, pick  # noqa: PLC0415

    if not loaded:
        raise LMStudioValueError("no model is loaded")
    names = [full_name(info, devices) for info in loaded]
    if name is None:
        if len(loaded) > 1 and not has_terminal():
            raise LMStudioValueError(f"several models are loaded; name one, or use --all: {listed(names)}")
        return loaded[pick("Unload", names) if len(loaded) > 1 else 0]
    matches = [info for info in loaded if info.identifier == name] or [
        info for info in loaded if info.model_key == name
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        what = "an identifier" if len({info.identifier for info in matches}) > 1 else "its --device"
        several = listed(full_name(info, devices) for info in matches)
        raise LMStudioValueError(f"{name!r} is loaded {len(matches)} times; name {what}: {several}")
    identifiers = [info.identifier for info in loaded]
    similar = [each for each in identifiers if name in each] or closest_names(name, identifiers)
    suggestion = f"did you mean {similar[0]!r}?" if similar else f"loaded are {listed(names)}"
    raise LMStudioValueError(f"no loaded model has the identifier {name!r}; {suggestion}")
