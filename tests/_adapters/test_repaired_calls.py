"""Tool calls that do not fit the tools, and what becomes of them, on every way to generate."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from llama_index.core.agent.workflow import FunctionAgent

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LlamaIndexToolCallError, LMStudio
from tests._adapters.ways import AGENT_WARNINGS, Seen, Way, said, ways
from tests.support.adapters import covering
from tests.support.served import served
from tests.support.web import PIXEL

pytestmark = pytest.mark.leaf

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "note": {"type": "string"}},
    "required": ["city"],
}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look_up", "parameters": PARAMETERS}}
OTHER: dict[str, Any] = {"type": "function", "function": {"name": "delete_city", "parameters": PARAMETERS}}
OFFERED: lms.LlmPredictionConfigDict = {
    "rawTools": {"type": "toolArray", "tools": [TOOL, OTHER]},
    "contextOverflowPolicy": "stopAtLimit",
}
ON: dict[str, Any] = {"repair_tool_calls": True, "rescue_tool_calls": True, "config": OFFERED}
WAYS = ways({"tools": [TOOL, OTHER]}, ON)
UNREPAIRED = ways(
    {"tools": [TOOL, OTHER], "repair_tool_calls": False}, {**ON, "repair_tool_calls": False, "check_response": False}
)

TEXT = "Let me look there.\n"
OSLO: dict[str, Any] = {"city": "Oslo"}
BERGEN: dict[str, Any] = {"city": "Bergen", "days": 2}
LONG = "Look at the harbour, too. " * 20
RIGHT = ("look_up", {"city": "Oslo", "days": 3})
ANSWER = json.dumps({"name": "look_up", "arguments": {"city": "Oslo", "days": 3}})


def call(arguments: dict[str, Any], name: str = "look_up", **more: Any) -> dict[str, Any]:
    return {"tool": name, "arguments": arguments, **more}


def markup(*texts: str) -> dict[str, Any]:
    return {"text": "\n".join(f"<tool_call>{text}</tool_call>" for text in texts)}


IN_TEXT = json.dumps({"name": "look_up", "arguments": BERGEN})
UNREADABLE = "look_up(city=Oslo)"
CUT = '{"name": "look_up", "arguments": {"city": "Os'


AT_ONCE: dict[str, tuple[list[dict[str, Any]], list[tuple[str, dict[str, Any]]]]] = {
    "a string": ([call({"city": "Oslo", "days": "3"})], [RIGHT]),
    "a bracket": ([call({}, malformed='{"city": "Oslo", "days": 3')], [RIGHT]),
    "a bracket in the text": (
        [markup('{"name": "look_up", "arguments": {"city": "Oslo", "days": 3')],
        [RIGHT],
    ),
    "another tool in the text": ([markup('{"name": "LookUp", "arguments": {"city": "Oslo", "days": "3"}}')], [RIGHT]),
    "the second one": (
        [call(BERGEN), call({"city": "Oslo", "days": "3"}), call(OSLO)],
        [("look_up", BERGEN), RIGHT, ("look_up", OSLO)],
    ),
}
ASKED: dict[str, tuple[list[dict[str, Any]], list[tuple[str, dict[str, Any]]]]] = {
    "a missing one": ([call({"days": 3})], [("look_up", {"days": 3, "city": "Oslo"})]),
    "half a string": ([call({}, malformed='{"city": "Os')], [RIGHT]),
    "half a string in the text": ([markup('{"name": "look_up", "arguments": {"city": "Os')], [RIGHT]),
    "a long one": (
        [call({"city": "Oslo", "days": "three", "note": LONG})],
        [("look_up", {"city": "Oslo", "days": 3, "note": LONG})],
    ),
    "one of three in the text": (
        [markup(IN_TEXT, UNREADABLE, IN_TEXT)],
        [("look_up", BERGEN), RIGHT, ("look_up", BERGEN)],
    ),
    "the last one in a list": ([{"text": f"[TOOL_CALLS][{IN_TEXT}, {CUT}"}], [("look_up", BERGEN), RIGHT]),
    "two": (
        [call({"days": 3}), call(BERGEN), call({"city": "Rome", "days": "x"})],
        [("look_up", {"days": 3, "city": "Oslo"}), ("look_up", BERGEN), ("look_up", {"city": "Rome", "days": 3})],
    ),
}
FITTING = {
    "fits": [call({"city": "12", "days": 3})],
    "no tool": [call(OSLO, "remove_town")],
}


def rule(prompt: str, *steps: dict[str, Any], structured: bool = False) -> dict[str, Any]:
    return {"when": {"last": prompt, "structured": structured}, "then": [*steps]}


BOTH = f"[{ANSWER}, {ANSWER.replace('Oslo', 'Rome')}]"
RULES = (
    rule("as JSON: \\[", {"text": BOTH}, structured=True),
    rule("as JSON", {"text": ANSWER}, structured=True),
    *(
        rule(f"^{prompt}$", {"text": TEXT}, *steps)
        for prompt, steps in {name: steps for name, (steps, _) in {**AT_ONCE, **ASKED}.items()}.items()
    ),
    *(rule(f"^{prompt}$", {"text": TEXT}, *steps) for prompt, steps in FITTING.items()),
)

shared = served([ModelEntry(key="m", rules=RULES, vision=True)])


class Server(NamedTuple):
    """A server that other tests have used as well."""

    address: str
    before: int
    emulator: Emulator

    @property
    def predictions(self) -> Any:
        return self.emulator.predictions[self.before :]


@pytest.fixture
def server(shared: Emulator) -> Server:
    return Server(shared.address, len(shared.predictions), shared)


def servers(*rules: dict[str, Any]) -> Emulator:
    """A server whose model responds in another way to some prompts."""
    return Emulator([ModelEntry(key="m", rules=(*rules, *RULES), vision=True)])


@pytest.mark.parametrize(("name", "prompt"), covering(WAYS, AT_ONCE))
def test_a_call_with_one_reading_is_mended_without_a_request(
    server: Server, name: str, prompt: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = WAYS[name](server.address, prompt)
    assert (seen["calls"], seen["text"], seen["predictions_count"]) == (AT_ONCE[prompt][1], TEXT, None)
    (mended,) = [each["replaced_by"] for each in seen["repaired_tool_calls"]]
    assert (mended["name"], mended["arguments"]) in AT_ONCE[prompt][1]
    assert len(server.predictions) == 1
    assert ["mended 1 tool call" in message for message in caplog.messages].count(True) == 1


@pytest.mark.parametrize("name", WAYS)
def test_a_response_that_is_nothing_but_a_call_needs_no_marker(name: str) -> None:
    text = '{"name": "look_up", "arguments": {"town": "Oslo", "days": 3}}'
    with servers(rule("^plain$", {"text": text})) as server:
        seen = WAYS[name](server.address, "plain")
        assert (seen["calls"][0][0], dict(sorted(seen["calls"][0][1].items())), seen["text"]) == (*RIGHT, "")
        assert len(server.predictions) == 1


NOT_BEGUN = {
    "no marker": '{"name": "look_up", "arguments": {"days": 3}}',
    "a schema in a code block": '```json\n{"name": "look_up", "arguments": {"type": "object", "city": 1}}\n```',
    "a sentence": "<tool_call> opens a call of a tool such as look_up, and it ends with </tool_call>",
    "half a marker": "<tool_call",
    "a name that may be cut": "<tool_call>look_up",
    "no tool": "<tool_call>zzz(city=Oslo)</tool_call>",
}


@pytest.mark.parametrize(("name", "written"), covering(WAYS, NOT_BEGUN))
def test_a_call_that_the_model_has_not_begun_is_never_asked_for(name: str, written: str) -> None:
    with servers(rule("^plain$", {"text": NOT_BEGUN[written]})) as server:
        seen = WAYS[name](server.address, "plain")
        assert (seen["calls"], seen["text"]) == ([], NOT_BEGUN[written])
        assert len(server.predictions) == 1


@pytest.mark.parametrize(("name", "prompt"), covering(WAYS, ASKED))
def test_another_one_is_asked_for_by_grammar(
    server: Server, name: str, prompt: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen, (_, expected) = WAYS[name](server.address, prompt), ASKED[prompt]
    assert (seen["calls"], seen["text"], seen["predictions_count"]) == (expected, TEXT, 2)
    assert "".join(seen["parts"]) == TEXT
    number = 2 if prompt == "two" else 1
    assert len(seen["repaired_tool_calls"]) == number
    first, second = server.predictions
    assert seen["stop_reason"] == first.stats["stopReason"]
    assert seen["prompt"] == first.stats["promptTokensCount"] + second.stats["promptTokensCount"]
    assert sum("mended" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(("name", "prompt"), covering(WAYS, FITTING))
def test_a_call_that_fits_or_that_nothing_is_meant_by_stays(server: Server, name: str, prompt: str) -> None:
    seen, (step,) = WAYS[name](server.address, prompt), FITTING[prompt]
    assert (seen["calls"], seen["text"]) == ([(step["tool"], step["arguments"])], TEXT)
    assert (seen["repaired_tool_calls"], seen["predictions_count"], len(server.predictions)) == (None, None, 1)


def test_the_request_continues_the_prompt_and_fixes_what_fits(server: Server) -> None:
    model = ChatLMStudio(model="m", host=server.address, repeat_penalty=1.3, presence_penalty=0.5, enable_thinking=True)
    model.bind_tools([TOOL, OTHER]).invoke("a long one")
    first, second = server.predictions
    prompt = second.prompt or ""
    assert all(each in prompt for each in ("look_up", "delete_city", "a long one", TEXT))
    assert "days: 'three' is not of type 'integer'" in prompt
    arguments = second.config["structured"]["jsonSchema"]["properties"]["arguments"]
    assert arguments["properties"] == {"city": {"const": "Oslo"}, "days": {"type": "integer"}}
    assert second.config["structured"]["jsonSchema"]["properties"]["arguments"]["required"] == ["city", "days"]
    assert second.config["enableThinking"] is False
    assert not any((second.config[name] or {}).get("checked") for name in ("repeatPenalty", "presencePenalty"))
    assert first.config["enableThinking"] is True


# What is not mended ---------------------------------------------------------------------------------------------------

IGNORING = rule("as JSON", {"text": "I would rather not."}, structured=True)
MISFITTING = rule("as JSON", {"text": '{"name": "look_up", "arguments": {"days": 3}}'}, structured=True)
OTHER_TOOL = rule("as JSON", {"text": '{"name": "delete_city", "arguments": {"city": "Oslo"}}'}, structured=True)
FAILING = rule("as JSON", {"error": "no such grammar"}, structured=True)


def either(way: Way, host: str, prompt: str) -> Seen:
    """What a way delivers, or what LlamaIndex's error about a call that cannot be read has."""
    try:
        return way(host, prompt)
    except LlamaIndexToolCallError as error:
        return Seen(text=error.text, calls=[])


