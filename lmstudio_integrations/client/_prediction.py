"""One generation, as the sync and the async stream see it: opening, recovery, callbacks, result."""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from lmstudio_integrations._renewals import renewal_pauses
from lmstudio_integrations._shortening import shortened
from lmstudio_integrations.client._binding import Binding, Operation, Specifier
from lmstudio_integrations.client._operations import as_unloaded, unloaded_error, with_model
from lmstudio_integrations.client.transport.dispatcher import NO_TIMEOUTS, Call, Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, wait_for
from lmstudio_integrations.client.transport.waiters import caller
from lmstudio_integrations.errors import (
    LMStudioCancelledError,
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioModelUnloadedError,
    LMStudioPredictionError,
    LMStudioRuntimeError,
    LMStudioServerError,
    LMStudioToolCallError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.endpoints import Channel
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.protocol.session import closed_early
from lmstudio_integrations.types.chat import AssistantMessage, TextPart
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    PromptProgress,
    ToolCallFailed,
)
from lmstudio_integrations.types.structured import json_object
from lmstudio_integrations.types.tools import ToolCallRequestPart

logger = logging.getLogger(__name__)

T = TypeVar("T")
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


class _Left(BaseException):
    """Ends the wait of whoever reads what somebody else has left.

    No `Exception`: what is waited for has not failed, and those who wait for the same are not to be told so.
    """


