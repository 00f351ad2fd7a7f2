"""What every framework reports of a finished prediction: why it ended, and what is missing. Does no I/O but logging."""

import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from lmstudio_integrations._shortening import shortened
from lmstudio_integrations._typeguards import is_count
from lmstudio_integrations.types.results import LlmPredictionFragment, LlmPredictionStats, PredictionEnd

logger = logging.getLogger(__name__)

NOT_FINISHED = "the call was not finished"
NOT_PARSED = "the call could not be parsed"
REQUIRED = (
    "a tool call was required, and the model answered without one; "
    "use a model that was trained for tools, or tool_choice='auto'"
)

_FINISH_REASONS = {
    "eosFound": "stop",
    "stopStringFound": "stop",
    "toolCalls": "tool_calls",
    "maxPredictedTokensReached": "length",
    "contextLengthReached": "length",
}
"""The server's stop reasons in OpenAI's words; others stay as they are."""

_COUNTS = ("prompt_tokens_count", "predicted_tokens_count", "total_tokens_count")
_FIGURES = {str(field.alias): name for name, field in LlmPredictionStats.model_fields.items() if name not in _COUNTS}
"""The server's figures by wire name; the token counts are the framework's to report."""


def finish_reason(end: PredictionEnd, *, called: bool) -> str | None:
    """Return why the prediction ended, in OpenAI's words; a turn with tool calls may end like any other."""
    stop_reason = end.stats.get("stopReason")
    if called and stop_reason == "eosFound":
        return "tool_calls"
    return _FINISH_REASONS.get(str(stop_reason), stop_reason)


def figures(end: PredictionEnd) -> dict[str, Any]:
    """Return the server's figures by our names: speed, times, stop reason, draft statistics."""
    return {_FIGURES[name]: value for name, value in end.stats.items() if name in _FIGURES and value is not None}


def token_counts(end: PredictionEnd) -> tuple[int, int, int]:
    """Return the tokens of the prompt, of the answer, and of both; 0 for what the server did not count."""
    read, written = end.stats.get("promptTokensCount") or 0, end.stats.get("predictedTokensCount") or 0
    return read, written, end.stats.get("totalTokensCount") or read + written


def with_tokens(total: int, fragment: LlmPredictionFragment) -> int:
    """Return a number of tokens with those of one more fragment; a count that cannot be is left out."""
    return total + fragment.tokens_count if is_count(fragment.tokens_count) else total


def warn_without_call(end: PredictionEnd) -> None:
    """Log that a required tool call did not come."""
    logger.warning("%r: %s", end.model_info.get("modelKey"), REQUIRED)


def warn_only_reasoning(end: PredictionEnd) -> None:
    """Log that the model wrote nothing but reasoning."""
    logger.warning(
        "the response of %r is all reasoning; raise max_tokens, or set enable_thinking=False",
        end.model_info.get("modelKey"),
    )


def cut_off(end: PredictionEnd) -> str:
    """Return why a tool call is not whole when the prediction ends in the middle of it."""
    return f"the call was cut off ({end.stats.get('stopReason')})"


def failure(error: Mapping[str, Any]) -> str:
    """Return the text of an error on the wire, in one line."""
    texts = (error.get("title"), error.get("cause"))
    return ": ".join(shortened(text) for text in texts if isinstance(text, str) and text) or NOT_PARSED


def new_call_id() -> str:
    """Return an identifier for a tool call that the server gave none."""
    return f"call_{uuid4().hex}"