SECONDS = {"ignoring": IGNORING, "misfitting": MISFITTING, "another tool": OTHER_TOOL, "failing": FAILING}
UNMENDED = ("a missing one", "half a string", "half a string in the text")


@pytest.mark.parametrize(("name", "second"), covering(["astream", "chat", "native stream"], SECONDS))
def test_a_call_that_is_not_mended_stays(name: str, second: str) -> None:
    for prompt in UNMENDED:
        with servers(SECONDS[second]) as server:
            seen, expected = (either(ways[name], server.address, prompt) for ways in (WAYS, UNREPAIRED))
            assert (seen["text"], seen["calls"]) == (expected["text"], expected["calls"])
            assert [each["replaced_by"] for each in seen.get("repaired_tool_calls", [{"replaced_by": None}])] == [None]
            assert len(server.predictions) == (4 if second == "failing" else 3)


def test_a_server_that_cannot_continue_a_prompt_is_asked_in_another_way() -> None:
    with servers(rule("The tool look_up: ", {"text": ANSWER}, structured=True), FAILING) as server:
        seen = WAYS["astream_chat"](server.address, "a missing one")
        assert (seen["calls"], seen["text"]) == (ASKED["a missing one"][1], TEXT)
        assert "The tool look_up: " in str(server.predictions[-1].messages[-1])
        assert len(server.predictions[-1].messages) == 3