class Prediction:
    """One generation. It is read by one thread or task at a time; it may be left from anywhere.

    Args:
        dispatcher: The way to the server.
        binding: The model.
        requests: How to ask, best first.
        doing: What it is, for messages of errors.
        timeouts: Limits that differ from the client's.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        binding: Binding,
        requests: Sequence[Request],
        *,
        doing: str,
        timeouts: Timeouts = NO_TIMEOUTS,
    ) -> None:
        self._dispatcher = dispatcher
        self._binding = binding
        self._requests = requests
        self._doing = doing
        self._timeouts = timeouts
        self.callbacks = _NO_CALLBACKS
        """Whom to tell."""
        self.structured = False
        """Whether the response is to be a JSON object."""
        self.on_failed_call: Callable[[LMStudioToolCallError], Any] | None = None
        """Told of a tool call that could not be read; without it they are left to whoever reads the events."""
        self.ready: deque[PredictionEvent] = deque()
        """What was taken in and not read yet; all ways to read take from it, so that one may follow another."""
        self._step: Any = None
        """What is waited for: one thing after another on the way to the answer, then the answer."""
        self._call: Call[Any] | None = None
        """The generation, once the server was asked for it."""
        self._so_far = Accumulator()
        self._opened = False
        self._reading = False
        self._cancelled = False
        self._closed_by: object = None
        self._failure: Exception | None = None
        self._told_progress = -1.0
        self._told_first = False
        self._called_back = False
        """Whether a callback was called with a part of the response."""
        self._delivered = False
        """Whether the reader of the events has received more than progress."""
        self._whole = False
        """Whether the caller gets no events, only the result."""
        self._unloaded = False
        """Whether the model was unloaded while it generated."""
        self._renewals = renewal_pauses()
        self._result: PredictionResult | None = None

    @property
    def _over(self) -> bool:
        return self._result is not None or self._failure is not None

    def start(self) -> Flow[None]:
        """Send the request now, once the model is there; reading goes on from that.

        Raises:
            LMStudioRuntimeError: If it has begun or ended.
        """
        if self._step is not None or self._over:
            raise LMStudioRuntimeError(f"{self._doing}: a stream can be started only once, before it is read or left")
        self._read_alone()
        try:
            yield from self._on_model(partial(self._send, self._requests[0]))
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self._fail(error)
        finally:
            self._reading = False

    def advance(self) -> Flow[bool]:
        """Take in the next events, at least one; return false at the end.

        An end that is an error is raised in the call after that which took in what came before it.
        """
        if self._over:
            return self._end()
        self._read_alone()
        try:
            events = yield from self._next_events()
        except BaseException as error:  # noqa: BLE001 - it is raised again
            return self._fail(error)
        finally:
            self._reading = False
        self._delivered = self._delivered or not (self._whole or all(type(event) is PromptProgress for event in events))
        self.ready.extend(events)
        return True

    def _next_events(self) -> "Flow[list[PredictionEvent]]":
        """Return the next events; generate again if the model was unloaded before the caller saw anything."""
        while True:
            try:
                return self._take((yield from self._next_batch()))
            except LMStudioModelUnloadedError:
                seconds = next(self._renewals, None) if self._may_start_over() else None
                if seconds is None:
                    raise
            logger.info("model %r was unloaded while it generated; generating again", self._binding.identifier)
            yield from self._noted(wait_for(self._dispatcher.pause(seconds)))
            self._call, self._opened, self._unloaded, self._so_far = None, False, True, Accumulator()

    def _next_batch(self) -> "Flow[list[PredictionEvent]]":
        if not self._opened:
            batch = yield from self._on_model(self._open)
            self._opened = True
            return batch
        try:
            return (yield self._step)
        except LMStudioModelNotFoundError as error:
            raise as_unloaded(self._dispatcher, self._binding, error) from error

    def _may_start_over(self) -> bool:
        """Whether the model may be loaded again, and nothing of the response has reached the caller."""
        over = self._cancelled or self._failure is not None
        return self._binding.renewable and not (over or self._delivered or self._called_back)

    def _read_alone(self) -> None:
        """Begin to read, unless somebody else does."""
        if self._step is not None:
            self._step.waiter.check_reader()
        if self._reading:
            raise LMStudioRuntimeError(
                "two threads or tasks read from one stream; let one read, or make a stream for each"
            )
        self._reading = True

    def _fail(self, error: BaseException) -> bool:
        """Raise what went wrong while reading, with which it is over; that it was left is told as any end."""
        if isinstance(error, Exception):
            self._record_failure(error)
        self.abandon()
        if not isinstance(error, _Left):
            raise error
        return self._end()

    def _record_failure(self, error: Exception) -> None:
        """Record with what it is over; a call of which a callback has seen a part must not be made again."""
        if isinstance(error, LMStudioConnectionLostError | LMStudioModelUnloadedError) and self._called_back:
            error.retryable = False
        self._failure = self._failure or error

    def _end(self) -> bool:
        """Return false; raise why it is over, where that would pass for the end of a whole answer."""
        left = isinstance(self._failure, LMStudioCancelledError)
        if not (left and (self._cancelled or self._closed_by == caller())):
            self.result()
        return False

    def _take(self, batch: list[PredictionEvent]) -> list[PredictionEvent]:
        """Keep what has come, tell the caller, and make the result if that was the end; return what to hand on."""
        if not batch:
            raise _Left if self._cancelled else closed_early(self._doing)
        callbacks = self.callbacks
        self._so_far.add_all(batch)
        if callbacks is not _NO_CALLBACKS:
            for event in batch:
                self._tell(event, callbacks)
        if self._so_far.end is None:
            return batch
        try:
            self._finish(self._so_far.end)
        except LMStudioError as failure:
            if self._whole or len(batch) == 1:
                raise
            self._record_failure(failure)
            return batch[:-1]
        if callbacks.on_message is not None:
            callbacks.on_message(_message(self.result()))
        return batch

    def to_end(self) -> Flow[PredictionResult]:
        """Take everything that comes and return the result."""
        self._whole = not self._delivered
        more = True
        try:
            while more:
                more = yield from self.advance()
                self.ready.clear()
        finally:
            self._whole, self._delivered = False, True
        return self.result()

    def cancel(self) -> None:
        """Ask the server to stop; what has come by then remains the result. What was not sent yet never is."""
        self._cancelled = True
        call = self._call
        if call is None:
            self.abandon()
        else:
            call.cancel()

    def close(self) -> None:
        """Abandon it knowingly: the caller reads an end, all others an error."""
        self._closed_by = caller()
        self.abandon()

    def leave(self) -> None:
        """Abandon it, unless somebody else is reading."""
        if not self._reading:
            self.abandon()

    def abandon(self) -> None:
        """Ask the server to stop and take nothing more; whoever waits is told."""
        if not self._over:
            self._failure = LMStudioCancelledError(
                f"{self._doing}: the stream was left before its end; to stop it and keep what has come, "
                "call cancel() and go on reading"
            )
            self._failure.__suppress_context__ = True  # that `_Left` ended the wait tells a caller nothing
        step = self._step
        if isinstance(step, Call):
            step.abandon(_Left())
        elif step is not None:
            self._dispatcher.finish(step.waiter, _Left())

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
        raise LMStudioRuntimeError(f"{self._doing}: there is no result before the stream has ended")

    def _on_model(self, operation: Operation[T]) -> Flow[T]:
        """Run an operation on the model."""
        self._dispatcher = self._dispatcher.for_one(self._timeouts)
        flow = with_model(self._dispatcher, self._binding, operation, renewals=self._renewals, renew=self._unloaded)
        return (yield from self._noted(flow))

    def _noted(self, flow: Flow[T]) -> Flow[T]:
        """Run a flow, noting each step of it."""
        resume: Callable[[], Call[Any]] = partial(next, flow)
        while True:
            try:
                step = resume()
            except StopIteration as stop:
                result: T = stop.value
                return result
            self._note(step)
            try:
                resume = partial(flow.send, (yield step))
            except BaseException as error:  # noqa: BLE001 - the operation decides
                resume = partial(flow.throw, error)

    def _note(self, step: Any) -> None:
        """Take note of what is waited for, so that it can be given up from anywhere.

        First the note, then the look: whoever leaves does it the other way round, so that one of the two sees it.
        """
        self._step = step
        if self._failure is not None:
            self.abandon()

    def _send(self, request: Request, dispatcher: Dispatcher[Any], specifier: Specifier) -> Flow[Call[Any]]:
        """Ask for the generation."""
        parameter = yield from request.make(specifier)
        if self._cancelled or self._failure is not None:  # it was left on the way here
            raise _Left
        self._call = dispatcher.start(self._binding.kind, request.endpoint, parameter, doing=self._doing)
        self._note(self._call)
        return self._call

    def _open(self, dispatcher: Dispatcher[Any], specifier: Specifier) -> Flow[list[PredictionEvent]]:
        """Ask for the generation, unless that is done already, and return the first events."""
        for request in self._requests:
            call = self._call or (yield from self._send(request, dispatcher, specifier))
            try:
                return (yield call)
            except LMStudioServerError as refusal:
                self._call = None
                if not isinstance(refusal, LMStudioUnsupportedError) or request is self._requests[-1]:
                    raise
        raise AssertionError("the last request returns or raises")

    def _tell(self, event: PredictionEvent, callbacks: Callbacks) -> None:
        if type(event) is LlmPredictionFragment:
            if not self._told_first:
                self._told_first = True
                self._tell_progress(1.0, callbacks)
                if callbacks.on_first_token is not None:
                    self._called_back = True
                    callbacks.on_first_token()
            if callbacks.on_prediction_fragment is not None:
                self._called_back = True
                callbacks.on_prediction_fragment(event)
        elif type(event) is PromptProgress:
            self._tell_progress(event.progress, callbacks)

    def _tell_progress(self, progress: float, callbacks: Callbacks) -> None:
        told = callbacks.on_prompt_processing_progress
        if told is None or progress <= self._told_progress:
            return
        self._called_back = True
        if self._told_progress < 0 < progress:
            told(0.0)
        self._told_progress = progress
        told(progress)

    def _finish(self, end: PredictionEnd) -> None:
        """Build the result, or raise what the stop reason means."""
        assert self._call is not None, "what ends has been asked for"
        self._call.release()
        reason = end.stats.get("stopReason")
        if reason == "failed":
            raise LMStudioPredictionError(f"{self._doing} error: the generation failed on the server")
        if reason == "modelUnloaded":
            raise unloaded_error(self._dispatcher, self._binding)
        load_time = self._dispatcher.take_load_time()
        if load_time is not None:
            end.stats = {**end.stats, "modelLoadTimeSec": load_time}
        result = self._so_far.result()
        if self.on_failed_call is not None:
            for call in result.tool_calls:
                if call.failure is not None:
                    self.on_failed_call(_failed_call(call.failure))
        parsed = json_object(result.content) if self.structured and reason != "userStopped" else None
        self._result = result if parsed is None else replace(result, parsed=parsed, structured=True)


def _message(result: PredictionResult) -> AssistantMessage:
    calls = [ToolCallRequestPart(tool_call_request=call) for call in result.tool_call_requests]
    return AssistantMessage(content=[TextPart(text=result.content), *calls])


def _failed_call(call: ToolCallFailed) -> LMStudioToolCallError:
    reason = call.error.get("cause") or call.error.get("title") or "no reason given"
    return LMStudioToolCallError(
        f"Failed to parse tool call request: {shortened(str(reason))}", raw_content=call.raw_content
    )
