"""How spans end: with an error, cancelled, closed, or collected; each of them once."""

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import StatusCode

import lmstudio_integrations as lms
from lmstudio_integrations.client.telemetry import SPANS
from lmstudio_integrations.emulator import Emulator
from tests.client.fake import on_io_thread, wait_until
from tests.support.telemetry import (
    Telemetry,
    attributes_of,
    model,
    telemetry,
    traced,
)
from tests.support.threads import together

__all__ = ["model", "telemetry", "traced"]

# Errors


async def test_an_error_ends_the_span_with_its_type_and_without_its_text(traced: Any, telemetry: Telemetry) -> None:
    with pytest.raises(lms.LMStudioServerError, match="the engine gave up"):
        await traced.respond("break")
    span = telemetry.span("chat chatty")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert attributes_of(span)["error.type"] == "LMStudioPredictionError"
    assert not span.events
    assert "gave up" not in telemetry.everything()
    (duration,) = telemetry.points("gen_ai.client.operation.duration")
    assert (duration.attributes or {})["error.type"] == "LMStudioPredictionError"
    assert not telemetry.points("gen_ai.client.token.usage")


async def test_an_error_about_the_model_keeps_its_text(client: Any, telemetry: Telemetry) -> None:
    with pytest.raises(lms.LMStudioModelNotFoundError):
        await client.llm.lazy_model("missing").respond("hi")
    for name in ("load missing", "chat missing"):
        status = telemetry.span(name).status
        assert status.status_code == StatusCode.ERROR
        assert "missing" in str(status.description)


async def test_an_error_of_a_callback_shows_its_type_only(traced: Any, telemetry: Telemetry) -> None:
    def fail() -> None:
        raise ValueError("a private text")

    with pytest.raises(ValueError, match="a private text"):
        await traced.respond("hi", on_first_token=fail)
    assert attributes_of(telemetry.span("chat chatty"))["error.type"] == "ValueError"
    assert "private" not in telemetry.everything()


async def test_a_server_that_is_not_there_is_an_error_of_the_connection_too(
    make_client: Callable[..., Any], telemetry: Telemetry
) -> None:
    async with make_client("127.0.0.1:1") as client:
        with pytest.raises(lms.LMStudioUnreachableError):
            await client.embedding.lazy_model("vectors").embed("hi")
    for name in ("connect", "load vectors", "embeddings vectors"):
        span = telemetry.span(name)
        assert attributes_of(span)["error.type"] == "LMStudioUnreachableError"
        assert "127.0.0.1:1" in str(span.status.description)


# Cancelled, closed, abandoned


async def test_a_cancelled_stream_that_is_read_to_its_end_has_a_result(traced: Any, telemetry: Telemetry) -> None:
    stream = traced.respond_stream("for ever")
    await anext(stream)
    stream.cancel()
    await stream.wait_for_result()
    span = telemetry.span("chat chatty")
    assert attributes_of(span)["gen_ai.response.finish_reasons"] == ("userStopped",)
    assert span.status.status_code == StatusCode.UNSET


async def test_a_closed_stream_ends_its_span_once_and_is_no_error(traced: Any, telemetry: Telemetry) -> None:
    stream = traced.respond_stream("for ever")
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    del stream  # which ends it once more
    span = telemetry.span("chat chatty")
    attributes = attributes_of(span)
    assert span.status.status_code == StatusCode.UNSET
    assert "error.type" not in attributes
    assert "gen_ai.response.finish_reasons" not in attributes
    assert [point.count for point in telemetry.points("gen_ai.client.operation.duration")] == [1]


@pytest.mark.slow
async def test_a_stream_that_is_collected_ends_its_span(traced: Any, telemetry: Telemetry) -> None:
    stream = traced.respond_stream("for ever")
    await stream.start()
    del stream
    # The thread that started the stream of the sync client may hold it for a moment.
    await wait_until(lambda: gc.collect() >= 0 and telemetry.names == ["chat chatty"])


def test_a_finalizer_at_the_end_of_the_process_records_nothing(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = SPANS.on_start("Chat response", lms.Client("127.0.0.1:1").llm.lazy_model()._model.context.target, None)
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    span.on_end(None)
    assert not telemetry.names


async def test_a_connection_is_reported_once(telemetry: Telemetry) -> None:
    with telemetry.start_span("program"):
        report: Any = SPANS.on_connect(None)
    report.begin()
    report.end()
    report.end(ConnectionError)
    report.report(None)
    report.report(None)
    assert attributes_of(telemetry.span("connect")) == {"gen_ai.provider.name": "lmstudio"}


def test_a_span_is_ended_once_by_many_who_close_the_stream_at_the_same_time(
    server: Emulator, telemetry: Telemetry
) -> None:
    with lms.Client(server.address) as client:
        stream = client.llm.model("chatty").respond_stream("for ever")
        next(stream)
        together(8, lambda _: stream.close())
    assert telemetry.names.count("chat chatty") == 1


async def test_a_finalizer_that_runs_inside_the_sdk_ends_the_span_in_another_thread(
    server: Emulator, telemetry: Telemetry
) -> None:
    ended_in: dict[str, str] = {}

    class Threads(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended_in[span.name] = threading.current_thread().name

    telemetry.traces.add_span_processor(Threads())
    async with lms.AsyncClient(server.address) as client:
        model = await client.llm.model("chatty")
        streams = [model.respond_stream("for ever")]
        await streams[0].start()
        # The name of its module makes this look like code of the SDK, which may hold a lock.
        exec("streams.clear()", {"__name__": "opentelemetry.sdk.trace", "streams": streams})
        await on_io_thread(lambda: None)
    assert telemetry.names.count("chat chatty") == 1
    assert ended_in["load chatty"] == threading.main_thread().name
    assert ended_in["chat chatty"] == "lmstudio-io"
