"""Tool calls that the server left in the text, and required calls that it did not make, on every way to generate."""

from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.entries.required_tool_fallback import with_definitions
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LlamaIndexToolCallError, LMStudio
from tests._adapters.ways import LLAMA_INDEX, Method, Seen, Way, said, ways
from tests.support.adapters import covering
from tests.support.served import served

pytestmark = pytest.mark.leaf

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}
OTHER: dict[str, Any] = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}
REQUEST: dict[str, Any] = {"tools": [TOOL]}
OFFERED: lms.LlmPredictionConfigDict = {"rawTools": {"type": "toolArray", "tools": [TOOL]}}
NATIVE: dict[str, Any] = {"config": OFFERED, "rescue_tool_calls": True}
OSLO = {"city": "Oslo"}
LOOK: dict[str, Any] = {"tool": "look", "arguments": OSLO}
QUOTED = '{"name": "look", "arguments": {"city": "Oslo"}}'

# `tests/client/predictions/calls_in_text` knows all formats.
FORMATS = {
    "hermes": f"<tool_call>\n{QUOTED}\n</tool_call>",
    "qwen xml": "<tool_call>\n<function=look>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>",
    "harmony": '<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"city": "Oslo"}<|call|>',
}
WHOLE = {"json": QUOTED}
BEFORE = "Let me look there.\n"
MARKED, BROKEN = (
    FORMATS["hermes"],
    {
        "cut off": '<tool_call>{"name": "look", "arguments": {"city": "Os',
        "misfit": '<tool_call>{"name": "look", "arguments": {"town": "Oslo"}}</tool_call>',
    },
)
CUT_OFF = {
    "cut off": BROKEN["cut off"],
    "cut Hermes": '<tool_call>{"name": "functions.look", "arguments": {"city": "Os',
    "cut Kimi": (
        '<|tool_calls_section_begin|><|tool_call_begin|>functions.look:0<|tool_call_argument_begin|>{"city": "Os'
    ),
    "cut Harmony": '<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"city": "Os',
    "cut Gemma": "<tool_code>default_api.look(city='Os",
    "cut Mistral": '[TOOL_CALLS]tools.look[ARGS]{"city": "Os',
}
"""Calls that end within their arguments, with the name of the tool as each family writes it."""

TEXTS = (
    f"Models write `{MARKED}` for a call.",
    "Use <tool_call> and JSON.",
    f"{MARKED} It rains.",
)
REMARK = "I would rather talk about the weather."

AS_SENT: dict[str, Any] = {"repair_tool_calls": False}

WAYS = ways(REQUEST, NATIVE)
WAYS_AS_SENT = ways({**REQUEST, **AS_SENT}, NATIVE)
SOME = ("astream", "chat", "native stream")


def rule(prompt: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"when": {"last": f"^{prompt}$"}, "then": list(steps)}


RULES = (
    *(rule(name, {"text": BEFORE + text}) for name, text in FORMATS.items()),
    *(rule(name, {"text": text}) for name, text in WHOLE.items()),
    *(rule(name, {"text": BEFORE + text}) for name, text in {**BROKEN, **CUT_OFF}.items()),
    *(rule(f"text {number}", {"text": text}) for number, text in enumerate(TEXTS)),
    rule("call", LOOK),
    rule("remark", {"text": REMARK}),
)

server = served([ModelEntry(key="m", rules=RULES)])

fresh = served([ModelEntry(key="m", rules=RULES)], scope="function")
"""A server whose model has not missed a call."""


