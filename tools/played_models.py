"""An engine whose models do what a method says, for the scenarios of `long_agent.py` and `fifty_turns.py`."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, cast

from lmstudio_integrations.emulator.engines.base import EngineEvent, GenerateRequest, LoadRequest, Progress
from lmstudio_integrations.emulator.engines.scripted import Rule, ScriptedEngine, ScriptedModel
from lmstudio_integrations.emulator.engines.scripted.playback import play
from lmstudio_integrations.types.chat import Message

_FAST = 100
_PAUSE = 0.002
"""Events that are sent as fast as possible, and seconds before each further one, so that a client can keep up."""


class PlayedEngine(ScriptedEngine):
    """Loads models that do what `play` yields."""

    async def load(self, request: LoadRequest, on_progress: Progress) -> ScriptedModel:
        """Load a model."""
        model = await super().load(request, on_progress)
        model.__class__ = _PlayedModel
        assert isinstance(model, _PlayedModel)
        model.engine = self
        return model

    def play(self, request: GenerateRequest) -> Iterator[EngineEvent]:
        """Yield what a model does."""
        raise NotImplementedError


class _PlayedModel(ScriptedModel):
    engine: PlayedEngine

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        for number, event in enumerate(self.engine.play(request)):
            await asyncio.sleep(_PAUSE if number > _FAST else 0)  # a client may cancel
            yield event


def perform(steps: Sequence[Mapping[str, Any]], request: GenerateRequest) -> Iterator[EngineEvent]:
    """Yield the events of the steps of a rule."""
    for event in play([Rule(then=list(steps))], request):
        if event is not None:  # a token that is held back
            yield cast("EngineEvent", event)


def running_turn(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages from the last one of the user on."""
    return messages[max((at for at, message in enumerate(messages) if message.role == "user"), default=0) :]
