"""The stats of a prediction, its record, and packets that clients require even if an engine yields none."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lmstudio_integrations.emulator.engines.base import Finished, GenerateRequest
from lmstudio_integrations.emulator.engines.generation import progress_details
from lmstudio_integrations.emulator.models.clock import Clock
from lmstudio_integrations.emulator.server.clients import Upload
from lmstudio_integrations.emulator.testing.request_log import PredictionRecord
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import INLINE, FileHandle
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PromptProgress,
    ToolCallArguments,
    ToolCallFailed,
)

_FEWEST_FOR_A_RATE = 2
"""Tokens after the first one that are enough to compute the speed from them alone."""


class StatsCollector:
    """Collects the stats of one prediction from its events.

    Args:
        clock: The time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = self._first = clock.now()
        self._progress: float | None = None
        self._prompt_tokens = 0
        self._predicted_tokens = 0
        self._generating = False
        self._first_tokens = 0
        self.received: Accumulator = Accumulator()
        """The events so far."""

    def start(self) -> None:
        """Record that the prediction has started."""
        self._started = self._first = self._clock.now()

    def add(self, event: PredictionEvent) -> Iterator[PredictionEvent]:
        """Record an event, and yield the packets for it."""
        self.received.add(event)
        if isinstance(event, PromptProgress):
            yield from self._prompt(event)
            return
        if not self._generating:
            yield from self._prompt_done()
            self._generating = True
            self._first = self._clock.now()
            self._first_tokens = _tokens_of(event)
        self._predicted_tokens += _tokens_of(event)
        yield event

    def remaining(self, finished: Finished) -> Iterator[PredictionEvent]:
        """Yield the packets before the last one: for an incomplete tool call, or if no token came."""
        call = self.received.open_call
        if call is not None:
            failed = ToolCallFailed({"title": "The tool call was broken off."}, "".join(call.fragments))
            self.received.add(failed)
            yield failed
        if not self._generating and finished.stop_reason not in {"userStopped", "modelUnloaded"}:
            self._prompt_tokens = self._prompt_tokens or finished.prompt_tokens
            yield from self._prompt_done()

    def stopped(self, reason: str) -> Finished:
        """Return the end of a prediction that was cancelled."""
        return Finished(reason, self._prompt_tokens, self._predicted_tokens)

    def stats(self, finished: Finished) -> dict[str, Any]:
        """Return the stats (docs/protocol.md#prediction-stats); values that are not known are omitted."""
        now = self._clock.now()
        stats: dict[str, Any] = {
            "stopReason": finished.stop_reason,
            "stopString": finished.stop_string,
            "tokensPerSecond": self._rate(finished.predicted_tokens, now),
            "numGpuLayers": -1,
            "timeToFirstTokenSec": self._first - self._started if self._generating else None,
            "totalTimeSec": now - self._started,
            "promptTokensCount": finished.prompt_tokens,
            "predictedTokensCount": finished.predicted_tokens,
            "totalTokensCount": finished.prompt_tokens + finished.predicted_tokens,
        }
        return {name: value for name, value in (stats | dict(finished.stats)).items() if value is not None}

    def _rate(self, predicted: int, now: float) -> float | None:
        """Return the speed since the first event, without its tokens; for a short response, the speed of all tokens."""
        tokens, seconds = predicted - self._first_tokens, now - self._first
        if tokens < _FEWEST_FOR_A_RATE:
            tokens, seconds = predicted, now - self._started
        return tokens / seconds if self._generating and seconds > 0 else None

    def _prompt(self, event: PromptProgress) -> Iterator[PredictionEvent]:
        details = event.details or progress_details(self._prompt_tokens, round(self._prompt_tokens * event.progress))
        self._prompt_tokens = details["totalPromptTokenCount"]
        if self._progress is None and event.progress > 0:
            yield PromptProgress(0, progress_details(self._prompt_tokens, 0))
        self._progress = event.progress
        yield PromptProgress(event.progress, details)

    def _prompt_done(self) -> Iterator[PredictionEvent]:
        """Complete the progress: at least 0 and 1 are sent per prediction (docs/protocol.md#predict-packets)."""
        if self._progress is None:
            yield PromptProgress(0, progress_details(self._prompt_tokens, 0))
        if self._progress != 1:
            self._progress = 1
            yield PromptProgress(1, progress_details(self._prompt_tokens, self._prompt_tokens))


def _tokens_of(event: PredictionEvent) -> int:
    """Return how many tokens an event stands for; a fragment of arguments is about one."""
    if isinstance(event, LlmPredictionFragment):
        return event.tokens_count
    return 1 if isinstance(event, ToolCallArguments) else 0


_TOOL_SETTINGS = {"llm.prediction.tools", "llm.prediction.toolChoice"}

Images = Iterable[tuple[FileHandle, Upload]]


def record_of(
    model: str, client: str, request: GenerateRequest, fields: Mapping[str, Any], images: Images
) -> PredictionRecord:
    """Return the record of a request. `fields` are the requested settings, by their wire keys."""
    return PredictionRecord(
        model=model,
        client=client,
        messages=[
            message | {"content": _content(message["content"])}
            for message in (request.history.to_dict()["messages"] if request.history else ())
        ],
        prompt=request.prompt,
        tools=[tool.to_dict() for tool in request.tools],
        tool_choice=request.tool_choice,
        config=LlmPredictionConfig.describe({key: fields[key] for key in fields.keys() - _TOOL_SETTINGS}),
        images=[_image(handle, upload) for handle, upload in images],
    )


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Return the text if there is nothing else, else the parts; identifiers that contain the file are shortened."""
    if [part["type"] for part in parts] == ["text"]:
        text: str = parts[0]["text"]
        return text
    return [part | {"identifier": _name(part["identifier"])} if part["type"] == "file" else part for part in parts]


def _image(handle: FileHandle, upload: Upload) -> dict[str, Any]:
    return {
        "name": handle.name,
        "identifier": _name(handle.identifier),
        "sizeBytes": len(upload.data),
        "sha256": upload.sha256,
    }


def _name(identifier: str) -> str:
    return INLINE if identifier.startswith(INLINE) else identifier


def outcome_of(received: Accumulator) -> dict[str, Any]:
    """Return the members of a record that are known at the end, even if the prediction was cancelled or failed."""
    received.end = received.end or PredictionEnd({}, {}, {}, {})
    result, calls = received.result(), [call.end for call in received.tool_calls if call.end]
    return {
        "text": result.content,
        "reasoning": result.reasoning_content,
        "tool_calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls],
    }


def written_text(received: Accumulator) -> str:
    """Return everything that the model wrote, including reasoning tags; tool calls follow the rest."""
    calls = [call.end or call.failure for call in received.tool_calls]
    texts = [fragment.content for fragment in received.fragments]
    return "".join([*texts, *(call.raw_content or "" for call in calls if call)])
