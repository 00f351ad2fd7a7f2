"""What is sent of the thoughts in a conversation: see `client/models/reasoning.py`.

A chat template that has taken thoughts in a small conversation may reject them in a large one. Then the prompt is sent
again without, once, and the instance gets none from then on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.reasoning import Messages, Sent, sent_messages, without_thoughts
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.errors import LMStudioError, LMStudioPromptTemplateError
from lmstudio_integrations.protocol.kv_config import with_changes
from lmstudio_integrations.types.reasoning import REJECTED_REASONING
from lmstudio_integrations.types.results import PredictionEnd


@dataclass(eq=False)
class SentReasoning(Middleware):
    """Writes each thought as text, or omits it."""

    _messages: Messages = field(default=(), init=False)
    _sent: Sent = field(default=Sent(()), init=False)
    _is_rejected: bool = field(default=False, init=False)

    def parameter(self, wire: Mapping[str, Any], ask: Ask) -> Flow[Mapping[str, Any]]:
        """Return the parameter with thoughts as the instance gets them."""
        self._messages, options = wire["history"]["messages"], self.plan.options.reasoning
        if self._is_rejected:
            options = options._replace(send=False)
        if "predictionConfigStack" in wire:
            sent = yield from sent_messages(ask.operation, ask.instance, self._messages, options, self.plan.settings)
        else:  # a generator has no template that could be asked
            sent = Sent(without_thoughts(self._messages))
        self._sent, wire = sent, {**wire, "history": {**wire["history"], "messages": sent.messages}}
        if sent.changes is None:
            return wire
        return {**wire, "predictionConfigStack": with_changes(wire["predictionConfigStack"], sent.changes)}

    def repeats_after(self, error: LMStudioError, ask: Ask) -> bool:
        """Whether thoughts were sent, and the template may have rejected them."""
        if not isinstance(error, LMStudioPromptTemplateError) or self._is_rejected:
            return False
        self._is_rejected = self._sent.messages != without_thoughts(self._messages)
        return self._is_rejected

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the end, with what the template does with thoughts."""
        yield from ()
        by_place = self._sent.by_place
        if self._is_rejected:
            ask.instance.reasoning.is_rejected, by_place = True, REJECTED_REASONING
        if by_place is not None:
            end = replace(end, stats={**end.stats, "reasoningReplay": {**by_place}})
        return batch, end
