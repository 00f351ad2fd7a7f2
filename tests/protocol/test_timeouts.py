"""When the timeouts of a call expire, what restarts them, and what becomes of the work on the server then."""

import json
from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, Namespace
from lmstudio_integrations.protocol.exchange import Exchange
from lmstudio_integrations.protocol.instance_queue import no_instances
from tests.protocol.pair import RecordingSink, SessionPair
from tests.protocol.samples import (
    CANCEL,
    EMPTY_STACK,
    GET_M1,
    QUERY,
    SAY_HELLO,
    fragment,
    progress,
)
from tests.requirements import proves


def expect_timeout(pair: SessionPair, sink: RecordingSink, clock: str, after: float) -> None:
    """Let time pass up to just before a clock runs out, then let it run out."""
    pair.pass_time(after - 0.5)
    assert not sink.ends, f"{clock} expired too early"
    pair.pass_time(0.5)
    error = sink.error
    assert isinstance(error, LMStudioTimeoutError)
    assert error.timeout_name == clock
    assert error.elapsed == pytest.approx(after)
    assert clock in str(error)
    pair.pass_time(1000.0)
    assert len(sink.ends) == 1


@proves("C-CLOCK-RPC")
def test_the_answer_to_a_call_is_waited_for_as_long_as_the_idle_clock_says() -> None:
    pair = SessionPair()
    pair.now = 1000.0
    _, sink = pair.call("listLoaded", timeouts={"idle_timeout": 60.0, "load_timeout": 1.0})
    expect_timeout(pair, sink, "idle_timeout", 60.0)
    assert pair.client.idle


@pytest.mark.parametrize("accepted", [True, False])
def test_a_timeout_of_zero_expires_as_the_request_is_sent(accepted: bool) -> None:
    pair = SessionPair(let_in=accepted)
    exchange, sink = pair.call("listLoaded", timeouts={"idle_timeout": 0.0})
    error = sink.error
    assert isinstance(error, LMStudioTimeoutError)
    assert (error.timeout_name, error.elapsed) == ("idle_timeout", 0.0)
    assert pair.client.idle
    pair.server.reply(exchange.id, [])
    pair.pump_to_client()
    assert (sink.items, len(sink.ends)) == ([], 1)


def test_an_answer_feeds_the_clocks_of_all_calls_of_its_kind() -> None:
    pair, timeouts = SessionPair(), {"idle_timeout": 60.0}
    first, _ = pair.call("listLoaded", timeouts=timeouts)
    second, _ = pair.call("listLoaded", timeouts=timeouts)
    _, last = pair.call("listLoaded", timeouts=timeouts)
    _, other = pair.call("getModelInfo", {"specifier": QUERY, "throwIfNotFound": True}, timeouts=timeouts)
    for answered in (first, second):
        pair.pass_time(59.0)
        pair.server.reply(answered.id, [])
        pair.pump_to_client()
    expect_timeout(pair, last, "idle_timeout", 60.0)
    assert isinstance(other.error, LMStudioTimeoutError)
    assert other.error.elapsed == 118.0


@proves("C-CLOCK-LOAD")
@pytest.mark.parametrize(
    ("name", "packet"),
    [("getOrLoad", {"type": "loadProgress", "progress": 0.1}), ("loadModel", {"type": "progress", "progress": 0.1})],
)
def test_progress_feeds_the_load_clock_and_its_end_cancels_the_load(name: str, packet: dict[str, Any]) -> None:
    pair = SessionPair()
    parameter = GET_M1 if name == "getOrLoad" else {"modelKey": "m", "loadConfigStack": EMPTY_STACK}
    exchange, sink = pair.call(name, parameter, timeouts={"load_timeout": 300.0, "idle_timeout": 1.0})
    for _ in range(3):
        pair.pass_time(299.0)
        pair.send(exchange, packet)
    expect_timeout(pair, sink, "load_timeout", 300.0)
    assert [request.packet for request in pair.told] == [CANCEL]


QUEUED: list[tuple[Namespace, str, dict[str, Any]]] = [
    ("llm", "predict", SAY_HELLO),
    ("llm", "completeRawText", {"modelSpecifier": QUERY, "rawPrompt": "a", "predictionConfigStack": EMPTY_STACK}),
    ("llm", "tokenize", {"specifier": QUERY, "inputString": "a"}),
    ("llm", "countTokens", {"specifier": QUERY, "inputString": "a"}),
    ("embedding", "embedString", {"modelSpecifier": QUERY, "inputString": "a"}),
    ("embedding", "countTokens", {"specifier": QUERY, "inputString": "a"}),
]
SPECIFIER = json.dumps(QUERY)
ANOTHER = json.dumps({"type": "query", "query": {"identifier": "another"}})


