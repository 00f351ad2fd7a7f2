"""Makes OpenTelemetry's spans and metrics of what the client reports, with the names of the GenAI conventions.

`transport/listener.py` imports the listener `SPANS` once the program has configured a provider. This package never
imports OpenTelemetry by itself: a program with a provider has imported it. Listeners are called in the caller's thread
or task, so spans begin with its context. A span is never current while a flow waits: the listener of the operation has
its context. First come the attributes that requests and results have. No other module knows OpenTelemetry.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from inspect import currentframe
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lmstudio_integrations import errors
from lmstudio_integrations._support.secrets import redact
from lmstudio_integrations._support.typeguards import is_list
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport.connect.addresses import Address, Target
from lmstudio_integrations.client.transport.listener import NOBODY, ConnectionReport, Listener
from lmstudio_integrations.protocol.envelope import without_surrogates
from lmstudio_integrations.protocol.kv_config import collapse
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import PredictionResult, finish_reason

Attributes = dict[str, Any]

_SETTINGS = {name: row.attribute for name, row in wire_keys(LlmPredictionConfig).items() if row.attribute}
"""The attributes of prediction settings and their types, by the setting's name."""

_STATS = {
    "promptTokensCount": "gen_ai.usage.input_tokens",
    "predictedTokensCount": "gen_ai.usage.output_tokens",
    "timeToFirstTokenSec": "lmstudio.time_to_first_token",
    "tokensPerSecond": "lmstudio.tokens_per_second",
}
"""The attributes of the server's statistics, by their wire names. The conventions have none for the last two."""


def request_attributes(parameter: Mapping[str, Any]) -> Attributes:
    """Return the settings that the caller has set."""
    settings = _settings_of(parameter)
    attributes: Attributes = {}
    for name, (key, convert) in _SETTINGS.items():
        value = getattr(settings, name)
        if value is not None and value is not False:  # false: it is switched off
            attributes[key] = convert(value)
    if (settings.structured or {}).get("type") == "json":
        attributes["gen_ai.output.type"] = "json"
    return attributes


def _settings_of(parameter: Mapping[str, Any]) -> LlmPredictionConfig:
    return LlmPredictionConfig.from_fields(collapse(parameter["predictionConfigStack"]))


def result_attributes(result: PredictionResult) -> Attributes:
    """Return what the server has reported of a finished prediction."""
    end, reason = result.end, _finish_reason(result)
    values = {key: end.stats.get(name) for name, key in _STATS.items()}
    values["gen_ai.response.finish_reasons"] = reason and [reason]
    values["gen_ai.response.model"] = end.model_info.get("modelKey")
    values["gen_ai.usage.cache_read.input_tokens"] = result.cached_tokens
    values["gen_ai.usage.reasoning.output_tokens"] = result.reasoning_tokens or None
    return {key: value for key, value in values.items() if value is not None}


def _finish_reason(result: PredictionResult) -> str | None:
    """Return why a prediction ended, if it is known. The conventions differ in one word from OpenAI's."""
    reason = finish_reason(result)
    return "tool_call" if reason == "tool_calls" else reason


def input_content(parameter: Mapping[str, Any]) -> Attributes:
    """Return the messages of a request, or the text to continue, and its tools."""
    if "rawPrompt" in parameter:
        messages = [_message("user", [_text(parameter["rawPrompt"])])]
    else:
        messages = [
            _message(message["role"], [_PARTS[part["type"]](part) for part in message["content"]])
            for message in parameter["history"]["messages"]
        ]
    values = {"gen_ai.input.messages": _json(messages)}
    tools = (_settings_of(parameter).raw_tools or {}).get("tools")
    if tools:
        values["gen_ai.tool.definitions"] = _json([{"type": "function", **tool["function"]} for tool in tools])
    return values


def output_content(result: PredictionResult) -> Attributes:
    """Return the response as one message."""
    parts = [{"type": "reasoning", "content": result.reasoning_content}] if result.reasoning_content else []
    parts += [_text(result.content)] if result.content else []
    parts += [
        _present(type="tool_call", id=call.id, name=call.name, arguments=call.arguments)
        for call in result.tool_call_requests
    ]
    reason = _finish_reason(result) or "unknown"  # the conventions require one here
    return {"gen_ai.output.messages": _json([_message("assistant", parts) | {"finish_reason": reason}])}


