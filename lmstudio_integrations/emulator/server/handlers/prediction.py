"""The endpoints that generate: `predict` and `completeRawText` (docs/protocol.md#predict)."""

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast

from lmstudio_integrations._support.secrets import redact_received
from lmstudio_integrations._support.text import end_in_words
from lmstudio_integrations.emulator.engines.base import (
    EngineError,
    EngineEvent,
    Fault,
    Finished,
    GenerateRequest,
    Image,
)
from lmstudio_integrations.emulator.engines.generation import progress_details
from lmstudio_integrations.emulator.errors import NEWEST, Version, WireError, file_not_found
from lmstudio_integrations.emulator.models.cancel_scope import CancelScope
from lmstudio_integrations.emulator.models.clock import Clock
from lmstudio_integrations.emulator.models.instance import ModelInstance, requested, tool_choice_of, tools_of
from lmstudio_integrations.emulator.models.request_log import PredictionRecord, RecordEntry
from lmstudio_integrations.emulator.server.clients import ConnectedClient, Upload
from lmstudio_integrations.emulator.server.context import Context, OpenChannel
from lmstudio_integrations.protocol.kv_config import PREDICTION, effective, fields_of
from lmstudio_integrations.protocol.prediction import Accumulator, encode
from lmstudio_integrations.protocol.requests import CompleteRawText, Predict
from lmstudio_integrations.types.chat import TextPart
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import INLINE, FileHandle
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PromptProgress,
    ToolCallArguments,
    ToolCallFailed,
    ToolCallStart,
)

_ENGINE_PROTOCOL: Version = (0, 4, 20)
"""From here on, llama.cpp runs as a server of its own, and stats are others."""

_MARKS_ARGUMENTS: Version = (1, 1, 4)
"""From here on, presumably, Bionic says that the arguments of a call are JSON (docs/protocol.md#predict-packets)."""

_FEWEST_FOR_A_RATE = 2
"""Tokens after the first one that are enough to compute the speed from them alone."""


