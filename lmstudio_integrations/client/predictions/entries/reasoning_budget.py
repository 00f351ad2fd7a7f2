"""Warns once per instance that it reasons far beyond `reasoning_budget`: the server does not know that setting."""

from dataclasses import dataclass, field

from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.errors import LMStudioConfigWarning
from lmstudio_integrations.types.results import LlmPredictionFragment

_TIMES = 2
_TOKENS = 256
"""How far beyond: so many times the budget, and tokens more. A server may write a text that ends the reasoning."""


@dataclass(eq=False)
class ReasoningBudget(Middleware):
    """Counts the tokens of the reasoning. It warns as they arrive, because such reasoning may not end."""

    _ask: Ask | None = field(default=None, init=False)
    _tokens: int = field(default=0, init=False)

    def events(self, batch: Events, ask: Ask) -> Events:
        """Return all events; warn if the reasoning is too long."""
        if ask is not self._ask:
            self._ask, self._tokens = ask, 0
        for event in batch:
            if type(event) is LlmPredictionFragment and event.reasoning_type == "reasoning":
                self._tokens += event.tokens_count if is_count(event.tokens_count) else 0
        budget, known = self.plan.settings.reasoning_budget or 0, ask.instance.reasoning
        if self._tokens > _TIMES * budget + _TOKENS and not known.ignores_budget:
            known.ignores_budget = True
            warn_user(
                f"{ask.instance.identifier!r} ignores reasoning_budget={budget}: it has written {self._tokens} "
                "tokens of it, and goes on; set max_tokens, which limits all of a response, or enable_thinking=False",
                LMStudioConfigWarning,
            )
        return batch