def _message(role: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": role, "parts": parts}


def _text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def _tool_call(part: Mapping[str, Any]) -> dict[str, Any]:
    request = part["toolCallRequest"]
    return _present(type="tool_call", id=request.get("id"), name=request["name"], arguments=request.get("arguments"))


_PARTS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "text": lambda part: _text(part["text"]),
    "file": lambda part: {
        "type": "file",
        "modality": "image" if part["fileType"] == "image" else "document",
        "file_id": part["identifier"],
    },
    "toolCallRequest": _tool_call,
    "toolCallResult": lambda part: _present(
        type="tool_call_response", id=part.get("toolCallId"), response=part["content"]
    ),
}
"""The parts of the conventions, by the type of the part on the wire."""


def _present(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _json(messages: list[dict[str, Any]]) -> str:
    return without_surrogates(json.dumps(messages, ensure_ascii=False))


if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

SCOPE = "lmstudio_integrations"
"""The name of the instrumentation scope."""

PROVIDER = {"gen_ai.provider.name": "lmstudio"}
"""The provider. The conventions have no name for LM Studio; this is the one that LangChain and LlamaIndex trace."""

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_WITH_CONTENT = {"true", "span_only", "span_and_event"}

DISABLED_VARIABLE = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_SUPPRESSED = "suppress_instrumentation"
"""The variable by which OpenTelemetry disables instrumentations by name, and how its keys for a context begin."""

_OPERATIONS = {"Chat response": "chat", "Completion": "text_completion", "Embedding": "embeddings"}
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

_WITHOUT_CONTENT = (
    errors.LMStudioAuthenticationError,
    errors.LMStudioClientClosedError,
    errors.LMStudioConnectionLostError,
    errors.LMStudioContextOverflowError,
    errors.LMStudioInsufficientResourcesError,
    errors.LMStudioModelCrashedError,
    errors.LMStudioModelLoadError,
    errors.LMStudioModelNotFoundError,
    errors.LMStudioPresetNotFoundError,
    errors.LMStudioTimeoutError,
    errors.LMStudioUnreachableError,
    errors.LMStudioWrongModelKindError,
)
"""Errors whose messages quote neither a prompt nor a response. Spans have no message of others."""


class Spans(Listener):
    """The listener of a client: begins the spans of operations, and makes those of other connections and loads."""

    def on_start(self, name: str, target: Target, model_key: str | None, *, is_stream: bool = False) -> Listener:
        """Begin the span of an operation, unless the program wants none."""
        if _is_suppressed():
            return NOBODY
        return OperationSpan(name, target, model_key, is_stream=is_stream)

    def on_connect(self, address: Address | None) -> ConnectionReport | None:
        """Return what makes the span of a connection."""
        return None if _is_suppressed() else _Connection(address, self._context())

    def on_load(self, target: Target, model_key: str | None, seconds: float, error: BaseException | None) -> None:
        """Make the span of a load."""
        if _is_suppressed():
            return
        attributes = _place_of(target, model_key)
        started_at = time.time_ns() - round(seconds * 1e9)
        _end_span(_start_span(_span_name("load", attributes), self._context(), attributes, started_at), error)

    def on_warm_again(self, target: Target, model_key: str | None) -> None:
        """Count a prefix that is processed again."""
        if _is_suppressed():
            return
        labels = {key: value for key, value in _place_of(target, model_key).items() if key in _IN_METRICS}
        _warm_again_counter().add(1, labels)

    def _context(self) -> "Context":
        from opentelemetry.context import get_current  # noqa: PLC0415 - the program has imported it

        return get_current()


SPANS = Spans()


def _is_suppressed() -> bool:
    """Whether the program has disabled this instrumentation, or suppresses all where the call is made."""
    if SCOPE in [name.strip() for name in os.environ.get(DISABLED_VARIABLE, "").split(",")]:
        return True
    from opentelemetry.context import get_current  # noqa: PLC0415 - the program has imported it

    # The API has no public name for its key, which ends in random characters.
    return any(value for key, value in get_current().items() if key.startswith(_SUPPRESSED))


class OperationSpan(Spans):
    """The span of an operation, and its metrics at the end. Any thread may end it; only the first end counts.

    Args:
        name: The operation, for error messages.
        target: The server.
        model_key: The requested model.
        is_stream: Whether the caller reads a stream.
    """

    def __init__(self, name: str, target: Target, model_key: str | None, *, is_stream: bool) -> None:
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - the program has imported it

        self._running: list[Span] = []
        self._name = _OPERATIONS.get(name, name)
        self._place = target, model_key
        self._started = time.perf_counter()
        self._has_first_chunk = False
        attributes = self._attributes()
        self._span = _start_span(_span_name(self._name, attributes), None, attributes)
        if is_stream:
            self._span.set_attribute("gen_ai.request.stream", True)  # noqa: FBT003 - the attribute's value
        self._own_context: Context = set_span_in_context(self._span)
        self._running.append(self._span)

    def _attributes(self) -> Attributes:
        return {"gen_ai.operation.name": self._name, **_place_of(*self._place)}

    def _context(self) -> "Context":
        return self._own_context

    @override
    def on_start(self, name: str, target: Target, model_key: str | None, *, is_stream: bool = False) -> Listener:
        """Return itself: a part of an operation has no span of its own."""
        return self

    def on_attempt(self, target: Target, model_key: str | None) -> None:
        """Keep the last server for the end."""
        self._place = target, model_key

    def on_request(self, parameter: Mapping[str, Any]) -> None:
        """Set the settings of a request, and its content if the program asks for that."""
        if self._span.is_recording():
            self._span.set_attributes(request_attributes(parameter))
            if _captures_content():
                self._span.set_attributes(input_content(parameter))

    def on_retry(self, error: Exception) -> None:
        """Add an event: the operation is tried again."""
        self._span.add_event("lmstudio.retry", {"error.type": type(error).__qualname__})

    @override
    def on_warm_again(self, target: Target, model_key: str | None) -> None:
        """Count it, and add an event."""
        super().on_warm_again(target, model_key)
        self._span.add_event("lmstudio.warm_again")

    def on_first_chunk(self) -> None:
        """Record how long the caller has waited, unless the response has ended."""
        if self._running and not self._has_first_chunk:
            self._has_first_chunk = True
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", time.perf_counter() - self._started)

    def on_end(self, outcome: object, model_key: str | None = None) -> None:
        """End the span, and record the metrics."""
        try:
            span = self._running.pop()  # in one step: a reader and another thread may end it
        except IndexError:
            return
        seconds = time.perf_counter() - self._started
        _run_outside_sdk(self._finish, span, outcome, model_key, seconds)

    def _finish(self, span: "Span", outcome: object, model_key: str | None, seconds: float) -> None:
        attributes = self._attributes()  # only now, because the operation may have moved to another host
        error = outcome if isinstance(outcome, BaseException) else None
        if model_key is not None:
            attributes["gen_ai.response.model"] = model_key
        if isinstance(outcome, PredictionResult):
            attributes |= result_attributes(outcome)
            if _captures_content() and span.is_recording():
                span.set_attributes(output_content(outcome))
        elif is_list(outcome) and outcome:  # vectors
            attributes["gen_ai.embeddings.dimension.count"] = len(outcome[0])
        span.set_attributes(attributes)
        _end_span(span, error)
        _record_metrics(attributes, seconds, _error_type(error))

    def __del__(self) -> None:
        self.on_end(None)


class _Connection:
    """Makes the span of a connection. The I/O thread only records times, because exporters may block."""

    __slots__ = ("_address", "_unreported", "ended_at", "error", "started_at")

    def __init__(self, address: Address | None, context: "Context") -> None:
        self._address = address
        self._unreported = [context]
        self.started_at: int | None = None
        """When the I/O thread began to open a socket; `None` if there was one."""
        self.ended_at: int | None = None
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Record that a socket is being opened."""
        self.started_at = time.time_ns()

    def end(self, make_error: Callable[[], BaseException] | None = None) -> None:
        """Record that the server has accepted the client, or what happened instead."""
        if self.ended_at is None:
            self.error = make_error and make_error()
            self.ended_at = time.time_ns()

    def report(self, error: BaseException | None) -> None:
        """Make the span, once. Without a connection, the error of the call says why: its timeout may come first."""
        _run_outside_sdk(self._report, error)

    def _report(self, error: BaseException | None) -> None:
        try:
            context = self._unreported.pop()  # in one step: any thread may close a call
        except IndexError:
            return
        if self.started_at is None:
            return
        attributes = {**PROVIDER, **_server_attributes(self._address)}
        span = _start_span("connect", context, attributes, self.started_at)
        failed = self.ended_at is None or self.error is not None
        _end_span(span, (error or self.error) if failed else None, end_time=self.ended_at)


def _start_span(name: str, context: "Context | None", attributes: Attributes, start_time: int | None = None) -> "Span":
    from opentelemetry import trace  # noqa: PLC0415 - the program has imported it

    tracer = _tracer_of(_Provider(trace.get_tracer_provider()))
    return tracer.start_span(name, context, trace.SpanKind.CLIENT, attributes, start_time=start_time)


class _Provider:
    """A provider as the key of a cache: equal to itself only. Those of logfire, for instance, have no hash."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Provider) and self.provider is other.provider

    @override
    def __hash__(self) -> int:
        return id(self.provider)


@lru_cache(maxsize=1)
def _tracer_of(key: _Provider) -> "Tracer":
    provider: TracerProvider = key.provider
    return provider.get_tracer(SCOPE)


def _end_span(span: "Span", error: BaseException | None = None, *, end_time: int | None = None) -> None:
    """End a span. No event has the exception: its stack trace and its causes may show content."""
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - the program has imported it

    kind = _error_type(error)
    if kind is not None:
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR, str(error) if isinstance(error, _WITHOUT_CONTENT) else None))
    span.end(end_time)


