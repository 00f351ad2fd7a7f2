"""Writes what passes through a proxy to a cassette.

The lines of a request are written when it has ended, because a secret may arrive in several packets.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterable
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
    Writer,
)
from lmstudio_integrations.emulator.testing.proxy import Observer, ProxiedConnection, Proxy, ProxyThread
from lmstudio_integrations.emulator.testing.redaction import Redaction, redact
from lmstudio_integrations.emulator.testing.wire_items import WireItem
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError

logger: logging.Logger = logging.getLogger(__name__)

_DIGITS = 3
"""Of seconds: less is noise, and would change with each recording."""

_LAST_MOMENT = 1.0
"""Seconds that open requests have at the end of a recording: what a client sent last may still be on its way."""

_REQUESTS: dict[str, tuple[Kind, str, str]] = {
    "rpcCall": ("call", "callId", "parameter"),
    "channelCreate": ("channel", "channelId", "creationParameter"),
}
_REPLIES: dict[str, tuple[EventKind, str, str]] = {
    "rpcResult": ("result", "callId", "result"),
    "rpcError": ("error", "callId", "error"),
    "channelSend": ("received", "channelId", "message"),
    "channelError": ("error", "channelId", "error"),
    "channelClose": ("closed", "channelId", ""),
}
"""The frames of each side: what they are in a cassette, the member with the id, and the member with the content."""

Open = dict[tuple[str, int], Interaction]
"""The requests of a connection that have not ended, by the name of their id and the id."""


class Recorder(Observer):
    """Turns the frames of a proxy into the requests of a cassette.

    Args:
        write: Receives each request when it has ended. Called on the proxy's thread.
        redaction: What must not be recorded.
    """

    def __init__(self, write: Callable[[Interaction], None], redaction: Redaction) -> None:
        self._write = write
        self._redaction = redaction
        self.section: str = ""
        """What the requests from now on belong to."""
        self._began = time.monotonic()
        self._count = 0
        self._open: dict[ProxiedConnection, Open] = {}
        self.idle: asyncio.Event = asyncio.Event()
        """Set while no request is open."""
        self.idle.set()

    def on_item(self, connection: ProxiedConnection, item: WireItem) -> None:
        """Record a frame, if it belongs to a request."""
        message = item.message
        if not message or any(type(message.get(name, 0)) is not int for name in ("callId", "channelId")):
            return
        of_connection = self._open.setdefault(connection, {})
        if "authVersion" in message:
            self._redaction.hide(message.get("clientIdentifier"))
            self._redaction.hide(message.get("clientPasskey"))
        elif item.sender == "server":
            self._on_reply(of_connection, message)
        elif message.get("type") in _REQUESTS:
            self._on_request(of_connection, message, connection.path.strip("/"))
        elif message.get("type") == "channelSend":
            self._add(of_connection, ("channelId", message.get("channelId", 0)), "sent", message.get("message"))

    def on_end(self, connection: ProxiedConnection) -> None:
        """End the requests of a connection that is lost."""
        of_connection = self._open.pop(connection, {})
        for key in tuple(of_connection):
            self._add(of_connection, key, "closed" if of_connection[key].is_over else "lost")

    def finish(self) -> None:
        """Write the requests that have not ended."""
        for of_connection in self._open.values():
            for key, interaction in tuple(of_connection.items()):
                if interaction.is_over:
                    self._add(of_connection, key, "closed")
                else:
                    self._complete(interaction)
            of_connection.clear()

    def _on_request(self, of_connection: Open, message: dict[str, Any], namespace: str) -> None:
        kind, id_key, parameter_key = _REQUESTS[message["type"]]
        self._count += 1
        self.idle.clear()
        of_connection[id_key, message.get(id_key, 0)] = Interaction(
            self._count,
            self._since(self._began),
            kind,
            namespace,
            str(message.get("endpoint")),
            message.get(parameter_key, ABSENT),
            section=self.section,
        )

    def _on_reply(self, of_connection: Open, message: dict[str, Any]) -> None:
        if message.get("type") == "communicationWarning":
            self._on_warning(of_connection, message)
        elif message.get("type") in _REPLIES:
            kind, id_key, body_key = _REPLIES[message["type"]]
            self._add(of_connection, (id_key, message.get(id_key, 0)), kind, message.get(body_key, ABSENT))

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
        interaction.events.append(Event(kind, self._since(self._began + interaction.at), body))
        if interaction.end is not None:
            del of_connection[key]
            self._complete(interaction)
            if not any(self._open.values()):
                self.idle.set()

    def _complete(self, interaction: Interaction) -> None:
        try:
            self._write(redact(interaction, self._redaction))
        except RecursionError:
            logger.warning("a request of %s is not recorded: it is nested too deeply", interaction.request)

    def _since(self, start: float) -> float:
        return max(0.0, round(time.monotonic() - start, _DIGITS))  # in this order, because -0.0 is no less than 0.0


class Recording:
    """A proxy in front of a server that writes a cassette. A context manager; inside, clients connect to `address`.

    If the cassette cannot be written any more, such as on a full disk, a warning is logged, everything is still
    forwarded, and `LMStudioOSError` is raised at the end of the block. The cassette has what was recorded before.

    Prompts, responses and the names of models are recorded; secrets are not (docs/tools/cassettes.md#secrets).

    Args:
        path: The cassette, which must not exist yet.
        server: `host:port` of LM Studio, or of an emulator.
        redact: Regular expressions; what they match is hidden.
        contents: Whether the contents of images and files are recorded, instead of their hashes.
        host: The address to listen on.
        port: The port to listen on; 0 takes any free one.

    Raises:
        LMStudioOSError: If the file exists or cannot be written, or the port is taken.
        LMStudioValueError: If the server or a regular expression is not valid.
    """

    def __init__(
        self,
        path: str | Path,
        server: str,
        *,
        redact: Iterable[str] = (),
        contents: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.path: Path = Path(path)
        self.requests: int = 0
        """How many requests are recorded so far."""
        self.error: LMStudioOSError | None = None
        """Why nothing more is recorded, if the cassette cannot be written; everything is still forwarded."""
        if not re.fullmatch(r"[^/@]+:\d+", server):
            shown = redact_address(server)
            raise LMStudioValueError(f"the server to record must be given as host:port, got {shown!r}")
        self._recorder = Recorder(self._write, Redaction(redact, contents=contents))
        self._thread = ProxyThread()
        self._proxy = Proxy(self._thread, server, observer=self._recorder, host=host, ports=(port,))
        try:
            self._writer = Writer(self.path)
        except LMStudioOSError:
            self._proxy.discard()
            raise

    @property
    def address(self) -> str:
        """Host and port as clients take them."""
        return self._proxy.address

    def begin_section(self, name: str) -> None:
        """Name the part of the recording to which the requests from now on belong."""
        self._recorder.section = name

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
        self._writer.close()
        if self.error is not None and error is None:
            raise self.error

    async def _finish(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._recorder.idle.wait(), _LAST_MOMENT)
        self._recorder.finish()

    def _write(self, interaction: Interaction) -> None:
        """Write a request, and keep the first error for the end of the recording: nobody can handle it before."""
        if self.error is not None:
            return
        try:
            self._writer.write(interaction)
            self.requests += 1
        except LMStudioOSError as error:
            logger.warning("%s; everything is still forwarded, but nothing more is recorded", error)
            self.error = error
