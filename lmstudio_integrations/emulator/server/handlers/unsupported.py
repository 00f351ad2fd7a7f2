"""Endpoints that this server does not support: accounts, the hub, settings of LM Link, engines, plugins.

Each gets a response, because the client would wait forever: an empty result where that is correct, else an error. See
docs/protocol.md#repository-endpoints and docs/protocol.md#other-endpoints.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.server.context import Handler
from lmstudio_integrations.protocol.endpoints import Namespace

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
    "repository": "It has no accounts or artifacts; its models, plugins and linked devices come from its catalog.",
    "runtime": "Its engines are part of it and cannot be selected, added or removed.",
    "plugins": "Its plugins come from its catalog: none registers itself, or takes part in a prediction of the server.",
}
"""The error cause of the endpoints of a namespace that have no entry in `FIXED_RESULTS`."""


def handlers(namespace: Namespace, names: Iterable[str]) -> dict[str, Handler]:
    """Return a handler for each name, and for each result of the namespace."""
    results = {name: _reply(result) for name, result in FIXED_RESULTS.get(namespace, {}).items()}
    return results | {name: _reject(f"{namespace}.{name}", REASONS[namespace]) for name in names if name not in results}


def _reply(result: Any) -> Handler:
    async def reply(*_request: object) -> Any:
        return result

    return reply


def _reject(name: str, cause: str) -> Handler:
    async def reject(*_request: object) -> None:
        raise not_supported(name, cause)

    return reject


def not_supported(what: str, cause: str) -> WireError:
    """Return the error for something that this server does not have."""
    return WireError(f"This server does not support {what}", cause=cause)
