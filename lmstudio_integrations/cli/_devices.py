"""The machines of a server: its own, and the devices that are linked to it. Shared by the commands about models."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.types.machines import LOCAL
from lmstudio_integrations.types.models import ModelInfo, ModelInstanceInfo

InfoT = TypeVar("InfoT", bound=ModelInfo | ModelInstanceInfo)


def device_names(client: Client, infos: Iterable[ModelInfo | ModelInstanceInfo]) -> dict[str | None, str]:
    """Return the name of each device by its identifier; nothing if all models are on the server's own machine."""
    if all(info.device_identifier is None for info in infos):
        return {}
    return {None: LOCAL, **{peer.device_identifier: peer.device_name for peer in client.link_status().peers}}


def on_device(client: Client, infos: Sequence[InfoT], device: str | None) -> list[InfoT]:
    """Return the models that are on a device.

    Args:
        client: The client.
        infos: Models on any device.
        device: `local`, or the name or the identifier of a device; `None` is any.

    Raises:
        LMStudioModelNotFoundError: If it is not connected.
    """
    if device is None:
        return list(infos)
    meant = None if device == LOCAL else client.link_status().identifier_of(device)
    return [info for info in infos if info.device_identifier == meant]
