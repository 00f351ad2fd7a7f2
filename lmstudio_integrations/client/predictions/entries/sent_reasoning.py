"""What is sent of the thoughts in a conversation: see `client/models/reasoning.py`.

A chat template that has taken thoughts in a small conversation may reject them in a large one. Then the prompt is sent
again without, once, and the instance gets none from then on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lmstudio_integrations.client.models.reasoning import sent_messages, without_thoughts
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioError, LMStudioPromptTemplateError
from lmstudio_integrations.types.results import PredictionEnd


@dataclass(eq=False)
class SentReasoning(Middleware):
    """Writes each thought as text, or omits it."""

    _is_sent: bool = field(default=False, init=False)
    _is_rejected: bool = field(default=False, init=False)

    def parameter(self, wire: Mapping[str, Any], ask: Ask) -> Flow[Mapping[str, Any]]:
        """Return the parameter with thoughts as the instance gets them."""
        messages, mode = wire["history"]["messages"], self.plan.options.get("send_reasoning", "auto")
        without = sent = without_thoughts(messages)
        is_for_model = "predictionConfigStack" in wire  # a generator has no template that could be asked
        if is_for_model and not self._is_rejected:
            parsing = self.plan.settings.reasoning_parsing
            sent = yield from sent_messages(ask.operation, ask.instance, messages, mode, parsing)
        self._is_sent = sent != without
        return {**wire, "history": {**wire["history"], "messages": sent}}

    def repeats_after(self, error: LMStudioError, ask: Ask) -> bool:
        """Whether thoughts were sent, and the template may have rejected them."""
        is_rejected = self._is_sent and isinstance(error, LMStudioPromptTemplateError)
        self._is_rejected = self._is_rejected or is_rejected
        return is_rejected

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the end, with what the template does with thoughts."""
        yield from ()
        known = ask.instance.reasoning
        known.is_rejected = known.is_rejected or self._is_rejected
        if known.replay is None:
            return batch, end
        return batch, replace(end, stats={**end.stats, "reasoningReplay": known.replay.by_place})
