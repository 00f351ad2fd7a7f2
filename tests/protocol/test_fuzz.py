"""Whatever comes over the line, in whatever order: nothing crashes, and nobody who waits is forgotten or told twice."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmstudio_integrations.errors import LMStudioConnectionLostError
from lmstudio_integrations.protocol.endpoints import ENDPOINTS
from lmstudio_integrations.protocol.exchange import Exchange
from lmstudio_integrations.protocol.server_session import (
    CallReceived,
    ChannelOpened,
    PacketReceived,
    ServerSession,
)
from lmstudio_integrations.protocol.session import ClientSession
from tests.protocol.pair import RecordingReceiver
from tests.protocol.samples import PARAMETERS, SUCCESS, TOOL_CALL, fragment, progress

pytestmark = pytest.mark.slow

FUZZ = settings(max_examples=40)
"""The same examples in every run; raise `max_examples` and drop `derandomize` to search for new ones."""

LLM = ENDPOINTS["llm"]
NAMES = ["listLoaded", "tokenize", "predict", "predict", "getOrLoad", "completeRawText"]
IDS = st.one_of(
    st.integers(0, len(NAMES) + 1), st.floats(allow_nan=False), st.none(), st.booleans(), st.text(max_size=2)
)

JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "fragment", "content", "title", "displayData", "code", "a"]), inner, max_size=4
        ),
    ),
    max_leaves=8,
)

PACKETS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [
            fragment("a"),
            fragment("\ud83d"),
            fragment("\ude00"),
            progress(0.5),
            SUCCESS,
            {"type": "toolCallGenerationStart"},
            {"type": "toolCallGenerationNameReceived", "name": "f"},
            {"type": "toolCallGenerationEnd", "toolCallRequest": TOOL_CALL},
            {"type": "toolCallGenerationFailed", "error": {}},
            {"type": "error", "error": {"title": "t"}},
            {"type": "loadProgress", "progress": 0.5},
            {"type": "fromTheFuture"},
        ]
    ),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                ["fragment", "success", "error", "toolCallGenerationEnd", "promptProcessingProgress"]
            )
        },
        optional={"fragment": JSON, "stats": JSON, "error": JSON, "toolCallRequest": JSON, "progress": JSON},
    ),
    JSON,
)

FROM_SERVER: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"type": st.just("rpcResult"), "callId": IDS}, optional={"result": JSON}),
    st.fixed_dictionaries({"type": st.just("rpcError"), "callId": IDS}, optional={"error": JSON}),
    st.fixed_dictionaries({"type": st.just("channelSend"), "channelId": IDS, "message": PACKETS}),
    st.fixed_dictionaries({"type": st.just("channelClose"), "channelId": IDS}),
    st.fixed_dictionaries({"type": st.just("channelError"), "channelId": IDS}, optional={"error": JSON}),
    st.fixed_dictionaries(
        {
            "type": st.just("communicationWarning"),
            "warning": st.one_of(
                JSON,
                st.sampled_from(NAMES).map(lambda name: f"Received x for unknown endpoint, endpoint = {name}"),
                st.sampled_from(NAMES).map(lambda name: f"Received invalid parameter, endpointName = {name}"),
            ),
        }
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["keepAliveAck", "channelAck", "signalUpdate", "x"])}),
    st.dictionaries(st.sampled_from(["type", "callId", "channelId", "message", "error"]), JSON),
    JSON,
)


def as_data(frame: Any) -> str | bytes:
    """Return a frame as it comes over the line: what JSON cannot say, Python's JSON says."""
    return frame if isinstance(frame, str | bytes) else json.dumps(frame)


ANY_DATA: st.SearchStrategy[str | bytes] = st.one_of(FROM_SERVER.map(as_data), st.text(st.characters()), st.binary())


class Client:
    """A client session with every kind of request open, and a receiver for each."""

    def __init__(self, *, ready: bool = True) -> None:
        self.session = ClientSession()
        if ready:
            self.session.receive('{"success":true}', 0.0)
        self.receivers = [RecordingReceiver() for _ in NAMES]
        self.exchanges = [
            Exchange(
                LLM[name], "{}", receiver, {"total_timeout": 1000.0, "idle_timeout": 100.0}, 0.0, client_id=number % 2
            )
            for number, (name, receiver) in enumerate(zip(NAMES, self.receivers, strict=True))
        ]
        for exchange in self.exchanges:
            self.session.start(exchange)

    def check_each_caller_was_woken_once(self) -> None:
        assert all(len(receiver.ends) <= 1 for receiver in self.receivers)

    def lose(self) -> None:
        """Lose the connection, which wakes every caller."""
        self.session.connection_lost(lambda: LMStudioConnectionLostError("gone"))
        assert self.session.idle


