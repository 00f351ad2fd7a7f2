"""The confidence of the arguments of tool calls that the model wrote as text, if `log_probs` was set."""

from dataclasses import dataclass, replace
from itertools import accumulate

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.predictions.plan import parameters_of
from lmstudio_integrations.types.confidence import FieldConfidence, confidence_of_arguments
from lmstudio_integrations.types.results import PredictionEnd, ToolCallEnd

_CONTENT = {"none", "reasoning"}


@dataclass(eq=False)
class Confidence(Middleware):
    """Adds it to calls that were read in the text or made by grammar; those that the server sends have no tokens."""

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the events, in which calls have their confidence."""
        yield from ()
        if not ask.raw.tool_calls:
            batch = [
                replace(event, confidence=self._confidence(event, ask)) if type(event) is ToolCallEnd else event
                for event in batch
            ]
        return batch, end

    def _confidence(self, call: ToolCallEnd, ask: Ask) -> dict[str, FieldConfidence] | None:
        schema = parameters_of(self.plan.tools, call.name)
        content = [each for each in ask.raw.fragments if each.reasoning_type in _CONTENT and not each.is_structural]
        at = "".join([each.content for each in content]).rfind(call.raw_content or "")
        if schema is None or at < 0:
            return None
        ends = accumulate(len(each.content) for each in content)
        written = [each for each, end in zip(content, ends, strict=True) if end > at]
        tokens = [token for each in written for token in each.tokens or ()]
        text = "".join([each.content for each in written])
        return confidence_of_arguments(text, tokens, call.arguments or {}, schema)
