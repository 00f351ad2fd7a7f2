"""Replaces texts in `logit_bias` by their ids, from the tokenizer of the instance that generates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmstudio_integrations._support.text import beginning, counted
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.queries import tokenize
from lmstudio_integrations.client.predictions.middleware import Ask, Middleware
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.kv_config import with_changes
from lmstudio_integrations.types.config import LlmPredictionConfig


@dataclass(eq=False)
class LogitBias(Middleware):
    """Requests the ids with each ask, because another one may run on another instance."""

    def parameter(self, wire: Mapping[str, Any], ask: Ask) -> Flow[Mapping[str, Any]]:
        """Return the parameter with ids."""
        bias = self.plan.settings.logit_bias or {}
        texts = [token for token in bias if isinstance(token, str)]
        if not texts:
            return wire
        tokens = yield from tokenize(ask.operation, "llm", ask.instance.specifier, texts)
        ids: dict[int | str, int] = {text: _only_id(text, of_text) for text, of_text in zip(texts, tokens, strict=True)}
        by_id = LlmPredictionConfig(logit_bias={ids.get(token, token): value for token, value in bias.items()})
        return {**wire, "predictionConfigStack": with_changes(wire["predictionConfigStack"], by_id)}


def _only_id(text: str, tokens: list[int]) -> int:
    """Return the id of a text.

    Raises:
        LMStudioValueError: If it is not exactly one token.
    """
    if len(tokens) == 1:
        return tokens[0]
    raise LMStudioValueError(
        f"logit_bias names {beginning(text)}, which is {counted(len(tokens), 'token')} of this model, and not one; "
        "name each token by its id, which tokenize() returns"
    )
