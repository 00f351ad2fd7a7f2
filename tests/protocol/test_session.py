"""The client's side of a connection: who gets what, what a warning means, what becomes of a call that is left."""

import json
import logging
from typing import Any

import pytest

from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioCancelledError,
    LMStudioChannelClosedError,
    LMStudioConnectionLostError,
    LMStudioModelNotFoundError,
    LMStudioPredictionError,
    LMStudioProtocolError,
    LMStudioServerError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, Namespace
from lmstudio_integrations.protocol.exchange import Exchange
from lmstudio_integrations.protocol.session import ClientSession, closed_early
from lmstudio_integrations.types.results import PredictionEnd
from tests.protocol.pair import RecordingSink, SessionPair
from tests.protocol.samples import CANCEL, EMPTY_STACK, GET_M1, QUERY, SAY_HELLO, SUCCESS, fragment, progress
from tests.requirements import proves

TOKENIZE = {"specifier": QUERY, "inputString": "hi"}


# Authentication


@proves("C-AUTH-FIRST", "C-AUTH-WAIT")
def test_nothing_but_credentials_is_sent_before_the_server_has_let_the_client_in() -> None:
    session = ClientSession("me", "secret")
    session.start(Exchange(ENDPOINTS["llm"]["listLoaded"], None, RecordingSink(), {}, 0.0))
    assert [json.loads(frame) for frame in session.data_to_send()] == [
        {"authVersion": 1, "clientIdentifier": "me", "clientPasskey": "secret"}
    ]
    assert not session.data_to_send(), "frames are handed out once"
    assert not session.ready

    session.receive('{"success":true}', 0.0)
    assert session.ready
    assert [json.loads(frame)["endpoint"] for frame in session.data_to_send()] == ["listLoaded"]


def test_requests_that_waited_are_sent_in_the_order_in_which_they_were_made() -> None:
    session = ClientSession("me", "secret")
    names = ["listLoaded", "predict", "tokenize"]
    for name in names:
        session.start(Exchange(ENDPOINTS["llm"][name], "{}", RecordingSink(), {}, 0.0))
    session.receive('{"success":true}', 0.0)
    frames = [json.loads(frame) for frame in session.data_to_send()[1:]]
    assert [frame["endpoint"] for frame in frames] == names


@proves("C-AUTH-REJECTED")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [({"success": False, "error": "bad passkey"}, "bad passkey"), ({"success": False}, "no reason")],
)
def test_a_refused_client_is_told_why(answer: dict[str, Any], reason: str) -> None:
    session = ClientSession("me", "secret")
    with pytest.raises(LMStudioAuthenticationError, match=reason) as caught:
        session.receive(json.dumps(answer), 0.0)
    assert caught.value.title == "Authentication failed"
    assert caught.value.cause is not None
    assert reason in caught.value.cause
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("frame", ["{}", '{"success":"yes"}', '{"type":"rpcResult","callId":1}', "no json", "[]"])
def test_frames_that_do_not_answer_the_credentials_are_passed_over(frame: str) -> None:
    session = ClientSession("me", "secret")
    session.receive(frame, 0.0)
    assert not session.ready


# Calls


@proves("C-IDS")
def test_no_id_is_used_twice() -> None:
    pair = SessionPair()
    made = [pair.call("listLoaded"), pair.call("predict", SAY_HELLO), pair.call("listLoaded")]
    assert len({exchange.id for exchange, _ in made}) == 3


@proves("C-ANY-ORDER")
def test_answers_find_their_callers_in_whatever_order_they_come() -> None:
    pair = SessionPair()
    sinks = [pair.call("tokenize", TOKENIZE)[1] for _ in range(3)]
    for call in reversed(pair.called):
        pair.server.reply(call.call_id, call.call_id)
    pair.pump_to_client()
    assert [sink.items for sink in sinks] == [[call.call_id] for call in pair.called]
    assert all(sink.ends == [None] for sink in sinks)


@proves("C-VOID-RESULT")
@pytest.mark.parametrize(
    "frame", [{"type": "rpcResult", "callId": 1}, {"type": "rpcResult", "callId": 1, "result": None}]
)
def test_a_void_result_is_none_whether_absent_or_null(frame: dict[str, Any]) -> None:
    pair = SessionPair()
    _, sink = pair.call("listLoaded")
    pair.raw(frame)
    assert (sink.items, sink.ends) == ([None], [None])


