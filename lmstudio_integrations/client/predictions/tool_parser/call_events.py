"""The events of tool calls that the server did not send: they were read in the text, or written by grammar."""

import json
from typing import Any
from uuid import uuid4

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations.client.predictions.tool_parser.lenient_json import json_of
from lmstudio_integrations.types.results import (
    PredictionEvent,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

_ID_LENGTH = 9
"""Mistral's templates accept no other identifiers."""


def call_events(
    name: str, arguments: dict[str, Any], raw_content: str, call_id: str | None = None
) -> list[PredictionEvent]:
    """Return the events of a complete call, with a new identifier if it has none."""
    call_id, text = call_id or uuid4().hex[:_ID_LENGTH], json_of(arguments)
    return [
        ToolCallStart(call_id),
        ToolCallName(name),
        ToolCallArguments(text),
        ToolCallEnd(call_id, name, json.loads(text), raw_content),
    ]


def failed_call_events(name: str | None, problem: str, raw_content: str) -> list[PredictionEvent]:
    """Return the events of a call that cannot be made."""
    named = [] if name is None else [ToolCallName(name)]
    return [ToolCallStart(uuid4().hex[:_ID_LENGTH]), *named, ToolCallFailed({"title": shortened(problem)}, raw_content)]
