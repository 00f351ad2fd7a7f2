"""Endpoints of the server itself, and of its log (docs/protocol.md#system-endpoints)."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

from lmstudio_integrations.emulator.errors import WireError, path_not_found
from lmstudio_integrations.emulator.server.context import Context, Handler, OpenChannel
from lmstudio_integrations.protocol.endpoints import Namespace
from lmstudio_integrations.protocol.requests import ExperimentFlag, ModelKey, Notify
from lmstudio_integrations.types.models import EMULATOR_SUFFIX

FIXED_RESULTS: Mapping[Namespace, Mapping[str, Any]] = {
    "repository": {
        "isAuthenticated": {"authenticated": False},
        "getAuthenticationStatus": {"authenticationStatus": {"type": "none"}},
        "deauthenticate": None,  # a void result
        "getWritableArtifactOwners": {"owners": []},
    },
    "runtime": {
        "listEngines": [],
        # A map, as superjson writes it (docs/protocol.md#serialization).
        "getEngineSelections": {"json": [], "meta": {"values": ["map"]}},
        "searchRuntimeExtensions": {"extensions": []},
    },
}
"""Results by namespace and endpoint."""

REASONS: Mapping[Namespace, str] = {
    "files": "Its uploads are in its memory.",
    "repository": "It has no accounts or artifacts; its models, plugins and linked devices come from its catalog.",
    "runtime": "Its engines are part of it and cannot be selected, added or removed.",
    "plugins": "Its plugins come from its catalog: none registers itself, or takes part in a prediction of the server.",
}
"""The error cause of the endpoints of a namespace that have no entry in `FIXED_RESULTS`."""


def handlers(namespace: Namespace, names: Iterable[str]) -> dict[str, Handler]:
    """Return a handler for each name, and for each result of the namespace."""
    results = FIXED_RESULTS.get(namespace, {})
    missing = [name for name in names if name not in results]
    errors = {name: not_supported(f"{namespace}.{name}", REASONS[namespace]) for name in missing}
    return {name: always(result) for name, result in {**results, **errors}.items()}


def always(result: Any) -> Handler:
    """Return a handler that replies with a result, or raises it if it is an error."""

    async def reply(*_request: object) -> Any:
        if isinstance(result, WireError):
            raise copy(result)
        return result

    return reply


def not_supported(what: str, cause: str) -> WireError:
    """Return the error for something that this server does not have."""
    return WireError(f"This server does not support {what}", cause=cause)


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


async def get_version(context: Context, _parameter: None) -> dict[str, Any]:
    """Return the version of the server."""
    return {"version": _version(context), "build": 1}


async def info(context: Context, _parameter: None) -> dict[str, Any]:
    """Return the process ID of the server, and its version."""
    is_daemon = context.registry.catalog.application == "daemon"
    return {"pid": os.getpid(), "isDaemon": is_daemon, "version": _version(context)}


def _version(context: Context) -> str:
    return f"{context.registry.catalog.version}{EMULATOR_SUFFIX}"


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


async def alive(_context: Context, _channel: OpenChannel, _parameter: None) -> None:
    """Stay open until the client disconnects."""
    await asyncio.get_running_loop().create_future()


async def stream_logs(context: Context, channel: OpenChannel, _parameter: None) -> None:
    """Send each new entry of the log, until the client cancels or disconnects."""

    def send(entry: dict[str, Any]) -> None:
        channel.send({"type": "log", "log": entry})

    with channel.scope:
        context.state.log_listeners.append(send)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            context.state.log_listeners.remove(send)
