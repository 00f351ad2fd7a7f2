"""Records what passes through a proxy as a cassette; `cassette.py` has the format, and hides secrets in it."""

import asyncio
import contextlib
import re
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lmstudio_integrations._support.secrets import redact_address
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.testing.cassette import (
    ABSENT,
    OBJECTS,
    Event,
    EventKind,
    Interaction,
    Kind,
    file_errors,
    save,
)
from lmstudio_integrations.emulator.testing.proxy import Observer, ProxiedConnection, Proxy, ProxyThread
from lmstudio_integrations.emulator.testing.wire_items import WireItem
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError

_LAST_MOMENT = 1.0
"""Seconds that open requests have at the end of a recording: what a client sent last may still be on its way."""

_REQUESTS: dict[str, tuple[Kind, str, str]] = {
    "rpcCall": ("call", "callId", "parameter"),
    "channelCreate": ("channel", "channelId", "creationParameter"),
}
_EVENTS: dict[tuple[str, str], tuple[EventKind, str, str]] = {
    ("client", "channelSend"): ("sent", "channelId", "message"),
    ("server", "rpcResult"): ("result", "callId", "result"),
    ("server", "rpcError"): ("error", "callId", "error"),
    ("server", "channelSend"): ("received", "channelId", "message"),
    ("server", "channelError"): ("error", "channelId", "error"),
    ("server", "channelClose"): ("closed", "channelId", ""),
}
"""The frames of each side: what they are in a cassette, the member with the id, and the member with the content."""

Open = dict[tuple[str, int], Interaction]
"""The requests of a connection that have not ended, by the name of their id and the id."""


class Recording(Observer):
    """A proxy in front of a server that writes a cassette. A context manager; inside, clients connect to `address`.

    The cassette is written at the end of the block, also of one that ends with an error.

    Prompts, responses and the names of models are recorded; secrets are not (docs/tools/cassettes.md#secrets).

    Args:
        path: The cassette, which must not exist yet.
        server: `host:port` of LM Studio, or of an emulator.
        host: The address to listen on.
        port: The port to listen on; 0 takes any free one.

    Raises:
        LMStudioOSError: If the file exists or cannot be written, or the port is taken.
        LMStudioValueError: If the server is not valid.
    """

    def __init__(self, path: str | Path, server: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.path: Path = Path(path)
        self.section: str = ""
        """The part of the recording to which the requests from now on belong."""
        if not re.fullmatch(r"[^/@]+:\d+", server):
            shown = redact_address(server)
            raise LMStudioValueError(f"the server to record must be given as host:port, got {shown!r}")
        self._interactions: list[Interaction] = []
        self._open: dict[ProxiedConnection, Open] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ProxyThread()
        self._proxy = Proxy(self._thread, server, observer=self, host=host, ports=(port,))
        try:
            self._reserve()
        except LMStudioOSError:
            self._proxy.discard()
            raise

    @property
    def address(self) -> str:
        """Host and port as clients take them."""
        return self._proxy.address

    @property
    def requests(self) -> int:
        """How many requests are recorded so far."""
        return len(self._interactions)

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._proxy.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.run(self._finish())
        self._proxy.close()
        self._thread.__exit__(kind, error, trace)
        save(self.path, self._interactions)

    def on_item(self, connection: ProxiedConnection, item: WireItem) -> None:
        """Record a frame, if it belongs to a request."""
        message, of_connection = item.message, self._open.setdefault(connection, {})
        if any(type(message.get(name, 0)) is not int for name in ("callId", "channelId")):
            return
        kind = str(message.get("type"))
        if item.sender == "client" and kind in _REQUESTS:
            self._on_request(of_connection, message, connection.path.strip("/"))
        elif (item.sender, kind) in _EVENTS:
            event, id_name, body_name = _EVENTS[item.sender, kind]
            self._add(of_connection, (id_name, message.get(id_name, 0)), event, message.get(body_name, ABSENT))
        elif kind == "communicationWarning":
            self._on_warning(of_connection, message)

    def on_end(self, connection: ProxiedConnection) -> None:
        """End the requests of a connection that is lost."""
        of_connection = self._open.pop(connection, {})
        for key in tuple(of_connection):
            self._add(of_connection, key, "closed" if of_connection[key].is_over else "lost")

    def _reserve(self) -> None:
        """Create the file, so that one that cannot be written is an error now, and not after the recording."""
        with file_errors(self.path):
            if self.path.exists():
                raise LMStudioOSError(f"the cassette {str(self.path)!r} exists; delete it, or choose another name")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(exist_ok=False)

    def _on_request(self, of_connection: Open, message: dict[str, Any], namespace: str) -> None:
        kind, id_name, body_name = _REQUESTS[message["type"]]
        interaction = Interaction(
            len(self._interactions) + 1,
            kind,
            namespace,
            str(message.get("endpoint")),
            message.get(body_name, ABSENT),
            section=self.section,
        )
        self._idle.clear()
        self._interactions.append(interaction)
        of_connection[id_name, message.get(id_name, 0)] = interaction

    def _on_warning(self, of_connection: Open, message: dict[str, Any]) -> None:
        """A server that does not take a request never replies to it, and names its endpoint in a warning."""
        warning = {name: message[name] for name in ("warning", "kind") if name in message}
        for key, interaction in reversed(of_connection.items()):
            if not interaction.events and interaction.endpoint in str(message.get("warning")):
                self._add(of_connection, key, "warning", warning)
                return

    def _add(self, of_connection: Open, key: tuple[str, int], kind: EventKind, body: Any = ABSENT) -> None:
        interaction = of_connection.get(key)
        if interaction is None or (kind in OBJECTS and not is_object(body)):
            return
        interaction.events.append(Event(kind, body))
        if interaction.end is not None:
            del of_connection[key]
            if not any(self._open.values()):
                self._idle.set()

    async def _finish(self) -> None:
        """Let open requests end, and record those that do not as far as they came."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _LAST_MOMENT)
        for of_connection in self._open.values():
            for key, interaction in tuple(of_connection.items()):
                if interaction.is_over:
                    self._add(of_connection, key, "closed")
            of_connection.clear()
