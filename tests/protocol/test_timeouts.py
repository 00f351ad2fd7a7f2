"""Timeouts of calls: when they expire, what restarts them, and the cancel that follows."""

from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, Namespace
from lmstudio_integrations.protocol.exchange import Exchange
from lmstudio_integrations.types.timeouts import EXPIRIES, ModelTimeouts
from tests.protocol.pair import RecordingReceiver, SessionPair
from tests.protocol.samples import (
    CANCEL,
    EMPTY_STACK,
    GET_M1,
    PREDICT_HELLO,
    QUERY,
    fragment,
    progress,
)

SAID = {
    "total_timeout": ("it took too long in total: total_timeout expired", "raise total_timeout, or set it to None"),
    "idle_timeout": ("nothing was received from the server: idle_timeout", "raise idle_timeout, or set it to None"),
    "load_timeout": ("nothing was received from the server: load_timeout", "raise load_timeout, or set it to None"),
    "queue_timeout": ("the server has not begun to work on it", "raise queue_timeout, or set it to None"),
    "first_token_timeout": ("nothing was received", "shorten the prompt, raise first_token_timeout, or set it to None"),
}
"""What the error of an expired timeout says: what has happened, and what helps."""


def test_every_timeout_says_what_has_happened() -> None:
    assert EXPIRIES.keys() == ModelTimeouts.model_fields.keys() - {"keepalive"}
    assert SAID.keys() == EXPIRIES.keys() - {"connect_timeout"}  # it ends before there is a call


def expect_timeout(pair: SessionPair, receiver: RecordingReceiver, name: str, after: float) -> None:
    """Let time pass until just before a timeout expires, then let it expire."""
    pair.pass_time(after - 0.5)
    assert not receiver.ends, f"{name} expired too early"
    pair.pass_time(0.5)
    error = receiver.error
    assert isinstance(error, LMStudioTimeoutError)
    assert error.timeout_name == name
    assert error.elapsed == pytest.approx(after)
    assert all(text in str(error) for text in SAID[name])
    pair.pass_time(1000.0)
    assert len(receiver.ends) == 1


def test_an_rpc_without_a_reply_ends_with_the_idle_timeout() -> None:
    pair = SessionPair()
    pair.now = 1000.0
    _, receiver = pair.call("listLoaded", timeouts={"idle_timeout": 60.0, "load_timeout": 1.0})
    expect_timeout(pair, receiver, "idle_timeout", 60.0)
    assert pair.client.idle


@pytest.mark.parametrize("accepted", [True, False])
def test_a_timeout_of_zero_expires_as_the_request_is_sent(accepted: bool) -> None:
    pair = SessionPair(authenticated=accepted)
    exchange, receiver = pair.call("listLoaded", timeouts={"idle_timeout": 0.0})
    error = receiver.error
    assert isinstance(error, LMStudioTimeoutError)
    assert (error.timeout_name, error.elapsed) == ("idle_timeout", 0.0)
    assert pair.client.idle
    pair.server.reply(exchange.id, [])
    pair.pump_to_client()
    assert (receiver.items, len(receiver.ends)) == ([], 1)


@pytest.mark.parametrize(("limit", "text"), [(0.125, "0.125"), (86400.0, "86400")])
def test_the_error_shows_the_limit_as_it_was_set(limit: float, text: str) -> None:
    pair = SessionPair()
    _, receiver = pair.call("listLoaded", timeouts={"idle_timeout": limit})
    pair.pass_time(limit + 0.1)
    assert f": idle_timeout expired after {text} s; raise idle_timeout" in str(receiver.error)


def test_a_reply_restarts_the_timeouts_of_all_calls_to_the_endpoint() -> None:
    pair, timeouts = SessionPair(), {"idle_timeout": 60.0}
    first, _ = pair.call("listLoaded", timeouts=timeouts)
    second, _ = pair.call("listLoaded", timeouts=timeouts)
    _, last = pair.call("listLoaded", timeouts=timeouts)
    _, other = pair.call("getModelInfo", {"specifier": QUERY, "throwIfNotFound": True}, timeouts=timeouts)
    for replied in (first, second):
        pair.pass_time(59.0)
        pair.server.reply(replied.id, [])
        pair.pump_to_client()
    expect_timeout(pair, last, "idle_timeout", 60.0)
    assert isinstance(other.error, LMStudioTimeoutError)
    assert other.error.elapsed == 118.0


@pytest.mark.parametrize(
    ("name", "packet"),
    [("getOrLoad", {"type": "loadProgress", "progress": 0.1}), ("loadModel", {"type": "progress", "progress": 0.1})],
)
def test_progress_restarts_the_load_timeout_and_its_expiry_cancels_the_load(name: str, packet: dict[str, Any]) -> None:
    pair = SessionPair()
    parameter = GET_M1 if name == "getOrLoad" else {"modelKey": "m", "loadConfigStack": EMPTY_STACK}
    exchange, receiver = pair.call(name, parameter, timeouts={"load_timeout": 300.0, "idle_timeout": 1.0})
    for _ in range(3):
        pair.pass_time(299.0)
        pair.send(exchange, packet)
    expect_timeout(pair, receiver, "load_timeout", 300.0)
    assert [request.packet for request in pair.client_packets] == [CANCEL]


QUEUED: list[tuple[Namespace, str, dict[str, Any]]] = [
    ("llm", "predict", PREDICT_HELLO),
    ("llm", "completeRawText", {"modelSpecifier": QUERY, "rawPrompt": "a", "predictionConfigStack": EMPTY_STACK}),
    ("llm", "tokenize", {"specifier": QUERY, "inputString": "a"}),
    ("llm", "countTokens", {"specifier": QUERY, "inputString": "a"}),
    ("embedding", "embedString", {"modelSpecifier": QUERY, "inputString": "a"}),
    ("embedding", "countTokens", {"specifier": QUERY, "inputString": "a"}),
]


