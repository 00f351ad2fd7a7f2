"""One prediction: it gets the model, sends the request, receives events, and builds the result.

The streams and `respond`, `complete` and `act` of both clients run its flows, and the adapters read it directly. It is
the loop that reads; what else is done with a prediction is a middleware in `entries/`, and `middleware.py` says how
they work together.
`models/model.py` decides whether an ask is repeated. A prediction goes through these states::

    new ── start, advance ──► waiting for the model ──► sent ──► open ── end ──► finishing ──► over
                                 ▲        ▲               │        │                 │
                                 │        └── a retry, while nothing was delivered ──┤
                                 └──────────────── a middleware asks once more ──────┘

    state                      `_step`                      `_ask.request`  cancel()
    new                        None                         None            over, with an error
    waiting for the model      a load, a turn, a pause, …   None            ends the wait; over, with what earlier asks
                                                                            have delivered, or with an error
    sent, open                 `_ask.request`               the request     the server ends the response
    finishing                  what a middleware asks       the request     ends that; the response stays
    over                       any                          any             changes nothing

`close()` and every error lead from each state to over. Any thread may stop a prediction, and so may a finalizer, which
must not wait for a lock. So there is none, but two rules. Whoever stops it records that first (`_is_cancelled`,
`_outcome`) and then wakes `_step`; whoever waits records `_step` first and then looks whether it was stopped. So at
least one of them sees the other. And the first outcome stays.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial

from lmstudio_integrations._support.text import counted, shown
from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.concurrency.cancel_scope import add_to_scope
from lmstudio_integrations.client.concurrency.flows import Flow, Step, T, run
from lmstudio_integrations.client.concurrency.mailboxes import Mailbox, current_thread_or_task
from lmstudio_integrations.client.models.model import Model, ModelOperation
from lmstudio_integrations.client.predictions.entries import middlewares_of
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware, end_of_unreadable
from lmstudio_integrations.client.predictions.plan import Plan, tools_in
from lmstudio_integrations.client.predictions.totals import Totals
from lmstudio_integrations.client.transport.listener import NOBODY
from lmstudio_integrations.client.transport.operation import OpenRequest
from lmstudio_integrations.errors import (
    LMStudioCancelledError,
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioModelUnloadedError,
    LMStudioPredictionError,
    LMStudioRuntimeError,
    LMStudioToolCallError,
    LMStudioUnsupportedError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.protocol.errors import add_suggestion, context_overflow
from lmstudio_integrations.protocol.session import closed_early
from lmstudio_integrations.types.results import (
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
)
from lmstudio_integrations.types.structured import json_object

_CLOSED = "closed before its end; to stop it and keep what has arrived, call cancel() and read on"
_CANCELLED = "cancelled before its result arrived"


class _ClosedError(BaseException):
    """Raised in a pending reader when the stream is closed elsewhere.

    Not an `Exception`, because the call that it interrupts has not failed: other callers that wait for the same model
    load must not raise it.
    """


class Prediction:
    """One prediction. One thread or task reads it at a time; any thread may stop it.

    Args:
        operation: Makes its calls.
        plan: What is requested.

    Attributes:
        ready: Received events that were not read yet. All ways to read take from it, so they can be mixed.
    """

    _outcome: PredictionResult | Exception | None = None
    """How it ended; `_settle` sets it."""

    def __init__(self, operation: ModelOperation, plan: Plan) -> None:
        self._plan = plan
        self._operation = operation
        self._middlewares = middlewares_of(plan)
        """Outermost first."""
        self._endpoints = plan.endpoints
        """Those that the server may know, best first."""
        self.ready: deque[PredictionEvent] = deque()
        self._ask = Ask()
        """The request that is made or responded to."""
        self._earlier: list[Ask] = []
        """The asks that were responded to before."""
        self._step: Step | None = None
        """What is or was waited for last: what gets the model, the response, what a middleware asks at the end."""
        self._closed_by: object = None
        self._is_reading = False
        self._is_cancelled = False
        self._is_read = False
        """Whether the reader of the events has received more than progress."""
        self._reads_to_end = False
        """Whether the caller receives nothing before the end, except by callbacks."""
        add_to_scope(self)

    @property
    def summary(self) -> str:
        """The model, the server, and how far it is, for the `repr` of its readers."""
        operation, count = self._operation, sum(len(ask.raw.fragments) for ask in (*self._earlier, self._ask))
        return f"{operation.state.name!r} at {operation.context.target}: {counted(count, 'fragment')}, {self._progress}"

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
            while self._ask.request is None:
                try:
                    yield from self._interruptible(self._send())
                except LMStudioModelNotFoundError as error:  # the request asks the instance something first
                    explained = self._operation.explain(error)
                    is_unloaded = isinstance(explained, LMStudioModelUnloadedError)
                    if not (is_unloaded and self._operation.should_retry(explained, seen=self._is_seen)):
                        raise explained  # noqa: B904 - it has its cause
        except BaseException as error:  # noqa: BLE001 - `_fail` raises it again
            self._fail(error)
        finally:
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
        if not (self._is_read or self._reads_to_end or _only_progress(events)):
            self._is_read = True
            self._operation.listener.on_first_chunk()
        self.ready.extend(events)
        return True

    def to_end(self) -> Flow[PredictionResult]:
        """Read to the end and return the result."""
        self._reads_to_end = not self._is_read
        more = True
        try:
            while more:
                more = yield from self.advance()
                self.ready.clear()
        finally:  # another reader may go on, if this one was rejected
            self._reads_to_end = False
            self._is_read = True
        return self.result()

    def batches(self) -> Generator[Events]:
        """Yield all events in this thread, in the batches in which they arrived; leaving early stops the generation."""
        try:
            while bool(self.ready) or run(self.advance()):
                batch = list(self.ready)
                self.ready.clear()
                yield batch
        finally:
            self.close_unless_reading()

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
        self._is_cancelled = True
        step, ask = self._step, self._ask
        if ask.request is not None:
            ask.request.cancel()
            if step is not ask.request:
                self._end_finishing(step)
        elif self._is_reading:
            self._wake(step)
        else:
            self._discard()

    def close(self) -> None:
        """Stop and discard the rest: the thread or task that closes it reads a normal end, others get an error."""
        if not isinstance(self._outcome, PredictionResult):
            self._closed_by = current_thread_or_task()
        self._discard()

    def close_unless_reading(self) -> None:
        """Stop and discard the rest, unless another thread or task is reading."""
        if self._outcome is None and not self._is_reading:
            self._discard()

    def abort(self, error: LMStudioCancelledError) -> None:
        """Stop and discard the rest: whoever reads it gets the error."""
        self._discard(error)

    def _discard(self, error: LMStudioCancelledError | None = None) -> None:
        """Ask the server to stop and receive nothing more; a pending reader is woken.

        Args:
            error: Who reads on gets it; by default, one that says how the stream was stopped.
        """
        at_once = error is None  # a scope lets the I/O thread send once for all that it aborts
        is_read = self._is_reading
        if not is_read:  # before an error is made, because the first one of a process takes 10 ms
            self._wake(self._step, at_once=at_once)
        if self._outcome is None:
            reason = _CANCELLED if self._is_cancelled else _CLOSED
            error = error or LMStudioCancelledError(f"{self._plan.label}: the stream was {reason}")
            error.__suppress_context__ = True  # `_ClosedError` is an internal detail
            self._report_end(self._settle(self._result_of_earlier(error) or error))
        self._operation.release()
        if is_read:  # who reads finds the outcome
            self._wake(self._step, at_once=at_once)

    def _result_of_earlier(self, error: LMStudioCancelledError) -> PredictionResult | None:
        """Return what earlier asks have delivered, if that is the result of a prediction that was cancelled."""
        fallback = self._fallback_after(error) if self._is_cancelled else None
        if fallback is None:
            return None
        events, end = fallback
        stopped = replace(end, stats={**end.stats, "stopReason": "userStopped"})
        return Totals([*self._earlier, Ask(delivered=events, is_changed=True)]).result(self._with_totals(stopped))

    def _settle(self, outcome: PredictionResult | Exception) -> PredictionResult | Exception:
        """Record how it ended, in one step: the first outcome stays, whichever thread has it."""
        first: PredictionResult | Exception = vars(self).setdefault("_outcome", outcome)
        return first

    def _end_finishing(self, step: Step | None) -> None:
        """End what a middleware asks the server, if that is what is waited for: the response is complete."""
        if self._ask.raw.end is not None:
            self._wake(step, LMStudioCancelledError(f"{self._plan.label}: cancelled after the response"))

    def _wake(self, step: Step | None, error: BaseException | None = None, *, at_once: bool = True) -> None:
        """Close what a pending reader waits for; without another error, it discards the prediction."""
        if isinstance(step, OpenRequest):
            step.close(error or _ClosedError(), at_once=at_once)
        elif step is not None and isinstance(step.mailbox, Mailbox):
            step.mailbox.abort(error or _ClosedError())

    def _begin_reading(self) -> None:
        """Reject a second reader."""
        if self._step is not None and isinstance(self._step.mailbox, Mailbox):
            self._step.mailbox.check_reader()
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
        """Record the error. If the caller has received a part of the response, the call must not be retried."""
        if isinstance(error, LMStudioConnectionLostError | LMStudioModelUnloadedError):
            error.retryable = error.retryable and not (self._is_read or self._was_called_back)
        self._report_end(self._settle(error))

    def _report_end(self, outcome: PredictionResult | Exception) -> None:
        request = self._ask.request
        if request is not None:
            request.report_connection()
        self._operation.listener.on_end(outcome)

    def _end(self) -> bool:
        """Return false; raise the error if the reader would take the end for that of a complete response."""
        was_closed = isinstance(self._outcome, LMStudioCancelledError)
        if not (was_closed and (self._is_cancelled or self._closed_by == current_thread_or_task())):
            self.result()
        return False

    @property
    def _was_called_back(self) -> bool:
        return self._plan.callbacks is not None and self._plan.callbacks.were_called

    @property
    def _is_seen(self) -> bool:
        """Whether a part of the response has reached the caller, who may also have stopped it."""
        return self._is_read or self._was_called_back or self._is_cancelled or self._outcome is not None

    # Receiving ------------------------------------------------------------------------------------------------------

    def _next_events(self) -> Flow[Events]:
        """Return the next events; repeat the ask after a failure if the caller has received nothing of the response."""
        while True:
            try:
                events = yield from self._receive((yield from self._next_batch()))
            except LMStudioError as error:
                if self._repeats_after(error):
                    continue
                fallback = self._fallback_after(error)
                if fallback is None:
                    raise self._operation.final_error(error)  # noqa: B904 - it has its cause
                events = yield from self._deliver(*fallback, self._outside_of(self._ask))
            if events:  # otherwise all of them are held
                return events

    def _repeats_after(self, error: LMStudioError) -> bool:
        """Whether the ask is repeated, in another way if the server does not know this one.

        On another instance, a middleware may ask in place of the caller.
        """
        ask = self._ask
        if ask.request is not None:
            ask.request.report_connection()
        is_unknown = isinstance(error, LMStudioUnsupportedError) and ask.request is not None and not ask.is_open
        if is_unknown and len(self._endpoints) > 1:
            self._endpoints = self._endpoints[1:]
        elif not (self._is_changed_after(error) or self._operation.should_retry(error, seen=self._is_seen)):
            return False
        for middleware in self._middlewares:
            middleware.reset(ask)
        self._ask = Ask(ask.asked_by if self._earlier else None)
        self.ready.clear()
        return True

    def _is_changed_after(self, error: LMStudioError) -> bool:
        """Whether a middleware changes the ask, so that it does not fail again."""
        if self._is_cancelled or self._outcome is not None or (self._ask.is_open and self._is_seen):
            return False
        return any(middleware.repeats_after(error, self._ask) for middleware in self._middlewares)

    def _fallback_after(self, error: LMStudioError) -> tuple[Events, PredictionEnd] | None:
        """Return how the prediction ends if its ask has failed; a middleware decides that for its own ask."""
        ask = self._ask
        return None if ask.asked_by is None else ask.asked_by.recover(error, ask)

    def _outside_of(self, ask: Ask) -> list[Middleware]:
        """Return the middlewares outside of that whose ask it is: they get the end that it has in place of its own."""
        return [] if ask.asked_by is None else self._middlewares[: self._middlewares.index(ask.asked_by)]

    def _next_batch(self) -> Flow[Events]:
        """Return the next events of the ask, which is sent first if it was not.

        After `start`, the response does not need the model, which may be evicted by now.
        """
        try:
            if self._ask.request is None:
                yield from self._interruptible(self._send())
            ask = self._ask
            assert ask.request is not None, "it was requested"
            batch: Events = yield ask.request
        except LMStudioError as error:
            explained = self._explain(error)
            is_gone = isinstance(explained, LMStudioModelNotFoundError | LMStudioModelUnloadedError)
            if self._is_cancelled and not self._ask.is_open and is_gone:
                raise _ClosedError from error  # or it would be loaded
            if not (isinstance(explained, LMStudioToolCallError) and tools_in(self._ask.parameter)):
                raise explained  # noqa: B904 - it has its cause
            ask = self._ask
            batch = end_of_unreadable(ask, explained)
        ask.is_open = True
        return batch

    def _explain(self, error: LMStudioError) -> LMStudioError:
        """Return an error with what this process knows of the model, or which setting names a draft model.

        Once an instance is asked, a server that cannot find a model, or finds one of another kind, means the draft.
        """
        explained, draft = self._operation.explain(error), self._plan.settings.draft_model
        if not isinstance(explained, LMStudioModelNotFoundError | LMStudioWrongModelKindError):
            return explained
        if not draft or self._ask.request is None:
            return explained
        remedy = f"draft_model={shown(draft)} must name a language model; `lmsi ls` lists those that are downloaded"
        named = add_suggestion(explained, remedy)
        named.__suppress_context__ = True  # it says all that the other says
        return named

    def _begin_attempt(self) -> Flow[None]:
        """Begin the next attempt, and upload what it needs."""
        operation = self._operation
        if operation.listener is NOBODY:  # a provider may have been configured since the stream was made
            operation.listener = operation.context.listener
        yield from operation.next_attempt()
        target, key = operation.context.target, operation.state.key
        is_stream = not self._reads_to_end
        operation.listener = operation.listener.on_start(self._plan.label, target, key, is_stream=is_stream)
        yield from self._plan.upload(operation)

    def _send(self) -> Flow[None]:
        """Get the model, and send the request in the best remaining way."""
        operation, ask, plan, endpoint = self._operation, self._ask, self._plan, self._endpoints[0]
        if not operation.is_running:
            yield from self._begin_attempt()
        ask.operation, ask.instance = operation, (yield from operation.get_instance())
        if not self._earlier:
            ask.asked_by = next((each for each in self._middlewares if each.asks_first(ask.instance)), None)
        parameter = yield from plan.parameter(ask.operation, ask.instance, endpoint)
        for middleware in self._middlewares:
            parameter = yield from middleware.parameter(parameter, ask)
        if plan.options.preset is not None:
            parameter = {**parameter, "fuzzyPresetIdentifier": plan.options.preset}
        if self._is_cancelled or self._outcome is not None:  # it was stopped meanwhile
            raise _ClosedError
        operation.listener.on_request(parameter)
        ask.parameter = parameter
        (ask.request,) = ask.operation.start("llm", endpoint, parameter, label=plan.label)
        self._record_step(ask.request)
        if self._is_cancelled:
            ask.request.cancel()

    def _receive(self, batch: Events) -> Flow[Events]:
        """Record the events of a batch, and return what is delivered of them."""
        if not batch:
            raise _ClosedError if self._is_cancelled else closed_early(self._plan.label)
        ask = self._ask
        ask.raw.add_all(batch)
        end = ask.raw.end
        if end is None:
            return (yield from self._deliver(batch, None, self._middlewares))
        ask.instance = self._operation.recognize(ask.instance, end)
        if ask.request is not None:
            ask.request.server_is_done = True
        ask.is_cancelled = self._is_cancelled
        self._check_window(ask, end)
        return (yield from self._deliver(batch[:-1], end, self._middlewares))

    def _check_window(self, ask: Ask, end: PredictionEnd) -> None:
        """Raise if the server reports no failure, and its numbers alone say that it did not read the prompt."""
        used, limit = end.stats.get("promptTokensCount") or 0, end.model_info.get("contextLength")
        if is_count(limit) and used > limit and ask.is_empty and not end.is_interrupted:
            window = ask.instance.context_window
            raise context_overflow(self._plan.label, used, limit, window and window.maximum)

    def _deliver(self, events: Events, end: PredictionEnd | None, middlewares: Sequence[Middleware]) -> Flow[Events]:
        """Pass events to middlewares and callbacks; at the end, build the result, or prepare the next ask."""
        ask = self._ask
        events, end, asks_again = yield from self._pass_through(events, end, middlewares)
        if end is not None:
            end = self._with_totals(end)
            events = [*events, end]
        if self._plan.callbacks is not None:
            yield from self._plan.callbacks.show(events)
        ask.delivered += events
        if asks_again is not None:
            asks_again.has_asked = True
            self._earlier.append(ask)
            self._ask = Ask(asks_again)
        return events if end is None else (yield from self._finish(events, end))

    def _pass_through(
        self, events: Events, end: PredictionEnd | None, middlewares: Sequence[Middleware]
    ) -> Flow[tuple[Events, PredictionEnd | None, Middleware | None]]:
        """Return what middlewares leave of events and an end, and which of them asks once more."""
        ask, asks_again, last = self._ask, None, end
        for middleware in reversed(middlewares):
            before = events
            if end is None:
                events = middleware.events(events, ask)
            else:
                last = end
                events, end = yield from self._interruptible(middleware.finish(events, end, ask))
                if end is None and middleware.has_asked:
                    end = last
                asks_again = middleware if end is None else None
            ask.is_changed = ask.is_changed or events is not before
        if ask.raw.end is not None and ask.end is None:
            ask.end = end or last
        return events, end, asks_again

    def _finish(self, events: Events, end: PredictionEnd) -> Flow[Events]:
        """Build the result from what was delivered; return the last events."""
        try:
            self._complete(end)
        except LMStudioError as failure:
            # Progress does not prevent a reload, whether it arrives before the failure or together with it.
            is_early = isinstance(failure, LMStudioModelUnloadedError) and _only_progress(events[:-1])
            may_reload = not self._is_seen and self._operation.state.reloadable
            if self._reads_to_end or len(events) == 1 or (is_early and may_reload):
                raise
            self._record_failure(failure)
            self._operation.release()
            return events[:-1]
        if self._plan.callbacks is not None:
            yield from self._plan.callbacks.show_message(self.result())
        return events

    def _complete(self, end: PredictionEnd) -> None:
        """Record the result, or raise what the stop reason means."""
        operation, plan = self._operation, self._plan
        stop_reason = end.stats.get("stopReason")
        if stop_reason == "failed":
            raise LMStudioPredictionError(f"{plan.label} error: the generation failed on the server")
        if stop_reason == "modelUnloaded":
            raise operation.unloaded_error()
        result = Totals([*self._earlier, self._ask]).result(end)
        if result.thoughts:
            # The last ask may have failed before it had an instance.
            asks = (self._ask, *reversed(self._earlier))
            next(ask for ask in asks if ask.raw.end is not None).instance.reasoning.add(result.thoughts)
        operation.record_success(result)
        parsed = json_object(result.content) if plan.parse_json and stop_reason != "userStopped" else None
        result = result if parsed is None else replace(result, parsed=parsed, structured=True)
        if self._settle(result) is not result:
            raise _ClosedError
        if not (self._is_read or self._reads_to_end):  # the first batch has the end
            operation.listener.on_first_chunk()
        self._report_end(result)

    def _with_totals(self, end: PredictionEnd) -> PredictionEnd:
        """Return the end of the prediction, with what all asks have used, and where it ran."""
        operation = self._operation
        return Totals([*self._earlier, self._ask]).end(end, operation.load_times, str(operation.context.target))

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
        """Record what is waited for, and then wake it if the prediction was stopped."""
        self._step = step
        if self._outcome is not None or (self._is_cancelled and self._ask.request is None):
            self._wake(step)
        elif self._is_cancelled:
            self._end_finishing(step)


def _only_progress(events: Events) -> bool:
    return all(event.kind == "progress" for event in events)


class PredictingModel(Model):
    """A model that predicts: what the tool loop and rerankers need of a language model, which is made of them."""

    def predict(self, plan: Plan) -> Prediction:
        """Return a prediction, which begins when it is read."""
        return Prediction(self.operation(plan.timeouts), plan)
