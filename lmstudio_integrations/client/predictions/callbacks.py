"""The callbacks of a prediction, and how its events are shown to them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations.client.transport.flows import Flow, call_back
from lmstudio_integrations.types.chat import AssistantMessage, Chat
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    PromptProgress,
)


@dataclass(slots=True)
class Callbacks:
    """The callbacks of a prediction. The waiting thread or coroutine calls them, and the coroutine awaits async ones.

    Attributes:
        on_first_token: Called once, before the first fragment.
        on_prediction_fragment: Called with each fragment.
        on_message: Called with the assistant message, once it is known to be valid.
        on_prompt_processing_progress: Called with growing values that begin with 0.0 and end with 1.0.
        on_tool_call_event: A flow, run for each event of a tool call.
        were_called: Whether one of them was called.
    """

    on_first_token: Callable[[], Any] | None = None
    on_prediction_fragment: Callable[[LlmPredictionFragment], Any] | None = None
    on_message: Callable[[AssistantMessage], Any] | None = None
    on_prompt_processing_progress: Callable[[float], Any] | None = None
    on_tool_call_event: Callable[[PredictionEvent], Flow[None]] | None = None
    were_called: bool = field(default=False, init=False)
    _last_progress: float = field(default=-1.0, init=False)
    _is_first: bool = field(default=True, init=False)

    def show(self, batch: list[PredictionEvent]) -> Flow[None]:
        """Call the callbacks with events."""
        for event in batch:
            if type(event) is LlmPredictionFragment:
                if self._is_first:
                    self._is_first = False
                    yield from self._show_progress(1.0)
                    yield from self._call("on_first_token")
                yield from self._call("on_prediction_fragment", event)
            elif type(event) is PromptProgress:
                yield from self._show_progress(event.progress)
            elif self.on_tool_call_event is not None and type(event) is not PredictionEnd:
                self.were_called = True
                yield from self.on_tool_call_event(event)

    def show_message(self, result: PredictionResult) -> Flow[None]:
        """Call the callback with the whole message."""
        if self.on_message is not None:
            message = Chat().add_assistant_response(result, result.tool_call_requests)
            yield from self._call("on_message", message)

    def _show_progress(self, progress: float) -> Flow[None]:
        if self.on_prompt_processing_progress is None or progress <= self._last_progress:
            return
        is_first, self._last_progress = self._last_progress < 0, progress
        if is_first and progress > 0:
            yield from self._call("on_prompt_processing_progress", 0.0)
        yield from self._call("on_prompt_processing_progress", progress)

    def _call(self, name: str, *arguments: Any) -> Flow[None]:
        callback = getattr(self, name)
        if callback is not None:
            self.were_called = True
            yield from call_back(name, callback, *arguments)
