"""The server's side of a connection: authentication, requests, and the warnings about invalid input."""

import json
from typing import Any

import pytest

from lmstudio_integrations.protocol.endpoints import ENDPOINTS
from lmstudio_integrations.protocol.server_session import CallReceived, ChannelOpened, PacketReceived, ServerSession
from tests.protocol.samples import PLUGIN, PREDICT_HELLO, channel_create, channel_send, fragment, rpc_call

AUTH = {"authVersion": 1, "clientIdentifier": "me", "clientPasskey": "secret"}
DEEP = "[" * 250 + "]" * 250


def session(*, rejection: str | None = None, authenticated: bool = True) -> ServerSession:
    """Return a session of the namespace `llm`."""
    made = ServerSession(ENDPOINTS["llm"], lambda _identifier, _passkey: rejection)
    if authenticated:
        made.receive(json.dumps(AUTH))
        made.data_to_send()
    return made


def sent(by: ServerSession) -> list[dict[str, Any]]:
    """Return the frames that are due."""
    return [json.loads(frame) for frame in by.data_to_send()]


def create(channel_id: int = 1) -> dict[str, Any]:
    """Return the frame that opens a prediction."""
    return channel_create("predict", PREDICT_HELLO, channel_id)


def test_credentials_are_passed_to_the_authenticator() -> None:
    received: list[tuple[str, str]] = []
    made = ServerSession({}, lambda *credentials: received.append(credentials))
    made.receive(json.dumps(AUTH))
    assert received == [("me", "secret")]
    assert made.client == "me"
    assert sent(made) == [{"success": True}]


def test_a_rejected_client_receives_the_reason() -> None:
    made = session(rejection="Invalid client passkey", authenticated=False)
    made.receive(json.dumps(AUTH))
    assert made.rejected
    assert made.client is None
    assert sent(made) == [{"success": False, "error": "Failed to validate client: Invalid client passkey"}]


@pytest.mark.parametrize(
    "frame",
    [
        "no json",
        "[]",
        "{}",
        {**AUTH, "authVersion": 2},
        {**AUTH, "clientIdentifier": 5},
        {**AUTH, "clientPasskey": None},
        {**AUTH, "clientPasskey": "x" * 257},
        DEEP,
        {"type": "rpcCall", "endpoint": "listLoaded", "callId": 1},
    ],
)
def test_a_malformed_first_frame_is_ignored_and_may_be_repeated(frame: Any) -> None:
    made = session(authenticated=False)
    assert made.receive(frame if isinstance(frame, str) else json.dumps(frame)) is None
    assert sent(made) == []
    made.receive(json.dumps(AUTH))
    assert made.client == "me"


def test_authentication_times_out_once() -> None:
    made = session(authenticated=False)
    made.reject_unauthenticated()
    made.reject_unauthenticated()
    assert made.rejected
    assert sent(made) == [{"success": False, "error": "Authentication timed out"}]
    authenticated = session()
    authenticated.reject_unauthenticated()
    assert not authenticated.rejected


def test_each_frame_becomes_an_event_of_its_type() -> None:
    made = session()
    call = made.receive('{"type":"rpcCall","endpoint":"listLoaded","callId":7}')
    opened = made.receive(json.dumps(create(7)))
    packet = made.receive('{"type":"channelSend","channelId":7,"message":{"type":"cancel"},"ackId":1}')
    assert call == CallReceived(ENDPOINTS["llm"]["listLoaded"], 7, None)  # type: ignore[arg-type]  # it is an RPC
    assert isinstance(opened, ChannelOpened)
    assert opened.channel_id == 7, "calls and channels have ids of their own"
    assert packet == PacketReceived(7, {"type": "cancel"})
    assert sent(made) == []


def test_the_reply_to_an_rpc_is_a_result_or_an_error() -> None:
    made = session()
    made.reply(1, [])
    made.reply(2)
    made.reject(3, {"title": "no"})
    assert sent(made) == [
        {"type": "rpcResult", "callId": 1, "result": []},
        {"type": "rpcResult", "callId": 2},
        {"type": "rpcError", "callId": 3, "error": {"title": "no"}},
    ]


@pytest.mark.parametrize("end", ["close", "fail"])
def test_nothing_is_sent_on_a_channel_that_is_not_open(end: str) -> None:
    made = session()
    made.receive(json.dumps(create(1)))
    for _ in range(2):
        made.send(1, fragment("a"))
        made.send(2, fragment("a"))
        if end == "close":
            made.close(1)
        else:
            made.fail(1, {"title": "no"})
    kinds = [frame["type"] for frame in sent(made)]
    assert kinds == ["channelSend", "channelClose" if end == "close" else "channelError"]
    assert isinstance(made.receive(json.dumps(create(1))), ChannelOpened), "its id may be reused"


def test_a_keep_alive_gets_an_ack_at_once() -> None:
    made = session()
    assert made.receive('{"type":"keepAlive"}') is None
    assert sent(made) == [{"type": "keepAliveAck"}]