def _error_type(error: BaseException | None) -> str | None:
    """Return the name of an error's class; `None` without one, and if the caller has cancelled the operation."""
    if not isinstance(error, Exception) or isinstance(error, errors.LMStudioCancelledError):
        return None
    return type(error).__qualname__


def _place_of(target: Target, model_key: str | None) -> Attributes:
    """Return the attributes of the requested model and of its server."""
    # Redacted, because a token that was given as the model must not be exported.
    model = {} if model_key is None else {"gen_ai.request.model": redact(model_key)}
    return {**PROVIDER, **model, **_server_attributes(target.address)}


def _server_attributes(address: Address | None) -> Attributes:
    """Return the server's host and port; nothing for the LM Studio that is found on this machine."""
    return {} if address is None else {"server.address": address.host, "server.port": address.port}


def _run_outside_sdk(function: Callable[..., None], *args: Any) -> None:
    """Run a function now; if this thread runs code of the SDK, submit it to the I/O thread.

    Finalizers run anywhere, also while the SDK holds a lock that ending a span needs as well.
    """
    if sys.is_finalizing():
        return
    frame = currentframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("opentelemetry.sdk."):
            IOThread.current().submit(function, *args)
            return
        frame = frame.f_back
    function(*args)


def _span_name(operation: str, attributes: Attributes) -> str:
    model = attributes.get("gen_ai.request.model")
    return f"{operation} {model}" if model else operation


