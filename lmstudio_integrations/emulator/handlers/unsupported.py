"""Endpoints for what this server does not have: accounts, a hub, selectable engines, plugins (protocol §4.7, §4.8).

Each gets an answer, because a client that waits for one would hang: an empty result where nothing is the truth, else an
error.
"""

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
    },
    "runtime": {
        "listEngines": [],
        # A map, as superjson writes it (protocol §3.8).
        "getEngineSelections": {"json": [], "meta": {"values": ["map"]}},
        "surveyHardware": {"status": "noCompatibleBackends", "engines": []},
        "searchRuntimeExtensions": {"extensions": []},
    },
}
"""Results by namespace and endpoint."""

REASONS: Mapping[Namespace, str] = {
    "repository": "It has no accounts, no artifacts and no plugins; its models come from its catalog.",
    "runtime": "Its engines are part of it and cannot be selected, added or removed.",
    "plugins": "It runs no plugins.",
}
"""Why an endpoint of a namespace fails if it has no result in `EMPTY`."""


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
