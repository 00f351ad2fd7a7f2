"""Packets of a later version: one that only says something about the request changes nothing, on every way to generate.

The emulator sends it between all others, and a row of its own makes an event of it, as a new row of the table would.
"""

from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import LMStudioLLM
from tests._adapters.ways import Seen, Way, ways
from tests.client.prediction_frames import Notice, know_notices
from tests.support.served import served

pytestmark = pytest.mark.leaf


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    know_notices(monkeypatch, "unheardOf")


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}
OFFERED: lms.LlmPredictionConfigDict = {"rawTools": {"type": "toolArray", "tools": [TOOL]}}
REQUIRED: lms.LlmPredictionConfigDict = {**OFFERED, "toolChoice": {"type": "generic", "mode": "required"}}
THINKING: dict[str, Any] = {"enable_thinking": True, "response_format": PARAMETERS}

LOOK = '{"name": "look", "arguments": {"city": "Oslo"}}'
TEXT = {"text": "It is cold in Oslo. Take a coat."}
JSON = {"text": '{"city": "Oslo"}'}
THOUGHT = {"reasoning": "Is it Oslo? Yes."}

RESPONSES: dict[str, list[dict[str, Any]]] = {
    "text": [THOUGHT, TEXT],
    "call": [TEXT, {"tool": "look", "arguments": {"city": "Oslo"}}],
    "call in the text": [TEXT, {"text": f"<tool_call>{LOOK}</tool_call>"}],
    "call that does not fit": [{"tool": "look", "arguments": {"town": "Oslo"}}],
    "format": [THOUGHT, JSON],
}
NOTICES = [{"fault": "unknown_packet", "packet": number} for number in range(60)]

REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tools": ({"tools": [TOOL]}, {"config": OFFERED, "rescue_tool_calls": True, "repair_tool_calls": True}),
    "tools and a format": (
        {"tools": [TOOL], "response_format": PARAMETERS},
        {"response_format": PARAMETERS, "config": OFFERED, "tools_first": True},
    ),
    "a required call": (
        {"tools": [TOOL], "tool_choice": "required"},
        {"config": REQUIRED, "required_tool_fallback": True},
    ),
    "a thought before a format": (THINKING, {"config": {"enable_thinking": True}, "response_format": PARAMETERS}),
}
WAYS = ("astream", "stream_chat", "native stream")
CASES = {(request, name): ways(*given)[name] for request, given in REQUESTS.items() for name in WAYS}


def rules(notices: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    by_grammar = [{"text": LOOK}]
    return (
        {"when": {"structured": True, "last": "call one of the tools"}, "then": [*by_grammar, *notices]},
        {"when": {"structured": True}, "then": [JSON, *notices]},
        *({"when": {"last": f"^{name}$"}, "then": [*steps, *notices]} for name, steps in RESPONSES.items()),
    )


plain = served([ModelEntry(key="m", rules=rules([]))])
later = served([ModelEntry(key="m", rules=rules(NOTICES))])


def outcome(server: Emulator, way: Way, prompt: str) -> tuple[Seen, int]:
    """Return what the second call of two delivers, and how many predictions both took."""
    before = len(server.predictions)
    way(server.address, prompt)
    return way(server.address, prompt), len(server.predictions) - before


@pytest.mark.parametrize("prompt", RESPONSES)
@pytest.mark.parametrize("case", CASES, ids=" - ".join)
def test_a_packet_that_tells_nothing_of_the_response_changes_nothing(
    plain: Emulator, later: Emulator, case: tuple[str, str], prompt: str
) -> None:
    assert outcome(later, CASES[case], prompt) == outcome(plain, CASES[case], prompt)


def test_programs_receive_it_where_it_was_sent(later: Emulator) -> None:
    with lms.Client(later.address) as client:
        events: list[Any] = [*client.llm.model("m").respond_stream("text").events()]
    others = [number for number, event in enumerate(events) if type(event) is not Notice]
    assert all(type(events[number - 1]) is Notice for number in others)
    assert LMStudioLLM(model="m", host=later.address).invoke("text").endswith(TEXT["text"])
