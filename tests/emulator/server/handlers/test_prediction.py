"""The endpoints that generate: packets, settings, raw completion, stats."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ManualClock, ModelEntry
from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished
from lmstudio_integrations.emulator.engines.scripted import ScriptedModel
from lmstudio_integrations.emulator.server.handlers.prediction import StatsCollector
from tests.emulator.bare_client import STACK, Wire, named, prediction_request, stack, wire
from tests.emulator.server.handlers.models import TOOL


def test_only_lists_have_the_time_of_use(me: Wire) -> None:
    end = me.stream("predict", prediction_request("chat"))[-1]
    assert end["modelInfo"]["lastUsedTime"] is None
    assert me.result("listLoaded")[0]["lastUsedTime"] is not None


def test_a_prediction_without_a_token_has_its_progress_all_the_same(me: Wire) -> None:
    packets = me.stream("predict", prediction_request("chat", "Nothing"))
    assert [packet.get("progress") for packet in packets] == [0, 1, None]
    assert packets[-1]["stats"]["stopReason"] == "eosFound"
    assert "tokensPerSecond" not in packets[-1]["stats"]
    assert "timeToFirstTokenSec" not in packets[-1]["stats"]


def test_a_tool_call_that_is_stopped_fails_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(*_: object) -> AsyncIterator[EngineEvent]:
        for event in (lms.ToolCallStart("7"), lms.ToolCallName("add"), lms.ToolCallArguments('{"a"')):
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
    ("catalog", "written", "marked"),
    [
        ({"application": "bionic"}, {"arguments": {"a": 1}}, "json"),
        ({"application": "bionic"}, {"malformed": "{'a'"}, None),
        ({"application": "bionic", "version": "1.1.3"}, {"arguments": {"a": 1}}, None),
        ({}, {"arguments": {"a": 1}}, None),
    ],
)
def test_bionic_promises_that_arguments_are_json(
    catalog: dict[str, Any], written: dict[str, Any], marked: str | None
) -> None:
    model = ModelEntry(key="m", rules=({"then": [{"tool": "add", **written}]},))
    with Emulator([model], load=["m"], catalog=catalog) as server, wire(server) as me:
        fields = {"tools": {"type": "toolArray", "tools": [TOOL]}}
        packets = me.stream("predict", prediction_request("m", fields=fields))
        starts = [packet for packet in packets if packet["type"] == "toolCallGenerationStart"]
        assert [start.get("argumentsFormat") for start in starts] == [marked]


@pytest.mark.parametrize(
    "fields",
    [{"toolChoice": {"type": "generic", "mode": "required"}, "tools": {}}, {"tools": {"force": True}}],
    ids=["2026", "2025"],
)
def test_a_tool_can_be_required_in_either_way(me: Wire, fields: dict[str, Any]) -> None:
    fields = fields | {"tools": {"type": "toolArray", "tools": [TOOL], **fields["tools"]}}
    kinds = [packet["type"] for packet in me.stream("predict", prediction_request("blind", fields=fields))]
    assert "toolCallGenerationEnd" in kinds


def test_an_invalid_tool_definition_is_rejected(me: Wire) -> None:
    fields = {"tools": {"type": "toolArray", "tools": [{"name": "x"}]}}
    packets = me.stream("predict", prediction_request("chat", fields=fields))
    assert "tool" in packets[-1]["error"]["title"]


def test_settings_of_layers_are_merged(me: Wire) -> None:
    first = {"temperature": 0.1, "maxPredictedTokens": {"checked": True, "value": 1}, "topKSampling": 4.0}
    second = {
        "maxPredictedTokens": {"checked": True, "value": False},
        "minPSampling": {"checked": True, "value": False},
    }
    layers = [*stack(first)["layers"], *stack(second, "serverSession")["layers"]]
    packets = me.stream("predict", prediction_request("chat") | {"predictionConfigStack": {"layers": layers}})
    found = {field["key"]: field["value"] for field in packets[-1]["predictionConfig"]["fields"]}
    assert found["llm.prediction.temperature"] == 0.1
    assert found["llm.prediction.maxPredictedTokens"]["checked"] is False
    assert found["llm.prediction.minPSampling"] == {"checked": False, "value": 0.05}
    assert found["llm.prediction.topPSampling"] == {"checked": True, "value": 0.95}
    assert type(found["llm.prediction.topKSampling"]) is int
    assert packets[-1]["stats"]["stopReason"] == "eosFound"


def test_a_preset_ranks_below_the_request(me: Wire) -> None:
    fields = {"maxPredictedTokens": {"checked": True, "value": 2}}
    for name, requested, count in (
        ("@me/brief", prediction_request("chat"), 1),
        ("BRIEF", prediction_request("chat", fields=fields), 2),
    ):
        end = me.stream("predict", requested | {"fuzzyPresetIdentifier": name})[-1]
        assert end["stats"]["predictedTokensCount"] == count
    error = me.stream("predict", prediction_request("chat") | {"fuzzyPresetIdentifier": "x"})[-1]["error"]
    assert error["displayData"] == {
        "code": "generic.presetNotFound",
        "specifiedFuzzyPresetIdentifier": "x",
        "availablePresetsSample": [{"identifier": "@me/brief", "name": "Brief"}],
        "totalAvailablePresets": 1,
    }


def test_raw_text_is_completed_for_older_clients_by_a_layer(server: Emulator, me: Wire) -> None:
    raw = {"modelSpecifier": named("chat"), "rawPrompt": "Once upon", "predictionConfigStack": STACK}
    template = {"type": "jinja", "stopStrings": [], "jinjaPromptTemplate": {"template": "{{ messages }}"}}
    layers = stack({"promptTemplate": template}, "completeModeFormatting")
    of_older = prediction_request("chat", "Once upon") | {"predictionConfigStack": layers}
    for endpoint, parameter in (("completeRawText", raw), ("predict", of_older)):
        assert me.stream(endpoint, parameter)[-1]["stats"]["promptTokensCount"] == 2
        record = server.predictions[-1]
        assert (record.prompt, record.raw, record.messages) == ("Once upon", True, [])


# Stats


def test_stats_are_computed_from_the_clock() -> None:
    clock = ManualClock()
    meter = StatsCollector(clock)
    older = StatsCollector(clock, (0, 4, 18))
    clock.advance(1)
    meter.start()
    assert older.stats(Finished("eosFound", 8, 5))["numGpuLayers"] == -1, "up to the engines of the summer of 2026"
    list(meter.add(lms.PromptProgress(0.5, {"totalPromptTokenCount": 8})))
    clock.advance(2)
    for _ in range(4):
        list(meter.add(lms.LlmPredictionFragment("x")))
        clock.advance(0.5)
    stats = meter.stats(Finished("eosFound", 8, 5, stats={"usedDraftModelKey": "small"}))
    assert stats == {
        "stopReason": "eosFound",
        "tokensPerSecond": 2.0,
        "timeToFirstTokenSec": 2.0,
        "totalTimeSec": 4.0,
        "promptTokensCount": 8,
        "predictedTokensCount": 5,
        "totalTokensCount": 13,
        "usedDraftModelKey": "small",
    }
    assert meter.stopped("userStopped") == Finished("userStopped", 8, 4)


def rate(*fragments: lms.LlmPredictionFragment, predicted: int) -> object:
    """Return the speed of a prediction whose fragments come a second apart."""
    clock = ManualClock()
    meter = StatsCollector(clock)
    for fragment in fragments:
        list(meter.add(fragment))
        clock.advance(1)
    return meter.stats(Finished("eosFound", 1, predicted)).get("tokensPerSecond")


def test_a_speed_counts_the_tokens_after_the_first_fragment_and_in_a_short_response_all() -> None:
    fragment = lms.LlmPredictionFragment("x")
    assert rate(lms.LlmPredictionFragment("held back", 50), fragment, fragment, predicted=52) == pytest.approx(2 / 3)
    assert rate(fragment, predicted=1) == 1.0
    assert rate(lms.LlmPredictionFragment("held back", 3), predicted=4) == 4.0
    assert rate(predicted=1) is None


@pytest.mark.parametrize("last", [lms.ToolCallEnd("7", "add"), lms.ToolCallFailed({})])
def test_a_complete_tool_call_ends_once(last: lms.ToolCallEnd | lms.ToolCallFailed) -> None:
    meter = StatsCollector(ManualClock())
    for event in (lms.ToolCallStart("7"), last):
        list(meter.add(event))
    assert list(meter.remaining(Finished("eosFound", 1, 1))) == []


def test_progress_that_an_engine_omits_is_sent_before_the_first_token() -> None:
    for given, progress in (([lms.PromptProgress(0.5)], [0, 0.5, 1]), ([], [0, 1])):
        meter = StatsCollector(ManualClock())
        events: list[Any] = [*given, lms.LlmPredictionFragment("x")]
        sent = [each for event in events for each in meter.add(event)]
        assert [event.progress for event in sent if isinstance(event, lms.PromptProgress)] == progress
