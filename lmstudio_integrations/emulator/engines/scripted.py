"""The scripted engine: a model that does what its rules say, the same every time, and never pretends to be real.

Rules are written in Python or, with the same names, as TOML tables:

```python
Rule(when={"last": "weather", "tools": ["forecast"], "round": 1}, then=[{"tool": "forecast", "arguments": {"day": 1}}])
Rule(when={"role": "tool"}, then=[{"reasoning": "Good news."}, {"text": "It will be {last}."}])
Rule(when={"last": "bad day"}, then=[{"text": "Well, "}, {"wait": 2.0}, {"fault": "drop"}])
Rule(when={"load": True, "round": 1}, then=[{"fault": "out_of_memory"}])
```

Its tokens are words, its vectors bags of words. What it cannot do (follow a grammar, render Jinja) it refuses, unless a
rule answers. The clock is the caller's: pass another `sleep`, and nothing waits.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Self

from lmstudio_integrations.emulator.engines._offload import is_large, is_large_request, is_long, offload, require_length
from lmstudio_integrations.emulator.engines._refusals import not_loaded
from lmstudio_integrations.emulator.engines._scripted import template, words
from lmstudio_integrations.emulator.engines._scripted.play import Play, Stall, play, play_silently
from lmstudio_integrations.emulator.engines._scripted.refusals import ENGINE
from lmstudio_integrations.emulator.engines._scripted.rules import (
    Break,
    Error,
    Reasoning,
    Rule,
    Situation,
    Step,
    Text,
    ToolCall,
    Wait,
    When,
    parse_rules,
)
from lmstudio_integrations.emulator.engines.base import EngineEvent, GenerateRequest, LoadRequest, ModelFacts, Progress
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind
from lmstudio_integrations.types.results import PromptProgress
from lmstudio_integrations.types.tools import Tool

__all__ = [
    "Break",
    "Error",
    "Reasoning",
    "Rule",
    "ScriptedEngine",
    "ScriptedModel",
    "Step",
    "Text",
    "ToolCall",
    "Wait",
    "When",
    "parse_rules",
]

Sleep = Callable[[float], Awaitable[None]]

_PROGRESS_STEPS = 10
_CONTEXT_LENGTH = 32768
_EMBEDDING_LENGTH = 768


class ScriptedEngine:
    """Loads scripted models.

    Args:
        sleep: How to wait for a number of seconds.
    """

    name = ENGINE

    def __init__(self, sleep: Sleep = asyncio.sleep) -> None:
        self._sleep = sleep
        self._loads: Counter[str] = Counter()

    def facts(self, weights: str | None, kind: ModelKind) -> ModelFacts:  # noqa: ARG002 - there are no weights
        """Return what is true of every scripted model; the architecture says that it is one."""
        return ModelFacts(
            architecture=ENGINE,
            max_context_length=_CONTEXT_LENGTH,
            embedding_length=_EMBEDDING_LENGTH if kind == "embedding" else None,
            tools=kind == "llm",
        )

    async def load(self, request: LoadRequest, on_progress: Progress) -> "ScriptedModel":
        """Load a model, in `load_seconds` and with the faults that its rules for a load ask for.

        Raises:
            EngineError: If a rule says so, or the rules are not valid.
        """
        try:
            options = _Options.of(request)
        except LMStudioValueError as error:
            raise not_loaded(str(error)) from error
        self._loads[request.key] += 1
        on_progress(0.0)
        for wait in play_silently(options.rules, Situation(load=True, round=self._loads[request.key])):
            await _wait(wait, self._sleep)
        for step in range(1, _PROGRESS_STEPS + 1):
            await self._sleep(options.load_seconds / _PROGRESS_STEPS)
            on_progress(step / _PROGRESS_STEPS)
        return ScriptedModel(options, self._sleep)


@dataclass(frozen=True, slots=True)
class _Options:
    """What the catalog says of one scripted model."""

    kind: ModelKind
    rules: tuple[Rule, ...]
    pause: float
    load_seconds: float
    embedding_length: int

    @classmethod
    def of(cls, request: LoadRequest) -> Self:
        """Read the options; those that are not set have the engine's defaults."""
        options = request.options
        rate = options.get("tokens_per_second")
        rules = parse_rules(options.get("rules") or ())
        if request.kind == "embedding":
            for rule in rules:
                rule.require_silence("an embedding model")
        return cls(
            kind=request.kind,
            rules=rules,
            pause=1 / rate if rate else 0.0,
            load_seconds=options.get("load_seconds") or 0.0,
            embedding_length=options.get("embedding_length") or _EMBEDDING_LENGTH,
        )


class ScriptedModel:
    """A loaded scripted model.

    Args:
        options: What it does and how fast.
        sleep: How to wait for a number of seconds.
    """

    def __init__(self, options: _Options, sleep: Sleep) -> None:
        self._options = options
        self._sleep = sleep

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        """Yield the events of one prediction; it can be cancelled before every token.

        Raises:
            EngineError: If a rule says so, the prompt does not fit, or no rule answers what cannot be made up.
        """
        begin = partial(_begin, self._options.rules, request)
        for event in await offload(begin, large=is_large_request(request)):
            if isinstance(event, Wait | Stall):
                await _wait(event, self._sleep)
            else:
                await self._pause(event)
                if event is not None:
                    yield event

    async def _pause(self, event: EngineEvent | None) -> None:
        """Keep the pace; without one, let the others have their turn."""
        if self._options.pause and not isinstance(event, PromptProgress):
            await self._sleep(self._options.pause)
        else:
            await asyncio.sleep(0)

    async def embed(self, text: str) -> list[float]:
        """Return the vector of a text.

        Raises:
            EngineError: If a rule says so, or it is too long.
        """
        for wait in play_silently(self._options.rules, Situation(last=text)):
            await _wait(wait, self._sleep)
        require_length(text)
        return await offload(partial(words.embed, text, self._options.embedding_length), large=is_long(text))

    async def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises:
            EngineError: If it is too long.
        """
        require_length(text)
        tokens = await offload(lambda: [words.token_id(word) for word in words.each(text)], large=is_long(text))
        return [words.START_MARK, *tokens, words.END_MARK] if self._options.kind == "embedding" else tokens

    async def apply_template(self, history: ChatHistory, tools: Sequence[Tool], config: LlmPredictionConfig) -> str:
        """Return the conversation in the plain template of `_scripted/template.py`.

        Raises:
            EngineError: If the settings ask for a Jinja template.
        """
        render = partial(template.render, history.messages, tools, config.prompt_template)
        return await offload(render, large=is_large(history.messages, len(tools)))

    async def close(self) -> None:
        """Give everything back, which is nothing."""


def _begin(rules: Sequence[Rule], request: GenerateRequest) -> Play:
    """Return what a model does; what takes long, choosing a rule and reading the prompt, is done."""
    events = play(rules, request)
    return chain([next(events)], events)


async def _wait(wait: Wait | Stall, sleep: Sleep) -> None:
    """Wait as a rule says; a stall is over when the task is cancelled."""
    await (asyncio.Event().wait() if isinstance(wait, Stall) else sleep(wait.wait))