# Calls that the engine reports as an error ----------------------------------------------------------------------------

PEG = (
    'Engine protocol predict stream returned an error: {"code":500,"message":"The model produced output that does not '
    'match the expected peg-native format","type":"server_error"}. Error Data: n/a, Additional Data: n/a'
)
LOST: dict[str, list[dict[str, Any]]] = {
    "at once": [{"error": PEG}],
    "after a text": [{"text": TEXT}, {"error": "Failed to parse tool call: Extra content after end of tool call"}],
    "after thoughts": [
        {"reasoning": "It is in the north."},
        {"error": "parse error: unexpected end of input in tool call"},
    ],
    "with a word": [{"text": TEXT}, {"error": "Failed to parse input at pos 12: <tool_call>"}],
}
"""What a model does before its engine gives up, by the question."""


def lost(*rules: dict[str, Any]) -> Emulator:
    return servers(*rules, *(rule(f"^{prompt}$", *steps) for prompt, steps in LOST.items()))


@pytest.mark.parametrize(("name", "prompt"), covering(WAYS, LOST))
def test_a_call_that_the_engine_reports_as_an_error_is_asked_for(name: str, prompt: str) -> None:
    text = TEXT if {"text": TEXT} in LOST[prompt] else ""
    with lost() as server:
        seen = WAYS[name](server.address, prompt)
        assert (seen["calls"], seen["text"], seen["predictions_count"]) == ([RIGHT], text, 2)
        assert "".join(seen["parts"]) == text
        assert seen["reasoning"] == ("It is in the north." if prompt == "after thoughts" else "")
        assert prompt in (server.predictions[1].prompt or "")


