"""Cancels a generation that only repeats itself: text, reasoning and arguments are watched as they arrive.

No timeout ends such a response, because each token resets them. What was delivered stays, and what still arrives is
delivered as well: the server may have ended by itself meanwhile, with a complete tool call.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmstudio_integrations._support.text import beginning
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.predictions.repetition import (
    LOOK_EVERY,
    Repetition,
    Watch,
    characters_of,
    is_repeated,
)
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.protocol.kv_config import collapse
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEnd, ToolCallArguments, ToolCallRecord

logger: logging.Logger = logging.getLogger(__name__)

_FORMAT_KEY = wire_keys(LlmPredictionConfig)["structured"].key

_TEXT, _REASONING, _MARKUP, _ARGUMENTS = "text", "reasoning", "markup", "arguments of a tool call"
"""The parts of a response that are watched, in words."""


@dataclass(eq=False)
class StopOnRepetition(Middleware):
    """Watches what the server sends in response to an ask."""

    _ask: Ask | None = field(default=None, init=False)
    _unseen: int = field(default=0, init=False)
    """Characters since the last look."""
    _seen: int = field(default=0, init=False)
    """Fragments that were looked at."""
    _watches: dict[str, Watch] = field(default_factory=dict[str, Watch], init=False)
    _call: ToolCallRecord | None = field(default=None, init=False)
    """The tool call whose arguments are watched, and how many of its fragments were looked at."""
    _seen_of_call: int = field(default=0, init=False)
    repetition: tuple[str, Repetition] | None = field(default=None, init=False)
    """Where the ask only repeats itself, and what, so that it was cancelled."""

    def events(self, batch: Events, ask: Ask) -> Events:
        """Return all events; cancel the ask if they end with a repetition."""
        if ask is not self._ask:
            self._begin(ask)
        unseen = self._unseen
        for event in batch:
            if type(event) is LlmPredictionFragment or type(event) is ToolCallArguments:
                unseen += len(event.content)
        self._unseen = unseen
        if unseen >= LOOK_EVERY and self.repetition is None:
            self._unseen = 0
            self.repetition = self._look(ask)
            if self.repetition is not None and ask.call is not None:
                ask.call.cancel()
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
        logger.warning("%r: stopped, because the %s only repeated %s", model, where, beginning(repetition.block))
        stats = {**end.stats, "stopReason": "repetition", "repetitionStart": repetition.start}
        return batch, replace(end, stats=stats)

    def _begin(self, ask: Ask) -> None:
        self._ask, self._unseen, self._seen, self.repetition = ask, 0, 0, None
        self._watches.clear()
        self._call, self._seen_of_call = None, 0

    def _look(self, ask: Ask) -> tuple[str, Repetition] | None:
        """Return where what has arrived since the last look repeats itself, and what."""
        for where, text in self._new_texts(ask):
            if not text:
                continue
            if where not in self._watches:
                is_json = where == _ARGUMENTS or (where == _TEXT and _has_format(ask.parameter))
                limit = characters_of(self.plan.options["stop_on_repetition"])
                self._watches[where] = Watch(limit, is_json=is_json)
            repetition = self._watches[where].add(text)
            if repetition is not None and not any(
                is_repeated(repetition.block, each) for each in _texts_of(ask.parameter)
            ):
                return where, repetition
        return None

    def _new_texts(self, ask: Ask) -> Iterator[tuple[str, str]]:
        """Yield the new text, reasoning, markup and arguments."""
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
        call = ask.raw.open_call
        if call is not self._call:
            self._call, self._seen_of_call = call, 0
            self._watches.pop(_ARGUMENTS, None)
        if call is not None:
            yield _ARGUMENTS, "".join(call.fragments[self._seen_of_call :])
            self._seen_of_call = len(call.fragments)


def _has_format(parameter: Mapping[str, Any]) -> bool:
    stack = parameter.get("predictionConfigStack")
    return stack is not None and collapse(stack).get(_FORMAT_KEY) is not None


def _texts_of(parameter: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that the caller has given: what the model itself has repeated before is no reason to go on."""
    messages: Sequence[dict[str, Any]] = parameter["history"]["messages"] if "history" in parameter else ()
    parts = [part for message in messages if message["role"] != "assistant" for part in message["content"]]
    for text in (parameter.get("rawPrompt"), *(part.get("text") or part.get("content") for part in parts)):
        if text:
            yield text
            yield json.dumps(text, ensure_ascii=False)  # as it is in arguments
