"""A scripted engine that records its requests, behind the emulator as well as behind the HTTP server."""

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished, GenerateRequest, LoadRequest, Progress
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, ScriptedModel
from tests.support.requested import Requested, digest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@dataclass(frozen=True, slots=True)
class HttpRequest(GenerateRequest):
    """A request of a protocol that has a field for earlier reasoning.

    Attributes:
        reasoning: That of each assistant message in the history.
    """

    reasoning: Sequence[str] = ()


class RecordingEngine(ScriptedEngine):
    """Records the requests of all its models.

    Attributes:
        embedded: The texts to embed, in order of arrival.
        peak: The largest number of predictions that ran at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[str] = []
        self.peak = 0
        self._requests: list[GenerateRequest] = []
        self._running = 0
        self._cancelled = 0
        self._changed = threading.Condition()

    async def load(self, request: LoadRequest, on_progress: Progress) -> ScriptedModel:
        """Load a model."""
        model = await super().load(request, on_progress)
        model.__class__ = _RecordingModel
        assert isinstance(model, _RecordingModel)
        model.engine = self
        return model

    @property
    def last_request(self) -> Requested:
        """The last request."""
        request = self._requests[-1]
        return Requested(
            config=request.config,
            history=request.history,
            prompt=request.prompt,
            tools=request.tools,
            tool_choice=request.tool_choice,
            images=[digest(image.data) for image in request.images.values()],
            reasoning=request.reasoning if isinstance(request, HttpRequest) else (),
        )

    @property
    def prediction_count(self) -> int:
        """The number of predictions requested."""
        return len(self._requests)

    def was_cancelled(self, timeout: float = 2.0) -> bool:
        """Wait up to `timeout` seconds; return whether a prediction was cancelled."""
        with self._changed:
            return self._changed.wait_for(lambda: self._cancelled > 0, timeout)

    def wait_until_begun(self, timeout: float = 5.0) -> None:
        """Wait until a prediction is requested; fail after `timeout` seconds."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._requests, timeout), "no prediction was requested"

    def begin(self, request: GenerateRequest) -> None:
        """Record a request."""
        with self._changed:
            self._requests.append(request)
            self._running += 1
            self.peak = max(self.peak, self._running)
            self._changed.notify_all()

    def end(self, *, complete: bool) -> None:
        """Record the end of a prediction."""
        with self._changed:
            self._running -= 1
            self._cancelled += not complete
            self._changed.notify_all()


class _RecordingModel(ScriptedModel):
    engine: RecordingEngine

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        self.engine.begin(request)
        complete = False
        try:
            async with aclosing(cast("AsyncGenerator[EngineEvent, None]", super().generate(request))) as events:
                async for event in events:
                    complete = isinstance(event, Finished)
                    yield event
        except Exception:  # the prediction failed, nobody cancelled it
            complete = True
            raise
        finally:
            self.engine.end(complete=complete)

    async def embed(self, text: str) -> list[float]:
        self.engine.embedded.append(text)
        return await super().embed(text)
