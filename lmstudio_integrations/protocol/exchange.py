"""A call or channel on its way, the queue of its model instance, and which of its timeouts runs.

Plain state, owned by the thread that owns the sessions. The client's operations make the exchanges. `session.py` checks
the timeouts once per tick; why calls need them at all: docs/protocol.md#rule-unanswered-calls. A channel of a tool
session carries many calls at once (docs/protocol.md#tool-sessions).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol
from weakref import WeakValueDictionary

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.endpoints import Channel, Endpoint, Rpc, rpc
from lmstudio_integrations.types.results import PredictionEvent
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

    A call that names an instance that has ended may wait for another one of its model
    (docs/protocol.md#model-matching). Of that one's queue, it sees the length alone, as of the calls of other programs.

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
        timeout_name: The timeout that runs now, besides `total_timeout`; `None` on channels that are open-ended.
        since: When that timeout began to run, or was last restarted; at first when the call was made.
        id: The id on the wire, once it is sent; valid on this socket only (docs/protocol.md#ids).
        packets: How many packets were received.
        cancelled: Whether nothing is left to stop: `cancel` was sent, or the terminal packet was received. A second
            `cancel` would draw a warning (docs/protocol.md#channels).
        high_surrogates: The first half of a surrogate pair by the type of its packet. The second comes with the next
            one of that type: the server may cut a pair between two packets.
        specifier: The model instance in whose queue it waits, as JSON text.
        queue_name: The specifier by which most calls on that instance name it, if this one names it otherwise.
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
    high_surrogates: dict[Any, str] = field(default_factory=dict[Any, str])
    specifier: str | None = None
    queue_name: str | None = None
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


def timeout_after(event: PredictionEvent, timeout_name: str | None) -> str | None:
    """Return the timeout that runs after an event of a prediction. The first token has one of its own."""
    if event.kind == "progress":
        # The request is out of the queue, but its first token is still to come (docs/protocol.md#predict-packets).
        return "first_token_timeout" if timeout_name == "queue_timeout" else timeout_name
    if event.kind == "text":
        return "idle_timeout"
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
    total, name = exchange.timeouts.get("total_timeout"), exchange.timeout_name
    if total is not None and now - exchange.started >= total:
        return _error(exchange, "total_timeout", total, now - exchange.started, EXPIRIES["total_timeout"].cause)
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


PROCESSING_STATE = rpc("llm", "getInstanceProcessingState")
"""The call that returns the length of a queue, alike in both namespaces. New since August 2025
(docs/protocol.md#get-instance-processing-state)."""

REPLY_TIMEOUT = 10.0
"""Seconds that the server has to reply. Servers without the endpoint send a warning and no reply
(docs/protocol.md#invalid-input)."""

_SHORTEST_INTERVAL, _LONGEST_INTERVAL = 0.25, 30.0
"""Seconds between two such calls for one instance: a quarter of `queue_timeout`, within these bounds."""

InstanceQueues = WeakValueDictionary[str, InstanceQueue]
"""The queues in which calls wait, by model specifier as JSON text. One is dropped when the last call in it ends."""


class QueueLengthReceiver(NullReceiver):
    """Records the length of a queue from the reply.

    An error is ignored: the call that waits reports its own, and the next query depends on the time alone.
    """

    def __init__(self, queue: InstanceQueue) -> None:
        self._queue = queue

    def put(self, item: Any) -> None:
        """Record the reply."""
        # The length counts waiting and running requests.
        length = item.get("queued") if is_object(item) else None
        if type(length) is int:
            before, self._queue.length = self._queue.length, length
            self._queue.has_shortened = before is not None and length < before


def queue_queries(exchanges: Iterable[Exchange], now: float) -> Iterator[Exchange]:
    """Yield the calls that are due to request the lengths of queues.

    One for each queue in which a call waits, if the queue has not moved lately.
    """
    for exchange in exchanges:
        queue, limit = exchange.queue, exchange.timeouts.get("queue_timeout")
        if queue is None or limit is None or exchange.timeout_name != "queue_timeout" or not exchange.has_caller:
            continue
        interval = min(max(limit / 4, _SHORTEST_INTERVAL), _LONGEST_INTERVAL)
        if now - max(exchange.since, queue.queried_at) >= interval:
            # Set before the reply comes, so that there is one query per interval, however many calls wait.
            queue.queried_at = now
            # A model that is not found is no error here: the waiting call reports it itself.
            parameter = f'{{"specifier":{exchange.specifier},"throwIfNotFound":false}}'
            timeouts = {"idle_timeout": REPLY_TIMEOUT}
            yield Exchange(PROCESSING_STATE, parameter, QueueLengthReceiver(queue), timeouts, now, "Queue length")


CALL_TOOL = Rpc("callTool", timeout_name=None)
"""A call of a tool, which may take any time. It ends with its result."""

LIST_TOOLS = Rpc("sessionReady", timeout_name=None)
"""Waits until the session is ready, and ends with the definitions of its tools. Nothing is sent for it."""

_REPORTS = {"toolCallStatus": "statusText", "toolCallWarn": "warnText"}
_ENDS = {"toolCallComplete", "toolCallError"}


@dataclass(slots=True, eq=False)
class ToolSession(Exchange):
    """The channel of a tool session, and the calls that run on it.

    Attributes:
        definitions: The tools, in wire form, once the session is ready.
    """

    definitions: list[Any] | None = None
    _waiting: list[Exchange] = field(default_factory=list[Exchange])
    """Calls that were made before the session is ready."""
    _running: dict[int, Exchange] = field(default_factory=dict[int, Exchange])
    _next_id: int = 0

    @property
    def calls(self) -> list[Exchange]:
        """The calls that have not ended."""
        return [*self._waiting, *self._running.values()]

    def start(self, call: Exchange) -> str | None:
        """Start a call; return the packet to send for it now, if there is one."""
        if self.definitions is None:
            self._waiting.append(call)
            return None
        if call.endpoint is LIST_TOOLS:
            _end(call, self.definitions)
            return None
        # The id of an exchange is 0 until it is sent, and the first call of a session has the number 0.
        number, self._next_id = self._next_id, self._next_id + 1
        call.id = number + 1
        self._running[number] = call
        assert call.parameter is not None, "a call has a name and arguments"
        parameter, call.parameter = call.parameter, None
        return f'{{"type":"callTool","callId":{number},{parameter[1:]}'

    def receive(self, packet: Mapping[str, Any]) -> list[str]:
        """Receive a packet; return the packets to send because of it.

        Raises:
            LookupError, TypeError: If it cannot be read.
        """
        kind = packet["type"]
        if kind == "sessionReady":
            definitions = packet["toolDefinitions"]
            if not is_list(definitions) or not all(map(is_object, definitions)):
                raise TypeError("the definitions of the tools are no list of objects")
            self.definitions = definitions
            waiting, self._waiting = self._waiting, []
            return [packet for packet in map(self.start, waiting) if packet is not None]
        if kind in _REPORTS and isinstance(packet.get(_REPORTS[kind]), str):
            # Packets of unknown calls are legal: the call may have been aborted (docs/protocol.md#tool-sessions).
            call = self._running.get(packet["callId"])
            if call is not None:
                call.receiver.put(packet)
        elif kind in _ENDS:
            call = self._running.pop(packet["callId"], None)
            if call is not None:
                _end(call, packet)
        return []

    def abort(self, call: Exchange) -> str | None:
        """Forget a call; return the packet to send for that, if there is one."""
        if call in self._waiting:
            self._waiting.remove(call)
        elif self._running.get(call.id - 1) is call:
            del self._running[call.id - 1]
            return f'{{"type":"abortToolCall","callId":{call.id - 1}}}'
        return None

    def pop_calls(self) -> list[Exchange]:
        """Return the calls that have not ended, and forget them."""
        calls = self.calls
        self._waiting.clear()
        self._running.clear()
        return calls


def exchange_type(endpoint: Endpoint) -> type[Exchange]:
    """Return the class of an exchange: where calls run on the channel, it is a tool session."""
    return ToolSession if isinstance(endpoint, Channel) and endpoint.has_calls else Exchange


def _end(call: Exchange, result: object) -> None:
    call.packets += 1
    call.receiver.put(result)
    call.finish(None)
