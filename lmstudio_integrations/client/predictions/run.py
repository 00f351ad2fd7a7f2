"""One prediction: it gets the model, sends the request, receives events, and builds the result.

The streams and `respond`, `complete` and `act` of both clients run its flows. `requests.py` makes it from a call's
parameters. Built on `models/operations.py`, which runs work on a model, and on the accumulator of the protocol.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from lmstudio_integrations._support.shortening import counted
from lmstudio_integrations.client.models.binding import Binding, ModelWork, Specifier
from lmstudio_integrations.client.models.operations import (
    EXPLAINED,
    attempt_with_model,
    raise_explained,
    unloaded_error,
)
from lmstudio_integrations.client.models.retries import Retries, pause
from lmstudio_integrations.client.predictions.context_check import check_context
from lmstudio_integrations.client.predictions.required_call import log_missing_call
from lmstudio_integrations.client.predictions.second_step import SecondStep
from lmstudio_integrations.client.telemetry.spans import Operation, trace_prediction
from lmstudio_integrations.client.transport.dispatcher import NO_TIMEOUTS, Call, Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, T, call_back
from lmstudio_integrations.client.transport.telemetry import API, LOADED, is_on
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
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.endpoints import Channel
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.protocol.session import closed_early
from lmstudio_integrations.types.chat import AssistantMessage, Chat
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    PromptProgress,
)
from lmstudio_integrations.types.structured import json_object

if TYPE_CHECKING:
    from asyncio import Task
    from weakref import ref

    from lmstudio_integrations.client.hosts.route import Route

logger = logging.getLogger(__name__)

MakeRequest = Callable[[Dispatcher[Any], Binding, Specifier], Flow[Mapping[str, Any]]]
Upload = Callable[[Dispatcher[Any]], Flow[None]]
"""Uploads what the request refers to."""


@dataclass(frozen=True, slots=True)
class Request:
    """One way to request the prediction. If the server does not know the endpoint, the next way is tried.

    Attributes:
        endpoint: The endpoint.
        make: Builds the parameter; a flow, because files may have to be uploaded again first.
    """

    endpoint: Channel
    make: MakeRequest


@dataclass(slots=True)
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


_NO_CALLBACKS = Callbacks()
_CLOSED = "closed before its end; to stop it and keep what has arrived, call cancel() and read on"


class _ClosedError(BaseException):
    """Raised in a pending reader when the stream is closed elsewhere.

    Not an `Exception`, because the call that it interrupts has not failed: other callers that wait for the same model
    load must not raise it.
    """


class PredictionRun:
    """One prediction. One thread or task reads it at a time; any thread may stop it.

    Args:
        dispatcher: Sends requests to the server.
        binding: The model.
        requests: How to request the prediction, best first.
        operation: The operation, for error messages.
        preset: A preset on the server, by its (fuzzy) identifier.
        timeouts: Timeouts that differ from the client's.
        upload: Uploads images before the request, once per attempt.
        route: Chooses the host and its model for each attempt; `None` stays with the given ones.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        binding: Binding,
        requests: Sequence[Request],
        *,
        operation: str,
        preset: str | None = None,
        timeouts: Timeouts = NO_TIMEOUTS,
        upload: Upload | None = None,
        route: "Route | None" = None,
    ) -> None:
        self._client = self._dispatcher = dispatcher
        self._binding = binding
        self._requests = requests
        self._operation = operation
        self._preset: Mapping[str, str] = {} if preset is None else {"fuzzyPresetIdentifier": preset}
        self._timeouts = timeouts
        self._upload = upload
        self._route = route
        self.callbacks = _NO_CALLBACKS
        self.parse_json = False
        """Whether to parse the response as a JSON object, if it is one."""
        self.check_context = False
        """Whether to count the prompt again if the server may have cut it."""
        self.second_step: SecondStep[Request] | None = None
        """The prediction that may replace this one."""
        self.ready: deque[PredictionEvent] = deque()
        """Received events that were not read yet. All ways to read take from it, so they can be mixed."""
        self._step: Any = None
        """The call or task that is waited for: first those that get the model, then the prediction."""
        self._call: Call[Any] | None = None
        """The prediction, once it was requested."""
        self._parameter: Mapping[str, Any] = {}
        """What was requested."""
        self.required_choice: str | None = None
        """The tool choice, if a response without a tool call is to be logged."""
        self._accumulator = Accumulator()
        self._prepared = False
        self._opened = False
        self._reading = False
        self._cancelled = False
        self._closed_by: object = None
        self._failure: Exception | None = None
        self._last_progress = -1.0
        self._first_reported = False
        self._called_back = False
        """Whether a callback was called with a part of the response."""
        self.delivered: bool = False
        """Whether the reader of the events has received more than progress."""
        self.read_by: ref[Task[Any]] | None = None
        """The task that read last. A strong reference would close a cycle if the error of the task refers to this."""
        self._undelivered_to_end = False
        """Whether the caller receives nothing before the end."""
        self._unloaded = False
        """Whether the model was unloaded while it generated."""
        self._retries = Retries(dispatcher.max_retries)
        self._trace: Operation | None = None
        """The span of the prediction, if the program traces."""
        self._result: PredictionResult | None = None

    @property
    def _over(self) -> bool:
        return self._result is not None or self._failure is not None

    @property
    def summary(self) -> str:
        """The model, the server, and how far it is, for the `repr` of its readers."""
        count = len(self._accumulator.fragments)
        return f"{self._binding.name!r} at {self._dispatcher.target}: {counted(count, 'fragment')}, {self._state}"

    @property
    def _state(self) -> str:
        if self._result is not None:
            return "cancelled" if self._result.end.stats.get("stopReason") == "userStopped" else "ended"
        if isinstance(self._failure, LMStudioCancelledError):
            return "cancelled" if self._cancelled else "closed"
        if self._failure is not None:
            return "failed"
        return "not started" if self._step is None and not self._reading else "running"

    # Reading --------------------------------------------------------------------------------------------------------

    def start(self) -> Flow[None]:
        """Send the request now, once the model is loaded; reading continues from there.

        A failed connection ends the stream: `max_retries` applies to reading only.

        Raises:
            LMStudioRuntimeError: If it was started, read or stopped before.
        """
        if self._step is not None or self._over:
            raise LMStudioRuntimeError(f"{self._operation}: start() works once, before the stream is read or stopped")
        self._begin_reading()
        try:
            yield from self._on_model(self._send)
        except BaseException as error:  # noqa: BLE001 - `_fail` raises it again
            self._fail(error)
        finally:
            self._reading = False

    def advance(self) -> Flow[bool]:
        """Receive the next events, at least one; return false at the end.

        If it ends with an error, events that arrived before the error are delivered first.
        """
        if self._result is not None or self._failure is not None:  # `_over`, without a call for each batch
            return self._end()
        self._begin_reading()
        try:
            events = yield from self._next_events()
        except BaseException as error:  # noqa: BLE001 - `_fail` raises it again
            return self._fail(error)
        finally:
            self._reading = False
        if not (self.delivered or self._undelivered_to_end or _only_progress(events)):
            self.delivered = True
            if self._trace is not None:
                self._trace.record_first_chunk()
        self.ready.extend(events)
        return True

    def to_end(self) -> Flow[PredictionResult]:
        """Read to the end and return the result."""
        self._undelivered_to_end = not self.delivered
        more = True
        try:
            while more:
                more = yield from self.advance()
                self.ready.clear()
        finally:
            self._undelivered_to_end = False
            self.delivered = True
        return self.result()

    def result(self) -> PredictionResult:
        """Return the result, without waiting.

        Raises:
            LMStudioCancelledError: If it was closed before its end.
            LMStudioRuntimeError: If it has not ended yet.
            Exception: The error that ended it.
        """
        if self._result is not None:
            return self._result
        if self._failure is not None:
            raise self._failure
        raise LMStudioRuntimeError(f"{self._operation}: there is no result before the stream has ended")

    # Stopping -------------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ask the server to stop; what has arrived by then remains the result. An unsent request is never sent."""
        # The order matters: this stores the flag and then reads the call, while `_send` stores the call and then reads
        # the flag. So a request that is just being sent is cancelled by at least one of them, and never discarded: the
        # step is read first, because it is the prediction only after the call is stored.
        self._cancelled = True
        step, call = self._step, self._call
        if call is not None:
            call.cancel()
            if step is not call:
                self._end_check(step)
        elif self._reading:
            self._end_wait(step)
        else:
            self._discard()

    def close(self) -> None:
        """Stop and discard the rest: the thread or task that closes it reads a normal end, others get an error."""
        if self._result is None:
            self._closed_by = caller()
        self._discard()

    def close_unless_reading(self, reason: str = _CLOSED) -> None:
        """Stop and discard the rest, unless another thread or task is reading. Later readers get the reason."""
        if not self._reading:
            self._discard(reason)

    def _discard(self, reason: str = _CLOSED) -> None:
        """Ask the server to stop and receive nothing more; a pending reader is woken."""
        if not self._over:
            reason = "cancelled before its result arrived" if self._cancelled else reason
            self._failure = LMStudioCancelledError(f"{self._operation}: the stream was {reason}")
            self._failure.__suppress_context__ = True  # `_ClosedError` is an internal detail
            if self._trace is not None:
                self._trace.end(self._failure, self._call)
        if self._route is not None:
            self._route.release()
        self._end_wait(self._step)

    def _end_check(self, step: Any) -> None:
        """End the check of the context, if that is what is waited for: the response is complete."""
        if self._accumulator.end is not None:
            self._end_wait(step, LMStudioCancelledError("the check of the context was cancelled"))

    def _end_wait(self, step: Any, error: BaseException | None = None) -> None:
        """Close what a pending reader waits for; without another error, it wakes up and discards the prediction."""
        if isinstance(step, Call):
            step.close(error or _ClosedError(), at_once=True)
        elif step is not None:
            self._dispatcher.submit(step.waiter.finish, error or _ClosedError())

    def _begin_reading(self) -> None:
        """Reject a second reader."""
        if self._step is not None:
            self._step.waiter.check_reader()
        if self._reading:
            raise LMStudioRuntimeError(
                "two threads or tasks read from one stream; let one read, or make a stream for each"
            )
        self._reading = True

    def _fail(self, error: BaseException) -> bool:
        """End with an error and raise it; if the stream was closed, end like any stream."""
        if isinstance(error, Exception):
            self._record_failure(error)
        self._discard()
        if not isinstance(error, _ClosedError):
            raise error
        return self._end()

    def _record_failure(self, error: Exception) -> None:
        """Record the error. If a callback has seen a part of the response, the call must not be retried."""
        if isinstance(error, LMStudioConnectionLostError | LMStudioModelUnloadedError) and self._called_back:
            error.retryable = False
        self._failure = self._failure or error
        if self._trace is not None:
            self._trace.end(self._failure, self._call)

    def _end(self) -> bool:
        """Return false; raise the error if the reader would take the end for that of a complete response."""
        was_closed = isinstance(self._failure, LMStudioCancelledError)
        if not (was_closed and (self._cancelled or self._closed_by == caller())):
            self.result()
        return False

    # Receiving ------------------------------------------------------------------------------------------------------

    def _next_events(self) -> "Flow[list[PredictionEvent]]":
        """Return the next events; start over after a failure if the caller has received nothing of the response."""
        while True:
            try:
                batch = yield from self._receive((yield from self._next_batch()))
            except LMStudioError as error:
                seconds = self._delay_after(error)
                if seconds is None:
                    self._raise(error)
                if self._trace is not None:
                    self._trace.add_retry(error, self._call)
            else:
                if batch:
                    return batch
                continue  # all of it was held back
            logger.info("%s of model %r failed; retrying", self._operation, self._binding.name)
            self._prepared = self._unloaded  # after a failed connection, images are uploaded again
            # Before the pause: `cancel` discards a prediction without a call, which ends the pause.
            self._start_over()
            self.ready.clear()
            # A reload is part of the operation and its `timeout`; a retry after a failed connection starts a new one.
            yield from self._tracked(pause(self._dispatcher if self._unloaded else self._client, seconds))

    def _start_over(self) -> None:
        self._call, self._opened, self._accumulator = None, False, Accumulator()
        if self.second_step is not None:
            self.second_step.forget()

    @property
    def _is_seen(self) -> bool:
        """Whether a part of the response has reached the caller, who may also have stopped it."""
        return self.delivered or self._called_back or self._cancelled or self._failure is not None

    def _may_reload(self, error: LMStudioError) -> bool:
        """Whether no part of the response has reached the caller, and the model may be loaded again if necessary."""
        return not self._is_seen and (self._binding.reloadable or not isinstance(error, LMStudioModelUnloadedError))

    def _delay_after(self, error: LMStudioError) -> float | None:
        """Return the seconds until the next attempt; `None` if there is none."""
        seconds = self._retries.next_delay(error) if self._may_reload(error) else None
        self._unloaded = seconds is not None and isinstance(error, LMStudioModelUnloadedError)
        if seconds is None and self._route is not None:
            seconds = self._route.delay_after(error, seen=self._is_seen)
        return seconds

    def _raise(self, error: LMStudioError) -> NoReturn:
        """Raise the error of the last attempt."""
        if self._route is not None:
            self._route.raise_combined(error)
        raise error

    def _next_batch(self) -> "Flow[list[PredictionEvent]]":
        try:
            if self._opened:
                return (yield self._step)
            # After `start`, the response needs neither a turn nor the model, which may be evicted by now.
            batch = None if self._call is None else (yield from self._first_batch(self._call))
        except EXPLAINED as error:
            raise_explained(self._dispatcher, self._binding, error)
        return (yield from self._on_model(self._open)) if batch is None else batch

    def _receive(self, batch: list[PredictionEvent]) -> "Flow[list[PredictionEvent]]":
        """Accumulate events, run callbacks, and build the result at the end; return the events to deliver."""
        if not batch:
            raise _ClosedError if self._cancelled else closed_early(self._operation)
        self._accumulator.add_all(batch)
        end = self._accumulator.end
        if end is not None and self.check_context and not end.is_interrupted:  # also the first of two predictions
            yield from self._tracked(self._check_context(end))
        if self.second_step is not None:
            batch = self._released(batch, self.second_step)
        if self.callbacks is not _NO_CALLBACKS:
            for event in batch:
                yield from self._report(event)
        if self._accumulator.end is None:
            return batch
        try:
            self._finish(self._accumulator.end)
        except LMStudioError as failure:
            # Progress does not prevent a reload, whether it arrives before the failure or together with it.
            is_early = isinstance(failure, LMStudioModelUnloadedError) and _only_progress(batch[:-1])
            if self._undelivered_to_end or len(batch) == 1 or (is_early and self._may_reload(failure)):
                raise
            self._record_failure(failure)
            return batch[:-1]
        if self.callbacks.on_message is not None:
            result = self.result()
            message = Chat().add_assistant_response(result, result.tool_call_requests)
            yield from self._call_back("on_message", message)
        return batch

    def _released(self, batch: list[PredictionEvent], second_step: SecondStep[Request]) -> list[PredictionEvent]:
        """Return what may be delivered of a response that a second prediction may replace; begin that if it is due."""
        released = second_step.release(batch, self._accumulator)
        if second_step.replaced is not None and self._requests is not second_step.requests:
            assert self._call is not None, "a prediction ends after its request"
            self._call.nothing_to_stop = True
            self._requests = second_step.requests
            self._start_over()
        return released

    def _check_context(self, end: PredictionEnd) -> Flow[None]:
        received = self._accumulator
        yield from check_context(
            self._dispatcher,
            self._parameter,
            end,
            operation=self._operation,
            is_empty=not (received.tool_calls or any(fragment.content for fragment in received.fragments)),
            maximum=self._binding.context_window and self._binding.context_window.maximum,
        )

    def _on_model(self, work: ModelWork[T]) -> Flow[T]:
        """Run work on the model, after the upload of images."""
        if not self._prepared:
            if self._route is not None:
                self._client, self._binding = yield from self._tracked(self._route.next())
            self._dispatcher = self._client.for_operation(self._timeouts)
            if API in LOADED and is_on():
                self._trace, self._dispatcher = trace_prediction(
                    self._trace,
                    self._dispatcher,
                    self._binding,
                    self._operation,
                    stream=not self._undelivered_to_end,
                )
            if self._upload is not None:
                yield from self._tracked(self._upload(self._dispatcher))
            self._prepared = True
        flow = attempt_with_model(self._dispatcher, self._binding, work, self._retries, reload=self._unloaded)
        return (yield from self._tracked(flow))

    def _tracked(self, flow: Flow[T]) -> Flow[T]:
        """Run a flow and record each step that it waits for, so that any thread can stop it."""
        resume: Callable[[], Call[Any]] = partial(next, flow)
        while True:
            try:
                step = resume()
            except StopIteration as stop:
                value: T = stop.value
                return value
            self._record_step(step)
            try:
                resume = partial(flow.send, (yield step))
            except BaseException as error:  # noqa: BLE001 - the flow decides
                resume = partial(flow.throw, error)

    def _record_step(self, step: Any) -> None:
        """Record what is waited for.

        The order matters: this stores the step and then checks for a failure, while `_discard` stores the failure and
        then reads the step. So at least one of them sees the other. The same holds for a retry, which resets the call
        before its next step, and `cancel`, which stores its flag and then reads the step.
        """
        self._step = step
        if self._failure is not None or (self._cancelled and self._call is None):
            self._discard()
        elif self._cancelled:
            self._end_check(step)

    def _send(self, dispatcher: Dispatcher[Any], specifier: Specifier) -> Flow[Call[Any]]:
        """Request the prediction in the best remaining way."""
        made = yield from self._requests[0].make(dispatcher, self._binding, specifier)
        parameter = self._parameter = {**made, **self._preset}
        if self._cancelled or self._failure is not None:  # it was stopped meanwhile
            raise _ClosedError
        if self._trace is not None:
            self._trace.record_request(parameter)
        call = self._call = dispatcher.start(
            self._binding.kind, self._requests[0].endpoint, parameter, operation=self._operation
        )
        self._record_step(call)
        if self._cancelled:
            call.cancel()
        return call

    def _open(self, dispatcher: Dispatcher[Any], specifier: Specifier) -> Flow[list[PredictionEvent]]:
        """Request the prediction in the first way that the server knows, and return the first events."""
        call = yield from self._send(dispatcher, specifier)
        batch = yield from self._first_batch(call)
        return (yield from self._open(dispatcher, specifier)) if batch is None else batch

    def _first_batch(self, call: Call[Any]) -> "Flow[list[PredictionEvent] | None]":
        """Return the first events; `None` if the server does not know the endpoint and another request remains."""
        try:
            batch = yield call
        except LMStudioServerError as error:
            self._call = None
            if self._cancelled and isinstance(error, LMStudioModelNotFoundError):  # or the model would be loaded
                raise _ClosedError from error
            if not isinstance(error, LMStudioUnsupportedError) or len(self._requests) == 1:
                raise
            self._requests = self._requests[1:]
            return None
        self._opened = True
        return batch

    # Reporting ------------------------------------------------------------------------------------------------------

    def _report(self, event: PredictionEvent) -> Flow[None]:
        if type(event) is LlmPredictionFragment:
            if not self._first_reported:
                self._first_reported = True
                yield from self._report_progress(1.0)
                yield from self._call_back("on_first_token")
            yield from self._call_back("on_prediction_fragment", event)
        elif type(event) is PromptProgress:
            yield from self._report_progress(event.progress)
        elif self.callbacks.on_tool_call_event is not None and type(event) is not PredictionEnd:
            self._called_back = True
            yield from self.callbacks.on_tool_call_event(event)

    def _report_progress(self, progress: float) -> Flow[None]:
        if self.callbacks.on_prompt_processing_progress is None or progress <= self._last_progress:
            return
        is_first, self._last_progress = self._last_progress < 0, progress
        if is_first and progress > 0:
            yield from self._call_back("on_prompt_processing_progress", 0.0)
        yield from self._call_back("on_prompt_processing_progress", progress)

    def _call_back(self, name: str, *arguments: Any) -> Flow[None]:
        callback = getattr(self.callbacks, name)
        if callback is not None:
            self._called_back = True
            yield from call_back(name, callback, *arguments)

    def _finish(self, end: PredictionEnd) -> None:
        """Build the result, or raise what the stop reason means."""
        assert self._call is not None, "a prediction ends after its request"
        self._call.nothing_to_stop = True
        stop_reason = end.stats.get("stopReason")
        if stop_reason == "failed":
            raise LMStudioPredictionError(f"{self._operation} error: the generation failed on the server")
        if stop_reason == "modelUnloaded":
            raise unloaded_error(self._dispatcher, self._binding)
        if self._dispatcher.load_times:
            end.stats = {**end.stats, "modelLoadTimeSec": sum(self._dispatcher.load_times)}
            self._dispatcher.load_times.clear()
        end.host = str(self._dispatcher.target)
        if self._route is not None:
            self._route.succeeded()
        result = self._accumulator.result()
        if self.second_step is not None:
            result = self.second_step.with_usage_of_both(result)
        parsed = json_object(result.content) if self.parse_json and stop_reason != "userStopped" else None
        self._result = result if parsed is None else replace(result, parsed=parsed, structured=True)
        if self.required_choice is not None:
            log_missing_call(self._result, self.required_choice)
        if self._trace is not None:
            if not (self.delivered or self._undelivered_to_end):  # the first batch has the end
                self._trace.record_first_chunk()
            self._trace.end(self._result, self._call)


def _only_progress(events: list[PredictionEvent]) -> bool:
    return all(type(event) is PromptProgress for event in events)