@given(st.lists(ANY_DATA, max_size=12))
@FUZZ
def test_no_frame_crashes_a_client_and_every_caller_is_woken_exactly_once(data: list[str | bytes]) -> None:
    client = Client()
    for each in data:
        client.session.receive(each, 0.0)
        client.check_each_caller_was_woken_once()
    client.lose()
    assert all(len(receiver.ends) == 1 for receiver in client.receivers)


VALID: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda number: {"type": "rpcResult", "callId": number, "result": {}}, st.integers(1, len(NAMES))),
    st.builds(lambda number: {"type": "rpcError", "callId": number, "error": {}}, st.integers(1, len(NAMES))),
    st.builds(
        lambda number, packet: {"type": "channelSend", "channelId": number, "message": packet},
        st.integers(1, len(NAMES)),
        st.sampled_from([fragment("a"), progress(0.5), SUCCESS, {"type": "loadSuccess", "info": {}}]),
    ),
    st.builds(lambda number: {"type": "channelClose", "channelId": number}, st.integers(1, len(NAMES))),
    st.builds(lambda number: {"type": "channelError", "channelId": number, "error": {}}, st.integers(1, len(NAMES))),
)

Act = Callable[[Client], None]


def _receive(frame: Any) -> Act:
    return lambda client: client.session.receive(as_data(frame), 0.0)


def _on_one(name: str, number: int) -> Act:
    return lambda client: getattr(client.session, name)(client.exchanges[number])


ACTS: st.SearchStrategy[Act] = st.one_of(
    VALID.map(_receive),
    st.builds(_on_one, st.sampled_from(["cancel", "close"]), st.integers(0, len(NAMES) - 1)),
    st.floats(0, 2000).map(lambda now: lambda client: client.session.tick(now)),
    st.integers(0, 1).map(lambda owner: lambda client: client.session.close_client(owner)),
)


@given(st.booleans(), st.lists(ACTS, max_size=20))
@FUZZ
def test_in_any_order_of_events_every_caller_is_woken_and_every_channel_cancelled_once(
    ready: bool, acts: list[Act]
) -> None:
    client = Client(ready=ready)
    for act in acts:
        act(client)
        client.check_each_caller_was_woken_once()
    frames = [json.loads(frame) for frame in client.session.data_to_send()]
    cancelled = [frame["channelId"] for frame in frames if frame.get("type") == "channelSend"]
    assert len(cancelled) == len(set(cancelled))
    client.lose()
    assert all(len(receiver.ends) == 1 for receiver in client.receivers)


FROM_CLIENT: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("rpcCall"), "endpoint": st.sampled_from([*NAMES, "x"]), "callId": IDS},
        optional={"parameter": st.one_of(JSON, st.sampled_from([*PARAMETERS["tokenize"]]))},
    ),
    st.fixed_dictionaries(
        {"type": st.just("channelCreate"), "endpoint": st.sampled_from([*NAMES, "x"]), "channelId": IDS},
        optional={
            "creationParameter": st.one_of(JSON, st.sampled_from([*PARAMETERS["predict"], *PARAMETERS["getOrLoad"]]))
        },
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("channelSend"),
            "channelId": IDS,
            "message": st.one_of(JSON, st.just({"type": "cancel"}), st.just({"type": "stop"})),
        }
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["keepAlive", "channelAck", "x"])}),
    st.fixed_dictionaries({"authVersion": JSON, "clientIdentifier": JSON, "clientPasskey": JSON}),
    st.dictionaries(st.sampled_from(["type", "endpoint", "callId", "parameter"]), JSON),
    JSON,
)
ANY_REQUEST: st.SearchStrategy[str | bytes] = st.one_of(FROM_CLIENT.map(as_data), st.text(st.characters()), st.binary())


@given(st.booleans(), st.lists(ANY_REQUEST, max_size=15))
@FUZZ
def test_no_frame_crashes_a_server_and_its_output_is_valid(authenticated: bool, data: list[str | bytes]) -> None:
    session = ServerSession(LLM, lambda _identifier, _passkey: None)
    if authenticated:
        session.receive('{"authVersion":1,"clientIdentifier":"me","clientPasskey":"p"}')
    warnings = 0
    open_channels: set[int] = set()
    for each in data:
        request = session.receive(each)
        if isinstance(request, ChannelOpened):
            assert request.channel_id not in open_channels
            open_channels.add(request.channel_id)
        elif isinstance(request, PacketReceived):
            assert request.channel_id in open_channels
            assert request.packet["type"] == "cancel"
        elif isinstance(request, CallReceived):
            session.reply(request.call_id, {})
        frames = [json.loads(frame) for frame in session.data_to_send()]
        warnings += sum(frame.get("type") == "communicationWarning" for frame in frames)
    assert warnings <= 5