# Calls in the text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "prompt"), covering(WAYS, [*FORMATS, *WHOLE]))
def test_a_call_in_the_text_is_a_call(
    server: Emulator, name: str, prompt: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen, text = WAYS[name](server.address, prompt), BEFORE if prompt in FORMATS else ""
    assert (seen["calls"], seen["text"], seen["rescued_tool_calls"]) == ([("look", OSLO)], text, 1)
    assert "".join(seen["parts"]) == text
    assert ["left in the text" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize(("name", "number"), covering(WAYS, range(len(TEXTS))))
def test_what_is_no_call_stays_text(server: Emulator, name: str, number: int, caplog: pytest.LogCaptureFixture) -> None:
    seen = WAYS[name](server.address, f"text {number}")
    assert (seen["calls"], seen["text"], seen["rescued_tool_calls"]) == ([], TEXTS[number], None)
    assert "".join(seen["parts"]) == TEXTS[number]
    assert not caplog.messages


@pytest.mark.parametrize("name", SOME)
def test_a_call_that_does_not_fit_is_one_for_callers_who_check_calls(server: Emulator, name: str) -> None:
    seen = WAYS_AS_SENT[name](server.address, "misfit")
    if "native" in name:
        assert (seen["calls"], seen["text"], seen["rescued_tool_calls"]) == ([], BEFORE + BROKEN["misfit"], None)
    else:
        assert (seen["calls"], seen["text"], seen["rescued_tool_calls"]) == ([("look", {"town": "Oslo"})], BEFORE, 1)


@pytest.mark.parametrize("prompt", CUT_OFF)
@pytest.mark.parametrize("streamed", [False, True])
def test_langchain_gets_a_call_that_is_cut_off_as_an_invalid_one(server: Emulator, streamed: bool, prompt: str) -> None:
    model = ChatLMStudio(model="m", host=server.address, streaming=streamed, **AS_SENT).bind_tools([TOOL])
    message = model.invoke(prompt)
    (invalid,) = message.invalid_tool_calls
    assert invalid["name"] == "look"
    assert message.response_metadata["tool_call_errors"] == ["the call was cut off"]


@pytest.mark.parametrize("prompt", CUT_OFF)
@pytest.mark.parametrize("method", LLAMA_INDEX.values(), ids=LLAMA_INDEX)
def test_llama_index_raises_an_error_about_it(server: Emulator, method: Method, prompt: str) -> None:
    with pytest.raises(LlamaIndexToolCallError, match="the call was cut off"):
        method(LMStudio(model="m", host=server.address, **AS_SENT), said(prompt), **REQUEST)


@pytest.mark.parametrize(
    "settings",
    [{"rescue_tool_calls": False}, {"tool_choice": "none"}, {"tools": []}],
    ids=str,
)
def test_it_is_only_done_where_calls_are_expected(server: Emulator, settings: dict[str, Any]) -> None:
    for name in ("ainvoke", "stream_chat"):
        seen = ways({**REQUEST, **settings}, {})[name](server.address, "hermes")
        assert (seen["calls"], seen["text"]) == ([], BEFORE + MARKED)


# Required calls -------------------------------------------------------------------------------------------------------

REQUIRED: dict[str, Any] = {"tools": [TOOL, OTHER], "tool_choice": "look"}
NATIVELY_REQUIRED: dict[str, Any] = {
    "config": {**OFFERED, "toolChoice": {"type": "generic", "mode": "required"}},
    "required_tool_fallback": True,
}
FORCING = ways(REQUIRED, NATIVELY_REQUIRED)


@pytest.mark.parametrize("way", FORCING.values(), ids=FORCING)
def test_a_required_call_that_does_not_come_is_requested_by_grammar(fresh: Emulator, way: Way) -> None:
    seen = way(fresh.address, "remark")
    ((name, arguments),) = seen["calls"]
    assert (name, set(arguments)) == ("look", {"city"})
    assert (seen["text"], seen["forced_by_grammar"], seen["predictions_count"]) == (REMARK, True, 2)
    assert "".join(seen["parts"]) == REMARK
    first, second = fresh.predictions
    assert seen["prompt"] == first.stats["promptTokensCount"] + second.stats["promptTokensCount"]
    assert (len(first.tools), second.tools) == (1, [])
    assert second.config["enableThinking"] is False
    definitions, remark, instruction = second.messages
    assert "look" in str(definitions)
    assert "other" not in str(definitions)
    assert REMARK in str(remark)
    assert "Now call one of the tools" in str(instruction)


def test_after_two_misses_the_grammar_comes_first_until_the_model_calls_again(
    fresh: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    model = ChatLMStudio(model="m", host=fresh.address)
    required, free = model.bind_tools([TOOL], tool_choice="any"), model.bind_tools([TOOL])

    def predictions(chain: Any, prompt: str) -> int:
        before = len(fresh.predictions)
        assert chain.invoke(prompt).tool_calls
        return len(fresh.predictions) - before

    assert [predictions(required, "remark") for _ in range(4)] == [2, 2, 1, 1]
    assert caplog.text.count("requested by grammar at once") == 1
    assert predictions(free, "call") == 1
    assert [predictions(required, "remark") for _ in range(3)] == [2, 2, 1]
    fresh.unload("m")
    assert predictions(required, "remark") == 2


def test_without_the_fallback_a_missing_call_is_what_it_was(fresh: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    model = ChatLMStudio(model="m", host=fresh.address, required_tool_fallback=False)
    assert model.bind_tools([TOOL], tool_choice="any").invoke("remark").tool_calls == []
    assert "a tool call was required" in caplog.text
    with pytest.raises(LlamaIndexToolCallError, match="a tool call was required"):
        LMStudio(model="m", host=fresh.address).chat(said("remark"), **REQUIRED, required_tool_fallback=False)
    assert len(fresh.predictions) == 2


def test_a_call_by_grammar_that_is_cut_off_is_no_call(fresh: Emulator) -> None:
    required = ChatLMStudio(model="m", host=fresh.address, max_tokens=4).bind_tools([TOOL], tool_choice="any")
    message = required.invoke("remark")
    assert message.tool_calls == []
    assert "no complete call (maxPredictedTokensReached)" in message.response_metadata["tool_call_errors"][0]


def test_a_server_that_ignores_the_grammar_loses_nothing() -> None:
    with Emulator([ModelEntry(key="m", rules=({"when": {"last": ""}, "then": [{"text": REMARK}]},))]) as server:
        required = ChatLMStudio(model="m", host=server.address).bind_tools([TOOL], tool_choice="any")
        for _ in range(3):
            message = required.invoke("anything")
            assert (message.text, message.tool_calls, message.invalid_tool_calls) == (REMARK, [], [])
        assert [len(each.tools) for each in server.predictions] == [1, 0, 1, 0, 0]


@pytest.mark.parametrize("way", [FORCING[name] for name in SOME], ids=SOME)
def test_a_second_prediction_that_fails_loses_nothing(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    failing = {"when": {"structured": True}, "then": [{"error": "no such grammar"}]}
    with Emulator([ModelEntry(key="m", rules=(failing, *RULES))]) as server:
        for _ in range(3):  # the grammar never comes first
            try:
                seen = way(server.address, "remark")
            except LlamaIndexToolCallError as error:
                seen = Seen(text=error.text, calls=[], parts=[])
            assert (seen["text"], seen["calls"]) == (REMARK, [])
            assert "".join(seen["parts"]) in {REMARK, ""}  # an error has no parts
        assert len(server.predictions) == 6
    assert "the second prediction failed" in caplog.text


@pytest.mark.parametrize("way", [FORCING[name] for name in SOME], ids=SOME)
@pytest.mark.parametrize("prompt", BROKEN)
def test_a_broken_call_is_none_where_one_is_required(fresh: Emulator, way: Way, prompt: str) -> None:
    seen = way(fresh.address, prompt)
    assert [name for name, _ in seen["calls"]] == ["look"]
    assert (seen["text"], seen["forced_by_grammar"]) == (BEFORE + BROKEN[prompt], True)


def test_a_stream_that_is_cancelled_between_the_predictions_keeps_the_first(fresh: Emulator) -> None:
    with lms.Client(fresh.address) as client:
        stream, shown = client.llm.model("m").respond_stream("remark", **NATIVELY_REQUIRED), ""
        for fragment in stream:
            shown += fragment.content
            if shown == REMARK:
                stream.cancel()
        assert stream.result().content == shown == REMARK
    assert len(fresh.predictions) == 1


HISTORIES: list[tuple[str, str, str]] = [
    ("user", "", "user"),
    ("user", "No", "user assistant user"),
    ("user assistant", "go", "user assistant user"),
    ("user assistant tool", "", "user assistant tool user"),
    ("system", "", "system user"),
    ("assistant", "", "user assistant user"),
    ("", "", "user"),
]
"""The roles of a conversation, the text of the first response, and the roles of the request by grammar."""


@pytest.mark.parametrize(("history", "text", "roles"), HISTORIES)
def test_the_request_by_grammar_follows_on_any_conversation(history: str, text: str, roles: str) -> None:
    given: list[Any] = [{"role": role, "content": [{"type": "text", "text": "Go on"}]} for role in history.split()]
    messages = with_definitions(given, text, [TOOL])
    assert " ".join(message["role"] for message in messages) == roles
    # What is the same each time comes first.
    assert any('"look"' in part["text"] for part in messages[0]["content"])
    assert "Now call one of the tools" in messages[-1]["content"][-1]["text"]
    assert all(message["content"] == [{"type": "text", "text": "Go on"}] for message in given)


# The tool loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["qwen xml", "remark"])
async def test_act_makes_these_calls(fresh: Emulator, prompt: str) -> None:
    looked: list[str] = []

    def look(city: str) -> str:
        """Look out of the window."""
        looked.append(city)
        return "rain"

    given: dict[str, Any] = {"config": NATIVELY_REQUIRED["config"] | {"rawTools": None}, "max_prediction_rounds": 2}
    async with lms.AsyncClient(fresh.address) as client:
        model = await client.llm.model("m")
        await model.act(prompt, [look], **given)
        assert len(looked) == 1
        await model.act(prompt, [look], **given, rescue_tool_calls=False, required_tool_fallback=False)
    assert len(looked) == 1