def _record_metrics(attributes: Attributes, seconds: float, error: str | None) -> None:
    labels = {key: value for key, value in attributes.items() if key in _IN_METRICS}
    for kind in ("input", "output"):
        count = attributes.get(f"gen_ai.usage.{kind}_tokens")
        if count is not None:
            _histogram(_TOKENS).record(count, {**labels, "gen_ai.token.type": kind})
    _histogram(_DURATION).record(seconds, labels if error is None else {**labels, "error.type": error})


def _captures_content() -> bool:
    """Whether the program asks for prompts and responses."""
    return os.environ.get(CONTENT_VARIABLE, "").lower() in _WITH_CONTENT


def _histogram(name: str) -> "Histogram":
    from opentelemetry import metrics  # noqa: PLC0415 - the program has imported it

    return _histogram_of(_Provider(metrics.get_meter_provider()), name)


def _warm_again_counter() -> "Counter":
    from opentelemetry import metrics  # noqa: PLC0415 - the program has imported it

    return _counter_of(_Provider(metrics.get_meter_provider()))


@lru_cache(maxsize=2)
def _counter_of(key: _Provider) -> "Counter":
    provider: MeterProvider = key.provider
    return provider.get_meter(SCOPE).create_counter(
        "lmstudio.client.warm_again", unit="{prefix}", description="Prefixes processed again on a new instance."
    )


@lru_cache(maxsize=2 * len(_HISTOGRAMS))
def _histogram_of(key: _Provider, name: str) -> "Histogram":
    # Cached, because the SDK warns of an instrument that is made twice.
    provider: MeterProvider = key.provider
    meter = provider.get_meter(SCOPE)
    try:
        return meter.create_histogram(name, **_HISTOGRAMS[name])
    except TypeError:  # before 1.30, the API has no boundaries
        return meter.create_histogram(name, unit=_HISTOGRAMS[name]["unit"])
