"""Responses that only repeat themselves, on every way to generate: they are stopped, and say so."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LlamaIndexToolCallError, LMStudio
from tests._adapters.ways import METHODS, Way, messages_of, metadata_of, said, seen_of, ways
from tests.client.predictions.legitimate_texts import TEXTS
from tests.support.adapters import covering
from tests.support.gate import AT_THE_GATE, Gate
from tests.support.served import served

LOOP = "Let me think about it again. " * 300
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "write", "parameters": {"type": "object"}}}
OFFERED: dict[str, Any] = {"rawTools": {"type": "toolArray", "tools": [TOOL]}}
NAMED = ("a refrain of 40 lines", "ninety equal items")


def rule(prompt: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"when": {"last": f"^{prompt}$"}, "then": list(steps)}


RULES = (
    rule("loop", {"text": "Oslo. "}, {"text": LOOP}, AT_THE_GATE),
    rule("think", {"text": f"<think>Oslo? {LOOP}"}, AT_THE_GATE),
    rule("write", {"text": "I write. "}, {"tool": "write", "arguments": {"text": LOOP * 4}}, AT_THE_GATE),
    rule("blank call", {"tool": "Place", "malformed": '{"name":' + " " * 9_000}, AT_THE_GATE),
    rule("blank", {"text": '{"name":' + "\n" * 9_000}, AT_THE_GATE),
    rule("for long", {"text": LOOP * 2}),
    *[rule(name, {"text": TEXTS[name][0]}, {"tool": "write", "arguments": {"text": TEXTS[name][0]}}) for name in NAMED],
)
"""The first five only end if they are cancelled."""

WAYS = ways({"tools": [TOOL]}, {"config": OFFERED, "stop_on_repetition": True})
SOME = ("invoke", "astream", "stream_chat", "achat", "native async")
some_ways = pytest.mark.parametrize("way", [WAYS[name] for name in SOME], ids=SOME)
pytestmark = [pytest.mark.leaf, pytest.mark.filterwarnings("ignore:.*stop_on_repetition=False")]

server = served([ModelEntry(key="m", context_length=100_000, rules=RULES)], engines=Gate().engines())


def stops(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "stopped, because the" in message]


@pytest.mark.parametrize(("name", "prompt"), [*covering(SOME, ["loop", "think"]), ("achat", "think")])
def test_a_response_that_repeats_itself_is_stopped(
    server: Emulator, name: str, prompt: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = WAYS[name](server.address, prompt)
    text, reasoning, start = (f"Oslo. {LOOP}", "", 4) if prompt == "loop" else ("", f"Oslo? {LOOP}", 5)
    assert text.startswith(seen["text"])
    assert reasoning.startswith(seen["reasoning"])
    assert len(seen["text"] + seen["reasoning"]) > 8_000
    assert (seen["stop_reason"], seen["repetition_start"]) == ("repetition", start)
    assert "".join(seen["parts"]) == seen["text"]
    assert len(stops(caplog)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("way", "name"), covering(["astream", "achat"], NAMED))
def test_a_text_that_is_no_loop_is_complete(server: Emulator, way: str, name: str) -> None:
    seen = WAYS[way](server.address, name)
    text = TEXTS[name][0]
    assert (seen["text"], seen["calls"]) == (text, [("write", {"text": text})])


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_a_plain_response_is_not_watched(server: Emulator, name: str) -> None:
    assert ways({}, {})[name](server.address, "for long")["text"] == LOOP * 2


@pytest.mark.parametrize(("role", "is_stopped"), [(HumanMessage, False), (AIMessage, True)])
def test_a_block_that_the_caller_repeats_may_be_repeated(
    server: Emulator, role: Any, is_stopped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What the model itself has repeated before is no reason to go on."""
    llm = ChatLMStudio(model="m", host=server.address).bind_tools([TOOL])
    message = llm.invoke([role(LOOP), HumanMessage("for long")])
    assert (message.response_metadata["stop_reason"] == "repetition", bool(stops(caplog))) == (is_stopped, is_stopped)


