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
    READ = auto()
    """The reader of the events has received more than progress."""
    CALLED_BACK = auto()
    """A callback was called."""
    BOTH = auto()


_WHEN_READ = {Seen.NOTHING: Seen.READ, Seen.CALLED_BACK: Seen.BOTH}
_WHEN_CALLED_BACK = {Seen.NOTHING: Seen.CALLED_BACK, Seen.READ: Seen.BOTH}
"""What follows on each state; without an entry, it stays."""

_NOTHING, _READ, _CALLED_BACK = Seen.NOTHING, Seen.READ, Seen.CALLED_BACK


class Delivery:
    """Delivers a response to callbacks, and knows what the caller has seen of it. Only the reader changes it."""

    def __init__(self, callbacks: Callbacks) -> None:
        self.seen: Seen = _NOTHING
        self.reads_to_end: bool = False
        """Whether the caller receives nothing before the end, except by callbacks."""
        self._callbacks = callbacks
        self._last_progress = -1.0
        self._is_first = True

    @property
    def is_begun(self) -> bool:
        """Whether the caller has seen anything of the response."""
        return self.seen is not _NOTHING

    @property
    def is_read(self) -> bool:
        """Whether the reader of the events has received more than progress."""
        return self.seen is not _NOTHING and self.seen is not _CALLED_BACK

    @property
    def is_called_back(self) -> bool:
        """Whether a callback was called."""
        return self.seen is not _NOTHING and self.seen is not _READ

    def record_read(self) -> None:
        """Record that the reader receives events."""
        self.seen = _WHEN_READ.get(self.seen, self.seen)

    def _record_call(self) -> None:
        if not self.is_called_back:
            self.seen = _WHEN_CALLED_BACK[self.seen]

    def show(self, batch: list[PredictionEvent]) -> Flow[None]:
        """Call the callbacks with events."""
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
            self._record_call()
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
            self._record_call()
            yield from call_back(name, callback, *arguments)
