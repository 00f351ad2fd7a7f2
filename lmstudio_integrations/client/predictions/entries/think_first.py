"""A response in a format that follows a thought, on servers whose grammar leaves none.

Some runtimes of LM Studio apply the grammar of a response format to the whole output, so a model that is asked to
reason cannot. That shows in the first response, which is delivered as it is. From then on the instance gets two
requests: one without the format, which is cancelled when the thought has ended, and one by grammar that continues the
prompt and the thought as a text, which the server has in its prompt cache.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.chat_templates import render
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.middleware import REJECTIONS, Ask, Events, Middleware
from lmstudio_integrations.client.predictions.plan import chat_request_of_text
from lmstudio_integrations.errors import LMStudioCancelledError, LMStudioError
from lmstudio_integrations.protocol.kv_config import with_changes
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    finish_reason,
)

_MOST_MISSES = 2
"""How many free responses in a row may have no thought until it is not tried again: one may be an easy question."""

_WITHOUT_FORMAT = LlmPredictionConfig(structured=None)
_AFTER_THOUGHT = LlmPredictionConfig(reasoning_budget=None)
"""The thought is over, and the rest has no budget for one."""

_REASONING = r"(?i)(?:\b|_)(?:reasoning|think|thought)"
"""What an error is about that rejects a format because the model is to reason. The name of the model says nothing."""


@dataclass(eq=False)
class ThinkFirst(Middleware):
    """Delivers the thought of a response without the format, and the text of one by grammar."""

    _instance: Instance | None = field(default=None, init=False)
    """The instance that gets the request, once that is complete."""
    _is_off: bool = field(default=False, init=False)
    """Whether a request of its own was rejected, so that the caller's takes its place."""
    _free: Ask | None = field(default=None, init=False)
    _thought: list[LlmPredictionFragment] = field(default_factory=list[LlmPredictionFragment], init=False)
    """What stands before the text of the free response, with all tags; empty if that is no complete thought."""
    _is_over: bool = field(default=False, init=False)
    """Whether the text of the free response has begun, so that it was cancelled."""

    def asks_first(self, instance: Instance) -> bool:
        """Whether the grammar leaves no thought on this instance."""
        return instance.reasoning.thinks_first is True and not self._is_off

    def parameter(self, wire: Mapping[str, Any], ask: Ask) -> Flow[Mapping[str, Any]]:
        """Return the parameter without the format, then one that continues the thought by grammar."""
        self._instance = ask.instance
        if ask.asked_by is not self or (self.has_asked and not self._thought):
            return wire
        stack = wire["predictionConfigStack"]
        free = with_changes(stack, _WITHOUT_FORMAT)
        if not self.has_asked:
            return {**wire, "predictionConfigStack": free}
        specifier = wire["modelSpecifier"]
        # As in the free request, whose prompt is in the cache; the server adds the first token to a text.
        prompt = yield from render(ask.operation, specifier, wire["history"], {"omitBosToken": True}, free)
        return chat_request_of_text(specifier, _continue(prompt, self._thought), with_changes(stack, _AFTER_THOUGHT))

    def events(self, batch: Events, ask: Ask) -> Events:
        """Return the thought of the free response, which is cancelled as soon as its text begins."""
        if ask.asked_by is not self or self.has_asked:
            return batch
        delivered: list[PredictionEvent] = []
        for event in batch:
            if event.kind == "progress":
                delivered.append(event)
            elif self._is_over or event.kind != "text":
                continue
            elif event.reasoning_type != "none" or event.is_structural:
                delivered.append(event)
            elif not event.content.strip():  # white space between the tag and the text belongs to the tag
                delivered.append(replace(event, is_structural=True))
            else:
                assert ask.request is not None, "it responds"
                ask.request.cancel()
                self._is_over = True
        self._thought += [event for event in delivered if event.kind == "text"]
        return delivered

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Ask by grammar after the free response; record what the caller's response shows of the grammar."""
        yield from ()
        batch = self.events(batch, ask)
        known = ask.instance.reasoning
        if self.has_asked or (not self._is_over and (end.is_interrupted or _is_cut_off(ask.response()))):
            return batch, end
        if ask.asked_by is self:
            if not _is_complete(self._thought):
                self._thought.clear()
            known.missed_thoughts = 0 if self._thought else known.missed_thoughts + 1
            if known.missed_thoughts >= _MOST_MISSES:
                known.thinks_first = False
            self._free = ask
            return batch, None
        response = ask.response()
        has_thought, has_text = bool(response.reasoning_content.strip()), bool(response.content.strip())
        if known.thinks_first is None and (has_thought or has_text):
            # Where the prompt opens the thought, a text by grammar is taken for one.
            known.thinks_first = not (has_thought and has_text)
        return batch, end

    def repeats_after(self, error: LMStudioError, ask: Ask) -> bool:
        """Whether to think first, as a format was rejected because of it, or to send the caller's request after all."""
        if self._instance is None or type(error) not in REJECTIONS:
            return False
        known = self._instance.reasoning
        if ask.asked_by is not self:
            text = str(error).replace(self._instance.identifier, "")
            is_prevented = known.thinks_first is None and re.search(_REASONING, text) is not None
            known.thinks_first = is_prevented or known.thinks_first
            return is_prevented
        if self.has_asked:
            known.thinks_first = False  # the server cannot render a prompt, or continue a text by grammar
        is_plain = self.has_asked and not self._thought
        self._thought.clear()
        self._is_off = True
        return not is_plain

    def recover(self, error: LMStudioError, ask: Ask) -> tuple[Events, PredictionEnd] | None:
        """Return the end of the thought if the prediction was cancelled after it."""
        end = None if self._free is None else self._free.end
        return ([], end) if end is not None and isinstance(error, LMStudioCancelledError) else None

    def reset(self, ask: Ask) -> None:
        """Forget the instance, and what was received of the free response."""
        self._instance = None
        if not self.has_asked:
            self._thought.clear()
            self._is_over = False


def _is_cut_off(response: PredictionResult) -> bool:
    """Whether a response ended at a limit, or its thought at a stop string."""
    if response.end.stop_reason != "stopStringFound":
        return finish_reason(response) == "length"
    return bool(response.thoughts) and not response.thoughts[-1].end_tag


def _is_complete(thought: list[LlmPredictionFragment]) -> bool:
    """Whether there is a thought, and its end: without that, what follows would be a part of it."""
    has_text = any(each.reasoning_type == "reasoning" and each.content.strip() for each in thought)
    return has_text and any(each.reasoning_type == "reasoningEndTag" for each in thought)


def _continue(prompt: str, thought: list[LlmPredictionFragment]) -> str:
    """Return a prompt with a thought after it. A start tag with which the prompt ends is not written twice."""
    first, *others = thought
    is_open = first.reasoning_type == "reasoningStartTag" and prompt.rstrip().endswith(first.content.strip())
    return prompt + "".join(each.content for each in (others if is_open else thought))