@proves("C-RPC-ERROR")
def test_a_failed_call_raises_what_the_server_said() -> None:
    pair = SessionPair()
    _, sink = pair.call("tokenize", TOKENIZE, doing="Tokenization")
    error = {"title": "none", "displayData": {"code": "generic.identifierNotFound"}}
    pair.server.refuse(pair.called[0].call_id, error)
    pair.pump_to_client()
    assert isinstance(sink.error, LMStudioModelNotFoundError)
    assert str(sink.error).startswith("Tokenization error: none")


@pytest.mark.parametrize("error", [None, "why not", 5, [], {"title": 5}])
def test_an_error_of_any_form_ends_the_call(error: Any) -> None:
    pair = SessionPair()
    _, call = pair.call("listLoaded")
    _, channel = pair.call("predict", SAY_HELLO)
    pair.raw({"type": "rpcError", "callId": 1, "error": error})
    pair.raw({"type": "channelError", "channelId": 2, "error": error})
    for sink in (call, channel):
        assert type(sink.error) is LMStudioServerError
    assert ("why not" in str(call.error)) == (error == "why not")


# Channels


@proves("C-CHANNEL-ERROR")
def test_an_error_of_a_channel_comes_after_its_packets() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO, doing="Chat response")
    pair.send(exchange, fragment("so far"))
    pair.server.fail(exchange.id, {"title": "gave up"})
    pair.pump_to_client()
    assert sink.texts == ["so far"]
    assert str(sink.error) == "Chat response error: gave up"
    assert pair.client.idle


@proves("C-LATE-FRAMES")
def test_frames_that_come_late_or_twice_reach_nobody() -> None:
    pair = SessionPair()
    _, call = pair.call("listLoaded")
    exchange, channel = pair.call("predict", SAY_HELLO)
    for _ in range(2):
        pair.raw({"type": "rpcResult", "callId": 1, "result": []})
        pair.raw({"type": "rpcError", "callId": 1, "error": {}})
        pair.raw({"type": "channelSend", "channelId": exchange.id, "message": fragment("a")})
        pair.raw({"type": "channelClose", "channelId": exchange.id})
        pair.raw({"type": "channelError", "channelId": exchange.id, "error": {}})
    assert (call.items, call.ends) == ([[]], [None])
    assert (channel.texts, channel.ends) == (["a"], [None])


@proves("C-LENIENT")
@pytest.mark.parametrize(
    "frame",
    [
        {"type": "unheardOf"},
        {"type": "keepAliveAck"},
        {"type": "channelAck", "channelId": 1, "ackId": 1},
        {"type": "signalUpdate", "subscribeId": 0, "patches": [], "tags": []},
        {},
        {"type": None},
        {"type": ["channelSend"]},
        {"type": "channelSend"},
        {"type": "channelSend", "channelId": [1], "message": {}},
        {"type": "channelSend", "channelId": 1, "message": {"type": "fromTheFuture", "fragment": 5}},
        {"type": "channelSend", "channelId": 2, "message": None},
        {"type": "rpcResult"},
        {"type": "rpcResult", "callId": {}},
        {"type": "rpcError", "callId": []},
        {"type": "channelClose", "channelId": None},
        "[]",
        '{"type":"channelSend","channelId":2,"mess',
        b'{"callId":7,"result":"\xff',
        '{"type":' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_a_frame_of_an_unknown_kind_or_id_is_ignored(frame: Any) -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO)
    pair.raw(frame)
    assert (sink.items, sink.ends) == ([], [])
    pair.send(exchange, fragment("a"))
    pair.close(exchange)
    assert (sink.texts, sink.ends) == (["a"], [None])


UNREADABLE: list[Any] = [
    None,
    {},
    {"type": []},
    {"type": "fragment"},
    {"type": "fragment", "fragment": {"content": 5}},
    {"type": "toolCallGenerationEnd", "toolCallRequest": 1},
]


@proves("C-UNDECODABLE")
@pytest.mark.parametrize(
    "frame",
    [
        {"type": "channelSend", "channelId": 1},
        *({"type": "channelSend", "channelId": 1, "message": message} for message in UNREADABLE),
        '{"type":"channelSend","channelId":1,"message":{"type":"fragment","fragment":{"content":"secr',
        b'{"type":"channelSend", "channelId": 1, "message":"secret \xff"}',
        '{"type":"channelSend","channelId":1,"message":' + "[" * 100_000,
        '{"type":"channelSend","channelId":1,"message":' + "1" * 10_000 + "}",
        "secret",
        b"\xff",
    ],
)
def test_a_packet_that_cannot_be_read_fails_its_stream_and_stops_the_server(frame: Any) -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO)
    pair.send(exchange, fragment("a"))
    pair.raw(frame)
    pair.pump()
    assert sink.texts == ["a"]
    assert isinstance(sink.error, LMStudioProtocolError)
    assert "packet 2 of 'predict' cannot be read" in str(sink.error)
    assert "secr" not in str(sink.error)
    assert [request.packet for request in pair.told] == [CANCEL]
    pair.send(exchange, fragment("b"))
    assert sink.texts == ["a"]


