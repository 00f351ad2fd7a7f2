"""Required calls of a model of 135 million parameters, on a server that ignores every tool choice."""

from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.models import prediction_settings
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.types._json_schemas import ArgumentSchema

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore:.*was not trained for tool use"),
]

SETTINGS: dict[str, Any] = {"model": "smollm2-135m-instruct", "temperature": 0, "seed": 1, "max_tokens": 64}
MODEL = ModelEntry(key=SETTINGS["model"], weights=SETTINGS["model"], context_length=1024)
SHORT = {"type": "string", "maxLength": 8}
CITY = {"city": SHORT}
TOOLS = {
    "get_weather": {"type": "object", "properties": {**CITY, "unit": {"enum": ["C", "F"]}}, "required": ["city"]},
    "invite": {
        "type": "object",
        "properties": {"guests": {"type": "array", "items": {"type": "object", "properties": CITY}, "maxItems": 2}},
        "required": ["guests"],
    },
}
QUESTIONS = ["What is the weather in Paris?", "Invite Ana and Bo."]
TOOL_DICTS = [{"type": "function", "function": {"name": name, "parameters": each}} for name, each in TOOLS.items()]


@pytest.fixture(scope="module")
def ignoring() -> Iterator[Emulator]:
    with pytest.MonkeyPatch.context() as patch, Emulator([MODEL]) as running:
        patch.setattr(prediction_settings, "tool_choice_of", lambda _settings: "auto")
        yield running


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_required_call_is_valid(ignoring: Emulator, question: str) -> None:
    chat = ChatLMStudio(host=ignoring.address, **SETTINGS).bind_tools(TOOL_DICTS, tool_choice="any")
    (call,) = chat.invoke(question).tool_calls
    assert ArgumentSchema(TOOLS[call["name"]], call["name"]).problems(call["args"]) == []
    assert not any(each.tool_choice == "required" for each in ignoring.predictions)
