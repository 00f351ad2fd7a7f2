"""What requests of middlewares have in common: a response goes before them, they ask for JSON, and may be rejected."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmstudio_integrations.errors import (
    LMStudioPredictionError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.config import LlmPredictionConfig, switched_off
from lmstudio_integrations.types.results import PredictionEnd

REJECTIONS = (LMStudioServerError, LMStudioPredictionError, LMStudioPromptTemplateError, LMStudioUnsupportedError)
"""The errors after which another request may succeed. Those of other classes are not about the request."""


def is_last(end: PredictionEnd) -> bool:
    """Whether no request can follow: the response was interrupted, or it has filled the context window."""
    return end.is_interrupted or end.stats.get("stopReason") == "contextLengthReached"


def only_json(schema: Mapping[str, Any]) -> LlmPredictionConfig:
    """Return what changes the settings of a prediction so that it can be nothing but JSON of a schema."""
    return LlmPredictionConfig(
        structured={"type": "json", "jsonSchema": schema},
        enable_thinking=False,
        raw_tools=None,
        tool_choice=None,
        tool_naming=None,
        tool_call_stop_strings=None,
        stop_strings=None,
        **switched_off("penalty"),  # arguments repeat words of the question
    )


def with_response(messages: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """Return a conversation with the text of a response at its end, if there is any."""
    asked: list[dict[str, Any]] = [*messages]
    if text.strip():
        before: list[dict[str, Any]] = asked.pop()["content"] if asked and asked[-1]["role"] == "assistant" else []
        asked.append({"role": "assistant", "content": [*before, text_part(text)]})
    return asked
