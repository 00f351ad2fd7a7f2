"""Queues of model instances: what restarts `queue_timeout`, and how often the length of a queue is queried."""

import json
from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.exchange import InstanceQueues
from tests.protocol.pair import SessionPair
from tests.protocol.samples import PREDICT_HELLO, QUERY, fragment

SPECIFIER = json.dumps(QUERY)
ANOTHER = json.dumps({"type": "query", "query": {"identifier": "another"}})


def test_a_packet_for_another_call_on_the_instance_restarts_the_queue_timeout() -> None:
    pair, timeouts = SessionPair(), {"queue_timeout": 600.0, "idle_timeout": 1000.0}
    running, _ = pair.call("predict", PREDICT_HELLO, timeouts=timeouts, specifier=SPECIFIER)
    _, waiting = pair.call("predict", PREDICT_HELLO, timeouts=timeouts, specifier=SPECIFIER)
    _, elsewhere = pair.call("predict", PREDICT_HELLO, timeouts=timeouts, specifier=ANOTHER)
    for _ in range(3):
        pair.pass_time(500.0)
        pair.send(running, fragment("a"))
    assert isinstance(elsewhere.error, LMStudioTimeoutError)
    pair.pass_time(599.5)
    assert not waiting.ends
    pair.pass_time(0.5)
    assert isinstance(waiting.error, LMStudioTimeoutError)


def test_a_packet_on_another_connection_restarts_the_queue_timeout_too() -> None:
    queues = InstanceQueues()
    here, there = SessionPair(queues=queues), SessionPair(queues=queues)
    _, waiting = here.call("predict", PREDICT_HELLO, timeouts={"queue_timeout": 600.0}, specifier=SPECIFIER)
    running, _ = there.call("predict", PREDICT_HELLO, specifier=SPECIFIER)
    here.pass_time(500.0)
    there.pass_time(500.0)
    there.send(running, fragment("a"))
    here.pass_time(500.0)
    assert not waiting.ends


def test_the_queue_of_an_instance_is_dropped_with_its_last_call() -> None:
    queues = InstanceQueues()
    pair = SessionPair(queues=queues)
    exchange, _ = pair.call("predict", PREDICT_HELLO, specifier=SPECIFIER)
    assert len(queues) == 1
    pair.close(exchange)
    del exchange
    assert not queues


def reply_with_length(pair: SessionPair, queued: Any) -> None:
    """Reply to the client's last query for the length of a queue."""
    query = pair.called[-1]
    assert query.endpoint.name == "getInstanceProcessingState"
    pair.server.reply(query.call_id, {"status": "generating", "queued": queued})
    pair.pump_to_client()


def test_a_shorter_queue_restarts_the_queue_timeout_and_its_error_has_the_length() -> None:
    pair = SessionPair()
    _, receiver = pair.call("predict", PREDICT_HELLO, timeouts={"queue_timeout": 100.0}, specifier=SPECIFIER)
    for queued in (5, 4, 4, 3):
        pair.pass_time(25.0)
        reply_with_length(pair, queued)
    pair.pass_time(0.5)
    restarted_at = pair.now
    for _ in range(3):
        pair.pass_time(25.0)
        reply_with_length(pair, 3)
    pair.pass_time(24.5)
    assert not receiver.ends
    pair.pass_time(0.5)
    assert isinstance(receiver.error, LMStudioTimeoutError)
    assert receiver.error.elapsed == pair.now - restarted_at == 100.0
    assert "3 calls are queued or running on this instance" in str(receiver.error)


def test_the_length_of_a_queue_is_queried_rarely_and_once_for_all_calls() -> None:
    pair = SessionPair()
    for _ in range(20):
        pair.call("predict", PREDICT_HELLO, timeouts={"queue_timeout": 600.0}, specifier=SPECIFIER)
    for _ in range(59 * 2):
        pair.pass_time(0.5)
    assert len(pair.called) == 1
    assert pair.to_server[-1]["parameter"] == {"specifier": QUERY, "throwIfNotFound": False}


@pytest.mark.parametrize("reply", [None, 5, {}, {"queued": "3"}, {"queued": None}, {"queued": True}])
def test_a_malformed_queue_length_is_ignored(reply: Any) -> None:
    pair = SessionPair(checked=False)
    _, receiver = pair.call("predict", PREDICT_HELLO, timeouts={"queue_timeout": 100.0}, specifier=SPECIFIER)
    pair.pass_time(25.0)
    pair.raw({"type": "rpcResult", "callId": pair.called[-1].call_id, "result": reply})
    pair.pass_time(75.0)
    assert isinstance(receiver.error, LMStudioTimeoutError)
    assert "calls are queued" not in str(receiver.error)


def test_a_server_without_the_endpoint_is_queried_once() -> None:
    pair = SessionPair()
    _, receiver = pair.call("predict", PREDICT_HELLO, timeouts={"queue_timeout": 100.0}, specifier=SPECIFIER)
    pair.pass_time(25.0)
    warning = "Received RPC call for unknown endpoint, endpoint = getInstanceProcessingState"
    pair.raw({"type": "communicationWarning", "warning": warning, "kind": "rpcCallUnknownEndpoint"})
    pair.pass_time(50.0)
    assert len(pair.called) == 1
    assert not receiver.ends
