"""Half of a surrogate pair in a text, as a cut emoji leaves it: every path sends it, and loses no response."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import said, ways
from tests.support.served import served
from tests.support.telemetry import Telemetry, telemetry

__all__ = ["telemetry"]

HALF = "half \ud83d é"
ARRIVED = "half \ufffd é"
"""What a model reads: UTF-8 has no such half."""

SCHEMA: dict[str, Any] = {
    "title": HALF,
    "description": HALF,
    "type": "object",
    "properties": {"name": {"type": "string", "description": HALF}, HALF: {"enum": [HALF, "b"]}},
    "required": ["name"],
}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "description": HALF, "parameters": SCHEMA}}
RULES: list[dict[str, Any]] = [
    {"when": {"last": "^look", "tools": ["look"]}, "then": [{"tool": "look", "arguments": {"name": "Ann"}}]},
]
SOME = ("invoke", "astream_chat", "native stream")
PLAIN_WAYS = ways({}, {})
SCHEMA_WAYS = ways(
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    {"response_format": SCHEMA},
)
TOOL_WAYS = ways({"tools": [TOOL]}, {"config": {"rawTools": {"type": "toolArray", "tools": [TOOL]}}})

server = served([ModelEntry(key="m", rules=tuple(RULES))])


@pytest.mark.parametrize("way", SOME)
def test_in_a_prompt(way: str, server: Emulator) -> None:
    assert ARRIVED in PLAIN_WAYS[way](server.address, HALF)["text"]


@pytest.mark.parametrize("way", SOME)
def test_in_a_schema(way: str, server: Emulator) -> None:
    assert '"name"' in SCHEMA_WAYS[way](server.address, HALF)["text"]


@pytest.mark.parametrize("way", SOME)
def test_in_the_definition_of_a_tool(way: str, server: Emulator) -> None:
    assert TOOL_WAYS[way](server.address, "look")["calls"] == [("look", {"name": "Ann"})]


def langchain(host: str) -> Any:
    call = {"name": "look", "args": {HALF: HALF}, "id": HALF}
    messages = [HumanMessage(HALF), AIMessage(HALF, tool_calls=[call]), ToolMessage(HALF, tool_call_id=HALF)]
    return ChatLMStudio(model="m", host=host).invoke(messages)


def llama_index(host: str) -> Any:
    call = ToolCallBlock(tool_call_id=HALF, tool_name="look", tool_kwargs={HALF: HALF})
    result = ChatMessage(HALF, role="tool", additional_kwargs={"tool_call_id": HALF})
    return LMStudio(model="m", host=host).chat([*said(HALF), ChatMessage(role="assistant", blocks=[call]), result])


def act(host: str) -> Any:
    def look() -> Any:
        """Look."""
        return {HALF: [HALF, dt.date(2026, 1, 2), float("inf")]}

    messages: list[Any] = []
    with lms.Client(host) as client:
        client.llm.model("m").act(f"look {HALF}", [look], on_message=messages.append)
    assert messages[1].content[0].content == '{"half \\ud83d é":["half \\ud83d é","2026-01-02",null]}'
    return messages


@pytest.mark.parametrize("call", [langchain, llama_index, pytest.param(act, marks=pytest.mark.leaf("tool_loop"))])
def test_in_the_call_of_a_tool_and_its_result(call: Callable[[str], Any], server: Emulator) -> None:
    assert call(server.address)


@pytest.mark.leaf("telemetry")
def test_in_what_is_traced(server: Emulator, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmstudio_integrations.client.telemetry import CONTENT_VARIABLE

    monkeypatch.setenv(CONTENT_VARIABLE, "true")
    with lms.Client(server.address) as client:
        client.llm.model("m").respond(HALF, config={"rawTools": {"type": "toolArray", "tools": [TOOL]}})
    values = [value for span in telemetry.spans for value in (span.attributes or {}).values()]
    written = "".join(value for value in values if isinstance(value, str))
    assert "half" in written
    # Exporters write UTF-8, and drop all spans of a batch if one of them fails.
    assert written.encode()