@pytest.mark.parametrize(
    "frame",
    [
        "no json",
        '"text"',
        {},
        {"type": "unheardOf"},
        {"type": "rpcCall", "endpoint": "listLoaded"},
        *(rpc_call("listLoaded", call_id=number) for number in (True, 2**53, -(2**53), 10**400)),
        {"type": "rpcCall", "callId": 1},
        {"type": "channelCreate", "endpoint": "predict"},
        {"type": "channelCreate", "endpoint": ["predict"], "channelId": 1},
        {"type": "channelSend", "message": {"type": "cancel"}},
        {"type": "channelAck", "channelId": 1, "ackId": 1},
        {"type": "signalSubscribe", "endpoint": "x"},
        {"type": "writableSignalSubscribe", "endpoint": 1, "subscribeId": 0},
        {"type": "signalUnsubscribe", "subscribeId": 0},
        {"type": "communicationWarning", "warning": "hm"},
    ],
)
def test_a_malformed_frame_is_dropped_without_a_warning(frame: Any) -> None:
    made = session()
    assert made.receive(frame if isinstance(frame, str) else json.dumps(frame)) is None
    assert sent(made) == []


@pytest.mark.parametrize(
    ("frame", "kind", "text"),
    [
        (rpc_call("x"), "rpcEndpointUnknown", "Received rpcCall for unknown endpoint, endpoint = x"),
        (rpc_call("predict"), "rpcEndpointUnknown", "Received rpcCall for unknown endpoint, endpoint = predict"),
        (channel_create("tokenize"), "channelEndpointUnknown", "Received channelCreate for unknown endpoint, endpoint"),
        (
            {"type": "signalSubscribe", "endpoint": "x", "subscribeId": 0},
            "signalEndpointUnknown",
            "Received signalSubscribe for unknown endpoint, endpoint = x",
        ),
        (
            {"type": "writableSignalSubscribe", "endpoint": "x", "subscribeId": 0},
            "writableSignalEndpointUnknown",
            "Received writableSignalSubscribe for unknown endpoint, endpoint = x",
        ),
        *(
            (rpc_call("listLoaded", parameter), "rpcParameterTypeError", f"Expected void, received {name}")
            for parameter, name in (
                *((None, "null"), ({}, "object"), ([], "array")),
                *(("a", "string"), (True, "boolean"), (1.5, "number")),
            )
        ),
        (rpc_call("tokenize", {"inputString": "a"}), "rpcParameterTypeError", "specifier: Field required"),
        (rpc_call("tokenize"), "rpcParameterTypeError", "endpointName = tokenize"),
        (channel_create("predict", {}, 2), "channelCreationParameterTypeError", "endpointName = predict"),
        (create(1), "channelAlreadyOpen", "channelId = 1"),
        (channel_send({"type": "cancel"}, 9), "channelUnknown", "channelId = 9"),
        *((channel_send(packet), "channelMessageTypeError", "predict") for packet in ({"type": "stop"}, "cancel", {})),
    ],
)
def test_an_invalid_request_gets_one_warning_and_no_reply(frame: dict[str, Any], kind: str, text: str) -> None:
    made = session()
    made.receive(json.dumps(create(1)))
    assert made.receive(json.dumps(frame)) is None
    (warning,) = sent(made)
    assert warning["type"] == "communicationWarning"
    assert warning["kind"] == kind
    assert text in warning["warning"]


def tool_session() -> ServerSession:
    """Return a session of the namespace `plugins`, with a tool session on channel 1."""
    made = ServerSession(ENDPOINTS["plugins"], lambda *_: None)
    made.receive(json.dumps(AUTH))
    assert isinstance(made.receive(json.dumps(channel_create("startToolUseSession", PLUGIN))), ChannelOpened)
    made.data_to_send()
    return made


def send_packet(made: ServerSession, packet: Any) -> PacketReceived | None:
    """Let the client send a packet on channel 1."""
    received = made.receive(json.dumps(channel_send(packet)))
    assert received is None or isinstance(received, PacketReceived)
    return received


CALL_TOOL = {"type": "callTool", "callId": 0, "name": "add", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    "packet",
    [
        {**CALL_TOOL, "callId": 2.5},
        {**CALL_TOOL, "callId": -1, "arguments": None, "name": "", "unheardOf": 1},
        {"type": "abortToolCall", "callId": 7},
        {"type": "discardSession"},
    ],
)
def test_a_packet_of_a_tool_session_arrives_as_it_was_sent(packet: dict[str, Any]) -> None:
    made = tool_session()
    assert send_packet(made, packet) == PacketReceived(1, packet)
    assert sent(made) == []


