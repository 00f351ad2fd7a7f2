"""A scripted model that passes every row of the card, and servers that are worse in one way each."""

import dataclasses
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.emulator.engines.base import EngineEvent, GenerateRequest, LoadRequest, Progress
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.emulator.engines.scripted.engine import ScriptedModel
from lmstudio_integrations.emulator.engines.scripted.playback import PromptCache
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import Tool
from lmstudio_integrations.types.results import LlmPredictionFragment, PromptProgress
from tests.support.certified.rules import (
    HONESTY,
    REASONING,
    SPEED,
    VISION,
    Rule,
    as_text,
    calling,
    decisions,
    tools,
    with_texts,
)

KEY = "acme/good"

RULES: tuple[Rule, ...] = (*tools(), *REASONING, *SPEED, *HONESTY, *decisions(), *VISION)

Requested = Callable[[GenerateRequest], GenerateRequest]
Events = Callable[[GenerateRequest, EngineEvent], EngineEvent]


class ChangedEngine(ScriptedEngine):
    """Loads scripted models that do otherwise than they are told.

    Args:
        request: Returns the prediction that is made in place of the requested one.
        event: Returns what is sent in place of an event.
        template: Returns what a chat template makes of a rendered conversation.
        forgets: Whether the models have no prompt cache.
    """

    def __init__(
        self,
        request: Requested = lambda request: request,
        event: Events = lambda _request, event: event,
        template: Callable[[str], str] = lambda prompt: prompt,
        *,
        forgets: bool = False,
    ) -> None:
        super().__init__()
        self._request = request
        self._event = event
        self._template = template
        self._forgets = forgets

    async def load(self, request: LoadRequest, on_progress: Progress) -> ScriptedModel:
        """Load a model."""
        model: Any = await super().load(request, on_progress)
        generate, apply = model.generate, model.apply_template

        async def changed(requested: GenerateRequest) -> AsyncIterator[EngineEvent]:
            if self._forgets:
                model._cache = PromptCache()
            async for event in generate(self._request(requested)):
                yield self._event(requested, event)

        async def rendered(history: ChatHistory, offered: Sequence[Tool], config: LlmPredictionConfig) -> str:
            return self._template(await apply(history, offered, config))

        model.generate, model.apply_template = changed, rendered
        return model  # type: ignore[no-any-return]


def entry(rules: Sequence[Rule] = RULES, **fields: Any) -> ModelEntry:
    """Return the good model, or one with other rules."""
    return ModelEntry(key=KEY, rules=tuple(rules), vision=True, **{"tokens_per_second": 2000, **fields})


def _for_each_call(change: Callable[[Rule], list[Rule]]) -> tuple[Rule, ...]:
    """Return the rules with other steps in the place of each tool call."""
    return (*calling(change), *RULES[len(tools()) :])


def _malformed(step: Rule) -> list[Rule]:
    return [{**step, "malformed": "{"}]


def _only_first(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    return tuple({**rule, "then": rule["then"][:1]} for rule in rules)


def _without(**settings: Any) -> ChangedEngine:
    """Return an engine that does not know these settings, or has other values for them."""
    return ChangedEngine(
        lambda request: dataclasses.replace(request, config=request.config.model_copy(update=settings))
    )


def _random_at_temperature(request: GenerateRequest, event: EngineEvent) -> EngineEvent:
    if isinstance(event, LlmPredictionFragment) and request.config.temperature == 1.0:
        return dataclasses.replace(event, content=f" {secrets.token_hex(2)}")
    return event


def _uncounted(_request: GenerateRequest, event: EngineEvent) -> EngineEvent:
    return dataclasses.replace(event, details=None) if isinstance(event, PromptProgress) else event


def _thoughts_in_text(_request: GenerateRequest, event: EngineEvent) -> EngineEvent:
    if isinstance(event, LlmPredictionFragment) and event.reasoning_type != "none":
        return dataclasses.replace(event, reasoning_type="none", is_structural=False)
    return event


def _calls_again(rule: Rule) -> Rule:
    again = [{"tool": "get_weather", "arguments": {"city": "Oslo"}}]
    return {**rule, "then": again} if rule["when"].get("role") == "tool" else rule


class Regression(NamedTuple):
    """A server that is worse than the good one.

    Attributes:
        row: The row in which that must be found.
        model: The fields of the model that differ; `rules` are its rules.
        engine: Its engine.
    """

    row: str
    model: Mapping[str, Any] = {}
    engine: ChangedEngine | None = None


_PROSE: Rule = {"when": {"structured": True}, "then": [{"text": "I would rather not write JSON today."}]}
_FENCED: Rule = {"when": {"structured": True}, "then": [{"text": "```json\n{}\n```"}]}
_CUT: Rule = {"when": {"last": "^Which of these words"}, "then": [{"fault": "truncate"}, {"text": "Red."}]}

REGRESSIONS: dict[str, Regression] = {
    "tool calls stay in the text": Regression("tools", {"rules": _for_each_call(as_text)}),
    "arguments are texts": Regression("tools", {"rules": _for_each_call(with_texts)}),
    "only the first of several calls is made": Regression("tools", {"rules": _only_first(RULES)}),
    "tools are called again after their result": Regression("tools", {"rules": tuple(map(_calls_again, RULES))}),
    "tool calls are malformed": Regression(
        "tools", {"rules": _for_each_call(lambda step: [{**step, "malformed": "{"}])}
    ),
    "formats are ignored": Regression("structure", {"rules": (_PROSE, *RULES)}),
    "JSON comes in a code block": Regression("structure", {"rules": (_FENCED, *RULES)}),
    "long prompts are cut in silence": Regression("window", {"rules": (_CUT, *RULES)}),
    "the context window is smaller than requested": Regression("window", {"loaded_context_length": 2048}),
    "thoughts stay in the text": Regression("reasoning", {}, ChangedEngine(event=_thoughts_in_text)),
    "reasoning cannot be switched off": Regression("reasoning", {}, _without(enable_thinking=True)),
    "the reasoning budget is ignored": Regression("reasoning", {}, _without(reasoning_budget=None)),
    "the chat template drops thoughts": Regression(
        "reasoning", {}, ChangedEngine(template=lambda prompt: prompt.partition("<think>")[0])
    ),
    "the prompt cache is lost": Regression("cache", {}, ChangedEngine(forgets=True)),
    "cached tokens are not reported": Regression("cache", {}, ChangedEngine(event=_uncounted)),
    "responses are half as fast": Regression("speed", {"tokens_per_second": 500}),
    "fewer predictions run at once": Regression("speed", {"slots": 1}),
    "seeds are ignored": Regression("honesty", {}, ChangedEngine(event=_random_at_temperature)),
    "stop strings are ignored": Regression("honesty", {}, _without(stop_strings=None)),
    "max_tokens is ignored": Regression("honesty", {}, _without(max_tokens=None)),
    "log-probabilities are not reported": Regression("honesty", {}, _without(log_probs=None)),
    "logit bias is ignored": Regression("honesty", {}, _without(logit_bias=None)),
    "images are not seen": Regression("vision", {"rules": RULES[: -len(VISION)]}),
}
"""What updates of servers have broken, or may break."""