@pytest.mark.parametrize("name", WAYS)
def test_a_model_that_meant_no_call_answers(name: str) -> None:
    """Engines report stray tags of thoughts in the same words (llama.cpp#27733)."""
    with lost(rule("as JSON", {"text": '{"answer": "It rains."}'}, structured=True)) as server:
        seen = WAYS[name](server.address, "after a text")
        assert (seen["calls"], seen["text"]) == ([], TEXT + "It rains.")
        assert "".join(seen["parts"]) == TEXT + "It rains."
        assert len(server.predictions) == 2


@pytest.mark.parametrize("name", WAYS)
def test_the_calls_before_it_stay_and_the_model_sees_them(name: str) -> None:
    with servers(rule("^second$", call(BERGEN), {"error": PEG})) as server:
        seen = WAYS[name](server.address, "second")
        assert seen["calls"] == [("look_up", BERGEN), RIGHT]
        assert IN_TEXT in (server.predictions[1].prompt or "")


def test_a_required_call_cannot_be_an_answer() -> None:
    with lost() as server:
        model = ChatLMStudio(model="m", host=server.address).bind_tools([TOOL, OTHER], tool_choice="any")
        assert [(each["name"], each["args"]) for each in model.invoke("at once").tool_calls] == [RIGHT]
        schema = server.predictions[1].config["structured"]["jsonSchema"]
        assert [each["properties"]["name"]["const"] for each in schema["anyOf"]] == ["look_up", "delete_city"]


@pytest.mark.parametrize(("name", "prompt"), covering(UNREPAIRED, LOST))
def test_without_repairs_it_is_an_invalid_call(name: str, prompt: str) -> None:
    with lost() as server:
        seen = either(UNREPAIRED[name], server.address, prompt)
        assert (seen["calls"], seen["text"]) == ([], TEXT if {"text": TEXT} in LOST[prompt] else "")
        assert len(server.predictions) == 1


def test_an_invalid_call_says_what_the_engine_said() -> None:
    with lost() as server:
        llm = ChatLMStudio(model="m", host=server.address, repair_tool_calls=False).bind_tools([TOOL])
        message = llm.invoke("at once")
        assert ["peg-native" in str(each["error"]) for each in message.invalid_tool_calls] == [True]
        assert message.response_metadata["model_name"] == "m"
        index = LMStudio(model="m", host=server.address, repair_tool_calls=False)
        with pytest.raises(LlamaIndexToolCallError, match="peg-native"):
            index.chat(said("at once"), tools=[TOOL])


