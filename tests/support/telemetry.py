"""Spans and metrics of a test, kept in memory by OpenTelemetry's SDK.

Test modules import the fixtures `telemetry` and `traced`, and with the latter `model`.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import Span

from lmstudio_integrations.emulator import Emulator

TRACER_PROVIDER = "opentelemetry.trace._TRACER_PROVIDER"
METER_PROVIDER = "opentelemetry.metrics._internal._METER_PROVIDER"
"""Where the API keeps the providers of the process. Its setters work only once in a process."""


MEASURED = {
    "gen_ai.response.time_to_first_chunk",
    "lmstudio.time_to_first_token",
    "lmstudio.tokens_per_second",
}
"""Attributes whose values are measured."""


class Telemetry:
    """What a program with both providers has recorded."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self.traces = TracerProvider(sampler, shutdown_on_exit=False)
        self.traces.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.metrics = MeterProvider([self._reader], shutdown_on_exit=False)

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in the order of their ends."""
        return list(self._exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        """The names of the spans that have ended."""
        return [span.name for span in self.spans]

    def span(self, name: str) -> ReadableSpan:
        """Return the one span of a name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def points(self, name: str) -> list[Any]:
        """Return what a histogram or a counter has counted, one point for each set of attributes."""
        data = self._reader.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if metric.name == name
        ]

    def start_span(self, name: str) -> Any:
        """Return a context manager whose span is current: what a program or an instrumentation has around a call."""
        return self.traces.get_tracer("program").start_as_current_span(name)

    def everything(self) -> str:
        """Return all that is exported."""
        data = self._reader.get_metrics_data()
        return "\n".join([*(span.to_json() for span in self.spans), "" if data is None else data.to_json()])

    def close(self) -> None:
        """Shut both providers down."""
        self.traces.shutdown()
        self.metrics.shutdown()


def is_child(span: ReadableSpan, parent: ReadableSpan | Span) -> bool:
    """Whether a span is a child of another one."""
    context = parent.get_span_context()
    return span.parent is not None and context is not None and span.parent.span_id == context.span_id


def server_of(server: Emulator) -> dict[str, Any]:
    host, _, port = server.address.rpartition(":")
    return {"server.address": host, "server.port": int(port)}


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes without those that are measured, which must be numbers."""
    found = dict(span.attributes or {})
    assert all(isinstance(found[name], float) for name in MEASURED & found.keys())
    return {name: value for name, value in found.items() if name not in MEASURED}


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    """A program that has configured both providers."""
    recorded = Telemetry()
    monkeypatch.setattr(TRACER_PROVIDER, recorded.traces)
    monkeypatch.setattr(METER_PROVIDER, recorded.metrics)
    yield recorded
    recorded.close()


@pytest.fixture
async def model(client: Any) -> Any:
    """A handle whose model is loaded before anything is traced."""
    return await client.llm.model("chatty")


@pytest.fixture
async def traced(model: Any, telemetry: Telemetry) -> Any:
    """The same handle in a program that traces from now on."""
    assert not telemetry.names
    return model
