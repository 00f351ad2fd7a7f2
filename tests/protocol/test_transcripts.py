"""The transcripts of docs/protocol.md (#transcripts), replayed to the client session."""

import json
from typing import Any

import pytest

from lmstudio_integrations.protocol.endpoints import ENDPOINTS
from lmstudio_integrations.protocol.exchange import Exchange
from lmstudio_integrations.protocol.session import ClientSession
from lmstudio_integrations.types.results import PredictionEnd, ToolCallEnd
from tests.protocol.pair import RecordingReceiver
from tests.protocol.transcripts import (
    ANY_MODEL_CANCEL_UNLOAD,
    AUTHENTICATION,
    LIST_LOAD_RESPOND_UNLOAD,
    TOOL_ROUND,
    Ids,
    lines_of,
)
from tests.support.strict.listener import StrictListener


class Replay:
    """A client session that holds one of the conversations."""

    def __init__(self) -> None:
        self.session = ClientSession()
        self.session.authenticate("guest:1", "secret")
        self.exchanges: dict[Any, Exchange] = {}
        self.receivers: list[RecordingReceiver] = []
        self._ids = Ids()
        self._strict = StrictListener()

    def run(self, transcript: str) -> None:
        for by, frame in lines_of(transcript):
            if by == "server":
                text = json.dumps(self._ids.translate(frame))
                self._strict.feed("server", "llm", text)
                self.session.receive(text, 0.0)
                continue
            if "type" in frame:
                self._send(frame)
            (text,) = self.session.data_to_send()
            self._strict.feed("client", "llm", text)
            assert self._ids.record(frame, json.loads(text)) == frame

    def _send(self, frame: dict[str, Any]) -> None:
        """Make the session send a frame of the transcript."""
        if frame["type"] == "channelSend":
            self.session.cancel(self.exchanges["channelId", frame["channelId"]])
            return
        name, key = ("callId", "parameter") if frame["type"] == "rpcCall" else ("channelId", "creationParameter")
        parameter = json.dumps(frame[key]) if key in frame else None
        receiver = RecordingReceiver()
        exchange = Exchange(ENDPOINTS["llm"][frame["endpoint"]], parameter, receiver, {}, 0.0)
        self.exchanges[name, frame[name]] = exchange
        self.receivers.append(receiver)
        self.session.start(exchange)


@pytest.mark.parametrize("transcript", [LIST_LOAD_RESPOND_UNLOAD, ANY_MODEL_CANCEL_UNLOAD, TOOL_ROUND])
def test_a_session_sends_the_frames_of_the_transcripts(transcript: str) -> None:
    replay = Replay()
    replay.run(AUTHENTICATION + transcript)
    assert all(receiver.ends == [None] for receiver in replay.receivers)
    assert replay.session.idle


def test_a_session_delivers_the_packets_of_the_transcripts() -> None:
    replay = Replay()
    replay.run(AUTHENTICATION + LIST_LOAD_RESPOND_UNLOAD)
    listed, loaded, predicted, unloaded = replay.receivers
    assert listed.items == [[]]
    assert [packet["type"] for packet in loaded.items] == ["startLoading", "loadProgress", "loadSuccess"]
    assert isinstance(predicted.items[-1], PredictionEnd)
    assert predicted.items[-1].stats["stopReason"] == "eosFound"
    assert unloaded.items == [None]


def test_a_session_delivers_a_tool_call_in_fragments_and_complete() -> None:
    replay = Replay()
    replay.run(AUTHENTICATION + TOOL_ROUND)
    assert ToolCallEnd("abc", "add", {"a": 1, "b": 2}, "<tool_call>") in replay.receivers[0].items
    assert len(replay.receivers[0].items) == 7