@proves("C-CLOCK-QUEUE")
@pytest.mark.parametrize(("namespace", "name", "parameter"), QUEUED)
def test_the_first_packet_is_waited_for_as_long_as_the_queue_timeout_says(
    namespace: Namespace, name: str, parameter: dict[str, Any]
) -> None:
    pair = SessionPair(namespace)
    _, sink = pair.call(name, parameter, timeouts={"queue_timeout": 600.0, "idle_timeout": 1.0})
    expect_timeout(pair, sink, "queue_timeout", 600.0)


def test_a_call_without_a_queue_timeout_waits_for_ever() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO, timeouts={"first_token_timeout": 1.0, "idle_timeout": 1.0})
    pair.pass_time(100_000.0)
    assert not sink.ends
    pair.send(exchange, fragment("a"))
    assert sink.texts == ["a"]


@proves("C-CLOCK-QUEUE")
def test_a_packet_for_another_call_on_the_instance_restarts_the_queue_timeout() -> None:
    pair, timeouts = SessionPair(), {"queue_timeout": 600.0, "idle_timeout": 1000.0}
    running, _ = pair.call("predict", SAY_HELLO, timeouts=timeouts, specifier=SPECIFIER)
    _, waiting = pair.call("predict", SAY_HELLO, timeouts=timeouts, specifier=SPECIFIER)
    _, elsewhere = pair.call("predict", SAY_HELLO, timeouts=timeouts, specifier=ANOTHER)
    for _ in range(3):
        pair.pass_time(500.0)
        pair.send(running, fragment("a"))
    assert isinstance(elsewhere.error, LMStudioTimeoutError)
    expect_timeout(pair, waiting, "queue_timeout", 600.0)


def test_a_packet_on_another_connection_to_the_server_restarts_it_too() -> None:
    instances = no_instances()
    here, there = SessionPair(instances=instances), SessionPair(instances=instances)
    _, waiting = here.call("predict", SAY_HELLO, timeouts={"queue_timeout": 600.0}, specifier=SPECIFIER)
    running, _ = there.call("predict", SAY_HELLO, specifier=SPECIFIER)
    here.pass_time(500.0)
    there.pass_time(500.0)
    there.send(running, fragment("a"))
    here.pass_time(500.0)
    assert not waiting.ends


def test_an_instance_is_dropped_when_the_last_call_on_it_ends() -> None:
    instances = no_instances()
    pair = SessionPair(instances=instances)
    exchange, _ = pair.call("predict", SAY_HELLO, specifier=SPECIFIER)
    assert len(instances) == 1
    pair.close(exchange)
    del exchange
    assert not instances


def _say_queued(pair: SessionPair, queued: Any) -> None:
    """Answer the session's last question for the length of a queue."""
    asked = pair.called[-1]
    assert asked.endpoint.name == "getInstanceProcessingState"
    pair.server.reply(asked.call_id, {"status": "generating", "queued": queued})
    pair.pump_to_client()


@proves("C-CLOCK-QUEUE")
def test_a_queue_that_becomes_shorter_restarts_the_queue_timeout_and_one_that_does_not_is_named() -> None:
    pair = SessionPair()
    _, sink = pair.call("predict", SAY_HELLO, timeouts={"queue_timeout": 100.0}, specifier=SPECIFIER)
    for queued in (5, 4, 4, 3):
        pair.pass_time(25.0)
        _say_queued(pair, queued)
    pair.pass_time(0.5)
    restarted_at = pair.now
    for _ in range(3):
        pair.pass_time(25.0)
        _say_queued(pair, 3)
    pair.pass_time(24.5)
    assert not sink.ends
    pair.pass_time(0.5)
    assert isinstance(sink.error, LMStudioTimeoutError)
    assert sink.error.elapsed == pair.now - restarted_at == 100.0
    assert "3 calls wait or run on this instance" in str(sink.error)


def test_the_length_of_a_queue_is_asked_for_rarely_and_once_for_all_who_wait() -> None:
    pair = SessionPair()
    for _ in range(20):
        pair.call("predict", SAY_HELLO, timeouts={"queue_timeout": 600.0}, specifier=SPECIFIER)
    for _ in range(59 * 2):
        pair.pass_time(0.5)
    assert len(pair.called) == 1
    assert pair.to_server[-1]["parameter"] == {"specifier": QUERY, "throwIfNotFound": False}


@pytest.mark.parametrize("answer", [None, 5, {}, {"queued": "3"}, {"queued": None}, {"queued": True}])
def test_a_server_that_does_not_say_how_long_its_queue_is_changes_nothing(answer: Any) -> None:
    pair = SessionPair(judged=False)
    _, sink = pair.call("predict", SAY_HELLO, timeouts={"queue_timeout": 100.0}, specifier=SPECIFIER)
    pair.pass_time(25.0)
    pair.raw({"type": "rpcResult", "callId": pair.called[-1].call_id, "result": answer})
    pair.pass_time(75.0)
    assert isinstance(sink.error, LMStudioTimeoutError)
    assert "calls wait" not in str(sink.error)


