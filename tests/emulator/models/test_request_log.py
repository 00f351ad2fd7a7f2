"""What was asked can be seen: predictions and embedded texts as plain data, within bounds."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Catalog, Emulator, Limits, ModelEntry, PredictionRecord, Preset
from tests.emulator.bare_client import TIMEOUT, Wire, prediction_request, wire

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
PNG = b"\x89PNG\r\n\x1a\n and more"
CITY = {"tool": "weather", "arguments": {"city": "Oslo"}, "id": "c1"}
CHAT = ModelEntry(
    key="chat",
    vision=True,
    rules=(
        {"when": {"last": "^Think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done."}]},
        {"when": {"last": "^Weather"}, "then": [{"text": "I look."}, CITY]},
        {"when": {"last": "^Fail"}, "then": [{"text": "So far"}, {"error": "It went wrong"}]},
        {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]},
    ),
)
VECTORS = ModelEntry(key="vectors", kind="embedding", embedding_length=4)
PRESET = Preset(identifier="@me/cool", fields={"llm.prediction.temperature": 0.1, "llm.prediction.topKSampling": 7})
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Look.", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture
def server() -> Iterator[Emulator]:
    catalog = Catalog(models=(CHAT, VECTORS), presets=(PRESET,))
    with Emulator(catalog=catalog, load=["chat", "vectors"]) as running:
        yield running


def only(server: Emulator) -> PredictionRecord:
    (record,) = server.predictions
    json.dumps(dataclasses.asdict(record))
    return record


def predict(me: Wire, text: str, **fields: Any) -> dict[str, Any]:
    return me.stream("predict", prediction_request("chat", text, fields=fields))[-1]


def test_a_record_has_the_conversation_the_settings_and_the_response(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        chat = lms.Chat("Be terse.")
        chat.add_user_message("When does the ferry leave?")
        result = client.llm.model("chat").respond(chat, config={"temperature": 0.2, "maxTokens": 50})
    record = only(server)
    assert record.messages == [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "When does the ferry leave?"},
    ]
    assert record.config == {"temperature": 0.2, "maxTokens": 50}
    assert (record.model, record.prompt, record.raw) == ("chat", None, False)
    assert (record.tools, record.tool_choice, record.images) == ([], "auto", [])
    assert (record.state, record.stop_reason, record.error) == ("ended", "eosFound", None)
    assert record.text == result.content
    assert record.stats["predictedTokensCount"] == result.stats.predicted_tokens_count
    assert record.fragments > 1
    assert lms.Chat.from_history({"messages": record.messages}).messages == chat.messages


def test_settings_are_those_of_the_request_and_its_preset(server: Emulator, me: Wire) -> None:
    predict(me, "Hello")
    assert only(server).config == {}
    fields = {
        "temperature": 0.5,
        "maxPredictedTokens": {"checked": False, "value": 1},
        "minPSampling": {"checked": True, "value": False},
        "unheardOf": [1],
    }
    me.stream("predict", prediction_request("chat", fields=fields) | {"fuzzyPresetIdentifier": "@me/cool"})
    assert server.predictions[-1].config == {
        "temperature": 0.5,
        "topKSampling": 7,
        "maxTokens": False,
        "minPSampling": False,
        "raw": {"llm.prediction.unheardOf": [1]},
    }


def test_tools_their_calls_and_their_results_are_there(server: Emulator, me: Wire) -> None:
    tools = {"type": "toolArray", "tools": [WEATHER]}
    predict(me, "Weather?", tools=tools, toolChoice={"type": "generic", "mode": "required"}, temperature=1)
    record = only(server)
    assert (record.tools, record.tool_choice, record.config) == ([WEATHER], "required", {"temperature": 1.0})
    assert (record.text, record.tool_calls) == (
        "I look.",
        [{"id": "c1", "name": "weather", "arguments": {"city": "Oslo"}}],
    )
    request = {"type": "function", "id": "c1", "name": "weather", "arguments": {"city": "Oslo"}}
    parts = [{"type": "toolCallRequest", "toolCallRequest": request}]
    result = {"type": "toolCallResult", "toolCallId": "c1", "content": "Rain"}
    messages = [{"role": "assistant", "content": parts}, {"role": "tool", "content": [result]}]
    me.stream("predict", prediction_request("chat") | {"history": {"messages": messages}})
    assert server.predictions[-1].messages == messages


def test_images_are_named_and_not_contained(server: Emulator, me: Wire) -> None:
    with wire(server, "files") as files:
        content = base64.b64encode(PNG).decode()
        uploaded = files.result("uploadFileBase64", {"name": "a.png", "contentBase64": content})
        described: dict[str, Any] = {"type": "file", "fileType": "image", "sizeBytes": len(PNG)}
        parts: list[dict[str, Any]] = [
            {"type": "text", "text": "Look."},
            described | {"name": "a.png", "identifier": uploaded["identifier"]},
            described | {"name": "b.png", "identifier": f"base64:{content}"},
        ]
        history = {"messages": [{"role": "user", "content": parts}]}
        me.stream("predict", prediction_request("chat") | {"history": history})
    record = only(server)
    digest = {"sizeBytes": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}
    assert record.images == [
        {"name": "a.png", "identifier": uploaded["identifier"], **digest},
        {"name": "b.png", "identifier": "base64:", **digest},
    ]
    assert record.messages[0]["content"] == [*parts[:2], parts[2] | {"identifier": "base64:"}]
    assert content not in str(record)


def test_a_response_is_there_without_its_reasoning_and_as_far_as_it_came(server: Emulator, me: Wire) -> None:
    predict(me, "Think")
    thought = only(server)
    assert (thought.reasoning.strip(), thought.text.strip()) == ("Let me see.", "Done.")
    predict(me, "Fail")
    channel = me.open("predict", prediction_request("chat", "Wait"))
    server.wait_for(lambda: [each.fragments for each in server.predictions[2:]] == [1], TIMEOUT)
    running = server.predictions[2]
    assert (running.state, running.text, running.stats) == ("running", "", {})
    me.send(channel, {"type": "cancel"})
    list(me.packets(channel))
    _, failed, stopped = server.predictions
    assert (failed.stop_reason, failed.error) == ("error", "It went wrong")
    assert (failed.text.strip(), failed.stats) == ("So far", {})
    assert (stopped.stop_reason, stopped.text, stopped.stats["stopReason"]) == ("userStopped", "One", "userStopped")
    assert running.state == "running"


def test_no_record_has_the_secret_of_its_client() -> None:
    with Emulator([CHAT, VECTORS], tokens=[TOKEN]) as server, lms.Client(server.address, api_token=TOKEN) as client:
        client.llm.model("chat").respond("Hello")
        client.embedding.model("vectors", load_policy="explicit").embed("one")
        assert [(record.model, record.text) for record in server.embedded_texts] == [("vectors", "one")]
        records = [*server.predictions, *server.embedded_texts, *server.loads]
    assert len(records) == 4
    assert TOKEN.partition(":")[2] not in str(records)


def test_a_server_that_runs_for_long_keeps_the_last_records() -> None:
    limits = Limits(records=3)
    with Emulator([CHAT], load=["chat"], limits=limits) as server, wire(server) as me:
        for number in range(20):
            predict(me, f"Hello {number}")
        kept = [record.messages[0]["content"] for record in server.predictions]
    assert 1 < len(kept) < 20
    assert kept == [f"Hello {number}" for number in range(20 - len(kept), 20)]
