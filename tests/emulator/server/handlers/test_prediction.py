"""The endpoints that generate: packets, settings, raw completion, images."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.base import EngineEvent
from lmstudio_integrations.emulator.engines.scripted import ScriptedModel
from lmstudio_integrations.types.results import ToolCallArguments, ToolCallName, ToolCallStart
from tests.emulator.bare_client import STACK, Wire, named, prediction_request, stack, wire
from tests.emulator.server.handlers.models import (
    INSTANCE,
    LLM,
    OPTIONAL,
)


def test_a_prediction_has_every_packet_and_every_field(me: Wire) -> None:
    packets = me.stream("predict", prediction_request("chat"))
    progress = [packet for packet in packets if packet["type"] == "promptProcessingProgress"]
    assert [packet["progress"] for packet in progress] == [0, 1]
    for packet in progress:
        total, *parts = (packet["details"][f"{name}TokenCount"] for name in ("totalPrompt", *PARTS))
        assert total == sum(parts)
    fragments = [packet["fragment"] for packet in packets if packet["type"] == "fragment"]
    for fragment in fragments:
        assert fragment.keys() == {"content", "tokensCount", "containsDrafted", "reasoningType", "isStructural"}
    end = packets[-1]
    assert end.keys() == {"type", "stats", "modelInfo", "loadModelConfig", "predictionConfig"}
    stats = end["stats"]
    assert stats["stopReason"] == "eosFound"
    assert stats["predictedTokensCount"] == len(fragments) + 1
    assert stats["totalTokensCount"] == stats["promptTokensCount"] + stats["predictedTokensCount"]
    assert stats["timeToFirstTokenSec"] <= stats["totalTimeSec"]
    assert end["modelInfo"].keys() - OPTIONAL == INSTANCE | LLM
    assert end["modelInfo"]["lastUsedTime"] is None
    assert me.result("listLoaded")[0]["lastUsedTime"] is not None


PARTS = ("cached", "processedPrompt", "unprocessedPrompt")


def test_a_prediction_without_a_token_has_its_progress_all_the_same(me: Wire) -> None:
    packets = me.stream("predict", prediction_request("chat", "Nothing"))
    assert [packet.get("progress") for packet in packets] == [0, 1, None]
    assert packets[-1]["stats"]["stopReason"] == "eosFound"
    assert "tokensPerSecond" not in packets[-1]["stats"]
    assert "timeToFirstTokenSec" not in packets[-1]["stats"]


def test_a_cancelled_prediction_ends_with_success(server: Emulator, me: Wire) -> None:
    channel = me.open("predict", prediction_request("chat", "Wait"))
    for _ in range(3):
        me.receive()
    me.send(channel, {"type": "cancel"})
    (end,) = me.packets(channel)
    assert end["stats"]["stopReason"] == "userStopped"
    assert end["stats"]["predictedTokensCount"] == 1
    assert server.predictions[0].stop_reason == "userStopped"


def test_a_tool_call_has_one_start_and_one_end(me: Wire) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    packets = me.stream("predict", prediction_request("chat", fields={"tools": {"type": "toolArray", "tools": [tool]}}))
    kinds = [packet["type"] for packet in packets]
    assert kinds.count("toolCallGenerationStart") == kinds.count("toolCallGenerationEnd") == 1
    end = packets[kinds.index("toolCallGenerationEnd")]
    assert end["toolCallRequest"] == {"type": "function", "id": "7", "name": "add", "arguments": {"a": 1}}


def test_a_tool_call_that_is_stopped_fails_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(*_: object) -> AsyncIterator[EngineEvent]:
        for event in (ToolCallStart("7"), ToolCallName("add"), ToolCallArguments('{"a"')):
            yield event
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(ScriptedModel, "generate", call)
    with Emulator(["m"], load=["m"]) as server, wire(server) as me:
        channel = me.open("predict", prediction_request("m"))
        for _ in range(5):
            me.receive()
        me.send(channel, {"type": "cancel"})
        failed, end = me.packets(channel)
        assert (failed["type"], failed["rawContent"]) == ("toolCallGenerationFailed", '{"a"')
        assert end["stats"]["stopReason"] == "userStopped"
        assert end["stats"]["predictedTokensCount"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"toolChoice": {"type": "generic", "mode": "required"}, "tools": {"type": "toolArray", "tools": "TOOLS"}},
        {"tools": {"type": "toolArray", "force": True, "tools": "TOOLS"}},
    ],
    ids=["2026", "2025"],
)
def test_a_tool_can_be_required_in_either_way(me: Wire, fields: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}}
    fields = fields | {"tools": fields["tools"] | {"tools": [tool]}}
    kinds = [packet["type"] for packet in me.stream("predict", prediction_request("blind", fields=fields))]
    assert "toolCallGenerationEnd" in kinds


def test_an_invalid_tool_definition_is_rejected(me: Wire) -> None:
    packets = me.stream(
        "predict", prediction_request("chat", fields={"tools": {"type": "toolArray", "tools": [{"name": "x"}]}})
    )
    assert "tool" in packets[-1]["error"]["title"]


def test_an_error_of_the_model_ends_its_channel(server: Emulator, me: Wire) -> None:
    (packet,) = me.stream("predict", prediction_request("chat", "Fail"))
    assert packet["error"] == {
        "title": "Bad",
        "rootTitle": "Bad",
        "displayData": {"code": "generic.missingRuntimeExtension"},
    }
    assert server.predictions[0].error == "Bad"


def settings_of(packets: list[dict[str, Any]]) -> dict[str, Any]:
    return {field["key"]: field["value"] for field in packets[-1]["predictionConfig"]["fields"]}


def test_settings_of_layers_are_merged(me: Wire) -> None:
    first = {"temperature": 0.1, "maxPredictedTokens": {"checked": True, "value": 1}, "topKSampling": 4.0}
    second = {
        "maxPredictedTokens": {"checked": True, "value": False},
        "minPSampling": {"checked": True, "value": False},
    }
    layers = [*stack(first)["layers"], *stack(second, "serverSession")["layers"]]
    packets = me.stream("predict", prediction_request("chat") | {"predictionConfigStack": {"layers": layers}})
    found = settings_of(packets)
    assert found["llm.prediction.temperature"] == 0.1
    assert found["llm.prediction.maxPredictedTokens"]["checked"] is False
    assert found["llm.prediction.minPSampling"] == {"checked": False, "value": 0.05}
    assert found["llm.prediction.topPSampling"] == {"checked": True, "value": 0.95}
    assert type(found["llm.prediction.topKSampling"]) is int
    assert packets[-1]["stats"]["stopReason"] == "eosFound"


@pytest.mark.parametrize("name", ["@me/brief", "brief", "BRIEF"])
def test_a_preset_ranks_below_the_request(me: Wire, name: str) -> None:
    fields = {"maxPredictedTokens": {"checked": True, "value": 2}}
    for requested, count in ((prediction_request("chat"), 1), (prediction_request("chat", fields=fields), 2)):
        end = me.stream("predict", requested | {"fuzzyPresetIdentifier": name})[-1]
        assert end["stats"]["predictedTokensCount"] == count


def test_an_unknown_preset_is_rejected_with_the_known_ones(me: Wire) -> None:
    error = me.stream("predict", prediction_request("chat") | {"fuzzyPresetIdentifier": "x"})[-1]["error"]
    assert error["displayData"] == {
        "code": "generic.presetNotFound",
        "specifiedFuzzyPresetIdentifier": "x",
        "availablePresetsSample": [{"identifier": "@me/brief", "name": "Brief"}],
        "totalAvailablePresets": 1,
    }


def test_raw_text_is_completed(server: Emulator, me: Wire) -> None:
    parameter = {"modelSpecifier": named("chat"), "rawPrompt": "Once upon", "predictionConfigStack": STACK}
    packets = me.stream("completeRawText", parameter)
    assert packets[-1]["stats"]["promptTokensCount"] == 2
    assert server.predictions[0].raw


def test_older_clients_complete_raw_text_by_a_layer(server: Emulator, me: Wire) -> None:
    template = {"type": "jinja", "stopStrings": [], "jinjaPromptTemplate": {"template": "{{ messages }}"}}
    layers = stack({"promptTemplate": template}, "completeModeFormatting")
    packets = me.stream("predict", prediction_request("chat", "Once upon") | {"predictionConfigStack": layers})
    assert packets[-1]["stats"]["promptTokensCount"] == 2
    assert server.predictions[0].raw
