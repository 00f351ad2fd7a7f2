"""The same message is sent as the same bytes, wherever it comes from, so each prompt begins with the one before."""

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from llama_index.core.llms import ChatMessage

import lmstudio_integrations as lms
from lmstudio_integrations._adapters import request_messages
from lmstudio_integrations._adapters.request_tools import wire_tools
from lmstudio_integrations.client.models.reasoning import without_thoughts
from lmstudio_integrations.langchain._messages import convert as from_langchain
from lmstudio_integrations.langchain._tools import openai_tools
from lmstudio_integrations.llama_index._messages import convert as from_llama_index
from lmstudio_integrations.types.chat import ChatHistory, WireHistory

CALL = {"name": "first", "args": {"z": 1, "a": None}, "id": "1"}
BLOCK = {"block_type": "tool_call", "tool_call_id": "1", "tool_name": "first"}
LEGACY = {"tool_calls": [{"id": "1", "function": {"name": "first", "arguments": '{ "z" : 1,\n"a":null}'}}]}
CALLING: list[Any] = [
    AIMessage("", tool_calls=[CALL]),
    AIMessage([], tool_calls=[CALL]),
    AIMessage([{"type": "text", "text": ""}], tool_calls=[CALL]),
    AIMessage(["", {"type": "tool_use", "name": "first", "id": "1", "input": CALL["args"]}]),
    AIMessage([{"type": "tool_call", **CALL}], tool_calls=[CALL]),
    ChatMessage.model_validate({"role": "assistant", "blocks": [{**BLOCK, "tool_kwargs": CALL["args"]}]}),
    ChatMessage.model_validate({"role": "assistant", "blocks": [{**BLOCK, "tool_kwargs": '{"z":1, "a":null }'}]}),
    ChatMessage("", role="assistant", additional_kwargs=LEGACY),
    lms.Chat().add_assistant_response("", [{"name": "first", "id": "1", "arguments": CALL["args"]}]),
]
"""One call of a tool without a text."""
SAYING: list[Any] = [
    AIMessage("a\nb"),
    AIMessage(["a\n", "", "b"]),
    AIMessage([{"type": "text", "text": "a\nb", "index": 0}, {"type": "reasoning", "reasoning": "Hm."}]),
    ChatMessage("a\nb", role="assistant"),
    ChatMessage.model_validate({"role": "assistant", "blocks": [{"block_type": "text", "text": t} for t in "ab"]}),
    lms.Chat().add_assistant_response("a\nb"),
]
SILENT: list[Any] = [
    AIMessage(""),
    AIMessage([]),
    AIMessage([{"type": "text", "text": ""}]),
    ChatMessage("", role="assistant"),
    lms.Chat().add_assistant_response(""),
]


def written(message: Any) -> str:
    """Return a message as it is sent, without thoughts."""
    if isinstance(message, AIMessage):
        (sent,) = request_messages.encode(from_langchain([message]), {}).messages
    elif isinstance(message, ChatMessage):
        (sent,) = request_messages.encode(from_llama_index([message]), {}).messages
    else:
        (sent,) = WireHistory.of(ChatHistory(messages=[message])).messages
    return json.dumps(without_thoughts([sent]))


@pytest.mark.parametrize("forms", [CALLING, SAYING, SILENT], ids=["call", "text", "nothing"])
def test_all_forms_of_a_message_are_the_same_bytes(forms: list[Any]) -> None:
    assert len({*map(written, forms)}) == 1


def test_a_tool_is_the_same_bytes_however_its_keys_are_ordered() -> None:
    def first(z: str, a: list[int] | None = None) -> None:
        """Looks."""

    (definition,) = definitions = wire_tools(openai_tools([first]))
    function = definition["function"]
    assert [*definition, *function, *function["parameters"]] == [
        *("type", "function", "name", "description", "parameters", "type", "properties", "required")
    ]
    assert [*function["parameters"]["properties"]] == ["z", "a"]  # as the function has them

    def turned(value: Any) -> Any:
        """Return a schema with all keys in another order, but for the parameters."""
        if isinstance(value, dict):
            pairs = [(key, value[key] if key == "required" else turned(value[key])) for key in value]
            return dict(pairs if "z" in value else pairs[::-1])
        return [*map(turned, value)] if isinstance(value, list) else value

    assert json.dumps(turned(definitions)) != json.dumps(definitions)
    assert json.dumps(wire_tools(openai_tools(turned(definitions)))) == json.dumps(definitions)
