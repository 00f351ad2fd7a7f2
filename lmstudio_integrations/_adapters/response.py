"""What the adapters of both frameworks report of a finished prediction, besides its text.

Built from the client's `PredictionResult`; `langchain/_responses.py` and `llama_index/_responses.py` put it into the
framework's own objects. Does no I/O but logging.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from lmstudio_integrations._adapters.request_tools import ToolUse
from lmstudio_integrations._support.secrets import redact_members
from lmstudio_integrations._support.text import REMEDIES, shortened
from lmstudio_integrations.client.predictions.plan import lacks_call, log_missing_call
from lmstudio_integrations.types.results import LlmPredictionStats, PredictionEnd, PredictionResult, ToolCallRecord

logger = logging.getLogger(__name__)

_TOKEN_COUNTS = ("prompt_tokens_count", "predicted_tokens_count", "total_tokens_count")
_STATS = {
    str(field.alias): name for name, field in LlmPredictionStats.model_fields.items() if name not in _TOKEN_COUNTS
}
"""The server's statistics by wire name, without the token counts, for which each framework has a place of its own."""


class FinishedResponse:
    """A finished prediction, with its tool calls sorted out.

    Attributes:
        result: The prediction.
        tool_use: How the call uses tools.
        include_confidence: Whether the response is to have the confidence of its fields.
        calls: The complete tool calls that are kept.
        failed: The other tool calls, each with the reason.
    """

    def __init__(self, result: PredictionResult, tool_use: ToolUse, *, include_confidence: bool = False) -> None:
        self.result = result
        self.tool_use = tool_use
        self.include_confidence = include_confidence
        self.calls: list[ToolCallRecord] = []
        self.failed: list[tuple[ToolCallRecord, str]] = []
        for record in result.tool_calls:
            if self.calls and not tool_use.parallel:
                break
            if record.end is not None:
                self.calls.append(record)
            else:
                self.failed.append((record, _reason(record, result)))

    @property
    def only_reasoning(self) -> bool:
        """Whether the model wrote reasoning and nothing else."""
        result = self.result
        return bool(result.reasoning_content) and not (result.content.strip() or self.calls or self.failed)

    @property
    def lacks_call(self) -> bool:
        """Whether a tool call was required and the model began none."""
        return self.tool_use.required and lacks_call(self.result)

    @property
    def failure(self) -> str:
        """Why tool calls failed, by the names of the tools, and what helps."""
        use = self.tool_use
        reasons = [f"{use.own_name(call.name)}: {reason}" if call.name else reason for call, reason in self.failed]
        remedy = REMEDIES.get(str(self.result.end.stats.get("stopReason")))
        hint = f"; the response was cut off: {remedy}" if remedy else ""
        return f"a tool call failed: {'; '.join(reasons)}{hint}"

    @property
    def unoffered(self) -> list[str]:
        """The names in complete tool calls that no tool of the request has."""
        names = self.tool_use.names
        called = [record.end.name for record in self.calls if record.end]
        return [] if names is None else [name for name in called if name not in names]

    @property
    def model(self) -> dict[str, Any]:
        """The model that responded: its name, its host, its instance's identifier and its context length."""
        info = self.result.end.model_info
        return {
            "model_name": info.get("modelKey") or info.get("identifier"),
            "host": self.result.end.host,
            "instance_identifier": info.get("identifier"),
            "context_length": info.get("contextLength"),
        }

    @property
    def stats(self) -> dict[str, Any]:
        """The server's statistics by our names: speed, times, stop reason, cached tokens, speculative decoding."""
        end, cached = self.result.end, self.result.cached_tokens
        named = {_STATS[name]: value for name, value in end.stats.items() if name in _STATS and value is not None}
        if (repaired := named.get("repaired_tool_calls")) is not None:
            named["repaired_tool_calls"] = [self._with_own_name(each) for each in repaired]
        return named if cached is None or not end.has_stats else {**named, "cached_tokens": cached}

    def _with_own_name(self, repaired: Mapping[str, Any]) -> dict[str, Any]:
        call = repaired["replaced_by"]
        return {**repaired, "replaced_by": call and {**call, "name": self.tool_use.own_name(call["name"])}}

    @property
    def confidence(self) -> dict[str, Any] | None:
        """The confidence of the fields of a structured response as JSON; `None` if it is not requested or not known."""
        by_path = self.result.confidence if self.include_confidence else None
        return None if by_path is None else {path: asdict(each) for path, each in by_path.items()}

    def log_anomalies(self, *, missing_call: bool = True) -> None:
        """Log that the response is all reasoning, lacks a required tool call, or has calls that cannot be made.

        Args:
            missing_call: Whether a missing call is logged; otherwise it is the adapter's to report.
        """
        model = self.result.end.model_info.get("modelKey")
        if self.only_reasoning:
            remedy = REMEDIES.get(str(self.result.end.stats.get("stopReason")))
            remedy = f"{remedy}, or set enable_thinking=False" if remedy else "set enable_thinking=False"
            logger.warning("the response of %r is all reasoning; %s", model, remedy)
        elif missing_call and self.lacks_call:
            log_missing_call(self.result.end, self.tool_use.choice)
        if self.failed:
            logger.warning("%r: %s", model, self.failure)
        if self.calls and self.unoffered:
            called, offered = ", ".join(map(repr, self.unoffered)), ", ".join((self.tool_use.names or {}).values())
            details = shortened(called), shortened(offered or "none")
            logger.warning("%r called %s; the tools of the request are: %s", model, *details)


def token_counts(end: PredictionEnd) -> tuple[int, int, int]:
    """Return the tokens of the prompt, of the response, and of both; 0 for what the server did not count."""
    stats = end.stats
    prompt, predicted = stats.get("promptTokensCount") or 0, stats.get("predictedTokensCount") or 0
    return prompt, predicted, stats.get("totalTokensCount") or prompt + predicted


def openai_counts(end: PredictionEnd) -> dict[str, int]:
    """Return the token counts under OpenAI's names."""
    prompt, predicted, total = token_counts(end)
    return {"prompt_tokens": prompt, "completion_tokens": predicted, "total_tokens": total}


def openai_usage(result: PredictionResult) -> dict[str, Any]:
    """Return the token counts under OpenAI's names; those from the cache and of reasoning are parts of them."""
    usage: dict[str, Any] = {**openai_counts(result.end)}
    if result.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": result.cached_tokens}
    if result.reasoning_tokens:
        usage["completion_tokens_details"] = {"reasoning_tokens": result.reasoning_tokens}
    return usage


def new_call_id() -> str:
    """Return an identifier for a tool call that the server gave none."""
    return f"call_{uuid4().hex}"


def _reason(record: ToolCallRecord, result: PredictionResult) -> str:
    """Return why a tool call is not complete, in one line."""
    if record.failure is not None:
        error = record.failure.error
        texts = (error.get("title"), error.get("cause"))
        return ": ".join(shortened(redact_members(text)) for text in texts if isinstance(text, str) and text) or (
            "the call could not be parsed"
        )
    if record is not result.tool_calls[-1]:
        return "the call was not finished"
    return f"the call was cut off ({result.end.stop_reason})"
