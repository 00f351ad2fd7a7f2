"""Endpoints of the server itself (docs/protocol.md#system-endpoints)."""

import asyncio
import os
from typing import Any

from lmstudio_integrations._support.version import __version__
from lmstudio_integrations.emulator.errors import WireError, path_not_found
from lmstudio_integrations.emulator.server.context import Context, OpenChannel
from lmstudio_integrations.protocol.requests import ExperimentFlag, ModelKey, Notify, StartHttpServer
from lmstudio_integrations.types.models import EMULATOR_SUFFIX


async def list_downloaded_models(context: Context, _parameter: None) -> list[dict[str, Any]]:
    """List all models that can be loaded, those of linked devices last."""
    downloaded = context.registry.downloaded()
    await context.registry.read_metadata(entry for _, entry in downloaded)
    return [context.registry.info(entry, device) for device, entry in downloaded]


async def list_downloaded_model_variants(context: Context, parameter: ModelKey) -> list[dict[str, Any]]:
    """Fail: no model of the emulator has variants."""
    entries = [entry for _, entry in context.registry.downloaded()]
    if not any(entry.key == parameter["modelKey"] for entry in entries):
        raise path_not_found(parameter["modelKey"], [entry.full_path for entry in entries])
    raise WireError(f'The model "{parameter["modelKey"]}" has no variants')


async def get_version(_context: Context, _parameter: None) -> dict[str, Any]:
    """Return the version of the server."""
    return {"version": _version(), "build": 1}


async def info(_context: Context, _parameter: None) -> dict[str, Any]:
    """Return the process ID of the server, and its version."""
    return {"pid": os.getpid(), "isDaemon": True, "version": _version()}


def _version() -> str:
    return f"{__version__}{EMULATOR_SUFFIX}"


async def notify(context: Context, parameter: Notify) -> None:
    """Write a notification to the log, as there is no window to show it in."""
    title, description = parameter["title"], parameter.get("description")
    text = f"{title}: {description}" if description else title
    context.state.log({"type": "server.log", "level": "info", "content": text})


async def set_experiment_flag(context: Context, parameter: ExperimentFlag) -> None:
    """Switch an experiment on or off. The flags only change their own list, which all clients share."""
    flags, code = context.state.flags, parameter["code"]
    if not parameter["value"]:
        flags.discard(code)
    else:
        flags.add(code)


async def get_experiment_flags(context: Context, _parameter: None) -> list[str]:
    return sorted(context.state.flags)


async def start_http_server(_context: Context, _parameter: StartHttpServer) -> None:
    """Fail: the emulator has no HTTP API."""
    raise WireError("This server has no HTTP API besides its native one")


async def stop_http_server(_context: Context, _parameter: None) -> None:
    """Succeed at once, because the HTTP API never runs."""


async def request_shutdown(_context: Context, _parameter: None) -> None:
    """Fail: clients cannot stop the emulator."""
    raise WireError("Only privileged clients may shut this server down")


async def alive(_context: Context, _channel: OpenChannel, _parameter: None) -> None:
    """Stay open until the client disconnects."""
    await asyncio.get_running_loop().create_future()
