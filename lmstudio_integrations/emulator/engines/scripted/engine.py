"""The scripted engine: it loads models that follow rules and paces their predictions.

Rules are written in Python or, with the same names, as TOML tables:

```python
from lmstudio_integrations.emulator.engines.scripted import Rule

Rule(when={"last": "weather", "tools": ["forecast"], "round": 1}, then=[{"tool": "forecast", "arguments": {"day": 1}}])
Rule(when={"role": "tool"}, then=[{"reasoning": "Good news."}, {"text": "It will be {last}."}])
Rule(when={"last": "bad day"}, then=[{"text": "Well, "}, {"wait": 2.0}, {"fault": "drop"}])
Rule(when={"load": True, "round": 1}, then=[{"fault": "out_of_memory"}])
```

Tokens are words, vectors are bags of words. Grammars and Jinja templates raise an error unless a rule applies. Pass
another `sleep`, and nothing waits.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lmstudio_integrations.emulator.engines.base import (
    EngineEvent,
    GenerateRequest,
    LoadRequest,
    ModelMetadata,
    Progress,
    load_failed,
)
from lmstudio_integrations.emulator.engines.generation import (
    LONG_TEXT,
    is_large,
    is_large_request,
    run_in_thread,
)
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.emulator.engines.scripted.error_codes import ENGINE
from lmstudio_integrations.emulator.engines.scripted.playback import (
    PromptCache,
    Stall,
    check_template,
    play,
    play_silently,
)
from lmstudio_integrations.emulator.engines.scripted.rules import (
    AppliedRules,
    Rule,
    Situation,
    Wait,
    first_match,
    parse_rules,
    scripted_decisions,
)
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind
from lmstudio_integrations.types.functions import Tool
from lmstudio_integrations.types.results import PromptProgress

Sleep = Callable[[float], Awaitable[None]]

_PROGRESS_STEPS = 10
_CONTEXT_LENGTH = 32768
_SIZE_BYTES = 1_000_000
"""There are no weights, but clients divide by the size of a download."""
_EMBEDDING_LENGTH = 768


class ScriptedEngine:
    """Loads scripted models.

    Args:
        sleep: Waits for a number of seconds.
    """

    name = ENGINE

    def __init__(self, sleep: Sleep = asyncio.sleep) -> None:
        self._sleep = sleep
        self._loads: Counter[str] = Counter()
        self._applied: dict[str, AppliedRules] = {}

    def metadata(self, weights: str | None, kind: ModelKind) -> ModelMetadata:  # noqa: ARG002 - there are no weights
        """Return the metadata of every scripted model; its architecture is `scripted`."""
        return ModelMetadata(
            architecture=ENGINE,
            size_bytes=_SIZE_BYTES,
            max_context_length=_CONTEXT_LENGTH,
            embedding_length=_EMBEDDING_LENGTH if kind == "embedding" else None,
            tools=kind == "llm",
        )

    async def load(self, request: LoadRequest, on_progress: Progress) -> "ScriptedModel":
        """Load a model, in `load_seconds` and with the faults of its rules for loads.

        Raises:
            EngineError: If a rule says so, or the rules are not valid.
        """
        try:
            rules = parse_rules(request.engine_settings.get("rules") or (), request.kind)
        except LMStudioValueError as error:
            raise load_failed(str(error)) from error
        self._loads[request.key] += 1
        on_progress(0.0)
        situation = Situation(load=True, round=self._loads[request.key])
        for wait in play_silently(first_match(rules, situation), situation):
            await _wait(wait, self._sleep)
        seconds = request.engine_settings.get("load_seconds") or 0.0
        for step in range(1, _PROGRESS_STEPS + 1):
            await self._sleep(seconds / _PROGRESS_STEPS)
            on_progress(step / _PROGRESS_STEPS)
        applied = self._applied.setdefault(request.key, AppliedRules(request.key))
        return ScriptedModel(request, rules, self._sleep, applied)


class ScriptedModel:
    """A loaded scripted model.

    Args:
        request: Its kind and its pace.
        rules: Its rules.
        sleep: Waits for a number of seconds.
        applied: How often each rule has applied.
    """

    def __init__(self, request: LoadRequest, rules: tuple[Rule, ...], sleep: Sleep, applied: AppliedRules) -> None:
        rate = request.engine_settings.get("tokens_per_second")
        self._pause = 1 / rate if rate else 0.0
        self._embedding_length = request.engine_settings.get("embedding_length") or _EMBEDDING_LENGTH
        self._kind = request.kind
        self._rules = rules
        self._sleep = sleep
        self._cache = PromptCache()
        self._applied = applied
        self.base_fields: Mapping[str, Any] = {}
        self.chat_template: str = ""

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        """Yield the events of one prediction; it can be cancelled before every token.

        Raises:
            EngineError: If a rule says so, the prompt does not fit, or only a rule could serve the request.
        """
        begin = partial(play, self._rules, request, self._cache, self._applied)
        for event in await run_in_thread(begin, when=is_large_request(request)):
            if isinstance(event, Wait | Stall):
                await _wait(event, self._sleep)
                continue
            # Keep the pace; without one, let other tasks run.
            is_token = not isinstance(event, PromptProgress)
            await (self._sleep(self._pause) if is_token and self._pause else asyncio.sleep(0))
            yield event

    async def embed(self, text: str) -> list[float]:
        """Return the vector of a text.

        Raises:
            EngineError: If a rule says so.
        """
        await self._play_silently(text)
        return await run_in_thread(partial(words.embed, text, self._embedding_length), when=len(text) > LONG_TEXT)

    async def decide(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answers to the questions of a request.

        Raises:
            WireError: If a rule says so.
        """
        decisions = scripted_decisions()
        rule = await self._play_silently(decisions.state_text(request["state"]))
        return await run_in_thread(partial(decisions.decide, request, rule), when=True)

    async def tokenize(self, text: str) -> list[int]:
        tokens = await run_in_thread(
            lambda: [words.token_id(token) for token in words.split(text)], when=len(text) > LONG_TEXT
        )
        return [words.START_TOKEN, *tokens, words.END_TOKEN] if self._kind == "embedding" else tokens

    async def apply_template(self, history: ChatHistory, tools: Sequence[Tool], config: LlmPredictionConfig) -> str:
        """Return the conversation in the plain template of `words.py`.

        Raises:
            EngineError: If a rule says so, or the settings name a Jinja template.
        """

        def render() -> str:
            check_template(self._rules, GenerateRequest(config, history, tools=tools))
            return words.render(history.messages, tools, config.prompt_template)

        return await run_in_thread(render, when=is_large(history.messages, len(tools)))

    async def close(self) -> None:
        """Return at once: a scripted model holds no resources."""

    async def _play_silently(self, text: str) -> Rule | None:
        """Do what a rule says of a text, without writing anything; return the rule."""
        situation = Situation(last=text)
        rule = first_match(self._rules, situation, self._applied)
        for wait in play_silently(rule, situation):
            await _wait(wait, self._sleep)
        return rule


async def _wait(wait: Wait | Stall, sleep: Sleep) -> None:
    """Wait as a rule says; a stall ends when the task is cancelled."""
    await (asyncio.Event().wait() if isinstance(wait, Stall) else sleep(wait.wait))
