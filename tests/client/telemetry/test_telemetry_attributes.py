"""Requests and results as attributes of the GenAI conventions; without a server."""

import json
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.telemetry import (
    input_content,
    output_content,
    request_attributes,
    result_attributes,
)
from lmstudio_integrations.protocol.kv_config import stack_of
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types._config_base import wire_keys

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def parameter(config: dict[str, Any], messages: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    stack = stack_of(lms.LlmPredictionConfig.parse(config))
    return {"predictionConfigStack": stack, "history": {"messages": messages or []}}


def result(stop_reason: str, *events: lms.PredictionEvent) -> lms.PredictionResult:
    accumulator = Accumulator()
    accumulator.add_all([*events, lms.PredictionEnd({"stopReason": stop_reason}, {}, {}, {})])
    return accumulator.result()


CALL = (lms.ToolCallStart("c1"), lms.ToolCallEnd("c1", "add", {"a": 1}, None))


def test_only_settings_that_are_set_are_attributes() -> None:
    assert request_attributes(parameter({})) == {}
    assert request_attributes(parameter({"max_tokens": False, "top_p_sampling": 1})) == {"gen_ai.request.top_p": 1.0}
    assert request_attributes(parameter({"presence_penalty": 0.5, "frequency_penalty": 1})) == {
        "gen_ai.request.presence_penalty": 0.5,
        "gen_ai.request.frequency_penalty": 1.0,
    }
    numbers = request_attributes(parameter({"top_k_sampling": 3, "seed": 3, "max_tokens": 3, "temperature": 0}))
    assert {name.rpartition(".")[2]: type(value) for name, value in numbers.items()} == {
        "top_k": float, "seed": int, "max_tokens": int, "temperature": float}  # fmt: skip


@pytest.mark.parametrize(
    ("stop_reason", "events", "expected"),
    [
        ("eosFound", (), "stop"),
        ("stopStringFound", (), "stop"),
        ("maxPredictedTokensReached", (), "length"),
        ("contextLengthReached", (), "length"),
        ("toolCalls", (), "tool_call"),
        ("eosFound", CALL, "tool_call"),
        ("userStopped", CALL, "userStopped"),
        ("aNewReason", (), "aNewReason"),
    ],
)
def test_stop_reasons_are_in_the_words_of_the_conventions(
    stop_reason: str, events: tuple[lms.PredictionEvent, ...], expected: str
) -> None:
    attributes = result_attributes(result(stop_reason, *events))
    assert attributes["gen_ai.response.finish_reasons"] == [expected]


def test_messages_have_the_form_of_the_conventions() -> None:
    call = {"type": "function", "id": "c1", "name": "add", "arguments": {"a": 1}}
    file = {"type": "file", "name": "cat.png", "identifier": "f1", "sizeBytes": 5, "fileType": "image"}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, file, {**file, "fileType": "pdf"}]},
        {"role": "assistant", "content": [{"type": "toolCallRequest", "toolCallRequest": call}]},
        {"role": "tool", "content": [{"type": "toolCallResult", "content": "3", "toolCallId": "c1", "name": "add"}]},
        {"role": "tool", "content": [{"type": "toolCallResult", "content": "ü"}]},
    ]
    attributes = input_content(parameter({"raw_tools": {"type": "toolArray", "tools": [TOOL]}}, messages))
    assert "ü" in attributes["gen_ai.input.messages"]
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "What is this?"},
                {"type": "file", "modality": "image", "file_id": "f1"},
                {"type": "file", "modality": "document", "file_id": "f1"},
            ],
        },
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "add", "arguments": {"a": 1}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "3"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": "ü"}]},
    ]
    assert json.loads(attributes["gen_ai.tool.definitions"]) == [
        {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}
    ]


def test_a_text_to_continue_is_a_message_of_the_user() -> None:
    raw = {"rawPrompt": "Once", "predictionConfigStack": stack_of(lms.LlmPredictionConfig())}
    assert input_content(raw) == {
        "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "Once"}]}]'
    }


def test_a_response_is_one_message_with_its_tool_calls() -> None:
    fragment = lms.LlmPredictionFragment("Let me add.", 3, False, "none", False, None)
    (message,) = json.loads(output_content(result("toolCalls", fragment, *CALL))["gen_ai.output.messages"])
    assert message == {
        "role": "assistant",
        "parts": [
            {"type": "text", "content": "Let me add."},
            {"type": "tool_call", "id": "c1", "name": "add", "arguments": {"a": 1}},
        ],
        "finish_reason": "tool_call",
    }


def test_every_attribute_of_a_setting_stands_on_the_page() -> None:
    page = Path("docs/guides/logs-and-traces.md").read_text(encoding="utf-8")
    names = [row.attribute[0] for row in wire_keys(lms.LlmPredictionConfig).values() if row.attribute]
    shortened = {name: f"`.{name.rpartition('.')[2]}`" for name in names}
    assert names
    assert [name for name in names if f"`{name}`" not in page and shortened[name] not in page] == []
