"""LM Link, which connects the devices of an account (docs/protocol.md#lm-link).

This server has no account, so it is never online. It stores the settings that clients change, and returns them.
"""

from typing import Any

from lmstudio_integrations.emulator.context import Context
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.protocol.requests import DeviceIdentifier, DeviceName, LinkDisabled

MAX_NAME_LENGTH = 256


async def status(context: Context, _parameter: None) -> dict[str, Any]:
    """Return that this device is offline, and why."""
    link = context.state.link
    result = {
        "status": "offline",
        "issues": ["deviceDisabled" if link.disabled else "notLoggedIn"],
        "peers": [],
        "deviceIdentifier": None,
        "deviceName": link.device_name,
    }
    preferred = link.preferred_device
    return result if preferred is None else result | {"preferredDeviceIdentifier": preferred}


async def set_disabled(context: Context, parameter: LinkDisabled) -> None:
    """Disable or enable the link; without an account it is offline either way."""
    context.state.link.disabled = parameter["disabled"]


async def update_device_name(context: Context, parameter: DeviceName) -> None:
    """Name this device."""
    context.state.link.device_name = _bounded(parameter["deviceName"])


async def set_preferred_device(context: Context, parameter: DeviceIdentifier) -> None:
    """Set the device whose models are preferred."""
    context.state.link.preferred_device = _bounded(parameter["deviceIdentifier"])


def _bounded(name: str) -> str:
    if len(name) > MAX_NAME_LENGTH:
        raise WireError(f"The name of a device has at most {MAX_NAME_LENGTH} characters")
    return name
