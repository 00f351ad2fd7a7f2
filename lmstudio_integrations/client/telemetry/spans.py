"""OpenTelemetry: the spans and metrics of predictions, embeddings and loads, with the names of the GenAI conventions.

The flows of predictions, embeddings and loads run in the caller's thread or task,
so spans begin with the context of the caller. A span is never current while a flow waits: the dispatcher of the
operation has its context. Built on `transport/telemetry.py`, which also traces connections.
"""

import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lmstudio_integrations._support.secrets import redact
from lmstudio_integrations.client.models.binding import Binding
from lmstudio_integrations.client.models.server_models import models_of
from lmstudio_integrations.client.telemetry.attributes import (
    Attributes,
    input_content,
    output_content,
    request_attributes,
    result_attributes,
)
from lmstudio_integrations.client.transport.dispatcher import Call, Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, T
from lmstudio_integrations.client.transport.telemetry import (
    API,
    LOADED,
    PROVIDER,
    SCOPE,
    end_span,
    error_type,
    get_tracer,
    is_on,
    run_outside_sdk,
    server_attributes,
)
from lmstudio_integrations.types.results import PredictionResult

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_WITH_CONTENT = {"true", "span_only", "span_and_event"}

_OPERATIONS = {"Chat response": "chat", "Completion": "text_completion"}
"""The conventions' names of operations, by our own."""

_DURATION, _TOKENS = "gen_ai.client.operation.duration", "gen_ai.client.token.usage"
_HISTOGRAMS: dict[str, dict[str, Any]] = {
    _DURATION: {
        "unit": "s",
        "description": "GenAI operation duration.",
        "explicit_bucket_boundaries_advisory": [0.01 * 2**power for power in range(14)],
    },
    _TOKENS: {
        "unit": "{token}",
        "description": "Number of input and output tokens used.",
        "explicit_bucket_boundaries_advisory": [4**power for power in range(14)],
    },
}
_IN_METRICS = {
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
}


class Operation:
    """A traced operation: its span, and its metrics at the end. Any thread may end it; only the first end counts.

    Args:
        name: The conventions' name of the operation.
        dispatcher: Sends its requests.
        binding: Its model.
    """

    def __init__(self, name: str, dispatcher: Dispatcher[Any], binding: Binding) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context  # noqa: PLC0415 - the program has imported it

        self._running: list[Span] = []
        self._name = name
        self.dispatcher = dispatcher
        self.binding = binding
        self._started = time.perf_counter()
        attributes = self._attributes()
        self._span = get_tracer().start_span(
            _span_name(name, attributes), dispatcher.trace_context, SpanKind.CLIENT, attributes
        )
        self.context: Context = set_span_in_context(self._span, dispatcher.trace_context)
        """The context of its connections and loads."""
        self._running.append(self._span)
        self.found: Attributes = {}
        """What is known at the end, also for the metrics."""

    def _attributes(self) -> Attributes:
        return {"gen_ai.operation.name": self._name, **_place_of(self.dispatcher, self.binding)}

    def set(self, key: str, value: Any) -> None:
        """Set an attribute of the span."""
        self._span.set_attribute(key, value)

    def record_first_chunk(self) -> None:
        """Record that the caller receives the first part of the response, unless the response has ended."""
        if self._running:
            self.set("gen_ai.response.time_to_first_chunk", time.perf_counter() - self._started)

    def record_request(self, parameter: Mapping[str, Any]) -> None:
        """Set the settings of a request, and its content if the program asks for that."""
        if self._span.is_recording():
            self._span.set_attributes(request_attributes(parameter))
            if _captures_content():
                self._span.set_attributes(input_content(parameter))

    def add_retry(self, error: Exception, call: Call[Any] | None) -> None:
        """Report the connection of an attempt that failed, and add an event: the prediction starts over."""
        if call is not None:
            call.report_connection()
        add_retry(self.context, error)

    def end(self, outcome: PredictionResult | BaseException | None, call: Call[Any] | None = None) -> None:
        """End the span, and record the metrics.

        Args:
            outcome: The result, or the error; `None` for an operation that was given up.
            call: The request, whose connection is reported first.
        """
        try:
            span = self._running.pop()  # in one step: a reader and another thread may end it
        except IndexError:
            return
        if call is not None:
            call.report_connection()
        seconds = time.perf_counter() - self._started
        run_outside_sdk(self._finish, span, outcome, seconds, submit=self.dispatcher.submit)

    def _finish(self, span: "Span", outcome: PredictionResult | BaseException | None, seconds: float) -> None:
        # Only now, because the prediction may have moved to another host.
        found = self._attributes() | self.found
        error = outcome if isinstance(outcome, BaseException) else None
        if isinstance(outcome, PredictionResult):
            found |= result_attributes(outcome)
            if _captures_content() and span.is_recording():
                span.set_attributes(output_content(outcome))
        span.set_attributes(found)
        end_span(span, error)
        _record_metrics(found, seconds, error_type(error))

    def __del__(self) -> None:
        self.end(None)


