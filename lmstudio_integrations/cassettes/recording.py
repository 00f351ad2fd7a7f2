"""Records what the clients of this process and a server say to each other.

A client's session has each frame as text (`protocol/session.py`), and a recording puts its own kind of session in that
place. `cassette.py` has the format, and `redaction.py` hides the secrets.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.cassettes.cassette import (
    ABSENT,
    OBJECTS,
    BeforeRecord,
    Event,
    EventKind,
    Interaction,
    Kind,
    file_errors,
    save,
)
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport.connect.addresses import Address, Target
from lmstudio_integrations.client.transport.socket_session import recorders
from lmstudio_integrations.errors import LMStudioOSError
from lmstudio_integrations.protocol.envelope import parse
from lmstudio_integrations.protocol.session import ClientSession

logger: logging.Logger = logging.getLogger(__name__)

LAST_MOMENT = 1.0
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

_recordings: "list[Recording]" = []
"""The recordings that are open. They may overlap: each records what is said while it is open."""

_threads = contextlib.ExitStack()
"""The I/O threads of the open recordings. All end with the last recording, because others may use any of them."""

_lock = threading.Lock()
"""Guards both."""


class Recording:
    """Records what the clients of this process and a server say to each other. A context manager.

    In the block, clients connect anew and have nothing cached, so that the cassette is complete. It is written at the
    end of the block, also of one that ends with an error. Recordings may overlap: each has what is said in its block.

    Prompts, responses and the names of models are recorded; secrets are not (docs/tools/cassettes.md#secrets).

    Args:
        path: The cassette, which must not exist yet.
        server: The address of LM Studio, or of an emulator. Clients that have another one are not recorded; all names
            of this machine's loopback are one.
        before_record: Called with each request before it is written, see `use_cassette`.

    Raises:
        LMStudioOSError: If the file exists or cannot be written.
        LMStudioValueError: If the address is not valid.
    """

    def __init__(self, path: str | Path, server: str, *, before_record: BeforeRecord | None = None) -> None:
        self.path: Path = Path(path)
        """The cassette."""
        self._file = self.path
        self.address: str = server
        """The address of the server, as clients take it."""
        self.section: str | None = ""
        """The part of the recording to which requests from now on belong; with `None`, they are not recorded."""
        self.report: str = ""
        """How many values were removed, and where texts of users and models remain; empty before the end."""
        self._before_record = before_record
        self._server = Address.parse(server).server
        self._others: set[str] = set()
        self._interactions: list[Interaction] = []
        self._open: set[Interaction] = set()
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._reserve()

    @property
    def requests(self) -> int:
        """How many requests are recorded so far."""
        return len(self._interactions)

    def __enter__(self) -> Self:
        with _lock:
            _recordings.append(self)
            recorders.append(_RecordedSession)
            _threads.enter_context(IOThread.fresh())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end()
            self.report = save(self._file, self._interactions, self._before_record)
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)  # it has nothing, or a part
            raise
        others = f"; clients in this process also used {', '.join(sorted(self._others))}" if self._others else ""
        if self._interactions:
            logger.info("recorded %s: %s%s", self.path, self.report, others)
        else:
            logger.warning("no request to %s was recorded in %s%s", self.address, self.path, others)

    def records(self, target: Target) -> bool:
        """Whether what clients say to a server is recorded."""
        is_recorded = target.address is not None and target.address.server == self._server
        if not is_recorded:
            self._others.add(str(target))
        return is_recorded

    def conversation(self, namespace: str) -> "Conversation":
        """Return what records another socket than those of clients."""
        return Conversation(self, namespace)

    def begin(self, interaction: Interaction) -> bool:
        """Record a request from now on, unless nothing is recorded now."""
        with self._lock:
            if self.section is None:
                return False
            self._interactions.append(interaction)
            interaction.number, interaction.section = len(self._interactions), self.section
            self._open.add(interaction)
            self._idle.clear()
        return True

    def add(self, interaction: Interaction, event: Event) -> None:
        """Add to a request what was said, unless it has ended."""
        with self._lock:
            if interaction not in self._open:
                return
            interaction.events.append(event)
            if interaction.end is not None:
                self._open.remove(interaction)
                if not self._open:
                    self._idle.set()

    def _reserve(self) -> None:
        """Create the file, so that one that cannot be written is an error now, and not after the recording."""
        with file_errors(self._file):
            if self._file.exists():
                raise LMStudioOSError(f"the cassette {str(self.path)!r} exists; delete it, or choose another name")
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(exist_ok=False)

    def _end(self) -> None:
        """Record nothing more, also if Ctrl-C ends the wait for open requests."""
        try:
            self._finish()
        finally:
            with _lock:
                _recordings.remove(self)
                recorders.pop()
                if not _recordings:
                    _threads.close()

    def _finish(self) -> None:
        """Let open requests end, and record those that do not as far as they came."""
        self._idle.wait(LAST_MOMENT)
        with self._lock:
            self.section = None
            for interaction in self._open:
                if interaction.is_over:
                    interaction.events.append(Event("closed"))
            self._open.clear()


class Conversation:
    """What is said on one socket.

    Args:
        recording: What it belongs to.
        namespace: That of the socket.
    """

    def __init__(self, recording: Recording, namespace: str) -> None:
        self._recording = recording
        self._namespace = namespace
        self._requests: dict[tuple[str, int], Interaction] = {}
        """By the name of their id, and the id."""

    def add(self, sender: Literal["client", "server"], frame: str | bytes) -> None:
        """Record a frame, if it belongs to a request."""
        message = parse(frame)[0] or {}
        if any(type(message.get(name, 0)) is not int for name in ("callId", "channelId")):
            return
        kind = str(message.get("type"))
        if sender == "client" and kind in _REQUESTS:
            self._begin(message)
        elif (sender, kind) in _EVENTS:
            event, id_name, body_name = _EVENTS[sender, kind]
            interaction, body = self._requests.get((id_name, message.get(id_name, 0))), message.get(body_name, ABSENT)
            if interaction is not None and (event not in OBJECTS or is_object(body)):
                self._recording.add(interaction, Event(event, body))
        elif kind == "communicationWarning":
            self._warn(message)

    def end(self) -> None:
        """End the requests of a connection that is lost."""
        for interaction in self._requests.values():
            self._recording.add(interaction, Event("closed" if interaction.is_over else "lost"))

    def _begin(self, message: dict[str, Any]) -> None:
        kind, id_name, body_name = _REQUESTS[message["type"]]
        parameter = message.get(body_name, ABSENT)
        interaction = Interaction(0, kind, self._namespace, str(message.get("endpoint")), parameter)
        if self._recording.begin(interaction):
            self._requests[id_name, message.get(id_name, 0)] = interaction

    def _warn(self, message: dict[str, Any]) -> None:
        """A server that does not take a request never replies to it, and names its endpoint in a warning."""
        warning = {name: message[name] for name in ("warning", "kind") if name in message}
        for interaction in reversed(self._requests.values()):
            if not interaction.events and interaction.endpoint in str(message.get("warning")):
                self._recording.add(interaction, Event("warning", warning))
                return


class _RecordedSession(ClientSession):
    """The session of a client's socket, of which each open recording has each frame.

    Args:
        namespace: That of the socket.
        get_target: Returns the server, once that was found.
        arguments: Those of `ClientSession`.
    """

    def __init__(self, namespace: str, get_target: Callable[[], Target], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._namespace = namespace
        self._get_target = get_target
        self._conversations: dict[Recording, Conversation] = {}

    def data_to_send(self) -> list[str]:
        frames = super().data_to_send()
        for frame in frames:
            self._record("client", frame)
        return frames

    def receive(self, data: str | bytes, now: float) -> None:
        self._record("server", data)
        super().receive(data, now)

    def connection_lost(self, make_error: Callable[[], BaseException]) -> None:
        super().connection_lost(make_error)
        for conversation in self._conversations.values():
            conversation.end()

    def _record(self, sender: Literal["client", "server"], frame: str | bytes) -> None:
        for recording in tuple(_recordings):
            if recording.records(self._get_target()):
                if recording not in self._conversations:
                    self._conversations[recording] = recording.conversation(self._namespace)
                self._conversations[recording].add(sender, frame)