class StatsCollector:
    """Collects the stats of one prediction from its events.

    Args:
        clock: The time.
        played: The version whose stats they are.
    """

    def __init__(self, clock: Clock, played: Version = NEWEST) -> None:
        self._clock = clock
        self._played = played
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
        if event.kind == "progress":
            yield from self._prompt(event) if type(event) is PromptProgress else [event]
            return
        if type(event) is ToolCallStart and self._played < _MARKS_ARGUMENTS:
            event = replace(event, arguments_format=None)
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

    def ended(self, finished: Finished) -> Finished:
        """Return the end of a prediction as the played version reports it: newer ones tell whether tools are called."""
        is_call = finished.stop_reason == "eosFound" and any(call.end for call in self.received.tool_calls)
        return replace(finished, stop_reason="toolCalls") if is_call and self._played >= _ENGINE_PROTOCOL else finished

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
            "numGpuLayers": -1 if self._played < _ENGINE_PROTOCOL else None,
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
        images=[
            {
                "name": handle.name,
                "identifier": _name(handle.identifier),
                "sizeBytes": len(upload.data),
                "sha256": upload.sha256,
            }
            for handle, upload in images
        ],
    )


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Return the text if there is nothing else, else the parts; identifiers that contain the file are shortened."""
    if [part["type"] for part in parts] == ["text"]:
        text: str = parts[0]["text"]
        return text
    return [part | {"identifier": _name(part["identifier"])} if part["type"] == "file" else part for part in parts]


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


logger: logging.Logger = logging.getLogger(__name__)


async def predict(context: Context, channel: OpenChannel, parameter: Predict) -> None:
    """Generate the next message; for older clients with a certain layer, continue a text instead."""
    instance = context.registry.find("llm", parameter["modelSpecifier"])
    stack = parameter["predictionConfigStack"]
    fields = requested(context.registry.catalog, stack, parameter.get("fuzzyPresetIdentifier"))
    images: list[tuple[FileHandle, Upload]] = []
    parts = [part for message in parameter["history"].messages for part in message.content]
    # Older clients request raw completion by this layer (docs/protocol.md#legacy-completion).
    if any(layer.layer_name == "completeModeFormatting" for layer in stack.layers):
        prompt = "".join(part.text for part in parts if isinstance(part, TextPart))
        request = _request(instance, fields, prompt=prompt)
    else:
        handles = [part for part in parts if isinstance(part, FileHandle)]
        images = [(handle, _image(context.client, instance, handle)) for handle in handles]
        shown = {handle.identifier: Image(handle.name, upload.data) for handle, upload in images}
        request = _request(instance, fields, history=parameter["history"], images=shown)
    await _generate(context, channel, instance, request, fields, images=images)


async def complete_raw_text(context: Context, channel: OpenChannel, parameter: CompleteRawText) -> None:
    """Continue a text without a chat template."""
    instance = context.registry.find("llm", parameter["modelSpecifier"])
    fields = requested(
        context.registry.catalog, parameter["predictionConfigStack"], parameter.get("fuzzyPresetIdentifier")
    )
    request = _request(instance, fields, prompt=parameter["rawPrompt"])
    await _generate(context, channel, instance, request, fields)


def _request(instance: ModelInstance, fields: dict[str, Any], **what: Any) -> GenerateRequest:
    settings = effective(PREDICTION, instance.model.base_fields, fields)
    return GenerateRequest(
        config=LlmPredictionConfig.from_fields(settings),
        tools=tools_of(settings),
        tool_choice=tool_choice_of(settings),
        context_length=instance.request.context_length,
        **what,
    )


def _image(client: ConnectedClient, instance: ModelInstance, handle: FileHandle) -> Upload:
    """Return an image of a conversation.

    Raises:
        WireError: If the model does not support images, or the file is missing or not an image.
    """
    if handle.file_type != "image":
        raise WireError(
            f'The file "{handle.name}" of type {handle.file_type} cannot be part of a prompt',
            suggestion="Put its text into the message, or use retrieval.",
        )
    if not instance.describe().get("vision"):
        raise WireError(
            f'The model "{instance.identifier}" does not support images',
            suggestion="Use a vision model, or omit the image.",
        )
    if not handle.identifier.startswith(INLINE):
        return client.upload(handle.identifier)
    try:
        data = base64.b64decode(handle.identifier.removeprefix(INLINE), validate=True)
    except ValueError as error:
        raise file_not_found(f"{handle.identifier[:32]}…") from error
    return Upload(handle.name, data, handle.file_type)


async def forward_events(
    generation: AsyncIterator[EngineEvent],
    channel: OpenChannel,
    collector: StatsCollector,
    entry: RecordEntry[PredictionRecord],
    encode_event: Callable[[PredictionEvent], Mapping[str, Any]],
    *,
    on_text: Callable[[], None] = lambda: None,
) -> Finished | None:
    """Send the events of an engine up to the last one, and return that; `None` if the generation was cancelled."""
    entry.update(state="running")
    collector.start()
    async with aclosing(cast("AsyncGenerator[EngineEvent, None]", generation)) as events:
        async for event in events:
            if isinstance(event, Finished):
                return event
            if isinstance(event, Fault):
                channel.inject_fault(event.kind)
            else:
                for ready in collector.add(event):
                    channel.send(encode_event(ready))
            if isinstance(event, LlmPredictionFragment):
                entry.live["fragments"] = len(collector.received.fragments)
                on_text()
            # Send the packet and handle a cancel before the next token (docs/protocol.md#check-cancel-points).
            await asyncio.sleep(0)
    return None


@dataclass(slots=True)
class _Prediction:
    """One prediction, from the queue to its last packet."""

    context: Context
    channel: OpenChannel
    instance: ModelInstance
    request: GenerateRequest
    fields: dict[str, Any]
    collector: StatsCollector
    entry: RecordEntry[PredictionRecord]
    is_logged: bool = False

    async def run(self) -> None:
        """Generate, send the last packet, and complete the record."""
        outcome: dict[str, Any] = {"stop_reason": "disconnected"}
        try:
            await self._log_input()
            finished = await self._generate()
            outcome = {"stop_reason": finished.stop_reason, "stats": self._send_end(finished)}
        except (EngineError, WireError) as error:
            outcome = {"stop_reason": "error", "error": str(error)}
            raise
        finally:
            outcome |= outcome_of(self.collector.received)
            self.entry.update(state="ended", **outcome)
            logger.info("%s", self._line())

    def _line(self) -> str:
        """Return a line about the prediction for the operator of the server."""
        record = self.entry.record
        end = redact_received(record.error or end_in_words(record.stop_reason or ""))
        if not record.stats:
            return f"{record.model}: {end}"
        read, written = record.stats["promptTokensCount"], record.stats["predictedTokensCount"]
        seconds = record.stats["totalTimeSec"]
        return f"{record.model}: {read} tokens read, {written} written in {seconds:.1f} s ({end})"

    async def _generate(self) -> Finished:
        """Return how the generation ended: by itself, or because it was cancelled."""
        finished: Finished | None = None
        with self.channel.scope as scope:
            async with self.instance.use(scope, "processingPrompt"):
                finished = await forward_events(
                    self.instance.model.generate(self.request),
                    self.channel,
                    self.collector,
                    self.entry,
                    encode,
                    on_text=lambda: self.instance.set_activity(scope, "generating"),
                )
        if finished is None:
            assert scope.reason is not None, "an engine's last event is Finished"
            finished = self.collector.stopped(scope.reason)
        return self.collector.ended(finished)

    def _send_end(self, finished: Finished) -> dict[str, Any]:
        """Send the last packets; return their stats."""
        for ready in self.collector.remaining(finished):
            self.channel.send(encode(ready))
        stats = self.collector.stats(finished)
        end = PredictionEnd(
            stats,
            # As LM Studio sends it: only listings contain the time of use.
            self.instance.describe() | {"lastUsedTime": None},
            fields_of(self.instance.request.fields),
            fields_of(effective(PREDICTION, self.instance.model.base_fields, self.fields)),
        )
        self.channel.send(encode(end))
        if self.is_logged:
            # Everything that the model wrote, including reasoning tags; tool calls follow the rest.
            received = self.collector.received
            calls = [call.end or call.failure for call in received.tool_calls]
            texts = [fragment.content for fragment in received.fragments]
            output = "".join([*texts, *(call.raw_content or "" for call in calls if call)])
            self._log({"type": "llm.prediction.output", "output": output, "stats": stats})
        return stats

    async def _log_input(self) -> None:
        if not self.context.state.log_listeners:
            return
        self.is_logged = True
        request, model = self.request, self.instance.model
        text = request.prompt or ""
        if request.history is not None:
            with self.instance.hold(CancelScope()):
                text = await model.apply_template(request.history, request.tools, request.config)
        self._log({"type": "llm.prediction.input", "input": text, "modelPath": self.instance.entry.full_path})

    def _log(self, entry: dict[str, Any]) -> None:
        self.context.state.log(entry | {"modelIdentifier": self.instance.identifier})


async def _generate(
    context: Context,
    channel: OpenChannel,
    instance: ModelInstance,
    request: GenerateRequest,
    fields: dict[str, Any],
    *,
    images: Images = (),
) -> None:
    if request.config.draft_model:
        context.registry.check_draft_model(request.config.draft_model, instance.device)
    state, client = context.state, context.client.identifier
    entry = state.request_log.predictions.add(record_of(instance.identifier, client, request, fields, images))
    collector = StatsCollector(state.clock, context.registry.catalog.played)
    await _Prediction(context, channel, instance, request, fields, collector, entry).run()
