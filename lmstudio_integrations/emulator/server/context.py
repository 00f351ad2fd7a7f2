"""What handlers get with a request: the server's state and limits, the client, and the channel."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.emulator.engines.base import FaultKind
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.models.cancel_scope import CancelScope
from lmstudio_integrations.emulator.models.clock import Clock
from lmstudio_integrations.emulator.models.registry import ModelRegistry
from lmstudio_integrations.emulator.models.request_log import RequestLog
from lmstudio_integrations.emulator.server.clients import ConnectedClient
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.endpoints import Namespace
from lmstudio_integrations.types.config import ModelKind

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server.

    Attributes:
        message_bytes: Size of one message. An uploaded file is one message, in base64.
        backlog_bytes: Unread output of a connection; a client that leaves more unread is disconnected.
        records: Records of each kind: predictions, embeddings, loads, tool calls. The oldest are dropped.

    Raises:
        LMStudioValueError: If a limit is not positive.
    """

    message_bytes: int = 256 * MIB
    backlog_bytes: int = 64 * MIB
    records: int = 10_000

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not (is_count(value) and value):
                raise LMStudioValueError(f"the limit {each.name} must be a positive whole number; got {shown(value)}")


DEFAULT_LIMITS = Limits()

USER_STOPPED = "userStopped"
"""The stop reason when the client cancels."""

LogListener = Callable[[dict[str, Any]], None]


@dataclass(slots=True, eq=False)
class ServerState:
    """The state that all connections of a server share. `latency` is simulated for each request, in seconds."""

    registry: ModelRegistry
    clock: Clock
    request_log: RequestLog
    latency: float = 0.0
    limits: Limits = DEFAULT_LIMITS
    plugins: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The entries of plugins by their identifiers."""
    tool_sessions: list[str] = field(default_factory=list[str])
    """The identifier of the plugin of each open session with tools."""
    flags: set[str] = field(default_factory=set[str])
    log_listeners: list[LogListener] = field(default_factory=list[LogListener])
    """Called with each entry of the log, which is stored nowhere (docs/protocol.md#diagnostics-endpoints)."""

    def log(self, data: Mapping[str, Any]) -> None:
        """Send an entry of the log to all listeners."""
        if not self.log_listeners:
            return
        entry = {"timestamp": self.clock.unix_ms(), "data": dict(data)}
        for listener in list(self.log_listeners):
            listener(entry)

    async def simulate_latency(self) -> None:
        """Wait for the latency of a request."""
        if self.latency:
            arrived = asyncio.Event()
            self.clock.call_later(self.latency, arrived.set)
            await arrived.wait()


@dataclass(frozen=True, slots=True)
class Context:
    """The client of a request, and its namespace."""

    state: ServerState
    client: ConnectedClient
    namespace: Namespace

    @property
    def registry(self) -> ModelRegistry:
        """The models of the server."""
        return self.state.registry

    @property
    def kind(self) -> ModelKind:
        """The kind of model that this namespace is for."""
        return self.namespace if self.namespace == "embedding" or self.namespace == "decision" else "llm"  # noqa: PLR1714 - narrows the type


@dataclass(slots=True, eq=False)
class OpenChannel:
    """The server's end of a channel. `scope` holds its work."""

    send: Callable[[Mapping[str, Any]], None]
    """Send a packet without waiting; the connection handles slow readers."""
    inject_fault: Callable[[FaultKind], None]
    """Break the connection as a scripted model orders."""
    scope: CancelScope = field(default_factory=CancelScope)
    on_packet: Callable[[Mapping[str, Any]], None] | None = None
    """Called with each packet of the client, if the handler sets it; otherwise any packet cancels the work."""

    def receive(self, packet: Mapping[str, Any]) -> None:
        """Handle a packet of the client."""
        if self.on_packet is None:
            self.scope.cancel(USER_STOPPED)
        else:
            self.on_packet(packet)

    @contextmanager
    def cancellable(self, title: str) -> Generator[None]:
        """Hold the work of the channel, like `scope`; a cancel is an error with this title.

        Raises:
            WireError: If the client has cancelled the work.
        """
        with self.scope:
            yield
        if self.scope.reason:
            raise WireError(title)


Handler = Callable[..., Awaitable[Any]]
"""Serves one endpoint. Called with the context, for a channel also the channel, and the parameter."""
