"""Tools and a response format in one call: the tools first, then the format, on every way to generate."""

import asyncio
import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LlamaIndexToolCallError, LMStudio
from tests._adapters.ways import Way, said, ways
from tests.support.adapters import covering
from tests.support.gate import AT_THE_GATE, Gate
from tests.support.served import served


class Report(BaseModel):
    """The weather."""

    city: str
    degrees: int


GIVEN = '{"city": "Oslo", "degrees": 3}'
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}
WRITTEN = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
REQUEST: dict[str, Any] = {"tools": [TOOL], "response_format": Report.model_json_schema()}
RULES: list[dict[str, Any]] = [
    {"when": {"last": "^call", "tools": ["look"]}, "then": [{"text": "I look."}, {"tool": "look", "arguments": {}}]},
    {"when": {"last": "^write a call", "tools": ["look"]}, "then": [{"text": f"I look.{WRITTEN}"}]},
    {"when": {"last": "^write half", "tools": ["look"]}, "then": [{"text": f"I look.{WRITTEN[:30]}"}]},
    {"when": {"last": "^fits", "tools": ["look"]}, "then": [{"text": GIVEN}]},
    {"when": {"last": "^fails", "structured": True}, "then": [{"error": "the engine gave up"}]},
    {"when": {"structured": True}, "then": [{"reasoning": "Now as JSON."}, {"text": GIVEN}]},
    {"when": {"last": ""}, "then": [{"reasoning": "No tool helps."}, {"text": "It is cold in Oslo."}]},
]


NATIVE: dict[str, Any] = {
    "response_format": Report,
    "config": {"rawTools": {"type": "toolArray", "tools": [TOOL]}},
    "tools_first": True,
    "rescue_tool_calls": True,
}
WAYS = ways(REQUEST, NATIVE)
AS_SENT = ways({**REQUEST, "repair_tool_calls": False}, NATIVE)
CUT = ways({**REQUEST, "max_tokens": 4}, {**NATIVE, "config": {**NATIVE["config"], "maxTokens": 4}})


every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)

server = served([ModelEntry(key="m", rules=tuple(RULES))])


def sent(server: Emulator, count: int) -> list[tuple[bool, bool]]:
    """Return of the last predictions whether they had tools, and whether a format."""
    return [(bool(each.tools), "structured" in each.config) for each in server.predictions[-count:]]


@pytest.mark.parametrize(("name", "prompt"), [*covering(WAYS, ["call it", "write a call"]), ("chat", "write a call")])
def test_a_call_is_delivered_with_the_text_before_it(server: Emulator, name: str, prompt: str) -> None:
    before = len(server.predictions)
    seen = WAYS[name](server.address, prompt)
    assert (seen["text"], seen["calls"], seen["predictions_count"]) == ("I look.", [("look", {})], None)
    assert sent(server, len(server.predictions) - before) == [(True, False)]


@pytest.mark.leaf
@pytest.mark.parametrize(
    ("way", "prompt", "length"),
    [
        (AS_SENT["stream"], "write half", 30),
        (AS_SENT["achat"], "write half", 30),
        (CUT["stream_chat"], "write a call", 40),
        (CUT["native async"], "write a call", 40),
    ],
)
def test_a_call_that_is_cut_off_is_not_replaced_by_an_invented_response(
    server: Emulator, way: Way, prompt: str, length: int
) -> None:
    before = len(server.predictions)
    try:
        text = way(server.address, prompt)["text"]
    except LlamaIndexToolCallError as error:
        text = error.text
    assert text == f"I look.{WRITTEN[:length]}"
    assert sent(server, len(server.predictions) - before) == [(True, False)]


@pytest.mark.leaf
def test_an_agent_with_a_format_runs_a_tool_that_is_called_in_the_text() -> None:
    looked: list[str] = []

    def look() -> str:
        """Look out of the window."""
        looked.append("snow")
        return "snow"

    rules = (
        {"when": {"last": "snow", "tools": ["look"]}, "then": [{"text": "It snows in Oslo, at 3 degrees."}]},
        {"when": {"structured": True}, "then": [{"text": GIVEN}]},
        {"then": [{"text": WRITTEN}]},
    )
    with Emulator([ModelEntry(key="m", rules=rules)]) as server:
        agent: Any = create_agent(ChatLMStudio(model="m", host=server.address), [look], response_format=Report)
        state = agent.invoke({"messages": [HumanMessage("How cold is it?")]})
        assert looked == ["snow"]
        assert state["structured_response"] == Report(city="Oslo", degrees=3)


def test_a_text_that_fits_is_the_response(server: Emulator) -> None:
    before = len(server.predictions)
    seen = WAYS["astream"](server.address, "fits at once")
    assert (seen["text"], seen["calls"], seen["predictions_count"]) == (GIVEN, [], None)
    assert sent(server, len(server.predictions) - before) == [(True, False)]


@every_way
def test_another_text_is_replaced_by_a_response_in_the_format(server: Emulator, way: Way) -> None:
    seen = way(server.address, "How cold is it?")
    assert sent(server, 2) == [(True, False), (False, True)]
    assert (seen["text"], seen["reasoning"], seen["calls"]) == (GIVEN, "Now as JSON.", [])
    assert "".join(seen["parts"]) == GIVEN  # nothing of the replaced response
    assert seen["predictions_count"] == 2
    assert seen["prompt"] == sum(each.stats["promptTokensCount"] for each in server.predictions[-2:])


