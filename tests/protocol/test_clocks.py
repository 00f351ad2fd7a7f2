"""When the clocks of a call run out, what feeds them, and what becomes of the work on the server then."""

from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.endpoints import ENDPOINTS
from lmstudio_integrations.protocol.session import Exchange
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
    assert not sink.ends, f"{clock} ran out too early"
    pair.pass_time(0.5)
    error = sink.error
    assert isinstance(error, LMStudioTimeoutError)
    assert error.clock == clock
    assert error.elapsed == pytest.approx(after)
    assert clock in str(error)
    pair.pass_time(1000.0)
    assert len(sink.ends) == 1


@proves("C-CLOCK-RPC")
def test_the_answer_to_a_call_is_waited_for_as_long_as_the_idle_clock_says() -> None:
    pair = SessionPair()
    pair.now = 1000.0
    _, sink = pair.call("listLoaded", clocks={"idle_timeout": 60.0, "load_timeout": 1.0})
    expect_timeout(pair, sink, "idle_timeout", 60.0)
    assert pair.client.idle


def test_an_answer_feeds_the_clocks_of_all_calls_of_its_kind() -> None:
    pair, clocks = SessionPair(), {"idle_timeout": 60.0}
    first, _ = pair.call("listLoaded", clocks=clocks)
    second, _ = pair.call("listLoaded", clocks=clocks)
    _, last = pair.call("listLoaded", clocks=clocks)
    _, other = pair.call("getModelInfo", {"specifier": QUERY, "throwIfNotFound": True}, clocks=clocks)
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
    exchange, sink = pair.call(name, parameter, clocks={"load_timeout": 300.0, "idle_timeout": 1.0})
    for _ in range(3):
        pair.pass_time(299.0)
        pair.send(exchange, packet)
    expect_timeout(pair, sink, "load_timeout", 300.0)
    assert [request.packet for request in pair.told] == [CANCEL]


@proves("C-CLOCK-QUEUE")
def test_waiting_in_the_queue_of_the_server_is_no_stall() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO, clocks={"first_token_timeout": 1.0, "idle_timeout": 1.0})
    pair.pass_time(100_000.0)
    assert not sink.ends
    pair.send(exchange, fragment("a"))
    assert sink.texts == ["a"]


@proves("C-CLOCK-FIRST-TOKEN")
def test_the_first_token_is_waited_for_from_the_first_sign_of_the_prediction() -> None:
    pair = SessionPair()
    clocks = {"first_token_timeout": 300.0, "idle_timeout": 60.0}
    exchange, sink = pair.call("predict", SAY_HELLO, clocks=clocks)
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
    clocks = {"first_token_timeout": 300.0, "idle_timeout": 60.0}
    exchange, sink = pair.call("predict", SAY_HELLO, clocks=clocks)
    pair.send(exchange, progress(0.0), first, progress(1.0), {"type": "toolCallGenerationStart"})
    pair.pass_time(59.0)
    pair.send(exchange, first)
    expect_timeout(pair, sink, "idle_timeout", 60.0)


@proves("C-CLOCK-TOTAL")
def test_the_total_clock_runs_from_the_call_to_its_end_whatever_comes() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO, clocks={"timeout": 100.0, "idle_timeout": 60.0})
    pair.pass_time(50.0)
    pair.send(exchange, fragment("a"))
    pair.pass_time(49.5)
    assert not sink.ends
    pair.pass_time(0.5)
    assert isinstance(sink.error, LMStudioTimeoutError)
    assert sink.error.clock == "timeout"


def test_the_total_clock_runs_while_the_connection_is_being_made_and_no_other_does() -> None:
    pair = SessionPair(let_in=False)
    sinks = [RecordingSink(), RecordingSink()]
    for sink, clocks in zip(sinks, ({"timeout": 10.0}, {"idle_timeout": 1.0}), strict=True):
        pair.client.start(Exchange(ENDPOINTS["llm"]["listLoaded"], None, sink, clocks, 0.0))
    pair.client.tick(10.0)
    assert isinstance(sinks[0].error, LMStudioTimeoutError)
    assert sinks[0].error.clock == "timeout"
    assert not sinks[1].ends
    pair.now = 20.0
    pair.pump()
    pair.pass_time(0.5)
    assert not sinks[1].ends, "its clock began when it was sent"
    pair.pass_time(0.5)
    assert isinstance(sinks[1].error, LMStudioTimeoutError)


@proves("C-CLOCK-OFF")
@pytest.mark.parametrize("clocks", [{}, {"idle_timeout": None, "timeout": None}])
def test_a_clock_that_is_switched_off_never_runs_out(clocks: dict[str, float | None]) -> None:
    pair = SessionPair()
    _, sink = pair.call("listLoaded", clocks=clocks)
    pair.pass_time(1e9)
    assert not sink.ends


def test_a_stream_that_was_left_runs_on_no_clock() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("getOrLoad", GET_M1, clocks={"load_timeout": 1.0, "timeout": 1.0})
    pair.client.abandon(exchange)
    pair.pass_time(1000.0)
    assert sink.ends == [None]


def test_work_for_a_caller_whose_loop_has_closed_is_stopped() -> None:
    pair = SessionPair()
    _, sink = pair.call("predict", SAY_HELLO)
    sink.alive = False
    pair.pass_time(0.1)
    assert [request.packet for request in pair.told] == [CANCEL]
    assert sink.ends == [None]