def test_an_older_server_is_asked_for_its_queue_once() -> None:
    pair = SessionPair()
    _, sink = pair.call("predict", SAY_HELLO, timeouts={"queue_timeout": 100.0}, specifier=SPECIFIER)
    pair.pass_time(25.0)
    warning = "Received RPC call for unknown endpoint, endpoint = getInstanceProcessingState"
    pair.raw({"type": "communicationWarning", "warning": warning, "kind": "rpcCallUnknownEndpoint"})
    pair.pass_time(50.0)
    assert len(pair.called) == 1
    assert not sink.ends


def test_a_call_without_a_limit_ends_by_the_idle_timeout_once_the_server_answers_no_ping() -> None:
    pair = SessionPair()
    _, sink = pair.call("predict", SAY_HELLO, timeouts={"idle_timeout": 60.0})
    _, patient = pair.call("predict", SAY_HELLO, timeouts={"idle_timeout": None})
    pair.pass_time(1000.0)
    pair.client.unanswered_since = pair.now
    pair.pass_time(59.5)
    assert not sink.ends
    pair.pass_time(0.5)
    assert isinstance(sink.error, LMStudioTimeoutError)
    assert (sink.error.timeout_name, sink.error.elapsed) == ("idle_timeout", 60.0)
    assert "not even a ping" in str(sink.error)
    assert not patient.ends


@proves("C-CLOCK-FIRST-TOKEN")
def test_the_first_token_is_waited_for_from_the_first_sign_of_the_prediction() -> None:
    pair = SessionPair()
    timeouts = {"first_token_timeout": 300.0, "idle_timeout": 60.0}
    exchange, sink = pair.call("predict", SAY_HELLO, timeouts=timeouts)
    pair.pass_time(1000.0)
    pair.send(exchange, progress(0.0))
    pair.pass_time(299.0)
    pair.send(exchange, progress(0.5))
    expect_timeout(pair, sink, "first_token_timeout", 300.0)
    assert [request.packet for request in pair.told] == [CANCEL]


@proves("C-CLOCK-IDLE")
@pytest.mark.parametrize("first", [fragment("a"), {"type": "toolCallGenerationStart"}])
def test_between_packets_of_an_answer_the_idle_clock_runs(first: dict[str, Any]) -> None:
    pair = SessionPair()
    timeouts = {"first_token_timeout": 300.0, "idle_timeout": 60.0}
    exchange, sink = pair.call("predict", SAY_HELLO, timeouts=timeouts)
    pair.send(exchange, progress(0.0), first, progress(1.0), {"type": "toolCallGenerationStart"})
    pair.pass_time(59.0)
    pair.send(exchange, first)
    expect_timeout(pair, sink, "idle_timeout", 60.0)


@proves("C-CLOCK-TOTAL")
def test_the_total_clock_runs_from_the_call_to_its_end_whatever_comes() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO, timeouts={"timeout": 100.0, "idle_timeout": 60.0})
    pair.pass_time(50.0)
    pair.send(exchange, fragment("a"))
    pair.pass_time(49.5)
    assert not sink.ends
    pair.pass_time(0.5)
    assert isinstance(sink.error, LMStudioTimeoutError)
    assert sink.error.timeout_name == "timeout"


def test_the_total_clock_runs_while_the_connection_is_being_made_and_no_other_does() -> None:
    pair = SessionPair(let_in=False)
    sinks = [RecordingSink(), RecordingSink()]
    for sink, timeouts in zip(sinks, ({"timeout": 10.0}, {"idle_timeout": 1.0}), strict=True):
        pair.client.start(Exchange(ENDPOINTS["llm"]["listLoaded"], None, sink, timeouts, 0.0))
    pair.client.tick(10.0)
    assert isinstance(sinks[0].error, LMStudioTimeoutError)
    assert sinks[0].error.timeout_name == "timeout"
    assert not sinks[1].ends
    pair.now = 20.0
    pair.pump()
    pair.pass_time(0.5)
    assert not sinks[1].ends, "its clock began when it was sent"
    pair.pass_time(0.5)
    assert isinstance(sinks[1].error, LMStudioTimeoutError)


@proves("C-CLOCK-OFF")
@pytest.mark.parametrize("timeouts", [{}, {"idle_timeout": None, "timeout": None}])
def test_a_clock_that_is_switched_off_never_runs_out(timeouts: dict[str, float | None]) -> None:
    pair = SessionPair()
    _, sink = pair.call("listLoaded", timeouts=timeouts)
    pair.pass_time(1e9)
    assert not sink.ends


def test_a_stream_that_was_left_runs_on_no_clock() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("getOrLoad", GET_M1, timeouts={"load_timeout": 1.0, "timeout": 1.0})
    pair.client.close(exchange)
    pair.pass_time(1000.0)
    assert sink.ends == [None]


def test_work_for_a_caller_whose_loop_has_closed_is_stopped() -> None:
    pair = SessionPair()
    _, sink = pair.call("predict", SAY_HELLO)
    sink.alive = False
    pair.pass_time(0.1)
    assert [request.packet for request in pair.told] == [CANCEL]
    assert sink.ends == [None]