@pytest.mark.leaf
@pytest.mark.parametrize("fault", ["truncate", "empty"])
def test_tools_that_do_not_fit_are_not_cut_in_silence_because_the_format_alone_fits(fault: str) -> None:
    tool = {"type": "function", "function": {**TOOL["function"], "description": "word " * 400}}
    way = ways({**REQUEST, "tools": [tool]}, {})["astream"]
    cutting = {"when": {"structured": False}, "then": [{"fault": fault}, {"text": "It is cold."}]}
    with Emulator([ModelEntry(key="m", context_length=300, rules=(cutting, *RULES))]) as server:
        if fault == "empty":
            with pytest.raises(lms.LMStudioContextOverflowError, match="a context length of 300"):
                way(server.address, "How cold is it?")
        else:
            with pytest.warns(lms.LMStudioTruncationWarning, match="the server dropped"):
                seen = way(server.address, "How cold is it?")
            assert (seen["text"], seen["predictions_count"]) == (GIVEN, 2)
            assert seen["dropped_tokens"] > 100


@pytest.mark.leaf
def test_both_predictions_run_on_one_of_several_hosts(server: Emulator) -> None:
    with Emulator([ModelEntry(key="m", rules=tuple(RULES))]) as other:
        before = len(server.predictions)
        seen = WAYS["chat"]([server.address, other.address], "How cold is it?")
        assert (seen["text"], seen["predictions_count"]) == (GIVEN, 2)
        assert sorted([len(server.predictions) - before, len(other.predictions)]) == [0, 2]


def test_an_error_of_the_second_prediction_is_the_error_of_the_call(server: Emulator) -> None:
    with pytest.raises(lms.LMStudioServerError, match="the engine gave up"):
        WAYS["chat"](server.address, "fails then")


@pytest.mark.leaf
def test_without_a_choice_of_tools_there_is_one_prediction(server: Emulator) -> None:
    model = ChatLMStudio(model="m", host=server.address)
    assert model.invoke("Hello", **REQUEST, tool_choice="none").text == GIVEN
    assert sent(server, 1) == [(True, True)]
    for prompt in ("call it", "write a call"):
        before = len(server.predictions)
        required = model.invoke(prompt, **REQUEST, tool_choice="required")
        assert [call["name"] for call in required.tool_calls] == ["look"]
        assert sent(server, len(server.predictions) - before) == [(True, False)]


def test_a_required_call_that_does_not_come_leaves_the_response_in_the_format(
    server: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    required = {**REQUEST, "tool_choice": "required", "required_tool_fallback": False}
    assert ChatLMStudio(model="m", host=server.address).invoke("How cold is it?", **required).text == GIVEN
    assert sent(server, 2) == [(True, False), (False, True)]
    assert "a tool call was required" in caplog.text
    with pytest.raises(lms.LMStudioToolCallError, match="a tool call was required"):
        LMStudio(model="m", host=server.address).chat(said("How cold is it?"), **required)


def test_the_first_token_comes_after_a_response_that_is_dropped(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        stats = client.llm.model("m").respond("Hello", **NATIVE).stats
    dropped, delivered = (each.stats for each in server.predictions[-2:])
    assert stats.time_to_first_token_sec == dropped["totalTimeSec"] + delivered["timeToFirstTokenSec"]


def test_the_native_client_sends_both_by_default_as_the_official_sdk_does(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        request = {name: value for name, value in NATIVE.items() if name != "tools_first"}
        assert json.loads(client.llm.model("m").respond("Hello", **request).content)
    assert sent(server, 1) == [(True, True)]


async def test_a_cancelled_call_stops_the_prediction_that_runs(gate: Gate) -> None:
    rule = {"when": {"structured": True}, "then": [{"text": "So "}, AT_THE_GATE]}
    with Emulator([ModelEntry(key="m", rules=(rule, *RULES))], engines=gate.engines()) as server:
        call = asyncio.create_task(ChatLMStudio(model="m", host=server.address).ainvoke("How cold is it?", **REQUEST))
        assert await asyncio.to_thread(gate.reached.wait, 600)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.to_thread(server.wait_for, lambda: server.predictions[-1].state == "ended")
        assert server.predictions[-1].stop_reason == "userStopped"
        assert len(server.predictions) == 2


def test_a_stream_that_is_stopped_in_the_first_prediction_keeps_what_had_arrived(gate: Gate) -> None:
    rule = {"then": [{"text": "It is cold"}, AT_THE_GATE]}
    with (
        Emulator([ModelEntry(key="m", rules=(rule,))], engines=gate.engines()) as server,
        lms.Client(server.address) as client,
    ):
        stream = client.llm.model("m").respond_stream("Hello", **NATIVE)
        stream.start()
        assert gate.reached.wait(600)
        stream.cancel()
        assert [fragment.content for fragment in stream] == ["It", " is", " cold"]
        assert stream.stats.stop_reason == "userStopped"
        assert len(server.predictions) == 1


async def test_a_first_prediction_that_is_repeated_leaves_nothing_behind(gate: Gate) -> None:
    rule = {"when": {"tools": ["look"]}, "then": [{"text": GIVEN[:10]}, AT_THE_GATE, {"text": GIVEN[10:]}]}
    with Emulator([ModelEntry(key="m", rules=(rule, *RULES))], engines=gate.engines()) as server:
        call = asyncio.create_task(ChatLMStudio(model="m", host=server.address).ainvoke("How cold is it?", **REQUEST))
        await asyncio.to_thread(server.wait_for, lambda: any(each.fragments for each in server.predictions), 600)
        await asyncio.to_thread(server.unload, "m")
        gate.open()
        assert (await call).text == GIVEN
        assert sent(server, len(server.predictions)) == [(True, False), (True, False)]
