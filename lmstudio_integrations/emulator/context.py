"""What handlers work with: the server's state, the client that asks, the channel that answers."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lmstudio_integrations.emulator.clock import Clock
from lmstudio_integrations.emulator.engines.base import FaultKind
from lmstudio_integrations.emulator.ledger import Ledger
from lmstudio_integrations.emulator.logs import Logs
from lmstudio_integrations.emulator.models import Library
from lmstudio_integrations.emulator.refusals import file_not_found
from lmstudio_integrations.emulator.work import Scope
from lmstudio_integrations.protocol.endpoints import Namespace
from lmstudio_integrations.types.config import ModelKind

USER_STOPPED = "userStopped"
"""Why a channel's work ends when its client asks for it."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A temporary file of a client."""

    name: str
    data: bytes
    file_type: str


@dataclass(slots=True, eq=False)
class Client:
    """One client, over all its sockets; its uploads go when the last socket does (protocol §2.3)."""

    identifier: str
    sockets: int = 0
    uploads: dict[str, Upload] = field(default_factory=dict[str, Upload])

    def store(self, upload: Upload) -> str:
        """Keep a file; return its identifier, which is new each time."""
        identifier = f"local:{secrets.token_hex(16)}"
        self.uploads[identifier] = upload
        return identifier

    def upload(self, identifier: str) -> Upload:
        """Return a file; an identifier without a namespace is a local one (protocol §4.6).

        Raises:
            RefusedError: If there is none.
        """
        full = identifier if ":" in identifier else f"local:{identifier}"
        found = self.uploads.get(full)
        if found is None:
            raise file_not_found(identifier)
        return found


@dataclass(slots=True, eq=False)
class Hub:
    """The state that all connections of a server share. `latency` is the seconds that each request is on its way."""

    library: Library
    clock: Clock
    ledger: Ledger
    logs: Logs
    latency: float = 0.0
    flags: set[str] = field(default_factory=set[str])

    async def travel(self) -> None:
        """Wait as long as a request is on its way."""
        if self.latency:
            arrived = asyncio.Event()
            self.clock.call_later(self.latency, arrived.set)
            await arrived.wait()


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks, and where."""

    hub: Hub
    client: Client
    namespace: Namespace

    @property
    def kind(self) -> ModelKind:
        """The kind of model that this namespace is for."""
        return "embedding" if self.namespace == "embedding" else "llm"


class Channel(Protocol):
    """The server's end of a channel. `scope` holds its work; a client that asks to stop stops it."""

    scope: Scope

    def send(self, packet: Mapping[str, Any]) -> None:
        """Send a packet. It never waits: a slow reader is the connection's business."""
        ...

    def break_line(self, kind: FaultKind) -> None:
        """Carry out a fault of the line that a scripted model orders."""
        ...
