"""The queues of model instances: whether they move, and how long they are.

An instance runs a few calls at once and queues the others, without a packet until their turn. A queue that moves
restarts `queue_timeout`: a long queue is no stall, a stuck one is. It moves when a call of this process on that
instance receives a packet, or when the server says that it has become shorter.

Below `session.py`. Plain functions and state; the time is passed in.
"""

from collections.abc import Iterable, MutableMapping
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.protocol.endpoints import rpc
from lmstudio_integrations.protocol.exchange import Exchange, Instance

PROCESSING_STATE = rpc("llm", "getInstanceProcessingState")
"""The call that returns the length of a queue; it is the same in both namespaces of models."""

ANSWER_TIMEOUT = 10.0
"""Seconds that the server has to answer it; older servers never do."""

_SHORTEST_INTERVAL, _LONGEST_INTERVAL = 0.25, 30.0
"""Seconds between two such calls for one instance: a quarter of `queue_timeout`, within these bounds."""

Instances = MutableMapping[str, Instance]
"""The instances that somebody waits for, by model specifier as JSON text."""


def no_instances() -> Instances:
    """Return an empty table, which drops an instance when the last call on it ends."""
    return WeakValueDictionary()


class Query(NamedTuple):
    """A call that asks how long the queue of an instance is."""

    parameter: str
    sink: "QueueSink"


class QueueSink:
    """Records the length of a queue from the answer. An error says nothing, and is dropped."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def put(self, item: Any) -> None:
        """Record the answer."""
        queued = item.get("queued") if is_object(item) else None
        if type(queued) is int:
            before, self._instance.queued = self._instance.queued, queued
            self._instance.fell = before is not None and queued < before

    def finish(self, error: BaseException | None) -> None:
        """Do nothing: when to ask again is a matter of time."""

    def is_alive(self) -> bool:
        """Return true."""
        return True


def moved_at(instance: Instance, now: float) -> float:
    """Return when the queue of an instance last moved."""
    if instance.fell:
        instance.fell, instance.last_packet = False, now
    return instance.last_packet


def queries(exchanges: Iterable[Exchange], now: float) -> list[Query]:
    """Return the calls to make now: for each instance in whose queue somebody waits, if nothing moved for a while."""
    found: list[Query] = []
    for exchange in exchanges:
        instance, limit = exchange.instance, exchange.timeouts.get("queue_timeout")
        if instance is None or limit is None or exchange.timeout_name != "queue_timeout" or not exchange.waiting:
            continue
        interval = min(max(limit / 4, _SHORTEST_INTERVAL), _LONGEST_INTERVAL)
        if now - max(exchange.since, instance.asked_at) >= interval:
            instance.asked_at = now
            parameter = f'{{"specifier":{exchange.specifier},"throwIfNotFound":false}}'
            found.append(Query(parameter, QueueSink(instance)))
    return found
