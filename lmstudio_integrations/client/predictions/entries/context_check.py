"""Whether the server has read the whole prompt, and sent what it has written: compares what it reports with that.

Some versions of LM Studio cut a prompt in spite of `stopAtLimit`, or respond to one that does not fit with an empty
stream. So a prompt that may have been cut is counted again, on the instance that responded. Others count thousands of
tokens of a response, and send neither a text nor thoughts.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.chat_templates import render
from lmstudio_integrations.client.models.queries import count_tokens
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.predictions.plan import tools_among
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioError, LMStudioTruncationWarning
from lmstudio_integrations.protocol.errors import context_overflow
from lmstudio_integrations.protocol.kv_config import collapse
from lmstudio_integrations.protocol.requests import TemplateParameters
from lmstudio_integrations.types.results import PredictionEnd

logger: logging.Logger = logging.getLogger(__name__)

_BYTES_PER_TOKEN = 3
"""Fewer than the tokens of nearly all texts have, so that a prompt which may be too long is noticed."""

_NEARLY_FULL = 0.9
"""The share of the context window from which on a server may have cut the prompt to fit."""

_FEWEST_TOKENS_PER_BYTE = 1 / 6
"""Fewer tokens were hardly all that was sent."""

_MARGIN = 1.02
"""A template that is rendered alone may differ by a few tokens from what the server read."""

_PATIENCE = 5.0
"""Seconds that the server has for each of the two requests. The response itself is complete by then."""

_FEWEST_LOST_TOKENS = 100
"""Tokens that a response cannot have without a text: more than stop strings, end tokens and line feeds."""

_CUTTING = ("truncateMiddle", "rollingWindow")


@dataclass(eq=False)
class ContextCheck(Middleware):
    """Compares what the server reports to have read with the prompt."""

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the end, with `droppedTokens` in its statistics if the server has cut the prompt.

        There is a warning as well, unless the user chose a policy that cuts; and one if a whole response is missing.

        Raises:
            LMStudioContextOverflowError: If the response is empty and the prompt does not fit.
        """
        if end.is_interrupted:
            return batch, end
        dropped = yield from self._count_dropped(end, ask)
        written = end.stats.get("predictedTokensCount") or 0
        if written >= _FEWEST_LOST_TOKENS and ask.is_empty:
            warn_user(
                f"the server has counted {written} tokens of a response and sent none of its text: they may be lost "
                "thoughts or a lost tool call; load the model again, update LM Studio and its runtimes, or use another "
                "file of the model",
                LMStudioTruncationWarning,
            )
        return batch, replace(end, stats={**end.stats, "droppedTokens": dropped}) if dropped else end

    def _count_dropped(self, end: PredictionEnd, ask: Ask) -> Flow[int]:
        """Return how many tokens of the prompt were dropped, as far as it can be known; warn about them."""
        limit, read = end.model_info.get("contextLength"), end.stats.get("promptTokensCount") or 0
        if not is_count(limit) or _is_small(len(dumps(ask.parameter).encode()), limit):
            return 0
        settings = collapse(ask.parameter["predictionConfigStack"])
        policy, tools = settings.get("llm.prediction.contextOverflowPolicy"), tools_among(settings)
        is_empty, may_drop = ask.is_empty, policy != "stopAtLimit"
        if not _may_be_cut(ask.parameter, tools, limit, read, may_drop=may_drop, is_empty=is_empty):
            return 0
        try:
            used = yield from _count(ask.operation, ask.parameter, tools)
        except LMStudioError as error:
            logger.debug("the prompt cannot be counted: %s", error)
            return 0
        window = ask.instance.context_window
        details = context_overflow(self.plan.label, used, limit, window and window.maximum)
        is_all_read = used <= read * _MARGIN
        if is_empty and used * _MARGIN > limit and not (is_all_read and used < limit):
            raise details
        read = read or min(used, limit)
        if used <= read * _MARGIN:
            return 0
        if policy not in _CUTTING:
            warn_user(
                f"the server dropped {used - read} of the {used} tokens of the prompt, because "
                f"{end.model_info.get('modelKey')!r} is loaded with a context length of {limit}; {details.suggestion}",
                LMStudioTruncationWarning,
            )
        return used - read


def _is_small(size: int, limit: int) -> bool:
    """Whether so many bytes surely take at most half of the context window."""
    return size / _BYTES_PER_TOKEN <= limit / 2


def _may_be_cut(
    request: Mapping[str, Any], tools: list[Any], limit: int, read: int, *, may_drop: bool, is_empty: bool
) -> bool:
    messages: list[dict[str, Any]] = request["history"]["messages"] if "history" in request else []
    size = len(dumps(request.get("rawPrompt") or messages).encode()) + len(dumps(tools))
    if _is_small(size, limit):
        return False
    # A server that may drop messages may leave room for the response, so that the window is not nearly full.
    is_suspicious = may_drop or is_empty or read >= _NEARLY_FULL * limit or read < _FEWEST_TOKENS_PER_BYTE * size
    # The tokens of an image cannot be counted.
    return is_suspicious and all(part.get("type") != "file" for each in messages for part in each["content"])


def _count(operation: Operation, request: Mapping[str, Any], tools: list[Any]) -> Flow[int]:
    """Return the tokens of the prompt of a prediction on its instance, which is not loaded for that."""
    allowed = {name: operation.timeouts.get(name) for name in ("idle_timeout", "queue_timeout")}
    limits = {name: _PATIENCE if seconds is None else min(seconds, _PATIENCE) for name, seconds in allowed.items()}
    operation = operation.with_timeouts(limits)
    specifier, prompt = request["modelSpecifier"], _raw_prompt(request)
    if prompt is None:
        flags: TemplateParameters = {"toolDefinitions": tools} if tools else {}
        stack = request["predictionConfigStack"]
        prompt = yield from render(operation, specifier, request["history"], flags, stack)
    (tokens,) = yield from count_tokens(operation, "llm", specifier, [prompt])
    return tokens


def _raw_prompt(request: Mapping[str, Any]) -> str | None:
    """Return the text that is to be continued, also by [an older server](docs/protocol.md#legacy-completion)."""
    if "rawPrompt" in request:
        return str(request["rawPrompt"])
    is_legacy = request["predictionConfigStack"]["layers"][-1]["layerName"] == "completeModeFormatting"
    return str(request["history"]["messages"][0]["content"][0]["text"]) if is_legacy else None
