"""The calls of a tool session: many on one channel, each with an id, an end and a caller of its own."""

import json
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.protocol.endpoints import Rpc
from lmstudio_integrations.protocol.endpoints import channel as channel_of
from lmstudio_integrations.protocol.exchange import CALL_TOOL, LIST_TOOLS, Exchange, ToolSession
from tests.protocol.pair import RecordingReceiver, SessionPair
from tests.protocol.samples import PLUGIN, TOOL


class SessionWithTools(SessionPair):
    """Both ends of a connection on which the client has opened a tool session."""

    def __init__(self, *, ready: bool = True, checked: bool = True) -> None:
        super().__init__("plugins", checked=checked)
        self.channel, self.ended = self.call("startToolUseSession", PLUGIN, timeouts={"load_timeout": 300.0})
        if ready:
            self.receive({"type": "sessionReady", "toolDefinitions": [TOOL]})
        self.to_server.clear()

    def start(
        self, name: str = "add", endpoint: Rpc = CALL_TOOL, **timeouts: float | None
    ) -> tuple[Exchange, RecordingReceiver]:
        """Call a tool."""
        receiver, parameter = RecordingReceiver(), json.dumps({"name": name, "arguments": {"a": 1}})
        exchange = Exchange(endpoint, parameter, receiver, timeouts, self.now, name, channel=self.channel)
        self.client.start(exchange)
        self.pump()
        return exchange, receiver

    def receive(self, *packets: dict[str, Any]) -> None:
        """Let the client receive packets of the server, and send what it replies."""
        self.send(self.channel, *packets)
        self.pump()

    @property
    def sent(self) -> list[tuple[Any, ...]]:
        """Types and callIds of the packets that the client has sent."""
        return [
            tuple(value for key, value in frame["message"].items() if key in {"type", "callId"})
            for frame in self.to_server
        ]


def complete(call_id: Any, result: Any = 3) -> dict[str, Any]:
    """Return the packet that ends a call."""
    return {"type": "toolCallComplete", "callId": call_id, "result": result}


def status(call_id: Any) -> dict[str, Any]:
    """Return the packet of what a call is doing."""
    return {"type": "toolCallStatus", "callId": call_id, "statusText": "adding"}


def test_calls_wait_until_the_session_is_ready() -> None:
    pair = SessionWithTools(ready=False)
    _, listed = pair.start(endpoint=LIST_TOOLS)
    pair.start()
    cancelled, end = pair.start()
    pair.start()
    pair.client.cancel(cancelled)
    pair.pump()
    assert pair.to_server == []
    assert end.ends == [None]
    pair.receive({"type": "sessionReady", "toolDefinitions": [TOOL]})
    assert (listed.items, listed.ends) == ([[TOOL]], [None])
    assert pair.sent == [("callTool", 0), ("callTool", 1)]
    exchange, again = pair.start(endpoint=LIST_TOOLS)
    assert (again.items, again.ends) == ([[TOOL]], [None])
    pair.client.close(exchange)
    pair.pump()
    assert pair.sent == [("callTool", 0), ("callTool", 1)], "the tools are known"


def test_each_session_counts_its_calls_from_zero_and_each_call_receives_its_packets() -> None:
    pair = SessionWithTools()
    first, second = pair.start("add")[1], pair.start("sub")[1]
    assert pair.to_server[0] == {
        "type": "channelSend",
        "channelId": pair.channel.id,
        "message": {"type": "callTool", "callId": 0, "name": "add", "arguments": {"a": 1}},
    }
    error = {"type": "toolCallError", "callId": 0, "error": {"title": "no"}}
    pair.receive(status(1), complete(1), {"type": "toolCallWarn", "callId": 0, "warnText": "slow"}, error)
    assert (second.items, second.ends) == ([status(1), complete(1)], [None])
    assert ([each["type"] for each in first.items], first.ends) == (["toolCallWarn", "toolCallError"], [None])
    other = SessionWithTools()
    other.start()
    pair.start()
    assert (other.sent, pair.sent) == ([("callTool", 0)], [("callTool", 0), ("callTool", 1), ("callTool", 2)])


@pytest.mark.parametrize("way", ["cancel", "close", "timeout", "dead caller"])
def test_a_call_is_aborted_once_and_what_still_comes_of_it_is_ignored(way: str) -> None:
    pair = SessionWithTools(checked=False)  # the server sends more, as packets may cross
    exchange, receiver = pair.start(total_timeout=10.0)
    second, others = pair.start()
    if way == "dead caller":
        receiver.alive = False
    for _ in range(2):
        if way in {"cancel", "close"}:
            getattr(pair.client, way)(exchange)
        pair.pass_time(10.0 if way == "timeout" else 0.0)
    assert pair.sent == [("callTool", 0), ("callTool", 1), ("abortToolCall", 0)]
    assert len(receiver.ends) == 1
    assert isinstance(receiver.ends[0], lms.LMStudioTimeoutError) is (way == "timeout")
    pair.receive(status(0), complete(0), complete(1))
    assert (receiver.items, others.items) == ([], [complete(1)])
    pair.client.close(second)
    pair.pump()
    assert pair.sent[3:] == [], "a call that has ended is not aborted"


@pytest.mark.parametrize("packet", [status(7), complete(7), {"type": "toolCallProgress", "callId": 0}, status("0")])
def test_packets_of_unknown_calls_and_types_are_ignored(packet: dict[str, Any]) -> None:
    pair = SessionWithTools(checked=False)
    _, receiver = pair.start()
    pair.receive(packet, complete(0))
    assert (receiver.items, receiver.ends, pair.ended.ends) == ([complete(0)], [None], [])


