"""One call or channel on its way: what `session.py` keeps of it, and what is known of the model instance it waits for.

Plain state, owned by the thread that owns the sessions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lmstudio_integrations.protocol.endpoints import Endpoint

Timeouts = Mapping[str, float | None]
"""Seconds by name of the timeout; `None` switches one off. `keepalive`, an interval, travels with them."""


class Sink(Protocol):
    """Where the answers to one call go. All methods are called by the owner of the session and must not block."""

    def put(self, item: Any) -> None:
        """Receive a packet, or the result of an RPC."""

    def finish(self, error: BaseException | None) -> None:
        """Record that nothing more comes."""

    def is_alive(self) -> bool:
        """Whether anybody can still be reached behind it."""
        ...


class _Nobody:
    """The sink of a caller who was sent the end already."""

    def put(self, item: Any) -> None:
        pass

    def finish(self, error: BaseException | None) -> None:
        pass

    def is_alive(self) -> bool:
        return True


NOBODY = _Nobody()


@dataclass(slots=True, eq=False, weakref_slot=True)
class Instance:
    """A model instance as the calls of this process see it.

    Attributes:
        last_packet: When any of them last received a packet, or `queued` fell.
        queued: Calls that wait or run there, all clients counted; `None` until the server has said it.
        asked_at: When the server was last asked for `queued`.
        fell: Whether `queued` fell since the last tick.
    """

    last_packet: float = -math.inf
    queued: int | None = None
    asked_at: float = -math.inf
    fell: bool = False


@dataclass(slots=True, eq=False)
class Exchange:
    """One call or channel, from the request to its end.

    Attributes:
        endpoint: What is called.
        parameter: The request, as JSON text.
        sink: Who waits.
        timeouts: The timeouts.
        started: When the caller began the operation of which this is a part.
        operation: The operation, for error messages.
        owner: The client that made the call, as a number.
        timeout_name: The timeout that runs now, besides `timeout`; `None` on channels that are open-ended.
        since: When it began to run, or was last restarted; at first when the call was made.
        id: The id on the wire, once it is sent.
        packets: How many packets came back.
        cancelled: Whether there is nothing left to stop: the server was asked to, or sent its last packet.
        held: A high surrogate that waits for its second half.
        specifier: The model instance that it is queued for, as JSON text.
        instance: What is known of that instance, once the request is sent.
    """

    endpoint: Endpoint
    parameter: str | None
    sink: Sink
    timeouts: Timeouts
    started: float
    operation: str = "RPC"
    owner: int = 0
    timeout_name: str | None = None
    since: float = 0.0
    id: int = 0
    packets: int = 0
    cancelled: bool = False
    held: str = ""
    specifier: str | None = None
    instance: Instance | None = None

    @property
    def waiting(self) -> bool:
        """Whether anybody waits for it; the server may take long to end what was abandoned."""
        return self.sink is not NOBODY

    def finish(self, error: BaseException | None) -> None:
        """Wake whoever waits: nothing more comes. Only the first call counts."""
        sink, self.sink = self.sink, NOBODY
        sink.finish(error)