@some_ways
def test_a_call_with_arguments_that_repeat_themselves_is_cut_off(
    server: Emulator, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        seen = way(server.address, "write")
    except LlamaIndexToolCallError as error:
        assert "the model only repeated itself" in str(error)  # noqa: PT017 - the other framework has invalid calls
    else:
        assert (seen["text"], seen["calls"], seen["repetition_start"]) == ("I write. ", [], 16)
    assert len(stops(caplog)) == 1


class Place(BaseModel):
    """A place."""

    name: str


STRUCTURED: dict[str, Callable[[str], Any]] = {
    "LangChain": lambda host: ChatLMStudio(model="m", host=host).with_structured_output(Place).invoke("blank"),
    "LangChain, a call": lambda host: (
        ChatLMStudio(model="m", host=host).with_structured_output(Place, method="function_calling").invoke("blank call")
    ),
    "LlamaIndex": lambda host: LMStudio(model="m", host=host).structured_predict(Place, PromptTemplate("blank")),
}


@pytest.mark.parametrize("way", STRUCTURED.values(), ids=STRUCTURED)
def test_an_error_about_a_structured_response_names_the_repetition(server: Emulator, way: Callable[[str], Any]) -> None:
    with pytest.raises(lms.LMStudioStructuredOutputError, match="the model only repeated itself") as caught:
        way(server.address)
    assert "max_tokens" not in str(caught.value)


class Places(BaseModel):
    """All places."""

    places: list[Place]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_structured_response_may_have_any_number_of_equal_items(method: Any) -> None:
    places = {"places": [{"name": "The same place"}] * 300}
    step = {"tool": "Places", "arguments": places} if method == "function_calling" else {"text": json.dumps(places)}
    with Emulator([ModelEntry(key="m", context_length=100_000, rules=({"then": [step]},))]) as server:
        llm = ChatLMStudio(model="m", host=server.address, stop_on_repetition=1_000)
        assert llm.with_structured_output(Places, method=method).invoke("Hi") == Places.model_validate(places)


FINISH_REASONS: dict[str, Callable[[Any], Any]] = {
    "LangChain": lambda given: metadata_of(ChatLMStudio(**given).invoke("loop")),
    "LangChain, completion": lambda given: LMStudioLLM(**given).generate(["loop"]).generations[0][0].generation_info,
    "LlamaIndex": lambda given: metadata_of(LMStudio(**given).chat(said("loop"))),
    "LlamaIndex, completion": lambda given: metadata_of(LMStudio(**given).complete("loop")),
}


@pytest.mark.parametrize("reported", FINISH_REASONS.values(), ids=FINISH_REASONS)
def test_it_is_a_finish_reason_of_its_own(server: Emulator, reported: Callable[[Any], Any]) -> None:
    given = {"model": "m", "host": server.address, "stop_on_repetition": 8_000}
    assert reported(given)["finish_reason"] == "repetition"


@pytest.mark.parametrize(("name", "limit"), covering(["invoke", "astream", "chat"], [False, 20_000]))
def test_it_may_be_switched_off(server: Emulator, name: str, limit: Any) -> None:
    make, method = METHODS[name]
    messages, host = messages_of(make, [("user", "for long")]), server.address
    chunks = method(make(model="m", host=host), messages, tools=[TOOL], stop_on_repetition=limit)
    assert seen_of(chunks)["text"] == LOOP * 2
    llm = make(model="m", host=host, stop_on_repetition=limit)
    assert seen_of(method(llm, messages, tools=[TOOL]))["text"] == LOOP * 2


@pytest.mark.parametrize(("make", "value"), covering([ChatLMStudio, LMStudioLLM, LMStudio], [0, -1, "yes", 1.5]))
def test_another_value_is_an_error(make: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="must be True, False or a positive whole number of characters"):
        make(model="m", stop_on_repetition=value)
    assert make(model="m", stop_on_repetition=1).stop_on_repetition == 1
    assert make(model="m").stop_on_repetition is True
