"""The endpoint that streams the log."""

from typing import Any

from lmstudio_integrations.emulator import Emulator
from tests.emulator.bare_client import STACK, Wire, named, prediction_request, wire
from tests.emulator.server.handlers.models import TOOL


def entries(log: Wire, count: int, *kinds: str) -> list[dict[str, Any]]:
    """Read entries of the log; return the data of those of some kinds."""
    found = [log.receive()["message"]["log"] for _ in range(count)]
    assert all(type(entry["timestamp"]) is int for entry in found)
    return [entry["data"] for entry in found if entry["data"]["type"] in kinds]


def read_nothing(log: Wire) -> None:
    """Check that no entry was sent."""
    log.send_frame({"type": "keepAlive"})
    assert log.receive()["type"] == "keepAliveAck"


def test_the_log_streams_predictions_until_cancelled(server: Emulator, me: Wire) -> None:
    with wire(server, "diagnostics") as log:
        channel = log.open("streamLogs")
        read_nothing(log)
        me.stream("predict", prediction_request("chat"))
        raw = {"modelSpecifier": named("chat"), "rawPrompt": "x", "predictionConfigStack": STACK}
        me.stream("completeRawText", raw)
        predictions = entries(log, 6, "llm.prediction.input", "llm.prediction.output")
        assert [data["type"] for data in predictions] == ["llm.prediction.input", "llm.prediction.output"] * 2
        assert "Hello" in predictions[0]["input"]
        assert predictions[0]["modelPath"] == "scripted/chat"
        assert predictions[1]["stats"]["stopReason"] == "eosFound"
        me.stream("predict", prediction_request("chat", fields={"tools": {"type": "toolArray", "tools": [TOOL]}}))
        assert '"a": 1' in entries(log, 3, "llm.prediction.output")[0]["output"]
        log.send(channel, {"type": "stop"})
        assert list(log.packets(channel)) == []
        me.stream("predict", prediction_request("chat"))
        read_nothing(log)


def test_the_log_streams_requests_and_their_errors(server: Emulator, me: Wire) -> None:
    with wire(server, "diagnostics") as log, wire(server, "system") as system:
        log.open("streamLogs")
        read_nothing(log)
        system.result("notify", {"title": "Hello", "description": "you"})
        me.rpc_error("getLoadConfig", {"specifier": named("nothing")})
        me.stream("predict", prediction_request("nothing"))
        title = 'No loaded model matches the identifier "nothing"'
        assert [(data["level"], data["content"]) for data in entries(log, 6, "server.log")] == [
            ("info", "guest:me: system.notify"),
            ("info", "Hello: you"),
            ("info", "guest:me: llm.getLoadConfig"),
            ("error", f"guest:me: llm.getLoadConfig failed: {title}"),
            ("info", "guest:me: llm.predict"),
            ("error", f"guest:me: llm.predict failed: {title}"),
        ]