@pytest.mark.parametrize(
    "packet",
    [
        {"type": "sessionReady"},
        {"type": "sessionReady", "toolDefinitions": {}},
        {"type": "sessionReady", "toolDefinitions": ["add"]},
        {"type": "toolCallComplete"},
        complete([0]),
        {"type": "toolCallStatus", "statusText": "adding"},
    ],
)
def test_a_packet_that_cannot_be_read_ends_the_session_and_its_calls(packet: dict[str, Any]) -> None:
    pair = SessionWithTools(checked=False)
    _, receiver = pair.start()
    pair.receive(packet)
    assert isinstance(pair.ended.error, lms.LMStudioProtocolError)
    assert isinstance(receiver.error, lms.LMStudioProtocolError)
    assert pair.sent == [("callTool", 0), ("discardSession",)]


def test_closing_a_session_discards_it_once_and_ends_its_calls() -> None:
    pair = SessionWithTools()
    call, receiver = pair.start()
    for _ in range(2):
        pair.client.close(pair.channel)
        pair.client.close(call)
        pair.pump()
    assert pair.sent == [("callTool", 0), ("discardSession",)]
    assert isinstance(receiver.error, lms.LMStudioChannelClosedError)
    late = pair.start()[1]
    assert isinstance(late.error, lms.LMStudioChannelClosedError)
    assert not pair.client.idle
    pair.close(pair.channel)
    assert pair.client.idle


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ("close", lms.LMStudioChannelClosedError),
        ("fail", lms.LMStudioPluginError),
        ("lose", lms.LMStudioConnectionLostError),
    ],
)
def test_all_calls_fail_with_their_session_and_none_is_sent_again(ready: bool, end: str, kind: type[Exception]) -> None:
    pair = SessionWithTools(ready=ready)
    calls = [pair.start() for _ in range(2)]
    pair.to_server.clear()
    if end == "close":
        pair.close(pair.channel)
    elif end == "fail":
        pair.server.fail(pair.channel.id, {"title": "The plugin has crashed"})
        pair.pump_to_client()
    else:
        pair.client.connection_lost(lambda: lms.LMStudioConnectionLostError("gone"))
    for exchange, _ in calls:
        pair.client.cancel(exchange)  # too late
    errors = [receiver.error for _, receiver in calls]
    assert [type(error) for error in errors] == [kind, kind]
    assert errors[0] is not errors[1], "each caller raises an exception of its own"
    late = pair.start()[1]
    SessionPair("plugins").client.adopt(pair.client.pop_backlog(), pair.now)  # as the next socket does
    assert type(late.error) is kind
    assert (pair.to_server, pair.client.idle) == ([], True)


@pytest.mark.parametrize("other", [None, status(9), complete(9), {"type": "sessionStarting"}])
def test_a_session_that_is_ready_may_be_idle_for_any_time_and_one_that_does_not_start_may_not(
    other: dict[str, Any] | None,
) -> None:
    idle, starting = SessionWithTools(checked=False), SessionWithTools(ready=False, checked=False)
    for pair in (idle, starting):
        pair.start()
        pair.pass_time(200.0)
        if other is not None:
            pair.receive(other)
        pair.pass_time(100.0)
    assert idle.ended.ends == []
    error = starting.ended.error
    assert isinstance(error, lms.LMStudioTimeoutError)
    assert error.timeout_name == "load_timeout"
    assert starting.sent == [("discardSession",)]


def test_a_call_that_was_held_back_is_sent_when_the_server_has_proven_to_be_alive() -> None:
    pair = SessionWithTools()
    pair.client.paused = True
    cancelled, end = pair.start()
    pair.start()
    pair.client.cancel(cancelled)
    assert (pair.to_server, end.ends) == ([], [None])
    pair.client.resume(pair.now)
    pair.pump()
    assert pair.sent == [("callTool", 0)]


def test_a_server_without_tool_sessions_ends_the_calls_that_wait_for_one() -> None:
    pair = SessionWithTools(ready=False, checked=False)
    _, waiting = pair.start("list", LIST_TOOLS)
    text = "Received channelCreate for unknown endpoint, endpoint = startToolUseSession"
    pair.raw({"type": "communicationWarning", "warning": text})
    assert isinstance(pair.ended.error, lms.LMStudioUnsupportedError)
    assert isinstance(waiting.error, lms.LMStudioUnsupportedError)


def test_closing_a_session_ends_the_calls_that_are_held_back_with_it() -> None:
    pair = SessionPair("plugins", authenticated=False)
    channel = ToolSession(channel_of("plugins", "startToolUseSession"), "{}", RecordingReceiver(), {}, 0.0)
    receiver = RecordingReceiver()
    pair.client.start(channel)
    pair.client.start(Exchange(LIST_TOOLS, None, receiver, {"connect_timeout": None}, 0.0, channel=channel))
    pair.client.close(channel, lms.LMStudioConnectionLostError("closed"))
    assert str(receiver.error) == "closed"
    assert pair.client.idle


def test_a_silent_server_ends_calls_by_their_own_timeouts() -> None:
    pair = SessionWithTools()
    pair.channel.timeouts = {"idle_timeout": 60.0}
    _, patient = pair.start("patient", idle_timeout=600.0)
    _, quick = pair.start("quick", idle_timeout=30.0)
    pair.client.unanswered_since = pair.now
    pair.pass_time(100.0)
    assert patient.ends == []
    assert str(quick.error).startswith("quick: ")
    pair.pass_time(600.0)
    assert str(patient.error).startswith("patient: ")
    pair.pass_time(1.0)
    assert isinstance(pair.ended.error, lms.LMStudioTimeoutError)