def _place_of(dispatcher: Dispatcher[Any], binding: Binding) -> Attributes:
    """Return the attributes of the requested model and of its server."""
    # Redacted, because a token that was given as the model must not be exported.
    model = {} if binding.key is None else {"gen_ai.request.model": redact(binding.key)}
    return {**PROVIDER, **model, **server_attributes(dispatcher.target.address)}


def _span_name(operation: str, attributes: Attributes) -> str:
    model = attributes.get("gen_ai.request.model")
    return f"{operation} {model}" if model else operation


def _record_metrics(found: Attributes, seconds: float, error: str | None) -> None:
    labels = {key: value for key, value in found.items() if key in _IN_METRICS}
    for kind in ("input", "output"):
        count = found.get(f"gen_ai.usage.{kind}_tokens")
        if count is not None:
            _histogram(_TOKENS).record(count, {**labels, "gen_ai.token.type": kind})
    _histogram(_DURATION).record(seconds, labels if error is None else {**labels, "error.type": error})


def trace_prediction(
    operation: Operation | None, dispatcher: Dispatcher[Any], binding: Binding, name: str, *, stream: bool
) -> tuple[Operation, Dispatcher[Any]]:
    """Begin to trace a prediction, or its next attempt; return it with the dispatcher of the attempt.

    Args:
        operation: The prediction; `None` before its first attempt.
        dispatcher: Sends the requests of this attempt.
        binding: The model of this attempt.
        name: Our own name of the operation.
        stream: Whether the caller reads a stream.
    """
    if operation is None:
        operation = Operation(_OPERATIONS[name], dispatcher, binding)
        if stream:
            operation.set("gen_ai.request.stream", True)  # noqa: FBT003 - the attribute's value
    operation.dispatcher, operation.binding = dispatcher, binding
    return operation, dispatcher.with_trace(operation.context)


def trace_embeddings(
    dispatcher: Dispatcher[Any], binding: Binding, work: Callable[[Dispatcher[Any]], Flow[Any]]
) -> Flow[Any]:
    """Trace a flow that embeds texts."""
    operation = Operation("embeddings", dispatcher, binding)
    try:
        vectors = yield from work(dispatcher.with_trace(operation.context))
    except BaseException as error:
        operation.end(error)
        raise
    vector = vectors[0] if vectors and isinstance(vectors[0], list) else vectors
    model = models_of(dispatcher).model_key(binding.kind, binding.key)
    operation.found = {} if model is None else {"gen_ai.response.model": model}
    if vector:
        operation.found["gen_ai.embeddings.dimension.count"] = len(vector)
    operation.end(None)
    return vectors


def may_trace(dispatcher: Dispatcher[Any]) -> bool:
    """Whether an operation gets a span of its own: tracing is on, and it is not part of a traced one."""
    return dispatcher.trace_context is None and dispatcher.is_traced and is_on()


def traced_load(dispatcher: Dispatcher[Any], binding: Binding, flow: Flow[T]) -> Flow[T]:
    """Trace a flow that loads a model. There is no span if the model turns out to be loaded already."""
    return _trace_load(dispatcher, binding, flow) if API in LOADED and dispatcher.is_traced and is_on() else flow


def _trace_load(dispatcher: Dispatcher[Any], binding: Binding, flow: Flow[T]) -> Flow[T]:
    started_at, loads_before = time.time_ns(), binding.own_reference
    try:
        info = yield from flow
    except BaseException as error:
        _report_load(dispatcher, binding, started_at, error)
        raise
    if binding.own_reference != loads_before:  # otherwise it was loaded already
        _report_load(dispatcher, binding, started_at, None)
    return info


def _report_load(dispatcher: Dispatcher[Any], binding: Binding, started_at: int, error: BaseException | None) -> None:
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - the program has imported it

    attributes = _place_of(dispatcher, binding)
    span = get_tracer().start_span(
        _span_name("load", attributes), dispatcher.trace_context, SpanKind.CLIENT, attributes, start_time=started_at
    )
    end_span(span, error)


def add_retry(context: "Context", error: Exception) -> None:
    """Add an event to the span of an operation: a call of it is repeated."""
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - the program has imported it

    get_current_span(context).add_event("lmstudio.retry", {"error.type": type(error).__qualname__})


def _captures_content() -> bool:
    """Whether the program asks for prompts and responses."""
    return os.environ.get(CONTENT_VARIABLE, "").lower() in _WITH_CONTENT


def _histogram(name: str) -> "Histogram":
    from opentelemetry import metrics  # noqa: PLC0415 - the program has imported it

    return _histogram_of(metrics.get_meter_provider(), name)


@lru_cache(maxsize=2 * len(_HISTOGRAMS))
def _histogram_of(provider: "MeterProvider", name: str) -> "Histogram":
    # Cached, because the SDK warns of an instrument that is made twice.
    meter = provider.get_meter(SCOPE)
    try:
        return meter.create_histogram(name, **_HISTOGRAMS[name])
    except TypeError:  # before 1.30, the API has no boundaries
        return meter.create_histogram(name, unit=_HISTOGRAMS[name]["unit"])
