"""The endpoint that streams the log."""

from lmstudio_integrations.emulator import Emulator
from tests.emulator.bare_client import STACK, Wire, named, prediction_request, wire
from tests.requirements import proves


@proves("S-DIAGNOSTICS-LOGS")
def test_the_log_streams_predictions_until_cancelled(server: Emulator, me: Wire) -> None:
    with wire(server, "diagnostics") as log, wire(server, "system") as system:
        channel = log.open("streamLogs")
        log.send_frame({"type": "keepAlive"})
        assert log.receive()["type"] == "keepAliveAck"
        system.result("notify", {"title": "Hello", "description": "you"})
        me.stream("predict", prediction_request("chat"))
        me.stream(
            "completeRawText", {"modelSpecifier": named("chat"), "rawPrompt": "x", "predictionConfigStack": STACK}
        )
        entries = [log.receive()["message"]["log"] for _ in range(5)]
        kinds = [entry["data"]["type"] for entry in entries]
        assert kinds == ["server.log", *["llm.prediction.input", "llm.prediction.output"] * 2]
        assert all(type(entry["timestamp"]) is int for entry in entries)
        assert "Hello" in entries[1]["data"]["input"]
        assert entries[1]["data"]["modelPath"] == "scripted/chat"
        assert entries[2]["data"]["stats"]["stopReason"] == "eosFound"
        tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
        me.stream("predict", prediction_request("chat", fields={"tools": {"type": "toolArray", "tools": [tool]}}))
        assert '"a": 1' in [log.receive()["message"]["log"] for _ in range(2)][1]["data"]["output"]
        log.send(channel, {"type": "stop"})
        assert list(log.packets(channel)) == []
        me.stream("predict", prediction_request("chat"))
        log.send_frame({"type": "keepAlive"})
        assert log.receive()["type"] == "keepAliveAck"
