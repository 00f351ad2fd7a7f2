"""Logs that a required tool call did not come, for `respond`, `act` and their streams."""

from dataclasses import dataclass

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.predictions.plan import log_missing_call
from lmstudio_integrations.types.results import (
    PredictionEnd,
)


@dataclass(eq=False)
class MissingCall(Middleware):
    """Logs a response in which no tool call even begins, unless it was interrupted."""

    _has_call: bool = False

    def events(self, batch: Events, ask: Ask) -> Events:
        """Record whether a call begins."""
        self._has_call = self._has_call or any(event.kind == "call" for event in batch)
        return batch

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Log that no call has begun, if that is so."""
        yield from ()
        self.events(batch, ask)
        if not (self._has_call or end.is_interrupted):
            log_missing_call(end, "required")
        return batch, end

    def reset(self, ask: Ask) -> None:
        """Forget the calls."""
        self._has_call = False
