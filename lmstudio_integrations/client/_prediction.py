"""One generation, as the sync and the async stream see it: opening, recovery, callbacks, result."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from lmstudio_integrations.client._binding import Binding, Specifier, with_model
from lmstudio_integrations.client._flows import Flow
from lmstudio_integrations.client._link import NO_CLOCKS, Call, Link
from lmstudio_integrations.client._structured import Format
from lmstudio_integrations.errors import (
    LMStudioCancelledError,
    LMStudioError,
    LMStudioModelUnloadedError,
    LMStudioPredictionError,
    LMStudioRuntimeError,
    LMStudioToolCallError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.endpoints import Channel
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.protocol.session import Clocks, closed_early
from lmstudio_integrations.types.chat import AssistantMessage, TextPart
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    PromptProgress,
    ToolCallFailed,
)
from lmstudio_integrations.types.tools import ToolCallRequestPart

MakeParameter = Callable[[Specifier], Flow[Mapping[str, Any]]]
"""Builds the request; a flow, because files may have to be uploaded again first."""


@dataclass(frozen=True, slots=True)
class Request:
    """A way to ask for the generation; the next one is tried where the server does not know it."""

    endpoint: Channel
    make: MakeParameter


@dataclass(slots=True)
class Callbacks:
    """Whom to tell what; all are called by the waiting thread or coroutine.

    Attributes:
        on_first_token: Called once, before the first fragment.
        on_prediction_fragment: Takes each fragment.
        on_message: Takes the assistant message, once all is well with it.
        on_prompt_processing_progress: Takes growing values that begin with 0.0 and end with 1.0.
    """

    on_first_token: Callable[[], Any] | None = None
    on_prediction_fragment: Callable[[LlmPredictionFragment], Any] | None = None
    on_message: Callable[[AssistantMessage], Any] | None = None
    on_prompt_processing_progress: Callable[[float], Any] | None = None


_NO_CALLBACKS = Callbacks()


class Prediction:
    """One generation.

    Args:
        link: The way to the server.
        binding: The model.
        requests: How to ask, best first.
        doing: What it is, for messages of errors.
        clocks: Limits that differ from the client's.
    """

    def __init__(
        self,
        link: Link[Any],
        binding: Binding,
        requests: Sequence[Request],
        *,
        doing: str,
        clocks: Clocks = NO_CLOCKS,
    ) -> None:
        self._link = link
        self._binding = binding
        self._requests = requests
        self._doing = doing
        self._clocks = clocks
        self.callbacks = _NO_CALLBACKS
        """Whom to tell."""
        self.answer: Format | None = None
        """The format that the answer must have."""
        self.on_failed_call: Callable[[LMStudioToolCallError], Any] | None = None
        """Told of a tool call that could not be read; without it they are left to whoever reads the events."""
        self.ready: deque[PredictionEvent] = deque()
        """What was taken in and not read yet; all ways to read take from it, so that one may follow another."""
        self._call: Call[Any] | None = None
        self._so_far = Accumulator()
        self._begun = False
        self._cancelled = False
        self._left = False
        self._failure: Exception | None = None
        self._left_to_raise: Exception | None = None
        self._told_progress = -1.0
        self._told_first = False
        self._result: PredictionResult | None = None

    def advance(self) -> Flow[bool]:
        """Take in what comes next, at least one event; tell whether it was not the end instead.

        An end that is an error is raised in the call after that which took in what came before it.
        """
        if self._left_to_raise is not None:
            failure, self._left_to_raise = self._left_to_raise, None
            raise failure
        if self._so_far.end is not None or self._left:
            return False
        if not self._begun:
            self._begun = True
            self._link = self._link.for_one(self._clocks)
        try:
            if self._call is None:
                batch = yield from with_model(self._link, self._binding, self._open)
            else:
                batch = yield self._call
            if not batch:
                if self._cancelled:
                    self.abandon()
                    return False
                self._fail_closed()
            self.ready.extend(self._take(batch))
        except BaseException as error:
            self._failure = error if isinstance(error, Exception) else None
            self.abandon()
            raise
        return True

    def _take(self, batch: list[PredictionEvent]) -> list[PredictionEvent]:
        """Keep what has come, tell the caller, and make the result if that was the end; return what to hand on."""
        add, callbacks = self._so_far.add, self.callbacks
        for event in batch:
            add(event)
        if callbacks is not _NO_CALLBACKS:
            for event in batch:
                self._tell(event, callbacks)
        if self._so_far.end is None:
            return batch
        try:
            self._finish(self._so_far.end)
        except LMStudioError as failure:
            if len(batch) == 1:
                raise
            self._failure = self._left_to_raise = failure
            return batch[:-1]
        if callbacks.on_message is not None:
            callbacks.on_message(self._message())
        return batch

    def to_end(self) -> Flow[PredictionResult]:
        """Take everything that comes and return the result."""
        more = True
        while more:
            more = yield from self.advance()
            self.ready.clear()
        return self.result()

    def cancel(self) -> None:
        """Ask the server to stop; what has come by then remains the result."""
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()
        elif not self._begun:
            self._left = True

    def abandon(self) -> None:
        """Ask the server to stop and take nothing more."""
        self._left = True
        if self._call is not None:
            self._call.abandon()

    def result(self) -> PredictionResult:
        """Return the result, without waiting.

        Raises:
            LMStudioCancelledError: If it was left before its end.
            LMStudioRuntimeError: If it has not ended yet.
            Exception: That with which it failed.
        """
        if self._result is not None:
            return self._result
        if self._failure is not None:
            raise self._failure
        if self._left:
            raise LMStudioCancelledError(
                f"{self._doing}: the stream was left before its end; to stop it and keep what has come, "
                "call cancel() and go on reading"
            )
        raise LMStudioRuntimeError(f"{self._doing}: there is no result before the stream has ended")

    def _fail_closed(self) -> NoReturn:
        raise closed_early(self._doing)

    def _open(self, link: Link[Any], specifier: Specifier) -> Flow[list[PredictionEvent]]:
        """Ask for the generation and return the first events."""
        for request in self._requests:
            parameter = yield from request.make(specifier)
            self._call = link.start(self._binding.kind, request.endpoint, parameter, doing=self._doing)
            if self._cancelled:
                self._call.cancel()
            try:
                return (yield self._call)
            except LMStudioUnsupportedError:
                if request is self._requests[-1]:
                    raise
        raise AssertionError("the last request returns or raises")

    def _tell(self, event: PredictionEvent, callbacks: Callbacks) -> None:
        if type(event) is LlmPredictionFragment:
            if not self._told_first:
                self._told_first = True
                self._tell_progress(1.0, callbacks)
                if callbacks.on_first_token is not None:
                    callbacks.on_first_token()
            if callbacks.on_prediction_fragment is not None:
                callbacks.on_prediction_fragment(event)
        elif type(event) is PromptProgress:
            self._tell_progress(event.progress, callbacks)

    def _tell_progress(self, progress: float, callbacks: Callbacks) -> None:
        told = callbacks.on_prompt_processing_progress
        if told is None or progress <= self._told_progress:
            return
        if self._told_progress < 0 < progress:
            told(0.0)
        self._told_progress = progress
        told(progress)

    def _message(self) -> AssistantMessage:
        calls = [ToolCallRequestPart(tool_call_request=call.to_request()) for call in self._so_far.tool_calls]
        return AssistantMessage(content=[TextPart(text="".join(self._so_far.text)), *calls])

    def _finish(self, end: PredictionEnd) -> None:
        """Build the result, or raise what the stop reason means."""
        if self._call is not None:
            self._call.release()
        reason = end.stats.get("stopReason")
        if reason == "failed":
            raise LMStudioPredictionError(f"{self._doing} error: the generation failed on the server")
        if reason == "modelUnloaded":
            raise LMStudioModelUnloadedError(f"{self._doing} error: the model was unloaded while it generated")
        if self.on_failed_call is not None:
            for call in self._so_far.failed_calls:
                self.on_failed_call(_failed_call(call))
        text = "".join(self._so_far.text)
        parsed, structured = self._parse(text, str(reason))
        self._result = PredictionResult(
            content=text,
            reasoning_content="".join(self._so_far.reasoning),
            end=end,
            parsed=parsed,
            structured=structured,
            tool_call_requests=tuple(call.to_request() for call in self._so_far.tool_calls),
        )

    def _parse(self, text: str, stop_reason: str) -> tuple[Any, bool]:
        """Return the value of the answer and whether it is structured.

        An answer that was cancelled is not looked at, and there is none where the model asks for tools instead.
        """
        if self.answer is None or self.answer.parse is None or stop_reason == "userStopped":
            return text, False
        if self._so_far.tool_calls and not text.strip():
            return text, False
        value = self.answer.read(text, stop_reason)
        return value, self.answer.is_structured(value)


def _failed_call(call: ToolCallFailed) -> LMStudioToolCallError:
    reason = call.error.get("cause") or call.error.get("title") or "no reason given"
    return LMStudioToolCallError(f"Failed to parse tool call request: {reason}", raw_content=call.raw_content)