@pytest.mark.parametrize(("namespace", "name", "parameter"), QUEUED)
def test_a_call_without_a_packet_ends_with_the_queue_timeout(
    namespace: Namespace, name: str, parameter: dict[str, Any]
) -> None:
    pair = SessionPair(namespace)
    _, receiver = pair.call(name, parameter, timeouts={"queue_timeout": 600.0, "idle_timeout": 1.0})
    expect_timeout(pair, receiver, "queue_timeout", 600.0)


def test_an_unanswered_ping_ends_calls_without_a_running_timeout() -> None:
    pair = SessionPair()
    _, receiver = pair.call("predict", PREDICT_HELLO, timeouts={"idle_timeout": 60.0})
    _, unlimited = pair.call("predict", PREDICT_HELLO, timeouts={"idle_timeout": None})
    pair.pass_time(1000.0)
    pair.client.unanswered_since = pair.now
    pair.pass_time(59.5)
    assert not receiver.ends
    pair.pass_time(0.5)
    assert isinstance(receiver.error, LMStudioTimeoutError)
    assert (receiver.error.timeout_name, receiver.error.elapsed) == ("idle_timeout", 60.0)
    assert "not even to a ping" in str(receiver.error)
    assert not unlimited.ends


def test_the_first_token_timeout_starts_with_the_first_packet() -> None:
    pair = SessionPair()
    timeouts = {"first_token_timeout": 300.0, "idle_timeout": 60.0}
    exchange, receiver = pair.call("predict", PREDICT_HELLO, timeouts=timeouts)
    pair.pass_time(1000.0)
    pair.send(exchange, progress(0.0))
    pair.pass_time(299.0)
    pair.send(exchange, progress(0.5))
    expect_timeout(pair, receiver, "first_token_timeout", 300.0)
    assert [request.packet for request in pair.client_packets] == [CANCEL]


@pytest.mark.parametrize("first", [fragment("a"), {"type": "toolCallGenerationStart"}])
def test_the_idle_timeout_runs_between_packets(first: dict[str, Any]) -> None:
    pair = SessionPair()
    timeouts = {"first_token_timeout": 300.0, "idle_timeout": 60.0}
    exchange, receiver = pair.call("predict", PREDICT_HELLO, timeouts=timeouts)
    pair.send(exchange, progress(0.0), first, progress(1.0), {"type": "toolCallGenerationStart"})
    pair.pass_time(59.0)
    pair.send(exchange, first)
    expect_timeout(pair, receiver, "idle_timeout", 60.0)


def test_the_total_timeout_is_never_restarted() -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO, timeouts={"total_timeout": 100.0, "idle_timeout": 60.0})
    pair.pass_time(50.0)
    pair.send(exchange, fragment("a"))
    pair.pass_time(49.5)
    assert not receiver.ends
    pair.pass_time(0.5)
    assert isinstance(receiver.error, LMStudioTimeoutError)
    assert receiver.error.timeout_name == "total_timeout"


@pytest.mark.parametrize("packet", [None, progress(0.0), fragment("a")], ids=["none", "progress", "fragment"])
@pytest.mark.parametrize("is_own", [True, False])
def test_an_expired_timeout_knows_whether_the_model_has_sent_anything(
    packet: dict[str, Any] | None, is_own: bool
) -> None:
    pair = SessionPair()
    other, _ = pair.call("predict", PREDICT_HELLO, specifier="a")
    pair.send(other, fragment("before"))
    pair.pass_time(1.0)
    exchange, receiver = pair.call("predict", PREDICT_HELLO, specifier="a", timeouts={"total_timeout": 100.0})
    pair.pass_time(1.0)
    if packet is not None:
        pair.send(exchange if is_own else other, packet)
    pair.pass_time(100.0)
    assert isinstance(receiver.error, LMStudioTimeoutError)
    assert receiver.error.unanswered == (packet is None)


def test_only_the_total_timeout_runs_while_connecting() -> None:
    pair = SessionPair(authenticated=False)
    receivers = [RecordingReceiver(), RecordingReceiver()]
    for receiver, timeouts in zip(receivers, ({"total_timeout": 10.0}, {"idle_timeout": 1.0}), strict=True):
        pair.client.start(Exchange(ENDPOINTS["llm"]["listLoaded"], None, receiver, timeouts, 0.0))
    pair.client.tick(10.0)
    assert isinstance(receivers[0].error, LMStudioTimeoutError)
    assert receivers[0].error.timeout_name == "total_timeout"
    assert not receivers[1].ends
    pair.now = 20.0
    pair.pump()
    pair.pass_time(0.5)
    assert not receivers[1].ends, "its timeout started when it was sent"
    pair.pass_time(0.5)
    assert isinstance(receivers[1].error, LMStudioTimeoutError)


@pytest.mark.parametrize("timeouts", [{}, {"idle_timeout": None, "total_timeout": None}])
def test_a_timeout_of_none_never_expires(timeouts: dict[str, float | None]) -> None:
    pair = SessionPair()
    _, receiver = pair.call("listLoaded", timeouts=timeouts)
    pair.pass_time(1e9)
    assert not receiver.ends


def test_a_channel_whose_caller_is_gone_is_cancelled() -> None:
    pair = SessionPair()
    _, receiver = pair.call("predict", PREDICT_HELLO)
    receiver.alive = False
    pair.pass_time(0.1)
    assert [request.packet for request in pair.client_packets] == [CANCEL]
    assert receiver.ends == [None]
