"""Required calls of a model of 135 million parameters, on a server that ignores every tool choice."""

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models import prediction_settings
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types._json_schemas import ArgumentSchema

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:.*was not trained for tool use"),
]

SETTINGS: dict[str, Any] = {"model": "smollm2-135m-instruct", "temperature": 0, "seed": 1, "max_tokens": 160}
SHORT = {"type": "string", "maxLength": 24}
CITY, NUMBER = {"city": SHORT}, {"type": "number", "minimum": 0, "maximum": 100}
TOOLS = {
    "get_weather": {"type": "object", "properties": {**CITY, "unit": {"enum": ["C", "F"]}}, "required": ["city"]},
    "add": {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]},
    "list_models": {"type": "object", "properties": {}},
    "set_light": {"type": "object", "properties": {"room": SHORT, "on": {"type": "boolean"}}, "required": ["on"]},
    "invite": {
        "type": "object",
        "properties": {"guests": {"type": "array", "items": {"type": "object", "properties": CITY}, "maxItems": 2}},
        "required": ["guests"],
    },
}
QUESTIONS = [
    *("What is the weather in Paris?", "What is 2 plus 40?", "Which models are there?", "Turn the light on.", "Hello"),
    *("Invite Ana and Bo.", "How warm is it in Oslo?", "Sing a song.", "Add 7 to 9.", "Is it dark in the kitchen?"),
    *("Who are you?", "List everything.", "Tell me a story.", "It rains.", "Say yes."),
]


TOOL_DICTS = [{"type": "function", "function": {"name": name, "parameters": each}} for name, each in TOOLS.items()]


@pytest.fixture(scope="module")
def ignoring() -> Iterator[Emulator]:
    with pytest.MonkeyPatch.context() as patch, Emulator() as running:
        patch.setattr(prediction_settings, "tool_choice_of", lambda _settings: "auto")
        yield running


@pytest.fixture(scope="module")
def chat(ignoring: Emulator) -> Any:
    return ChatLMStudio(host=ignoring.address, **SETTINGS).bind_tools(TOOL_DICTS, tool_choice="any")


@pytest.fixture(scope="module")
def llm(ignoring: Emulator) -> LMStudio:
    return LMStudio(host=ignoring.address, **SETTINGS)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_required_call_is_valid(ignoring: Emulator, chat: Any, llm: LMStudio, question: str) -> None:
    called = [(call["name"], call["args"]) for call in chat.invoke(question).tool_calls]
    response = llm.chat([ChatMessage(question)], tools=TOOL_DICTS, tool_choice="required")
    called += [(call.tool_name, call.tool_kwargs) for call in llm.get_tool_calls_from_response(response)]
    assert len(called) == 2
    for name, arguments in called:
        assert ArgumentSchema(TOOLS[name], name).problems(arguments) == []
    assert not any(each.tool_choice == "required" for each in ignoring.predictions)
