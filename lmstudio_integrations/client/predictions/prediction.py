"""One prediction: it gets the model, sends the request, receives events, and builds the result.

The streams and `respond`, `complete` and `act` of both clients run its flows. `requests.py` makes its plan from the
parameters of a call. It is the loop that reads: `models/attempts.py` decides whether it starts over, and `delivery.py`
knows what the caller has seen.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from lmstudio_integrations._support.text import counted
from lmstudio_integrations.client.models.attempts import Attempts
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.context_check import check_context
from lmstudio_integrations.client.predictions.delivery import NO_CALLBACKS, Callbacks, Delivery
from lmstudio_integrations.client.predictions.prompt_cache import PromptCache
from lmstudio_integrations.client.predictions.review import Review
from lmstudio_integrations.client.transport.flows import Flow, Step, T
from lmstudio_integrations.client.transport.operation import Call, Operation
from lmstudio_integrations.client.transport.waiters import Waiter, current_thread_or_task
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
from lmstudio_integrations.protocol.endpoints import Channel, Namespace
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.protocol.prompt_outline import OutlineMaker
from lmstudio_integrations.protocol.session import closed_early
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.results import PredictionEnd, PredictionEvent, PredictionResult, PromptProgress
from lmstudio_integrations.types.structured import json_object


class PredictionRequest(Protocol):
    """One way to request a prediction. If the server does not know the endpoint, the next way is tried."""

    namespace: Namespace
    endpoint: Channel

    def upload(self, operation: Operation) -> Flow[None]:
        """Upload what the request refers to. It is run once for each operation."""
        ...

    def parameter(self, operation: Operation, instance: Instance) -> Flow[Mapping[str, Any]]:
        """Return the parameter of the request."""
        ...


@dataclass(slots=True)
class Plan:
    """What a prediction requests, and what becomes of the response.

    Attributes:
        requests: The ways to request it, best first.
        label: What errors call it.
        preset: A preset on the server, by its (fuzzy) identifier.
        timeouts: Timeouts that differ from the client's.
        files: The uploaded files that it refers to.
        outline: Returns the outline of its conversation.
        callbacks: What is called with parts of the response.
        parse_json: Whether to parse the response as a JSON object, if it is one.
        check_context: Whether to count the prompt again if the server may have cut it.
        review: What is done with the response before it is delivered.
    """

    requests: Sequence[PredictionRequest]
    label: str
    preset: str | None = None
    timeouts: Timeouts = field(default_factory=dict[str, float | None])
    files: tuple[FileHandle, ...] = ()
    outline: OutlineMaker | None = None
    callbacks: Callbacks = NO_CALLBACKS
    parse_json: bool = False
    check_context: bool = False
    review: Review[PredictionRequest] | None = None


@dataclass(slots=True, eq=False)
class _Response:
    """The response to one request.

    Attributes:
        call: The request.
        parameter: Its parameter.
        received: What was received.
        is_second: Whether it is the second prediction of the review.
        is_open: Whether the server has begun to respond.
    """

    call: Call
    parameter: Mapping[str, Any]
    is_second: bool
    received: Accumulator = field(default_factory=Accumulator)
    is_open: bool = False


_CLOSED = "closed before its end; to stop it and keep what has arrived, call cancel() and read on"


class _ClosedError(BaseException):
    """Raised in a pending reader when the stream is closed elsewhere.

    Not an `Exception`, because the call that it interrupts has not failed: other callers that wait for the same model
    load must not raise it.
    """


class Prediction:
    """One prediction. One thread or task reads it at a time; any thread may stop it.

    Args:
        attempts: The attempts of it.
        plan: What is requested.

    Attributes:
        ready: Received events that were not read yet. All ways to read take from it, so they can be mixed.
    """

    def __init__(self, attempts: Attempts, plan: Plan) -> None:
        self._plan = plan
        self._attempts = attempts
        self._delivery = Delivery(plan.callbacks)
        self._requests = plan.requests
        self.ready: deque[PredictionEvent] = deque()
        self._response: _Response | None = None
        self._step: Step | None = None
        """What is waited for: first what gets the model, then the response."""
        self._outcome: PredictionResult | Exception | None = None
        self._closed_by: object = None
        self._is_reading = False
        self._is_cancelled = False

    @property
    def summary(self) -> str:
        """The model, the server, and how far it is, for the `repr` of its readers."""
        count = 0 if self._response is None else len(self._response.received.fragments)
        attempts = self._attempts
        return f"{attempts.state.name!r} at {attempts.caller.target}: {counted(count, 'fragment')}, {self._progress}"

    @property
    def _progress(self) -> str:
        match self._outcome:
            case PredictionResult() as result:
                return "cancelled" if result.end.stats.get("stopReason") == "userStopped" else "ended"
            case LMStudioCancelledError():
                return "cancelled" if self._is_cancelled else "closed"
            case None:
                return "not started" if self._step is None and not self._is_reading else "running"
            case _:
                return "failed"

    # Reading --------------------------------------------------------------------------------------------------------

    def start(self) -> Flow[None]:
        """Send the request now, once the model is loaded; reading continues from there.

        A failed connection ends the stream: `max_retries` applies to reading only.

        Raises:
            LMStudioRuntimeError: If it was started, read or stopped before.
        """
        if self._step is not None or self._outcome is not None:
            raise LMStudioRuntimeError(f"{self._plan.label}: start() works once, before the stream is read or stopped")
        self._begin_reading()
        try:
            while self._response is None:
                try:
                    yield from self._interruptible(self._send())
                except LMStudioModelNotFoundError as error:  # the request asks the instance something first
                    self._attempts.end()
                    explained = self._attempts.explained(error)
                    is_unloaded = isinstance(explained, LMStudioModelUnloadedError)
                    if not (is_unloaded and self._attempts.failed(explained, seen=self._is_seen)):
                        raise explained  # noqa: B904 - it has its cause
            self._attempts.responded()
        except BaseException as error:  # noqa: BLE001 - `_fail` raises it again
            self._fail(error)
        finally:
            self._attempts.end()
            self._is_reading = False

    def advance(self) -> Flow[bool]:
        """Receive the next events, at least one; return false at the end.

        If it ends with an error, events that arrived before the error are delivered first.
        """
        if self._outcome is not None:
            return self._end()
        self._begin_reading()
        try:
            events = yield from self._next_events()
        except BaseException as error:  # noqa: BLE001 - `_fail` raises it again
            return self._fail(error)
        finally:
            self._is_reading = False
        delivery = self._delivery
        if not (delivery.is_read or delivery.reads_to_end or _only_progress(events)):
            delivery.record_read()
            self._attempts.listener.first_chunk()
        self.ready.extend(events)
        return True

    def to_end(self) -> Flow[PredictionResult]:
        """Read to the end and return the result."""
        self._delivery.reads_to_end = not self._delivery.is_read
        more = True
        try:
            while more:
                more = yield from self.advance()
                self.ready.clear()
        finally:  # another reader may go on, if this one was rejected
            self._delivery.reads_to_end = False
            self._delivery.record_read()
        return self.result()

    def result(self) -> PredictionResult:
        """Return the result, without waiting.

        Raises:
            LMStudioCancelledError: If it was closed before its end.
            LMStudioRuntimeError: If it has not ended yet.
            Exception: The error that ended it.
        """
        match self._outcome:
            case PredictionResult() as result:
                return result
            case None:
                raise LMStudioRuntimeError(f"{self._plan.label}: there is no result before the stream has ended")
            case error:
                raise error

    # Stopping -------------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ask the server to stop; what has arrived by then remains the result. An unsent request is never sent."""
        # The order matters: this stores the flag and then reads the response, while `_send` stores the response and
        # then reads the flag. So a request that is just being sent is cancelled by at least one of them, and never
        # discarded: the step is read first, because it is the response only after that is stored.
        self._is_cancelled = True
        step, response = self._step, self._response
        if response is not None:
            response.call.cancel()
            if step is not response.call:
                self._end_check(step)
        elif self._is_reading:
            self._end_wait(step)
        else:
            self._discard()

    def close(self) -> None:
        """Stop and discard the rest: the thread or task that closes it reads a normal end, others get an error."""
        if not isinstance(self._outcome, PredictionResult):
            self._closed_by = current_thread_or_task()
        self._discard()

    def close_unless_reading(self) -> None:
        """Stop and discard the rest, unless another thread or task is reading."""
        if not self._is_reading:
            self._discard()

    def _discard(self) -> None:
        """Ask the server to stop and receive nothing more; a pending reader is woken."""
        kept = self._plan.review.kept if self._plan.review is not None and self._is_cancelled else None
        if self._outcome is None and kept is not None:
            self._outcome = kept
            self._report_end(kept)
        elif self._outcome is None:
            reason = "cancelled before its result arrived" if self._is_cancelled else _CLOSED
            error = LMStudioCancelledError(f"{self._plan.label}: the stream was {reason}")
            error.__suppress_context__ = True  # `_ClosedError` is an internal detail
            self._outcome = error
            self._report_end(error)
        self._attempts.release()
        self._end_wait(self._step)

    def _end_check(self, step: Step | None) -> None:
        """End the check of the context, if that is what is waited for: the response is complete."""
        response = self._response
        if response is not None and response.received.end is not None:
            self._end_wait(step, LMStudioCancelledError("the check of the context was cancelled"))

    def _end_wait(self, step: Step | None, error: BaseException | None = None) -> None:
        """Close what a pending reader waits for; without another error, it wakes up and discards the prediction."""
        if isinstance(step, Call):
            step.close(error or _ClosedError(), at_once=True)
        elif step is not None and isinstance(step.waiter, Waiter):
            self._attempts.caller.submit(step.waiter.finish, error or _ClosedError())

    def _begin_reading(self) -> None:
        """Reject a second reader."""
        if self._step is not None and isinstance(self._step.waiter, Waiter):
            self._step.waiter.check_reader()
        if self._is_reading:
            raise LMStudioRuntimeError(
                "two threads or tasks read from one stream; let one read, or make a stream for each"
            )
        self._is_reading = True

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
        if isinstance(error, LMStudioConnectionLostError | LMStudioModelUnloadedError):
            error.retryable = error.retryable and not self._delivery.is_called_back
        if self._outcome is None:
            self._outcome = error
        self._report_end(self._outcome)

    def _report_end(self, outcome: PredictionResult | Exception) -> None:
        response = self._response
        if response is not None:
            response.call.report_connection()
        self._attempts.listener.ended(outcome)

    def _end(self) -> bool:
        """Return false; raise the error if the reader would take the end for that of a complete response."""
        was_closed = isinstance(self._outcome, LMStudioCancelledError)
        if not (was_closed and (self._is_cancelled or self._closed_by == current_thread_or_task())):
            self.result()
        return False

    # Receiving ------------------------------------------------------------------------------------------------------

    def _next_events(self) -> Flow[list[PredictionEvent]]:
        """Return the next events; start over after a failure if the caller has received nothing of the response."""
        while True:
            try:
                batch = yield from self._receive((yield from self._next_batch()))
            except LMStudioError as error:
                response, self._response = self._response, None
                if response is not None:
                    response.call.report_connection()
                elif self._is_cancelled and isinstance(error, LMStudioModelUnloadedError):
                    raise _ClosedError from error
                if not self._attempts.failed(error, seen=self._is_seen):
                    kept = self._kept_after(error)
                    if kept is not None:
                        return (yield from self._finish_with(kept))
                    self._response = response
                    raise self._attempts.final(error)  # noqa: B904 - it has its cause
                if self._plan.review is not None:
                    self._plan.review.forget()
                self.ready.clear()
            else:
                if batch:  # otherwise all of it was held back
                    return batch

    def _kept_after(self, error: LMStudioError) -> PredictionResult | None:
        """Return the first response, if that is complete and only the second prediction has failed on the server."""
        is_of_server = isinstance(error, LMStudioServerError | LMStudioPredictionError)
        if self._plan.review is None or not is_of_server or isinstance(error, LMStudioModelUnloadedError):
            return None
        return self._plan.review.kept_after(error)

    def _finish_with(self, kept: PredictionResult) -> Flow[list[PredictionEvent]]:
        """End with the first response; return its last event."""
        self._outcome = kept
        self._attempts.succeeded(kept)
        self._report_end(kept)
        yield from self._delivery.show_message(kept)
        return [kept.end]

    @property
    def _is_seen(self) -> bool:
        """Whether a part of the response has reached the caller, who may also have stopped it."""
        return self._delivery.is_begun or self._is_cancelled or self._outcome is not None

    def _next_batch(self) -> Flow[list[PredictionEvent]]:
        response = self._response
        try:
            if response is not None and response.is_open:
                return (yield response.call)
            return (yield from self._first_batch())
        except LMStudioError as error:
            raise self._attempts.explained(error)  # noqa: B904 - it has its cause

    def _first_batch(self) -> Flow[list[PredictionEvent]]:
        """Request the prediction in the first way that the server knows, and return the first events.

        After `start`, the response needs neither a turn nor the model, which may be evicted by now.
        """
        try:
            while True:
                if self._response is None:
                    yield from self._interruptible(self._send())
                response = self._response
                assert response is not None, "it was requested"
                try:
                    batch = yield response.call
                except LMStudioServerError as error:
                    self._response = None
                    if self._is_cancelled and isinstance(error, LMStudioModelNotFoundError):  # or it would be loaded
                        raise _ClosedError from error
                    if not isinstance(error, LMStudioUnsupportedError) or len(self._requests) == 1:
                        raise
                    self._requests = self._requests[1:]
                else:
                    response.is_open = True
                    self._attempts.responded()
                    return batch
        finally:
            self._attempts.end()

    def _begin_attempt(self) -> Flow[None]:
        """Begin the next attempt, and upload what it needs."""
        attempts = self._attempts
        operation = yield from attempts.next()
        is_stream = not self._delivery.reads_to_end
        target, key = attempts.caller.target, attempts.state.key
        attempts.listener = operation.listener.began(self._plan.label, target, key, is_stream=is_stream)
        operation.listener = attempts.listener
        yield from self._requests[0].upload(operation)

    def _send(self) -> Flow[None]:
        """Get the model, and send the request in the best remaining way. The operation keeps its turn."""
        attempts, review = self._attempts, self._plan.review
        if not attempts.is_running:
            yield from self._begin_attempt()
        operation, instance = attempts.operation, (yield from attempts.instance())
        second = None if review is None else review.requests_on(instance)
        request = (second or self._requests)[0]
        parameter = yield from request.parameter(operation, instance)
        if self._plan.preset is not None:
            parameter = {**parameter, "fuzzyPresetIdentifier": self._plan.preset}
        if self._is_cancelled or self._outcome is not None:  # it was stopped meanwhile
            raise _ClosedError
        attempts.listener.requested(parameter)
        call = operation.start(request.namespace, request.endpoint, parameter, label=self._plan.label)
        self._response = _Response(call, parameter, is_second=second is not None)
        self._record_step(call)
        if self._is_cancelled:
            call.cancel()

    def _receive(self, batch: list[PredictionEvent]) -> Flow[list[PredictionEvent]]:
        """Accumulate events, run callbacks, and build the result at the end; return the events to deliver."""
        if not batch:
            raise _ClosedError if self._is_cancelled else closed_early(self._plan.label)
        response, plan = self._response, self._plan
        assert response is not None, "events follow on a request"
        received = response.received
        received.add_all(batch)
        end = received.end
        if end is not None and self._is_cancelled and not end.has_stats:  # generators do not say why they stopped
            end.stats = {**end.stats, "stopReason": "userStopped"}
        if end is not None and plan.check_context and not end.is_interrupted:  # also the first of two predictions
            yield from self._interruptible(self._check_context(response, end))
        review = plan.review
        if review is not None:
            batch = review.release(batch, received)
        if plan.callbacks is not NO_CALLBACKS:
            yield from self._delivery.show(batch)
        if review is not None and review.has_more and not response.is_second:
            assert end is not None, "a response is complete before another one follows"
            response.call.server_is_done = True
            end.host = str(self._attempts.caller.target)
            self._compare_prompt(received.result())
            self._response = None
            return batch
        if end is None:
            return batch
        try:
            self._finish(response, end)
        except LMStudioError as failure:
            # Progress does not prevent a reload, whether it arrives before the failure or together with it.
            is_early = isinstance(failure, LMStudioModelUnloadedError) and _only_progress(batch[:-1])
            may_reload = not self._is_seen and self._attempts.state.reloadable
            if self._delivery.reads_to_end or len(batch) == 1 or (is_early and may_reload):
                raise
            self._record_failure(failure)
            return batch[:-1]
        yield from self._delivery.show_message(self.result())
        return batch

    def _check_context(self, response: _Response, end: PredictionEnd) -> Flow[None]:
        received, window = response.received, self._attempts.state.context_window
        yield from check_context(
            self._attempts.operation,
            response.parameter,
            end,
            label=self._plan.label,
            is_empty=not (received.tool_calls or any(fragment.content for fragment in received.fragments)),
            maximum=window and window.maximum,
        )

    def _finish(self, response: _Response, end: PredictionEnd) -> None:
        """Build the result, or raise what the stop reason means."""
        response.call.server_is_done = True
        attempts, plan, operation = self._attempts, self._plan, self._attempts.operation
        stop_reason = end.stats.get("stopReason")
        if stop_reason == "failed":
            raise LMStudioPredictionError(f"{plan.label} error: the generation failed on the server")
        if stop_reason == "modelUnloaded":
            raise attempts.unloaded_error()
        if operation.load_times:
            end.stats = {**end.stats, "modelLoadTimeSec": sum(operation.load_times)}
            operation.load_times.clear()
        end.host = str(attempts.caller.target)
        result = response.received.result()
        attempts.succeeded(result)
        if not response.is_second:
            self._compare_prompt(result)
        if plan.review is not None:
            result = plan.review.completed(result)
        parsed = json_object(result.content) if plan.parse_json and stop_reason != "userStopped" else None
        result = result if parsed is None else replace(result, parsed=parsed, structured=True)
        self._outcome = result
        if not (self._delivery.is_read or self._delivery.reads_to_end):  # the first batch has the end
            attempts.listener.first_chunk()
        self._report_end(result)

    def _compare_prompt(self, result: PredictionResult) -> None:
        """Warn if the prompt leaves the server's cache although it should not. The second of two need not be in it."""
        if self._plan.outline is not None:
            self._attempts.caller.shared(PromptCache).add(self._plan.outline(), result)

    # Waiting --------------------------------------------------------------------------------------------------------

    def _interruptible(self, flow: Flow[T]) -> Flow[T]:
        """Run a flow and record each step that it waits for, so that any thread can stop it."""
        resume: Callable[[], Step] = partial(next, flow)
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

    def _record_step(self, step: Step) -> None:
        """Record what is waited for.

        The order matters: this stores the step and then checks for a failure, while `_discard` stores the failure and
        then reads the step. So at least one of them sees the other. The same holds for a retry, which drops the
        response before its next step, and `cancel`, which stores its flag and then reads the step.
        """
        self._step = step
        if self._outcome is not None or (self._is_cancelled and self._response is None):
            self._discard()
        elif self._is_cancelled:
            self._end_check(step)


def _only_progress(events: list[PredictionEvent]) -> bool:
    return all(type(event) is PromptProgress for event in events)


class PredictingModel(Model):
    """A model that predicts."""

    def predict(self, plan: Plan) -> Prediction:
        """Return a prediction, which begins when it is read."""
        return Prediction(self.attempts(plan.timeouts, files=plan.files, outline=plan.outline), plan)
