"""Two predictions for a call with tools and a response format: no server takes the grammar of a format with tools.

The first one has the tools alone. If the model calls none and its response does not fit the format, a second one with
the format alone replaces it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.protocol.kv_config import with_changes
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import PredictionEnd, PredictionEvent
from lmstudio_integrations.types.structured import fits

_WITHOUT_FORMAT = LlmPredictionConfig(structured=None)
_WITHOUT_TOOLS = LlmPredictionConfig(raw_tools=None, tool_choice=None)


@dataclass(eq=False)
class ToolsFirst(Middleware):
    """Holds the response of the first prediction until it is known to stay."""

    _buffer: list[tuple[Ask, PredictionEvent]] = field(default_factory=list[tuple[Ask, PredictionEvent]])
    _stays: bool = False

    def __post_init__(self) -> None:
        self._stays = self.plan.forces_call  # the response is a call

    def parameter(self, wire: Mapping[str, Any], ask: Ask) -> Flow[Mapping[str, Any]]:
        """Return the parameter without the format, then without the tools."""
        yield from ()
        omitted = _WITHOUT_TOOLS if self.has_asked else _WITHOUT_FORMAT
        return {**wire, "predictionConfigStack": with_changes(wire["predictionConfigStack"], omitted)}

    def events(self, batch: Events, ask: Ask) -> Events:
        """Return progress only, until a tool call begins."""
        if self._stays or self.has_asked:
            return batch
        progress: Events = [event for event in batch if event.kind == "progress"]
        events = [event for event in batch if event.kind != "progress"]
        self._buffer += [(ask, event) for event in events]
        self._stays = any(event.kind != "text" for event in events)
        return [*progress, *self._response()] if self._stays else progress

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the first response if it stays; otherwise ask for the format."""
        yield from ()
        batch = self.events(batch, ask)
        if self._stays or self.has_asked:
            return batch, end
        response = Accumulator(end=end)
        response.add_all(self._response())
        self._stays = end.is_interrupted or fits(self.plan.settings, response.result().content)
        return ([*batch, *self._response()], end) if self._stays else (batch, None)

    def _response(self) -> list[PredictionEvent]:
        return [event for _, event in self._buffer]

    def reset(self, ask: Ask) -> None:
        """Forget what is held of the ask."""
        self._buffer = [(each, event) for each, event in self._buffer if each is not ask]
        self._stays = self.plan.forces_call
