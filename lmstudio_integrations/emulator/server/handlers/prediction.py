"""The endpoints that generate: `predict` and `completeRawText` (docs/protocol.md#predict)."""

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from lmstudio_integrations._support.text import end_in_words
from lmstudio_integrations.emulator.engines.base import EngineEvent, Fault, Finished, GenerateRequest, Image
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.errors import WireError, file_not_found
from lmstudio_integrations.emulator.models import prediction_settings
from lmstudio_integrations.emulator.models.fair_queue import CancelScope
from lmstudio_integrations.emulator.models.instance import ModelInstance
from lmstudio_integrations.emulator.server.clients import ConnectedClient, Upload
from lmstudio_integrations.emulator.server.context import Context, OpenChannel
from lmstudio_integrations.emulator.server.prediction_stats import (
    Images,
    StatsCollector,
    outcome_of,
    record_of,
    written_text,
)
from lmstudio_integrations.emulator.testing.request_log import PredictionRecord, RecordEntry
from lmstudio_integrations.protocol.kv_config import fields_of
from lmstudio_integrations.protocol.legacy_completion import completion_prompt, is_completion
from lmstudio_integrations.protocol.prediction import encode
from lmstudio_integrations.protocol.requests import CompleteRawText, Predict
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import INLINE, FileHandle
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
)

logger: logging.Logger = logging.getLogger(__name__)


async def predict(context: Context, channel: OpenChannel, parameter: Predict) -> None:
    """Generate the next message; for older clients with a certain layer, continue a text instead."""
    instance = context.registry.find("llm", parameter["modelSpecifier"])
    stack = parameter["predictionConfigStack"]
    fields = prediction_settings.requested(context.registry.catalog, stack, parameter.get("fuzzyPresetIdentifier"))
    images: list[tuple[FileHandle, Upload]] = []
    if is_completion(stack):
        request = _request(instance, fields, prompt=completion_prompt(parameter["history"]))
    else:
        parts = [part for message in parameter["history"].messages for part in message.content]
        handles = [part for part in parts if isinstance(part, FileHandle)]
        images = [(handle, _image(context.client, instance, handle)) for handle in handles]
        shown = {handle.identifier: Image(handle.name, upload.data) for handle, upload in images}
        request = _request(instance, fields, history=parameter["history"], images=shown)
    await _generate(context, channel, instance, request, fields, images=images)


async def complete_raw_text(context: Context, channel: OpenChannel, parameter: CompleteRawText) -> None:
    """Continue a text without a chat template."""
    instance = context.registry.find("llm", parameter["modelSpecifier"])
    fields = prediction_settings.requested(
        context.registry.catalog, parameter["predictionConfigStack"], parameter.get("fuzzyPresetIdentifier")
    )
    request = _request(instance, fields, prompt=parameter["rawPrompt"])
    await _generate(context, channel, instance, request, fields)


def _request(instance: ModelInstance, fields: dict[str, Any], **what: Any) -> GenerateRequest:
    effective = prediction_settings.in_effect(instance.model.base_fields, fields)
    return GenerateRequest(
        config=LlmPredictionConfig.from_fields(effective),
        tools=prediction_settings.tools_of(effective),
        tool_choice=prediction_settings.tool_choice_of(effective),
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
    if handle.identifier.startswith(INLINE):
        return Upload(handle.name, _inline(handle.identifier), handle.file_type)
    return client.upload(handle.identifier)


def _inline(identifier: str) -> bytes:
    try:
        return base64.b64decode(identifier.removeprefix(INLINE), validate=True)
    except ValueError as error:
        raise file_not_found(f"{identifier[:32]}…") from error


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
            self.context.state.request_log.predictions.complete(self.entry, state="ended", **outcome)
            logger.info("%s", self._line())

    def _line(self) -> str:
        """Return a line about the prediction for the operator of the server."""
        record = self.entry.record
        end = record.error or end_in_words(record.stop_reason or "")
        if not record.stats:
            return f"{record.model}: {end}"
        read, written = record.stats["promptTokensCount"], record.stats["predictedTokensCount"]
        seconds = record.stats["totalTimeSec"]
        return f"{record.model}: {read} tokens read, {written} written in {seconds:.1f} s ({end})"

    async def _generate(self) -> Finished:
        """Return how the generation ended: by itself, or because it was cancelled."""
        finished: Finished | None = None
        with self.channel.scope as scope:
            async with self.instance.use(self.context.client.identifier, scope, "processingPrompt"):
                finished = await self._forward_events()
        if finished is None:
            assert scope.reason is not None, "an engine's last event is Finished"
            finished = self.collector.stopped(scope.reason)
        return finished

    async def _forward_events(self) -> Finished | None:
        """Send the events of the engine, up to the last one."""
        self.entry.update(state="running")
        self.collector.start()
        generation = cast("AsyncGenerator[EngineEvent, None]", self.instance.model.generate(self.request))
        async with aclosing(generation) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event
                await self._forward(event)
                # Send the packet and handle a cancel before the next token (docs/protocol.md#check-cancel-points).
                await asyncio.sleep(0)
        return None

    async def _forward(self, event: PredictionEvent | Fault) -> None:
        if isinstance(event, Fault):
            await self.channel.inject_fault(event.kind)
            return
        for ready in self.collector.add(event):
            self.channel.send(encode(ready))
        if isinstance(event, LlmPredictionFragment):
            self.entry.live["fragments"] = len(self.collector.received.fragments)
            self.instance.set_activity(self.channel.scope, "generating")

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
            fields_of(prediction_settings.in_effect(self.instance.model.base_fields, self.fields)),
        )
        self.channel.send(encode(end))
        if self.is_logged:
            output = written_text(self.collector.received)
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
    collector = StatsCollector(state.clock)
    await _Prediction(context, channel, instance, request, fields, collector, entry).run()