@pytest.mark.parametrize(
    "packet",
    [
        *({name: value for name, value in CALL_TOOL.items() if name != missing} for missing in CALL_TOOL),
        *({**CALL_TOOL, "callId": call_id} for call_id in (None, True)),
        {**CALL_TOOL, "name": None},
        {"type": "abortToolCall"},
        {"type": "cancel"},
        {"type": ["callTool"]},
        [CALL_TOOL],
    ],
)
def test_an_invalid_packet_of_a_tool_session_gets_a_warning_and_the_session_continues(packet: Any) -> None:
    made = tool_session()
    assert send_packet(made, packet) is None
    (warning,) = sent(made)
    assert (warning["type"], warning["kind"]) == ("communicationWarning", "channelMessageTypeError")
    assert "startToolUseSession" in warning["warning"]
    assert send_packet(made, CALL_TOOL) == PacketReceived(1, CALL_TOOL)


def test_a_channel_without_a_cancel_packet_rejects_packets() -> None:
    made = ServerSession(ENDPOINTS["system"], lambda *_: None)
    made.receive(json.dumps(AUTH))
    made.receive('{"type":"channelCreate","endpoint":"alive","channelId":1}')
    made.data_to_send()
    assert made.receive('{"type":"channelSend","channelId":1,"message":{"type":null}}') is None
    (warning,) = sent(made)
    assert warning["kind"] == "channelMessageTypeError"


def test_five_warnings_are_sent_and_then_no_more() -> None:
    made = session()
    for _ in range(7):
        made.receive('{"type":"rpcCall","endpoint":"x","callId":1}')
    assert len(sent(made)) == 5


def test_a_warning_about_very_many_errors_has_only_their_number() -> None:
    made = session()
    history = {"messages": [1] * 100}
    made.receive(json.dumps(create() | {"creationParameter": PREDICT_HELLO | {"history": history}}))
    (warning,) = sent(made)
    assert warning["warning"].endswith("creationParameter = 100 errors")


@pytest.mark.parametrize("levels", [199, 200])
def test_the_nesting_of_a_frame_is_limited(levels: int) -> None:
    made = session()
    # The lone surrogate leads to the fallback parser, which reads any depth.
    nested = (
        '{"a":' * (levels // 2)
        + "[" * (levels - levels // 2)
        + '"\\ud800"'
        + "]" * (levels - levels // 2)
        + "}" * (levels // 2)
    )
    assert made.receive(f'{{"type":"communicationWarning","x":{nested}}}') is None
    assert [frame["warning"] for frame in sent(made)] == (
        [] if levels == 199 else ["Received a frame that is nested more than 200 levels deep"]
    )


TOO_DEEP = "The request is nested more than 200 levels deep"


@pytest.mark.parametrize(
    ("frame", "reply"),
    [
        (f'{{"type":"rpcCall","endpoint":"tokenize","callId":7,"parameter":{DEEP}}}', ("rpcError", "callId", 7)),
        (
            f'{{"type":"channelCreate","channelId":7,"endpoint":"predict","creationParameter":{DEEP}}}',
            ("channelError", "channelId", 7),
        ),
        (
            f' {{ "endpoint" : "a[b{{" , "callId" : -3, "type": "rpcCall", "parameter":{DEEP}}}',
            ("rpcError", "callId", -3),
        ),
    ],
)
def test_a_request_that_is_nested_too_deeply_fails_if_its_id_comes_first(
    frame: str, reply: tuple[str, str, int]
) -> None:
    kind, key, number = reply
    error = {"title": TOO_DEEP, "rootTitle": TOO_DEEP}
    for data in (frame, frame.encode()):
        made = session()
        assert made.receive(data) is None
        assert sent(made) == [{"type": kind, key: number, "error": error}]


@pytest.mark.parametrize(
    "frame",
    [
        DEEP,
        f'{{"parameter":{DEEP},"type":"rpcCall","endpoint":"tokenize","callId":7}}',
        f'{{"type":"rpcCall","endpoint":"tokenize","callId":"7","parameter":{DEEP}}}',
        f'{{"type":"rpcCall","endpoint":"tokenize","parameter":{DEEP}}}',
        f'{{"type":"channelSend","channelId":1,"message":{DEEP}}}',
        f'{{"type":"channelCreate","channelId":1,"endpoint":"predict","creationParameter":{DEEP}}}',
        f'{{"type":5,"callId":7,"parameter":{DEEP}}}',
        f'{{"type":"rpcCall" "callId":7,"parameter":{DEEP}}}',
        f'{{"type":rpcCall,"callId":7,"parameter":{DEEP}}}',
    ],
)
def test_any_other_frame_that_is_nested_too_deeply_gets_a_warning(frame: str) -> None:
    made = session()
    made.receive(json.dumps(create(channel_id=1)))
    sent(made)
    assert made.receive(frame) is None
    assert [each["type"] for each in sent(made)] == ["communicationWarning"]


def test_five_warnings_from_a_client_are_logged_and_then_no_more(caplog: pytest.LogCaptureFixture) -> None:
    made = session()
    for _ in range(7):
        made.receive('{"type":"communicationWarning","warning":"I wonder"}')
    assert len(caplog.records) == 5


def test_pending_size_is_the_size_of_the_frames_to_send() -> None:
    made = session()
    made.receive('{"type":"keepAlive"}')
    size = made.pending_size
    assert size == sum(map(len, made.data_to_send())) > 0
    assert made.pending_size == 0
