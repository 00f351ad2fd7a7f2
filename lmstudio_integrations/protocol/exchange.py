"""A call or channel on its way, the queue of its model instance, and which of its timeouts runs.

Plain state, owned by the thread that owns the sessions. The client's operations make the exchanges. `session.py` checks
the timeouts once per tick; why calls need them at all: docs/protocol.md#rule-unanswered-calls.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Protocol

from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.endpoints import Endpoint
from lmstudio_integrations.types.results import LlmPredictionFragment, PromptProgress
from lmstudio_integrations.types.timeouts import EXPIRIES

Timeouts = Mapping[str, float | None]
"""Seconds by name of the timeout; `None` switches one off. `keepalive`, an interval, is passed with them."""


class Receiver(Protocol):
    """Receives the replies to one call. The owner of the session calls all methods; they must not block."""

    def put(self, item: Any) -> None:
        """Receive a packet, or the result of an RPC."""

    def finish(self, error: BaseException | None) -> None:
        """Record that nothing more follows."""

    def is_alive(self) -> bool:
        """Whether the caller still exists."""
        ...


class NullReceiver:
    """A receiver that ignores everything."""

    def put(self, item: Any) -> None:
        """Drop what was received."""

    def finish(self, error: BaseException | None) -> None:
        """Drop the end as well."""

    def is_alive(self) -> bool:
        """Return true, because a caller that is not alive has its request cancelled."""
        return True


_CLOSED = NullReceiver()
"""The receiver of a call whose caller has received the end already."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class InstanceQueue:
    """The queue of a model instance as the calls of this process see it.

    Attributes:
        last_packet: When one of them last received a packet, or it became shorter.
        length: The calls of all clients that wait or run there; `None` until the server has reported them.
        queried_at: When `length` was last requested.
        has_shortened: Whether it became shorter since the last tick.
    """

    last_packet: float = -math.inf
    length: int | None = None
    queried_at: float = -math.inf
    has_shortened: bool = False


@dataclass(slots=True, eq=False)
class Exchange:
    """One call or channel, from the request to its end.

    Attributes:
        endpoint: The endpoint.
        parameter: The request, as JSON text; dropped once it is sent.
        receiver: Receives the replies.
        timeouts: The timeouts.
        started: When the caller began the operation of which this is a part.
        label: What errors call it.
        client_id: Stands for the client that made the call.
        timeout_name: The timeout that runs now, besides `timeout`; `None` on channels that are open-ended.
        since: When that timeout began to run, or was last restarted; at first when the call was made.
        id: The id on the wire, once it is sent; valid on this socket only (docs/protocol.md#ids).
        packets: How many packets were received.
        cancelled: Whether nothing is left to stop: `cancel` was sent, or the terminal packet was received. A second
            `cancel` would draw a warning (docs/protocol.md#channels).
        high_surrogate: The first half of a surrogate pair. The second comes with the next fragment: the server may cut
            a pair between two packets.
        specifier: The model instance in whose queue it waits, as JSON text.
        queue: That queue, once the request is sent.
        can_fail_over: Whether another host can take it, if this one stops responding before the response begins.
        channel: The channel on which it is a call, as in a tool session.
        error: The error with which it has ended, if there was one.
    """

    endpoint: Endpoint
    parameter: str | None
    receiver: Receiver
    timeouts: Timeouts
    started: float
    label: str = "RPC"
    client_id: object = None
    timeout_name: str | None = None
    since: float = 0.0
    id: int = 0
    packets: int = 0
    cancelled: bool = False
    high_surrogate: str = ""
    specifier: str | None = None
    queue: InstanceQueue | None = None
    can_fail_over: bool = False
    channel: Optional["Exchange"] = None
    error: BaseException | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a part of the response was received, and not only progress of the prompt."""
        return self.packets > 0 and self.timeout_name not in {"queue_timeout", "first_token_timeout"}

    @property
    def has_caller(self) -> bool:
        """Whether a caller waits for it. After `close` none does, although the server may still work on it."""
        return self.receiver is not _CLOSED

    def finish(self, error: BaseException | None) -> None:
        """Wake the caller: nothing more follows. Only the first call has an effect."""
        # Swapped before the receiver is called, so that whatever the receiver triggers finds this call ended.
        receiver, self.receiver = self.receiver, _CLOSED
        if receiver is not _CLOSED:
            self.error = error
        receiver.finish(error)


_SILENT = "{peer} does not respond, not even to a ping"


def timeout_after(event: object, timeout_name: str | None) -> str | None:
    """Return the timeout that runs after an event of a prediction. The first token has one of its own."""
    if type(event) is LlmPredictionFragment:
        return "idle_timeout"
    if type(event) is PromptProgress:
        # The request is out of the queue, but its first token is still to come (docs/protocol.md#predict-packets).
        return "first_token_timeout" if timeout_name == "queue_timeout" else timeout_name
    # A tool call may begin without a fragment before it (docs/protocol.md#predict-packets).
    return "idle_timeout" if timeout_name in {"queue_timeout", "first_token_timeout"} else timeout_name


def expired_timeout(
    exchange: Exchange, now: float, peer: str, unanswered_since: float | None
) -> LMStudioTimeoutError | None:
    """Return the error of a call whose timeout expired, or `None`.

    Args:
        exchange: The call.
        now: The time.
        peer: The server, for the message.
        unanswered_since: Since when the server owes the reply to a ping. A call without a running timeout of its own
            then ends with its `idle_timeout`: nothing else would end it, because a frozen server does not.
    """
    # Check the total timeout first: it counts even while another one is switched off.
    total, name = exchange.timeouts.get("timeout"), exchange.timeout_name
    if total is not None and now - exchange.started >= total:
        return _error(exchange, "timeout", total, now - exchange.started, EXPIRIES["timeout"].cause)
    limit = exchange.timeouts.get(name) if name else None
    if limit is not None and name is not None:
        if now - exchange.since < limit:
            return None
        cause = EXPIRIES[name].cause.format(peer=peer) + _queue_of(exchange)
        return _error(exchange, name, limit, now - exchange.since, cause)
    # Open-ended channels end only if the server owes the reply to a ping.
    idle = exchange.timeouts.get("idle_timeout")
    if unanswered_since is None or idle is None:
        return None
    elapsed = now - max(unanswered_since, exchange.since)
    return _error(exchange, "idle_timeout", idle, elapsed, _SILENT.format(peer=peer)) if elapsed >= idle else None


def _queue_of(exchange: Exchange) -> str:
    queue = exchange.queue
    if exchange.timeout_name != "queue_timeout" or queue is None or queue.length is None:
        return ""
    return f" ({queue.length} calls are queued or running on this instance)"


def _error(exchange: Exchange, name: str, limit: float, elapsed: float, cause: str) -> LMStudioTimeoutError:
    return LMStudioTimeoutError(
        f"{exchange.label}: {cause}: {name} expired after {limit:.12g} s; {EXPIRIES[name].remedy}",
        timeout_name=name,
        elapsed=elapsed,
        unanswered=not (exchange.packets or (exchange.queue and exchange.queue.last_packet > exchange.started)),
    )
