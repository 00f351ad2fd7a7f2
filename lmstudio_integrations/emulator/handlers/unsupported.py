"""Endpoints that this server does not support: accounts, linked devices, a hub, selectable engines, plugins.

Each gets a response, as a client without one would hang: an empty result where that is correct, else an error. See
docs/protocol.md#repository-endpoints and docs/protocol.md#other-endpoints.
"""

import platform
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from lmstudio_integrations.emulator.context import Handler
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.protocol.endpoints import Namespace

EMPTY: Mapping[Namespace, Mapping[str, Any]] = {
    "repository": {
        "isAuthenticated": {"authenticated": False},
        "getAuthenticationStatus": {"authenticationStatus": {"type": "none"}},
        "deauthenticate": None,
        "getWritableArtifactOwners": {"owners": []},
        "getModelCatalog": {"models": []},
        "fuzzyFindStaffPicks": {"results": []},
        "lmLinkStatus": {
            "status": "offline",
            "issues": ["deviceDisabled"],
            "peers": [],
            "deviceIdentifier": None,
            "deviceName": platform.node(),
        },
    },
    "runtime": {
        "listEngines": [],
        # A map, as superjson writes it (docs/protocol.md#serialization).
        "getEngineSelections": {"json": [], "meta": {"values": ["map"]}},
        "surveyHardware": {"status": "noCompatibleBackends", "engines": []},
        "searchRuntimeExtensions": {"extensions": []},
    },
}
"""Results by namespace and endpoint."""

REASONS: Mapping[Namespace, str] = {
    "repository": "It has no accounts, linked devices, artifacts and plugins; its models come from its catalog.",
    "runtime": "Its engines are part of it and cannot be selected, added or removed.",
    "plugins": "It runs no plugins.",
}
"""Why an endpoint of a namespace fails without a result in `EMPTY`."""


def handlers(namespace: Namespace, names: Mapping[str, object]) -> dict[str, Handler]:
    """Return a handler for each name, and for each result of the namespace."""
    results = {name: _reply(result) for name, result in EMPTY.get(namespace, {}).items()}
    return {name: _reject(namespace, name) for name in names} | results


def _reply(result: Any) -> Handler:
    async def reply(*_request: object) -> Any:
        return deepcopy(result)

    return reply


def _reject(namespace: Namespace, name: str) -> Handler:
    async def reject(*_request: object) -> None:
        raise WireError(f"This server does not support {namespace}.{name}", cause=REASONS[namespace])

    return reject
