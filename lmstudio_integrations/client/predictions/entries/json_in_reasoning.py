"""A response in a format that the server has taken for reasoning: its text is empty, and the reasoning has the JSON.

Versions of LM Studio do that with models whose prompt opens the thought. Such a response gets the JSON as its text.
"""

from dataclasses import dataclass, replace

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.protocol.kv_config import collapse
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEnd
from lmstudio_integrations.types.structured import fits

_FORMAT_KEY = wire_keys(LlmPredictionConfig)["structured"].key


@dataclass(eq=False)
class JsonInReasoning(Middleware):
    """Delivers the reasoning as the text as well, if that is empty and the reasoning fits the schema."""

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the text at the end of the response."""
        yield from ()
        response, stack = ask.response(), ask.parameter["predictionConfigStack"]
        text, structured = response.reasoning_content, collapse(stack).get(_FORMAT_KEY)
        if not text or response.content.strip() or response.tool_calls:
            return batch, end
        if structured is None or not fits(LlmPredictionConfig(structured=structured), text):
            return batch, end
        fragment = LlmPredictionFragment(text.strip(), tokens_count=0)
        return [*batch, fragment], replace(end, stats={**end.stats, "structuredFrom": "reasoning"})
