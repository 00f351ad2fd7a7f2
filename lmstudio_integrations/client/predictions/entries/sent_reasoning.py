"""What is sent of the thoughts in a conversation: see `client/models/reasoning.py`.

A chat template that has taken thoughts in a small conversation may reject them in a large one. Then the prompt is sent
again without, once, and the instance gets none from then on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lmstudio_integrations.client.models.reasoning import Messages, Sent, own_template, sent_messages, without_thoughts
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioError, LMStudioPromptTemplateError
from lmstudio_integrations.protocol.kv_config import with_changes
from lmstudio_integrations.types.reasoning import REJECTED_REASONING
from lmstudio_integrations.types.results import PredictionEnd


@dataclass(eq=False)
class SentReasoning(Middleware):
    """Writes each thought as text, or omits it."""

    _messages: Messages = field(default=(), init=False)
    _sent: Sent = field(default_factory=lambda: Sent((), own_template()), init=False)
    _is_rejected: bool = field(default=False, init=False)

    def parameter(self, wire: Mapping[str, Any], ask: Ask) -> Flow[Mapping[str, Any]]:
        """Return the parameter with thoughts as the instance gets them."""
        self._messages, stack = wire["history"]["messages"], wire.get("predictionConfigStack")
        if stack is None:  # a generator has no template that could be asked
            self._sent = Sent(without_thoughts(self._messages), own_template())
            return {**wire, "history": {**wire["history"], "messages": self._sent.messages}}
        options = self.plan.options.reasoning
        if self._is_rejected:
            options = options._replace(send=False)
        self._sent = yield from sent_messages(ask.operation, ask.instance, self._messages, options, self.plan.settings)
        return {
            **wire,
            "history": {**wire["history"], "messages": self._sent.messages},
            "predictionConfigStack": with_changes(stack, self._sent.template),
        }

    def repeats_after(self, error: LMStudioError, ask: Ask) -> bool:
        """Whether thoughts were sent, and the template may have rejected them."""
        if not isinstance(error, LMStudioPromptTemplateError) or self._is_rejected:
            return False
        self._is_rejected = self._sent.messages != without_thoughts(self._messages)
        return self._is_rejected

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the end, with what the template does with thoughts."""
        yield from ()
        replay = self._sent.replay
        if self._is_rejected:
            ask.instance.reasoning.is_rejected, replay = True, REJECTED_REASONING
        return batch, end if replay is None else replace(end, stats={**end.stats, "reasoningReplay": replay.by_place})