def test_a_damaged_packet_fails_no_other_stream() -> None:
    pair = SessionPair()
    _, damaged = pair.call("predict", SAY_HELLO)
    other, sink = pair.call("predict", SAY_HELLO)
    pair.raw('{"type":"channelSend","channelId":1,"mess')
    assert isinstance(damaged.error, LMStudioProtocolError)
    pair.send(other, fragment("a"))
    assert (sink.texts, sink.ends) == (["a"], [])


def test_a_damaged_answer_fails_its_call_at_once() -> None:
    pair = SessionPair()
    call, sink = pair.call("listLoaded")
    _, other = pair.call("listLoaded")
    pair.raw(f'{{"type":"rpcResult","callId":{call.id},"result":[')
    assert isinstance(sink.error, LMStudioProtocolError)
    assert "the answer of 'listLoaded' cannot be read (no JSON at character 41 of 41)" in str(sink.error)
    assert not other.ends


@pytest.mark.parametrize("packet", [None, 5, "text", [], {}, {"type": None}, {"type": ["result"]}])
def test_a_packet_without_a_type_fails_every_kind_of_channel(packet: Any) -> None:
    pair = SessionPair()
    exchange, sink = pair.call("getOrLoad", GET_M1)
    pair.raw({"type": "channelSend", "channelId": exchange.id, "message": packet})
    assert isinstance(sink.error, LMStudioProtocolError)


@proves("C-UNKNOWN-PACKET")
@pytest.mark.parametrize("packet", [{"type": "fromTheFuture", "a": 1}])
def test_a_packet_of_an_unknown_kind_is_skipped_and_feeds_the_clock(packet: dict[str, Any]) -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO, timeouts={"idle_timeout": 60.0})
    pair.send(exchange, fragment("a"))
    pair.now = 50.0
    pair.send(exchange, packet)
    pair.pass_time(50.0)
    assert (sink.texts, sink.ends) == (["a"], [])


def test_members_that_are_not_known_yet_are_skipped() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO)
    pair.send(exchange, fragment("a", mood="good"))
    pair.raw({"type": "channelClose", "channelId": exchange.id, "reason": "done"})
    assert (sink.texts, sink.ends) == (["a"], [None])


@proves("C-LEGACY-ERROR")
@pytest.mark.parametrize("error", [{"title": "old style"}, "old style"])
def test_the_error_packet_of_older_servers_fails_the_prediction(error: Any) -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO, doing="Chat response")
    pair.send(exchange, {"type": "error", "error": error})
    assert type(sink.error) is LMStudioPredictionError
    assert str(sink.error) == "Chat response error: old style"
    pair.close(exchange)
    assert len(sink.ends) == 1


# Stopping


@proves("C-CANCEL")
def test_cancelling_asks_the_server_once_and_still_takes_what_comes() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO)
    pair.send(exchange, fragment("a"))
    pair.client.cancel(exchange)
    pair.client.cancel(exchange)
    pair.pump()
    assert [request.packet for request in pair.told] == [CANCEL]
    pair.send(exchange, fragment("b"), {**SUCCESS, "stats": {"stopReason": "userStopped"}})
    pair.close(exchange)
    assert sink.texts == ["a", "b"]
    assert isinstance(sink.items[-1], PredictionEnd)
    assert sink.ends == [None]


def test_cancelling_what_was_not_sent_yet_ends_it_at_once() -> None:
    session, sink = ClientSession("me", "secret"), RecordingSink()
    exchange = Exchange(ENDPOINTS["llm"]["predict"], "{}", sink, {}, 0.0)
    session.start(exchange)
    session.cancel(exchange)
    assert sink.ends == [None]
    session.receive('{"success":true}', 0.0)
    assert len(session.data_to_send()) == 1
    assert session.idle


@proves("C-NO-RPC-CANCEL")
def test_cancelling_a_call_or_what_has_ended_sends_nothing() -> None:
    pair = SessionPair()
    call, _ = pair.call("listLoaded")
    exchange, _ = pair.call("predict", SAY_HELLO)
    pair.close(exchange)
    pair.client.cancel(call)
    pair.client.cancel(exchange)
    pair.pump()
    assert not pair.told


