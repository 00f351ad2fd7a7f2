"""The client's side of a connection: delivery of replies, warnings, cancel and close."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, Namespace
from lmstudio_integrations.protocol.exchange import Exchange
from lmstudio_integrations.protocol.session import ClientSession
from tests.protocol.pair import RecordingReceiver, SessionPair
from tests.protocol.samples import (
    CANCEL,
    EMPTY_STACK,
    GET_M1,
    PARAMETERS,
    PREDICT_HELLO,
    QUERY,
    SUCCESS,
    fragment,
    progress,
)

TOKENIZE = {"specifier": QUERY, "inputString": "hi"}


# Authentication


def test_only_credentials_are_sent_before_authentication() -> None:
    session = ClientSession()
    session.authenticate("me", "secret")
    names = ["listLoaded", "predict", "tokenize"]
    for name in names:
        session.start(Exchange(ENDPOINTS["llm"][name], "{}", RecordingReceiver(), {}, 0.0))
    assert [json.loads(frame) for frame in session.data_to_send()] == [
        {"authVersion": 1, "clientIdentifier": "me", "clientPasskey": "secret"}
    ]
    assert not session.data_to_send(), "frames are handed out once"
    assert not session.ready

    session.receive('{"success":true}', 0.0)
    assert session.ready
    assert [json.loads(frame)["endpoint"] for frame in session.data_to_send()] == names


def test_credentials_that_came_too_late_are_a_lost_connection_and_no_rejection() -> None:
    session = ClientSession()
    session.authenticate("id", "key")
    with pytest.raises(lms.LMStudioConnectionLostError, match=r"did not arrive in time.* reconnects") as caught:
        session.receive('{"success": false, "error": "Authentication timed out"}', 0.0)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"success": False, "error": "bad passkey"}, "bad passkey"),
        ({"success": False}, "no reason"),
        ({"success": False, "error": "no " * 1_000_000}, "characters omitted"),
    ],
)
def test_a_rejected_client_receives_the_reason(result: dict[str, Any], reason: str) -> None:
    session = ClientSession()
    session.authenticate("me", "secret")
    with pytest.raises(lms.LMStudioAuthenticationError, match=reason) as caught:
        session.receive(json.dumps(result), 0.0)
    assert caught.value.title == "Authentication failed"
    assert caught.value.cause is not None
    assert reason in caught.value.cause
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("frame", ["{}", '{"success":"yes"}', '{"success":null,"error":"secret"}'])
def test_a_reply_to_the_credentials_that_says_neither_yes_nor_no_is_an_error(frame: str) -> None:
    session = ClientSession()
    session.authenticate("me", "secret")
    with pytest.raises(lms.LMStudioProtocolError, match="neither yes nor no") as caught:
        session.receive(frame, 0.0)
    assert "secret" not in str(caught.value)
    assert not session.ready


@pytest.mark.parametrize("frame", ['{"type":"rpcResult","callId":1}', "no json", "[]"])
def test_frames_before_the_authentication_result_are_ignored(frame: str) -> None:
    session = ClientSession()
    session.receive(frame, 0.0)
    assert not session.ready


# Calls


def test_results_reach_their_callers_in_any_order() -> None:
    pair = SessionPair()
    receivers = [pair.call("tokenize", TOKENIZE)[1] for _ in range(3)]
    for call in reversed(pair.called):
        pair.server.reply(call.call_id, call.call_id)
    pair.pump_to_client()
    assert [receiver.items for receiver in receivers] == [[call.call_id] for call in pair.called]
    assert all(receiver.ends == [None] for receiver in receivers)


def test_a_failed_call_raises_the_error_of_the_server() -> None:
    pair = SessionPair()
    _, receiver = pair.call("tokenize", TOKENIZE, label="Tokenization")
    error = {"title": "none", "displayData": {"code": "generic.identifierNotFound"}}
    pair.server.reject(pair.called[0].call_id, error)
    pair.pump_to_client()
    assert isinstance(receiver.error, lms.LMStudioModelNotFoundError)
    assert str(receiver.error).startswith("Tokenization error: none")


@pytest.mark.parametrize("error", [None, "why not", 5, [1], {"title": 5}])
def test_an_error_of_any_form_ends_the_call(error: Any) -> None:
    pair = SessionPair()
    _, call = pair.call("listLoaded")
    _, channel = pair.call("predict", PREDICT_HELLO)
    pair.raw({"type": "rpcError", "callId": 1, "error": error})
    pair.raw({"type": "channelError", "channelId": 2, "error": error})
    assert (type(call.error), type(channel.error)) == (lms.LMStudioServerError, lms.LMStudioPredictionError)
    text = "why not" if error == "why not" else "Unknown error"
    assert str(call.error).endswith(f" error: {text}")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("loadModel", lms.LMStudioModelLoadError),
        ("getOrLoad", lms.LMStudioModelLoadError),
        ("predict", lms.LMStudioPredictionError),
        ("completeRawText", lms.LMStudioPredictionError),
    ],
)
def test_an_unknown_error_is_about_what_the_endpoint_does(name: str, kind: type[lms.LMStudioServerError]) -> None:
    pair = SessionPair()
    exchange, channel = pair.call(name, PARAMETERS[name][0])
    pair.raw({"type": "channelError", "channelId": exchange.id, "error": {"title": "Nobody has heard of it"}})
    assert type(channel.error) is kind


# Channels


def test_a_channel_error_is_raised_after_the_packets() -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO, label="Chat response")
    pair.send(exchange, fragment("so far"))
    pair.server.fail(exchange.id, {"title": "gave up"})
    pair.pump_to_client()
    assert receiver.texts == ["so far"]
    assert str(receiver.error) == "Chat response error: gave up"
    assert pair.client.idle


def test_late_and_duplicate_frames_are_ignored() -> None:
    pair = SessionPair()
    _, call = pair.call("listLoaded")
    exchange, channel = pair.call("predict", PREDICT_HELLO)
    for _ in range(2):
        pair.raw({"type": "rpcResult", "callId": 1, "result": []})
        pair.raw({"type": "rpcError", "callId": 1, "error": {}})
        pair.raw({"type": "channelSend", "channelId": exchange.id, "message": fragment("a")})
        pair.raw({"type": "channelClose", "channelId": exchange.id})
        pair.raw({"type": "channelError", "channelId": exchange.id, "error": {}})
    assert (call.items, call.ends) == ([[]], [None])
    assert (channel.texts, channel.ends) == (["a"], [None])


def test_packets_after_the_last_one_are_ignored() -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO)
    pair.send(exchange, fragment("a"), SUCCESS, fragment("b"), SUCCESS)
    pair.raw({"type": "channelError", "channelId": exchange.id, "error": {}})
    assert (receiver.texts, len(receiver.items), receiver.ends) == (["a"], 2, [None])
    assert pair.client.idle


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "unheardOf"},
        {"type": "keepAliveAck"},
        {"type": "channelAck", "channelId": 1, "ackId": 1},
        {"type": "signalUpdate", "subscribeId": 0, "patches": [], "tags": []},
        {},
        {"type": ["channelSend"]},
        {"type": "channelSend"},
        {"type": "channelSend", "channelId": [1], "message": {}},
        {"type": "channelSend", "channelId": 1, "message": {"type": "fromTheFuture", "fragment": 5}},
        {"type": "channelSend", "channelId": 2, "message": None},
        {"type": "rpcResult"},
        {"type": "rpcError", "callId": []},
        {"type": "channelClose", "channelId": None},
        {"type": "rpcResult", "callId": 1, "result": "of a channel"},
        '{"type":"communicationWarning","warning":' + "[" * 900 + "]" * 900 + "}",
        "[]",
        '{"type":"channelSend","channelId":2,"mess',
        b'{"callId":7,"result":"\xff',
        '{"type":' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_frames_of_unknown_type_or_id_are_ignored(frame: Any) -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO)
    pair.raw(frame)
    assert (receiver.items, receiver.ends) == ([], [])
    pair.send(exchange, fragment("a"))
    pair.close(exchange)
    assert (receiver.texts, receiver.ends) == (["a"], [None])


class _FailingReceiver(RecordingReceiver):
    """A receiver with a defect."""

    def put(self, item: Any) -> None:
        raise LookupError(f"a defect of the receiver, not of the frame: {item!r}")


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("listLoaded", {"type": "rpcResult", "callId": 1, "result": []}),
        ("predict", {"type": "channelSend", "channelId": 1, "message": fragment("a")}),
    ],
)
def test_the_error_of_a_receiver_is_not_taken_for_a_malformed_frame(name: str, frame: dict[str, Any]) -> None:
    session = ClientSession()
    session.receive('{"success":true}', 0.0)
    receiver = _FailingReceiver()
    session.start(Exchange(ENDPOINTS["llm"][name], "{}", receiver, {}, 0.0))
    with pytest.raises(LookupError, match="a defect of the receiver"):
        session.receive(json.dumps(frame), 0.0)
    session.connection_lost(lambda: lms.LMStudioConnectionLostError("gone"))
    assert isinstance(receiver.error, lms.LMStudioConnectionLostError)


UNREADABLE: list[Any] = [
    None,
    {},
    {"type": []},
    {"type": "fragment"},
    {"type": "fragment", "fragment": {"content": 5}},
    {"type": "toolCallGenerationEnd", "toolCallRequest": 1},
]


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
def test_an_unreadable_packet_fails_its_stream_and_cancels_it(frame: Any) -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO)
    pair.send(exchange, fragment("a"))
    pair.raw(frame)
    pair.pump()
    assert receiver.texts == ["a"]
    assert isinstance(receiver.error, lms.LMStudioProtocolError)
    assert "packet 2 of 'predict' cannot be read" in str(receiver.error)
    assert "secr" not in str(receiver.error)
    assert [request.packet for request in pair.client_packets] == [CANCEL]
    pair.send(exchange, fragment("b"))
    assert receiver.texts == ["a"]


def test_a_damaged_packet_fails_no_other_stream() -> None:
    pair = SessionPair()
    _, damaged = pair.call("predict", PREDICT_HELLO)
    other, receiver = pair.call("predict", PREDICT_HELLO)
    pair.raw('{"type":"channelSend","channelId":1,"mess')
    assert isinstance(damaged.error, lms.LMStudioProtocolError)
    pair.send(other, fragment("a"))
    assert (receiver.texts, receiver.ends) == (["a"], [])


def test_a_damaged_result_fails_its_call_at_once() -> None:
    pair = SessionPair()
    call, receiver = pair.call("listLoaded")
    _, other = pair.call("listLoaded")
    pair.raw(f'{{"type":"rpcResult","callId":{call.id},"result":[')
    assert isinstance(receiver.error, lms.LMStudioProtocolError)
    assert "the reply of 'listLoaded' cannot be read (not JSON at character 41 of 41)" in str(receiver.error)
    assert not other.ends


@pytest.mark.parametrize("packet", [None, {}, {"type": ["result"]}])
def test_a_packet_without_a_type_fails_every_kind_of_channel(packet: Any) -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("getOrLoad", GET_M1)
    pair.raw({"type": "channelSend", "channelId": exchange.id, "message": packet})
    assert isinstance(receiver.error, lms.LMStudioProtocolError)


def test_a_packet_of_unknown_type_is_skipped_and_restarts_the_timeout() -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO, timeouts={"idle_timeout": 60.0})
    pair.send(exchange, fragment("a"))
    pair.now = 50.0
    pair.send(exchange, {"type": "fromTheFuture", "a": 1})
    pair.pass_time(50.0)
    assert (receiver.texts, receiver.ends) == (["a"], [])


def test_unknown_members_are_ignored() -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO)
    pair.send(exchange, fragment("a", mood="good"))
    pair.raw({"type": "channelClose", "channelId": exchange.id, "reason": "done"})
    assert (receiver.texts, receiver.ends) == (["a"], [None])


@pytest.mark.parametrize("error", [{"title": "old style"}, "old style"])
def test_the_error_packet_of_older_servers_fails_the_prediction(error: Any) -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO, label="Chat response")
    pair.send(exchange, {"type": "error", "error": error})
    assert type(receiver.error) is lms.LMStudioPredictionError
    assert str(receiver.error) == "Chat response error: old style"
    pair.close(exchange)
    assert len(receiver.ends) == 1


# Stopping


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda session, exchange: session.cancel(exchange), None),
        (lambda session, exchange: session.close(exchange), None),
        (lambda session, _: session.close_client(1), lms.LMStudioConnectionLostError),
        (
            lambda session, _: session.connection_lost(lambda: lms.LMStudioConnectionLostError("gone")),
            lms.LMStudioConnectionLostError,
        ),
    ],
    ids=["cancel", "close", "close the client", "lose the connection"],
)
def test_a_request_that_is_held_back_ends_at_once_and_is_never_sent(
    end: Callable[[ClientSession, Exchange], None], kind: type[BaseException] | None
) -> None:
    session, receiver = ClientSession(), RecordingReceiver()
    exchange = Exchange(ENDPOINTS["llm"]["predict"], "{}", receiver, {}, 0.0, client_id=1)
    session.start(exchange)
    end(session, exchange)
    assert [type(each) for each in receiver.ends] == [type(None) if kind is None else kind]
    session.receive('{"success":true}', 0.0)
    assert not session.data_to_send()
    assert session.idle


def test_cancel_is_sent_once_and_later_packets_are_delivered() -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO)
    pair.send(exchange, fragment("a"))
    pair.client.cancel(exchange)
    pair.client.cancel(exchange)
    pair.pump()
    assert [request.packet for request in pair.client_packets] == [CANCEL]
    pair.send(exchange, fragment("b"), {**SUCCESS, "stats": {"stopReason": "userStopped"}})
    pair.close(exchange)
    assert receiver.texts == ["a", "b"]
    assert isinstance(receiver.items[-1], lms.PredictionEnd)
    assert receiver.ends == [None]


def test_cancelling_an_rpc_or_an_ended_channel_sends_nothing() -> None:
    pair = SessionPair()
    call, _ = pair.call("listLoaded")
    exchange, _ = pair.call("predict", PREDICT_HELLO)
    pair.close(exchange)
    pair.client.cancel(call)
    pair.client.cancel(exchange)
    pair.pump()
    assert not pair.client_packets


@pytest.mark.parametrize(
    ("namespace", "name", "parameter", "last"),
    [
        ("llm", "predict", PREDICT_HELLO, SUCCESS),
        ("llm", "getOrLoad", GET_M1, {"type": "alreadyLoaded", "info": {}}),
        ("llm", "getOrLoad", GET_M1, {"type": "loadSuccess", "info": {}}),
        ("files", "parseDocument", {"fileIdentifier": "f", "parseOpts": {}}, {"type": "result", "content": ""}),
    ],
)
def test_nothing_is_cancelled_after_the_last_packet(
    namespace: Namespace, name: str, parameter: dict[str, Any], last: dict[str, Any]
) -> None:
    pair = SessionPair(namespace)
    for stop in (pair.client.cancel, pair.client.close):
        exchange, receiver = pair.call(name, parameter)
        pair.send(exchange, last)
        stop(exchange)
        pair.pump()
        assert len(receiver.items) == 1
    pair.client.close_client(0)
    pair.pump()
    assert not pair.client_packets


def test_closing_a_stream_cancels_it_on_the_server_and_ends_it_once() -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO)
    assert pair.client.has_callers
    pair.send(exchange, fragment("a"))
    error = lms.LMStudioCancelledError("enough")
    pair.client.close(exchange, error)
    pair.client.close(exchange)
    pair.pump()
    assert [request.packet for request in pair.client_packets] == [CANCEL]
    pair.send(exchange, fragment("b"), SUCCESS)
    assert not pair.client.idle, "the channel is open until the server closes it"
    assert not pair.client.has_callers
    pair.close(exchange)
    assert (receiver.texts, receiver.ends) == (["a"], [error])
    assert pair.client.idle


def test_the_result_of_a_closed_call_is_dropped() -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("listLoaded")
    pair.client.close(exchange)
    assert pair.client.idle
    pair.server.reply(exchange.id, [])
    pair.pump_to_client()
    assert (receiver.items, receiver.ends) == ([], [None])


def test_closing_a_client_closes_only_its_own_calls() -> None:
    pair = SessionPair()
    mine = [pair.call("predict", PREDICT_HELLO, client_id=1), pair.call("listLoaded", client_id=1)]
    other, others_receiver = pair.call("predict", PREDICT_HELLO, client_id=2)
    closed, closed_receiver = pair.call("predict", PREDICT_HELLO, client_id=1)
    pair.client.close(closed)
    pair.client.close_client(1)
    pair.pump()
    errors = [receiver.error for _, receiver in mine]
    assert all(isinstance(error, lms.LMStudioConnectionLostError) for error in errors)
    assert errors[0] is not errors[1], "exceptions that are raised in several threads are not shared"
    assert closed_receiver.ends == [None]
    assert {request.channel_id for request in pair.client_packets} == {mine[0][0].id, closed.id}
    pair.send(other, fragment("a"))
    pair.close(other)
    assert (others_receiver.texts, others_receiver.ends) == (["a"], [None])


def test_only_calls_whose_response_has_not_begun_move_from_a_silent_server() -> None:
    pair = SessionPair()
    calls = {name: pair.call("predict", PREDICT_HELLO) for name in ("begun", "waiting", "reading the prompt", "bound")}
    for name in ("begun", "waiting", "reading the prompt"):
        calls[name][0].can_fail_over = True
    pair.send(calls["begun"][0], fragment("a"))
    pair.send(calls["reading the prompt"][0], progress(0.5))
    pair.client.fail_over()
    pair.pump()
    moved = [calls["waiting"], calls["reading the prompt"]]
    for _, receiver in moved:
        assert isinstance(receiver.error, lms.LMStudioConnectionLostError)
        assert ": LM Studio has stopped responding" in str(receiver.error)
    assert not calls["begun"][1].ends
    assert not calls["bound"][1].ends
    assert {request.channel_id for request in pair.client_packets} == {exchange.id for exchange, _ in moved}


def test_a_lost_connection_fails_each_call_once_with_its_own_error() -> None:
    pair = SessionPair()
    receivers = [pair.call("predict", PREDICT_HELLO)[1], pair.call("listLoaded")[1]]
    pair.client.connection_lost(lambda: lms.LMStudioConnectionLostError("gone"))
    pair.client.connection_lost(lambda: lms.LMStudioConnectionLostError("gone again"))
    errors = [receiver.error for receiver in receivers]
    assert [str(error) for error in errors] == ["gone", "gone"]
    assert errors[0] is not errors[1]
    assert pair.client.idle


# Warnings


def test_an_unknown_endpoint_fails_every_open_and_every_later_call_to_it() -> None:
    pair = SessionPair()
    receivers = [pair.call("completeRawText", {**_RAW})[1] for _ in range(2)]
    other, spared = pair.call("predict", PREDICT_HELLO)
    pair.raw(
        {
            "type": "communicationWarning",
            "warning": "Received channelCreate for unknown endpoint, endpoint = completeRawText",
        }
    )
    pair.client.data_to_send()
    receivers.append(pair.call("completeRawText", {**_RAW})[1])
    for receiver in receivers:
        assert isinstance(receiver.error, lms.LMStudioUnsupportedError)
        assert "completeRawText" in str(receiver.error)
    assert not spared.ends
    assert pair.client.data_to_send() == [], "it is not called again"
    pair.close(other)
    assert pair.client.idle


_RAW = {"modelSpecifier": QUERY, "rawPrompt": "a", "predictionConfigStack": EMPTY_STACK}


def test_an_invalid_parameter_fails_the_newest_open_call() -> None:
    pair = SessionPair()
    _, older = pair.call("predict", PREDICT_HELLO)
    _, newest = pair.call("predict", PREDICT_HELLO)
    running, touched = pair.call("predict", PREDICT_HELLO)
    pair.send(running, fragment("a"))
    pair.raw(
        {
            "type": "communicationWarning",
            "warning": "Received invalid creationParameter for channel, endpointName = predict, creationParameter = …",
            "kind": "channelCreationParameterTypeError",
        }
    )
    assert isinstance(newest.error, lms.LMStudioProtocolError)
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
def test_a_warning_about_no_call_is_only_logged(
    warning: dict[str, Any], level: int, caplog: pytest.LogCaptureFixture
) -> None:
    pair = SessionPair()
    _, receiver = pair.call("listLoaded")
    with caplog.at_level(logging.DEBUG, logger="lmstudio_integrations.protocol.session"):
        pair.raw({"type": "communicationWarning", **warning})
    assert [record.levelno for record in caplog.records] == [level]
    assert str(warning.get("warning")) in caplog.text
    assert not receiver.ends


def test_no_more_warnings_are_logged_than_a_server_may_send(caplog: pytest.LogCaptureFixture) -> None:
    pair = SessionPair()
    for number in range(1000):
        pair.raw({"type": "communicationWarning", "warning": f"hm {number}"})
    assert [record.getMessage()[-4:] for record in caplog.records] == [f"hm {number}" for number in range(5)]


def test_a_warning_is_one_line_of_the_log_however_long_it_is(caplog: pytest.LogCaptureFixture) -> None:
    pair = SessionPair()
    for text in ("hm\r\nError: fake", "x" * 100_000):
        pair.raw({"type": "communicationWarning", "warning": text})
    lines, long = (record.getMessage() for record in caplog.records)
    assert lines == "warning from the server: hm Error: fake"
    assert long.endswith("x")
    assert len(long) < 10_000


# Text that was cut in the middle of a character


@pytest.mark.parametrize(
    ("fragments", "texts"),
    [
        (["\ud83d", "\ude00!"], ["", "😀!"]),
        (["a\ud83d", "\ude00", "b"], ["a", "😀", "b"]),
        (["\ud83d", "x"], ["", "\ufffdx"]),
        (["\udbff", "\udfff"], ["", "\U0010ffff"]),
        (["\ude00x"], ["\ufffdx"]),
        (["😀"], ["😀"]),
    ],
)
def test_surrogate_pairs_are_joined_across_fragments(fragments: list[str], texts: list[str]) -> None:
    for as_sent in (fragment, lambda text: {"type": "fragment", "fragment": text}):  # the latter by LM Studio 0.3.5
        pair = SessionPair()
        exchange, receiver = pair.call("predict", PREDICT_HELLO)
        pair.send(exchange, *map(as_sent, fragments))
        assert receiver.texts == texts


def test_a_high_surrogate_is_held_back_while_other_packets_arrive() -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO)
    pair.send(exchange, fragment("\ud83d"), progress(1.0), {"type": "fromTheFuture"}, fragment("\ude00"))
    assert receiver.texts == ["", "😀"]


def test_surrogate_pairs_of_arguments_are_joined_apart_from_those_of_the_text() -> None:
    pair = SessionPair()
    exchange, receiver = pair.call("predict", PREDICT_HELLO)
    argument = {"type": "toolCallGenerationArgumentFragmentGenerated"}
    halves = [{**argument, "content": half} for half in ('{"a": "\ud83d', '\ude00"}')]
    pair.send(exchange, fragment("\ud83d"), *halves, fragment("\ude01"))
    assert [item.content for item in receiver.items] == ["", '{"a": "', '😀"}', "😁"]
