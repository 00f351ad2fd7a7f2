"""The queues of model instances: whether they move, and how long they are (docs/protocol.md#parallel-requests).

An instance runs a few calls at once and queues the others, without a packet until their turn. A queue that moves
restarts `queue_timeout`: a long queue is no stall, a stuck one is. A queue moves when a call of this process on that
instance receives a packet, or when the server reports that it has become shorter.

Used by `session.py`. Plain functions and state; the time is passed in.
"""

from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakValueDictionary

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.protocol.endpoints import rpc
from lmstudio_integrations.protocol.exchange import Exchange, InstanceQueue, NullReceiver

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


def moved_at(queue: InstanceQueue, now: float) -> float:
    """Return when a queue last moved."""
    # Note each fall once: the length is polled, so the tick that sees a change gives it its time.
    if queue.has_shortened:
        queue.has_shortened, queue.last_packet = False, now
    return queue.last_packet


def queries(exchanges: Iterable[Exchange], now: float) -> Iterator[Exchange]:
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