@pytest.mark.parametrize(
    ("namespace", "name", "parameter", "last"),
    [
        ("llm", "predict", SAY_HELLO, SUCCESS),
        ("llm", "getOrLoad", GET_M1, {"type": "alreadyLoaded", "info": {}}),
        ("llm", "getOrLoad", GET_M1, {"type": "loadSuccess", "info": {}}),
        ("files", "parseDocument", {"fileIdentifier": "f", "parseOpts": {}}, {"type": "result", "content": ""}),
    ],
)
def test_after_the_last_packet_there_is_nothing_to_stop(
    namespace: Namespace, name: str, parameter: dict[str, Any], last: dict[str, Any]
) -> None:
    pair = SessionPair(namespace)
    for leave in (pair.client.cancel, pair.client.abandon):
        exchange, sink = pair.call(name, parameter)
        pair.send(exchange, last)
        leave(exchange)
        pair.pump()
        assert len(sink.items) == 1
    pair.client.leave(0)
    pair.pump()
    assert not pair.told


@proves("C-ABANDON")
def test_an_abandoned_stream_is_stopped_on_the_server_and_told_once_that_this_is_the_end() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO)
    assert pair.client.wanted
    pair.send(exchange, fragment("a"))
    error = LMStudioCancelledError("enough")
    pair.client.abandon(exchange, error)
    pair.client.abandon(exchange)
    pair.pump()
    assert [request.packet for request in pair.told] == [CANCEL]
    pair.send(exchange, fragment("b"), SUCCESS)
    assert not pair.client.idle, "the channel is open until the server closes it"
    assert not pair.client.wanted
    pair.close(exchange)
    assert (sink.texts, sink.ends) == (["a"], [error])
    assert pair.client.idle


def test_an_abandoned_call_is_forgotten() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("listLoaded")
    pair.client.abandon(exchange)
    assert pair.client.idle
    pair.server.reply(exchange.id, [])
    pair.pump_to_client()
    assert (sink.items, sink.ends) == ([], [None])


def test_an_abandoned_request_that_was_not_sent_yet_is_never_sent() -> None:
    pair = SessionPair(let_in=False)
    sink = RecordingSink()
    exchange = Exchange(ENDPOINTS["llm"]["predict"], json.dumps(SAY_HELLO), sink, {}, 0.0)
    pair.client.start(exchange)
    pair.client.abandon(exchange)
    pair.pump()
    assert not pair.opened
    assert (sink.items, sink.ends) == ([], [None])


def test_a_client_that_leaves_takes_only_its_own_calls_along() -> None:
    pair = SessionPair()
    mine = [pair.call("predict", SAY_HELLO, owner=1), pair.call("listLoaded", owner=1)]
    other, others_sink = pair.call("predict", SAY_HELLO, owner=2)
    gone, gone_sink = pair.call("predict", SAY_HELLO, owner=1)
    pair.client.abandon(gone)
    pair.client.leave(1)
    pair.pump()
    errors = [sink.error for _, sink in mine]
    assert all(isinstance(error, LMStudioConnectionLostError) for error in errors)
    assert errors[0] is not errors[1], "exceptions that are raised in several threads are not shared"
    assert gone_sink.ends == [None]
    assert {request.channel_id for request in pair.told} == {mine[0][0].id, gone.id}
    pair.send(other, fragment("a"))
    pair.close(other)
    assert (others_sink.texts, others_sink.ends) == (["a"], [None])


def test_a_client_that_leaves_before_it_was_let_in_is_told_once() -> None:
    session, sink = ClientSession("me", "secret"), RecordingSink()
    session.start(Exchange(ENDPOINTS["llm"]["predict"], "{}", sink, {}, 0.0, owner=1))
    session.leave(1)
    assert isinstance(sink.error, LMStudioConnectionLostError)
    assert session.idle


@proves("C-LOST")
def test_a_lost_connection_fails_everyone_once_with_an_error_of_their_own() -> None:
    pair = SessionPair()
    sinks = [pair.call("predict", SAY_HELLO)[1], pair.call("listLoaded")[1]]
    pair.client.lost(lambda: LMStudioConnectionLostError("gone"))
    pair.client.lost(lambda: LMStudioConnectionLostError("gone again"))
    errors = [sink.error for sink in sinks]
    assert [str(error) for error in errors] == ["gone", "gone"]
    assert errors[0] is not errors[1]
    assert pair.client.idle


