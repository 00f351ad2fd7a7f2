"""Cancels a generation that only repeats itself: reasoning, text and tool calls are watched as they arrive.

By default, text and tool calls are watched only where tools are offered: an agent has no reader who would stop it. What
may be structured output is only watched for white space, because a list may have any number of equal items. No timeout
ends a response that repeats itself, because each token resets them. What was delivered stays, and what still arrives is
delivered as well: the server may have ended by itself meanwhile, with a complete tool call.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmstudio_integrations._support.text import beginning
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.predictions.plan import characters_of, tools_in
from lmstudio_integrations.client.predictions.repetition import (
    CALL,
    LOOK_EVERY,
    Repetition,
    Watch,
    is_repeated,
)
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.errors import LMStudioConfigWarning
from lmstudio_integrations.protocol.kv_config import collapse
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import (
    PredictionEnd,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallEvent,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

logger: logging.Logger = logging.getLogger(__name__)

_KEYS = wire_keys(LlmPredictionConfig)

_TEXT, _REASONING, _MARKUP, _CALLS = "text", "reasoning", "markup", "tool calls"
"""The parts of a response that are watched, in words."""

_warned: set[str] = set()
"""The models of which a response was stopped."""


@dataclass(eq=False)
class StopOnRepetition(Middleware):
    """Watches what the server sends in response to an ask."""

    _ask: Ask | None = field(default=None, init=False)
    _unseen: int = field(default=0, init=False)
    """Characters since the last look."""
    _seen: int = field(default=0, init=False)
    """Fragments that were looked at."""
    _watches: dict[str, Watch | None] = field(default_factory=dict[str, Watch | None], init=False)
    """How each part of the response is watched; `None` if it is not."""
    _calls: list[str] = field(default_factory=list[str], init=False)
    """The new names and arguments of tool calls."""
    repetition: tuple[str, Repetition] | None = field(default=None, init=False)
    """Where the ask only repeats itself, and what, so that it was cancelled."""

    def events(self, batch: Events, ask: Ask) -> Events:
        """Return all events; cancel the ask if they end with a repetition."""
        if ask is not self._ask:
            self._begin(ask)
        for event in batch:
            if event.kind == "text":
                self._unseen += len(event.content)
            elif event.kind == "call" and (written := _written_with(event)):
                self._calls.append(written)
                self._unseen += len(written)
        if self._unseen >= LOOK_EVERY and self.repetition is None:
            self._unseen = 0
            self.repetition = self._look(ask)
            if self.repetition is not None and ask.request is not None:
                ask.request.cancel()
        return batch

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the end with the stop reason `repetition`, if that is why the server has stopped."""
        yield from ()
        if ask is not self._ask or self.repetition is None or ask.is_cancelled:
            return batch, end
        if end.has_stats and end.stop_reason != "userStopped":
            return batch, end
        where, repetition = self.repetition
        model = end.model_info.get("modelKey") or ask.instance.identifier
        block = beginning(repetition.block)
        logger.warning("%r: stopped, because the %s only repeated %s", model, where, block)
        if model not in _warned:
            _warned.add(model)
            warn_user(
                f"a response of {model!r} was stopped, because its {where} only repeated {block}; "
                "stop_on_repetition=False never stops one",
                LMStudioConfigWarning,
            )
        stats = {**end.stats, "stopReason": "repetition", "repetitionStart": repetition.start}
        return batch, replace(end, stats=stats)

    def _begin(self, ask: Ask) -> None:
        self._ask, self._unseen, self._seen, self.repetition = ask, 0, 0, None
        self._watches.clear()
        self._calls.clear()

    def _look(self, ask: Ask) -> tuple[str, Repetition] | None:
        """Return where what has arrived since the last look repeats itself, and what."""
        for where, text in self._new_texts(ask):
            if not text:
                continue
            if where not in self._watches:
                self._watches[where] = self._watch(where, text, ask.parameter)
            watch = self._watches[where]
            repetition = None if watch is None else watch.add(text)
            if repetition is not None and not any(
                is_repeated(repetition.block, each) for each in _texts_of(ask.parameter)
            ):
                return where, repetition
        return None

    def _watch(self, where: str, text: str, parameter: Mapping[str, Any]) -> Watch | None:
        """Return how a part of the response is watched, of which this is the beginning."""
        limit = characters_of(self.plan.options.stop_on_repetition)
        settings = collapse(parameter.get("predictionConfigStack") or {"layers": []})
        has_format = settings.get(_KEYS["structured"].key) is not None
        choice = settings.get(_KEYS["tool_choice"].key)
        requires_call = is_object(choice) and choice.get("mode") == "required"
        is_response = where in {_TEXT, _CALLS}
        # Some versions of LM Studio take a response in a format for reasoning.
        if (has_format or requires_call) and (is_response or text.lstrip().startswith(("{", "["))):
            return Watch(limit, copies=False, white_space=True)
        if limit is None and is_response and not tools_in(parameter):
            return None
        return Watch(limit, needs_words=limit is None and is_response, white_space=where == _CALLS)

    def _new_texts(self, ask: Ask) -> Iterator[tuple[str, str]]:
        """Yield the new text, reasoning, markup and tool calls."""
        fragments = ask.raw.fragments[self._seen :]
        self._seen += len(fragments)
        # In this form, because it is done for every token.
        text = [each.content for each in fragments if each.reasoning_type == "none" and not each.is_structural]
        yield _TEXT, "".join(text)
        if len(text) < len(fragments):
            reasoning = [each.content for each in fragments if each.reasoning_type == "reasoning"]
            yield _REASONING, "".join(reasoning)
            tags = [each.content for each in fragments if each.is_structural or each.reasoning_type.endswith("Tag")]
            yield _MARKUP, "".join(tags)
        yield _CALLS, "".join(self._calls)
        self._calls.clear()


def _written_with(event: ToolCallEvent) -> str:
    """Return what the model has written when this event comes; the end of a call repeats it."""
    match event:
        case ToolCallStart():
            return CALL
        case ToolCallName():
            return event.name
        case ToolCallArguments():
            return event.content
        case ToolCallEnd() | ToolCallFailed():
            return ""


def _texts_of(parameter: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that the caller has given: what the model itself has repeated before is no reason to go on."""
    messages: Sequence[dict[str, Any]] = parameter["history"]["messages"] if "history" in parameter else ()
    parts = [part for message in messages if message["role"] != "assistant" for part in message["content"]]
    for text in (parameter.get("rawPrompt"), *(part.get("text") or part.get("content") for part in parts)):
        if text:
            yield text
            yield json.dumps(text, ensure_ascii=False)  # as it is in arguments