def test_without_tools_it_is_an_error_with_a_remedy() -> None:
    with lost() as server, pytest.raises(lms.LMStudioToolCallError, match="update its runtime"):
        ChatLMStudio(model="m", host=server.address).invoke("at once")


def look_up(city: str, days: int = 1) -> str:
    """Look up a city."""
    return f"{city} is fine for {days} days."


def run_langchain(host: str) -> str:
    agent: Any = create_agent(ChatLMStudio(model="m", host=host), [look_up])
    return str(agent.invoke({"messages": [HumanMessage("at once")]})["messages"][-1].text)


def run_llama_index(host: str) -> str:
    async def run() -> str:
        agent = FunctionAgent(llm=LMStudio(model="m", host=host), tools=[look_up])
        return str(await agent.run("at once"))

    return asyncio.run(run())


@AGENT_WARNINGS
@pytest.mark.parametrize("run", [run_langchain, run_llama_index])
def test_an_agent_goes_on_after_it(run: Callable[[str], str]) -> None:
    with lost(rule("is fine", {"text": "Fine."})) as server:
        assert run(server.address) == "Fine."
        assert "Oslo is fine for 3 days." in str(server.predictions[-1].messages)


def test_act_goes_on_after_it() -> None:
    with lost(rule("is fine", {"text": "Fine."})) as server, lms.Client(server.address) as client:
        model, made = client.llm.model("m"), list[Any]()
        assert model.act("at once", [look_up], on_message=made.append).rounds == 2
        assert "Oslo is fine for 3 days." in str(made[1])
        with pytest.raises(lms.LMStudioToolCallError, match="peg-native"):
            model.act("at once", [look_up], repair_tool_calls=False)


def test_an_image_is_in_the_request_as_well(server: Server) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"}}
    message = HumanMessage([{"type": "text", "text": "a missing one"}, image])
    chain = ChatLMStudio(model="m", host=server.address).bind_tools([TOOL, OTHER])
    assert [call["args"] for call in chain.invoke([message]).tool_calls] == [ASKED["a missing one"][1][0][1]]
    assert "file" in [part["type"] for part in server.predictions[-1].messages[0]["content"]]


def test_a_full_window_has_no_place_for_a_request() -> None:
    way = WAYS["invoke"]
    story = {"text": "It is a long story. " * 100}
    long = [rule(f"^{name}$", *steps, story) for name, (steps, _) in {**ASKED, **AT_ONCE}.items()]
    with Emulator([ModelEntry(key="m", rules=(*long, *RULES), context_length=256)]) as server:
        seen = way(server.address, "a missing one")
        assert (seen["calls"], len(server.predictions)) == ([("look_up", {"days": 3})], 1)
        assert either(way, server.address, "a bracket")["calls"] == []  # it may have been cut off


@pytest.mark.parametrize("prompt", ["a string", "a missing one"])
def test_a_call_keeps_its_identifier(prompt: str) -> None:
    steps = {**AT_ONCE, **ASKED}[prompt][0]
    with servers(rule(f"^{prompt}$", *({**step, "id": "c7"} for step in steps))) as server:
        message = ChatLMStudio(model="m", host=server.address).bind_tools([TOOL, OTHER]).invoke(prompt)
        assert ([each["id"] for each in message.tool_calls], len(message.tool_calls)) == (["c7"], 1)
        assert message.response_metadata["repaired_tool_calls"]


def test_with_a_preset_the_prompt_is_not_continued() -> None:
    """It may set what a text cannot have, such as the prompt template."""
    entry = ModelEntry(key="m", rules=RULES)
    with Emulator([entry], catalog={"preset": [{"identifier": "mine", "temperature": 0.1}]}) as server:
        message = ChatLMStudio(model="m", host=server.address, preset="mine").bind_tools([TOOL]).invoke("a missing one")
        assert [each["args"]["city"] for each in message.tool_calls] == ["Oslo"]
        second = server.predictions[1]
        assert (len(second.messages), second.config["temperature"]) == (3, 0.1)