def test_a_connection_that_is_lost_before_it_is_ready_fails_those_who_wait_for_it() -> None:
    session, sink = ClientSession("me", "secret"), RecordingSink()
    session.start(Exchange(ENDPOINTS["llm"]["predict"], "{}", sink, {}, 0.0))
    session.lost(lambda: LMStudioConnectionLostError("gone"))
    assert isinstance(sink.error, LMStudioConnectionLostError)


# Warnings


@proves("C-WARNING-UNKNOWN-ENDPOINT")
def test_an_unknown_endpoint_fails_every_call_to_it_that_was_not_answered() -> None:
    pair = SessionPair()
    sinks = [pair.call("completeRawText", {**_RAW})[1] for _ in range(2)]
    _, spared = pair.call("predict", SAY_HELLO)
    pair.raw(
        {
            "type": "communicationWarning",
            "warning": "Received channelCreate for unknown endpoint, endpoint = completeRawText",
        }
    )
    for sink in sinks:
        assert isinstance(sink.error, LMStudioUnsupportedError)
        assert "completeRawText" in str(sink.error)
    assert not spared.ends


@proves("C-WARNING-UNKNOWN-ENDPOINT")
def test_an_endpoint_that_is_known_to_be_unknown_is_not_asked_again() -> None:
    pair = SessionPair()
    pair.call("completeRawText", {**_RAW})
    warning = "Received channelCreate for unknown endpoint, endpoint = completeRawText"
    pair.raw({"type": "communicationWarning", "warning": warning})
    pair.client.data_to_send()
    _, again = pair.call("completeRawText", {**_RAW})
    assert isinstance(again.error, LMStudioUnsupportedError)
    assert warning in str(again.error)
    assert pair.client.data_to_send() == []


_RAW = {"modelSpecifier": QUERY, "rawPrompt": "a", "predictionConfigStack": EMPTY_STACK}


@proves("C-WARNING-FAILS-CALL")
def test_a_bad_parameter_fails_the_newest_call_that_has_had_no_answer_yet() -> None:
    pair = SessionPair()
    _, older = pair.call("predict", SAY_HELLO)
    _, newest = pair.call("predict", SAY_HELLO)
    running, touched = pair.call("predict", SAY_HELLO)
    pair.send(running, fragment("a"))
    pair.raw(
        {
            "type": "communicationWarning",
            "warning": "Received invalid creationParameter for channel, endpointName = predict, creationParameter = …",
            "kind": "channelCreationParameterTypeError",
        }
    )
    assert isinstance(newest.error, LMStudioProtocolError)
    assert not older.ends
    assert not touched.ends


@pytest.mark.parametrize(
    ("warning", "level"),
    [
        ({"warning": "the weather changes"}, logging.WARNING),
        ({"warning": "for unknown endpoint, endpoint = nothingOpen"}, logging.WARNING),
        ({"warning": "for unknown channel, channelId = 1", "kind": "channelUnknown"}, logging.DEBUG),
        ({}, logging.WARNING),
    ],
)
def test_a_warning_that_concerns_no_call_is_only_logged(
    warning: dict[str, Any], level: int, caplog: pytest.LogCaptureFixture
) -> None:
    pair = SessionPair()
    _, sink = pair.call("listLoaded")
    with caplog.at_level(logging.DEBUG, logger="lmstudio_integrations.protocol.session"):
        pair.raw({"type": "communicationWarning", **warning})
    assert [record.levelno for record in caplog.records] == [level]
    assert str(warning.get("warning")) in caplog.text
    assert not sink.ends


# Text that was cut in the middle of a character


@proves("C-SURROGATES")
@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        (["\ud83d", "\ude00!"], ["", "😀!"]),
        (["a\ud83d", "\ude00", "b"], ["a", "😀", "b"]),
        (["\ud83d", "x"], ["", "\ufffdx"]),
        (["\ude00x"], ["\ufffdx"]),
        (["😀"], ["😀"]),
    ],
)
def test_halves_of_a_character_are_joined_across_fragments(pieces: list[str], texts: list[str]) -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO)
    pair.send(exchange, *(fragment(piece) for piece in pieces))
    assert sink.texts == texts


def test_half_a_character_waits_while_other_packets_pass() -> None:
    pair = SessionPair()
    exchange, sink = pair.call("predict", SAY_HELLO)
    pair.send(exchange, fragment("\ud83d"), progress(1.0), {"type": "fromTheFuture"}, fragment("\ude00"))
    assert sink.texts == ["", "😀"]


def test_a_channel_that_ends_early_has_an_error_of_its_own() -> None:
    error = closed_early("Chat response")
    assert isinstance(error, LMStudioChannelClosedError)
    assert str(error).startswith("Chat response: ")
