"""What the caller of a prediction has seen of the response, and the callbacks that show it.

A prediction is tried again only as long as the caller has seen nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
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


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks of a prediction. The waiting thread or coroutine calls them, and the coroutine awaits async ones.

    Attributes:
        on_first_token: Called once, before the first fragment.
        on_prediction_fragment: Called with each fragment.
        on_message: Called with the assistant message, once it is known to be valid.
        on_prompt_processing_progress: Called with growing values that begin with 0.0 and end with 1.0.
        on_tool_call_event: A flow, run for each event of a tool call.
    """

    on_first_token: Callable[[], Any] | None = None
    on_prediction_fragment: Callable[[LlmPredictionFragment], Any] | None = None
    on_message: Callable[[AssistantMessage], Any] | None = None
    on_prompt_processing_progress: Callable[[float], Any] | None = None
    on_tool_call_event: Callable[[PredictionEvent], Flow[None]] | None = None


NO_CALLBACKS = Callbacks()


class Seen(Enum):
    """What the caller has seen of the response."""

    NOTHING = auto()
    """Nothing but progress, and it reads on."""
    NOTHING_TO_END = auto()
    """Nothing, and it reads nothing before the end."""
    READ = auto()
    """The reader of the events has received some of them."""
    CALLED_BACK = auto()
    """A callback was called."""


class _Step(Enum):
    READS_TO_END = auto()
    READS = auto()
    CALLS_BACK = auto()


_NEXT = {
    (Seen.NOTHING, _Step.READS_TO_END): Seen.NOTHING_TO_END,
    (Seen.NOTHING, _Step.READS): Seen.READ,
    (Seen.NOTHING, _Step.CALLS_BACK): Seen.CALLED_BACK,
    (Seen.NOTHING_TO_END, _Step.CALLS_BACK): Seen.CALLED_BACK,
    (Seen.READ, _Step.CALLS_BACK): Seen.CALLED_BACK,
}
"""What the caller has seen after a step. Without an entry, it is the same as before."""


class Delivery:
    """Delivers a response to callbacks, and knows what the caller has seen of it. Only the reader changes it."""

    def __init__(self, callbacks: Callbacks) -> None:
        self.seen: Seen = Seen.NOTHING
        self._callbacks = callbacks
        self._last_progress = -1.0
        self._is_first = True

    @property
    def is_begun(self) -> bool:
        """Whether the caller has seen anything of the response."""
        return self.seen in {Seen.READ, Seen.CALLED_BACK}

    def read(self) -> None:
        """Record that the reader receives events."""
        self._advance(_Step.READS)

    def read_to_end(self) -> None:
        """Record that the caller reads nothing before the end."""
        self._advance(_Step.READS_TO_END)

    def _advance(self, step: _Step) -> None:
        self.seen = _NEXT.get((self.seen, step), self.seen)

    def show(self, batch: list[PredictionEvent]) -> Flow[None]:
        """Call the callbacks with events."""
        if self._callbacks is not NO_CALLBACKS:
            for event in batch:
                yield from self._show(event)

    def show_message(self, result: PredictionResult) -> Flow[None]:
        """Call the callback with the whole message."""
        if self._callbacks.on_message is not None:
            message = Chat().add_assistant_response(result, result.tool_call_requests)
            yield from self._call_back("on_message", message)

    def _show(self, event: PredictionEvent) -> Flow[None]:
        if type(event) is LlmPredictionFragment:
            if self._is_first:
                self._is_first = False
                yield from self._show_progress(1.0)
                yield from self._call_back("on_first_token")
            yield from self._call_back("on_prediction_fragment", event)
        elif type(event) is PromptProgress:
            yield from self._show_progress(event.progress)
        elif self._callbacks.on_tool_call_event is not None and type(event) is not PredictionEnd:
            self._advance(_Step.CALLS_BACK)
            yield from self._callbacks.on_tool_call_event(event)

    def _show_progress(self, progress: float) -> Flow[None]:
        if self._callbacks.on_prompt_processing_progress is None or progress <= self._last_progress:
            return
        is_first, self._last_progress = self._last_progress < 0, progress
        if is_first and progress > 0:
            yield from self._call_back("on_prompt_processing_progress", 0.0)
        yield from self._call_back("on_prompt_processing_progress", progress)

    def _call_back(self, name: str, *arguments: Any) -> Flow[None]:
        callback = getattr(self._callbacks, name)
        if callback is not None:
            self._advance(_Step.CALLS_BACK)
            yield from call_back(name, callback, *arguments)
