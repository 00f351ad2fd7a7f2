"""Spans and metrics of OpenTelemetry: one for each operation, with the names of the GenAI conventions."""

import asyncio
import gc
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

import lmstudio_integrations as lms
from lmstudio_integrations.client import _telemetry
from lmstudio_integrations.client.asynchronous import AsyncClient
from lmstudio_integrations.client.sync import Client
from lmstudio_integrations.client.transport import telemetry as transport
from lmstudio_integrations.client.transport.telemetry import is_on
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.embedding_request import EmbeddingRequest
from tests.client.fake import fake_server, on_io_thread, wait_until
from tests.client.prediction_frames import loaded_handle
from tests.client.test_retries import Fickle
from tests.pauses import replace_pauses
from tests.telemetry import METER_PROVIDER, TRACER_PROVIDER, Telemetry, is_child, telemetry

__all__ = ["telemetry"]

DURATION, TOKENS = "gen_ai.client.operation.duration", "gen_ai.client.token.usage"
MEASURED = {
    "gen_ai.response.time_to_first_chunk",
    "lmstudio.time_to_first_token",
    "lmstudio.tokens_per_second",
}
"""Attributes whose values are measured."""


@pytest.fixture
async def model(client: Any) -> Any:
    """A handle whose model is loaded before anything is traced."""
    return await client.llm.model("chatty")


@pytest.fixture
async def traced(model: Any, telemetry: Telemetry) -> Any:
    """The same handle in a program that traces from now on."""
    assert is_on()
    assert not telemetry.names
    return model


def server_of(server: Emulator) -> dict[str, Any]:
    host, _, port = server.address.rpartition(":")
    return {"server.address": host, "server.port": int(port)}


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes without those that are measured, which must be numbers."""
    found = dict(span.attributes or {})
    assert all(isinstance(found[name], float) for name in MEASURED & found.keys())
    return {name: value for name, value in found.items() if name not in MEASURED}


# Operations


async def test_a_response_is_a_span(traced: Any, server: Emulator, telemetry: Telemetry) -> None:
    result = await traced.respond("think", config={"temperature": 0, "max_tokens": 50, "top_k_sampling": 3})
    span = telemetry.span("chat chatty")
    assert telemetry.names == ["chat chatty"]
    assert attributes_of(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lm_studio",
        "gen_ai.request.model": "chatty",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.top_k": 3.0,
        "gen_ai.response.model": "chatty",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": result.stats.prompt_tokens_count,
        "gen_ai.usage.output_tokens": result.stats.predicted_tokens_count,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.reasoning.output_tokens": result.reasoning_tokens,
        **server_of(server),
    }
    assert (span.kind, span.status.status_code, span.parent, span.events) == (
        SpanKind.CLIENT,
        StatusCode.UNSET,
        None,
        (),
    )
    attributes = span.attributes or {}
    assert attributes["lmstudio.tokens_per_second"] == result.stats.tokens_per_second
    assert attributes["lmstudio.time_to_first_token"] == result.stats.time_to_first_token_sec
    assert "gen_ai.response.time_to_first_chunk" not in attributes


async def test_a_stream_is_one_span_from_its_request_to_its_end(traced: Any, telemetry: Telemetry) -> None:
    stream = traced.respond_stream("count")
    await anext(stream)
    await stream.wait_for_result()
    span = telemetry.span("chat chatty")
    attributes = span.attributes or {}
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.response.time_to_first_chunk"]
    assert attributes["gen_ai.usage.output_tokens"] == stream.stats.predicted_tokens_count


async def test_a_stream_that_arrives_at_once_has_a_first_chunk(traced: Any, telemetry: Telemetry) -> None:
    stream = traced.respond_stream("hi")
    await stream.start()
    # All of it is there before it is read.
    await wait_until(lambda: stream._run._call.waiter.done)
    await anext(stream)
    assert (telemetry.span("chat chatty").attributes or {})["gen_ai.response.time_to_first_chunk"]


async def test_a_stream_that_was_started_is_one_span(traced: Any, telemetry: Telemetry) -> None:
    stream = traced.respond_stream("count")
    await stream.start()
    await stream.wait_for_result()
    assert telemetry.names == ["chat chatty"]


async def test_a_stream_that_is_never_read_is_no_span(traced: Any, telemetry: Telemetry) -> None:
    stream = traced.respond_stream("count")
    await stream.aclose()
    del stream
    assert not telemetry.names


async def test_a_completion_is_a_text_completion(traced: Any, telemetry: Telemetry) -> None:
    await traced.complete("Once upon a time", config={"stop_strings": ["."], "seed": 1})
    attributes = attributes_of(telemetry.span("text_completion chatty"))
    assert attributes["gen_ai.operation.name"] == "text_completion"
    assert attributes["gen_ai.request.stop_sequences"] == (".",)
    assert attributes["gen_ai.request.seed"] == 1


async def test_structured_output_is_an_output_type(traced: Any, telemetry: Telemetry) -> None:
    await traced.respond("hi", response_format={"type": "object", "properties": {"a": {"type": "integer"}}})
    assert attributes_of(telemetry.span("chat chatty"))["gen_ai.output.type"] == "json"


async def test_each_round_of_the_tool_loop_is_a_span(traced: Any, telemetry: Telemetry) -> None:
    def weather(city: str) -> str:
        """Return the weather of a city."""
        return f"rain in {city}"

    await traced.act("weather", [weather], max_prediction_rounds=2)
    reasons = [attributes_of(span)["gen_ai.response.finish_reasons"] for span in telemetry.spans]
    assert telemetry.names == ["chat chatty"] * 2
    assert reasons == [("tool_call",), ("stop",)]


@pytest.mark.parametrize(
    ("texts", "parameters"),
    [("one", {}), (["one", "two"], {}), ([f"text {number}" for number in range(130)], {"show_progress": True})],
)
async def test_an_embedding_is_one_span(
    client: Any, server: Emulator, telemetry: Telemetry, texts: Any, parameters: dict[str, Any]
) -> None:
    model = await client.embedding.model("vectors")
    await model.embed(texts, **parameters)
    assert attributes_of(telemetry.span("embeddings vectors")) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "lm_studio",
        "gen_ai.request.model": "vectors",
        "gen_ai.response.model": "vectors",
        "gen_ai.embeddings.dimension.count": 16,
        **server_of(server),
    }


async def test_texts_that_have_to_be_counted_are_one_span(client: Any, telemetry: Telemetry) -> None:
    model = client.embedding.lazy_model("vectors")
    await model.embed_texts(EmbeddingRequest(["short", "long " * 300], "truncate", "chunk_size"))
    span = telemetry.span("embeddings vectors")
    assert is_child(telemetry.span("load vectors"), span)
    assert (span.attributes or {})["gen_ai.embeddings.dimension.count"] == 16


def test_a_finalizer_at_the_end_of_the_process_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    transport.run_outside_sdk(pytest.fail, submit=pytest.fail)


async def test_no_texts_are_a_span_without_dimensions(client: Any, telemetry: Telemetry) -> None:
    await (await client.embedding.model("vectors")).embed([])
    assert "gen_ai.embeddings.dimension.count" not in attributes_of(telemetry.span("embeddings vectors"))


async def test_any_loaded_model_has_no_name_in_the_request(client: Any, traced: Any, telemetry: Telemetry) -> None:
    handle = await client.llm.model()
    await handle.respond("hi")
    attributes = attributes_of(telemetry.span("chat"))
    assert "gen_ai.request.model" not in attributes
    assert attributes["gen_ai.response.model"] == "chatty"


# Connections and loads


async def test_a_load_and_its_connection_are_children_of_the_prediction_that_caused_them(
    client: Any, server: Emulator, telemetry: Telemetry
) -> None:
    await client.llm.lazy_model("chatty").respond("hi")
    chat = telemetry.span("chat chatty")
    assert sorted(telemetry.names) == ["chat chatty", "connect", "load chatty"]
    assert telemetry.names[-1] == "chat chatty", "children end first"
    for name, model in (("connect", {}), ("load chatty", {"gen_ai.request.model": "chatty"})):
        span = telemetry.span(name)
        assert is_child(span, chat)
        assert attributes_of(span) == {"gen_ai.provider.name": "lm_studio", **model, **server_of(server)}
        assert span.kind == SpanKind.CLIENT
        assert span.start_time is not None
        assert span.end_time is not None
        assert (chat.start_time or 0) <= span.start_time <= span.end_time <= (chat.end_time or 0)


async def test_a_connection_is_a_span_of_the_call_that_needs_it_first(client: Any, telemetry: Telemetry) -> None:
    with telemetry.start_span("program") as program:
        await client.llm.list_loaded()
        await client.llm.list_loaded()
    assert telemetry.names == ["connect", "program"]
    assert is_child(telemetry.span("connect"), program)


async def test_a_model_that_is_loaded_already_is_no_load(client: Any, traced: Any, telemetry: Telemetry) -> None:
    await client.llm.model("chatty")
    assert not telemetry.names


async def test_a_load_outside_of_a_prediction_is_a_child_of_the_current_span(client: Any, telemetry: Telemetry) -> None:
    with telemetry.start_span("program") as program:
        await client.llm.model("chatty")
        await client.llm.load_new_instance("chatty", "second")
    loads = [span for span in telemetry.spans if span.name == "load chatty"]
    assert len(loads) == 2
    assert all(is_child(load, program) for load in loads)


async def test_a_model_that_is_loaded_again_is_one_span_with_an_event(
    traced: Any, server: Emulator, telemetry: Telemetry
) -> None:
    await asyncio.to_thread(server.unload, "chatty")
    await traced.respond("hi")
    span = telemetry.span("chat chatty")
    assert is_child(telemetry.span("load chatty"), span)
    (event,) = span.events
    assert (event.name, dict(event.attributes or {})) == (
        "lmstudio.retry",
        {"error.type": "LMStudioModelUnloadedError"},
    )
    assert span.status.status_code == StatusCode.UNSET


async def test_a_retried_prediction_is_one_span_with_an_event(
    make_client: Callable[..., Any], telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_pauses(monkeypatch, lambda _: None)
    async with fake_server(Fickle(1, [])) as host, make_client(host) as client:
        result = await loaded_handle(client).with_retries(2).respond("hi")
    assert result.content == "ok"
    span = telemetry.span("chat chatty")
    assert [event.name for event in span.events] == ["lmstudio.retry"]
    assert [is_child(each, span) for each in telemetry.spans if each.name == "connect"] == [True, True]


# The caller's context


async def test_spans_are_children_of_the_span_that_is_current_in_the_caller(traced: Any, telemetry: Telemetry) -> None:
    with telemetry.start_span("program") as program:
        await traced.respond("hi")
    assert is_child(telemetry.span("chat chatty"), program)


async def test_a_stream_that_is_read_in_parts_does_not_change_the_current_span(
    traced: Any, telemetry: Telemetry
) -> None:
    with telemetry.start_span("program") as program:
        stream = traced.respond_stream("count")
        await anext(stream)
        assert get_current_span() is program
        with telemetry.start_span("between"):
            await anext(stream)
        await stream.wait_for_result()
    assert is_child(telemetry.span("between"), program)
    assert is_child(telemetry.span("chat chatty"), program)


async def test_predictions_of_several_tasks_have_their_own_parents(traced: Any, telemetry: Telemetry) -> None:
    async def work(name: str) -> None:
        with telemetry.start_span(name):
            await traced.respond("count")

    await asyncio.gather(*(work(f"task {number}") for number in range(4)))
    check_own_parents(telemetry, "task")


def test_predictions_of_several_threads_have_their_own_parents(server: Emulator, telemetry: Telemetry) -> None:
    with Client(server.address) as client:
        model = client.llm.model("chatty")
        together = threading.Barrier(4)

        def work(name: str) -> None:
            with telemetry.start_span(name):
                together.wait(10)
                model.respond("count")

        threads = [threading.Thread(target=work, args=[f"thread {number}"]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    check_own_parents(telemetry, "thread")


def check_own_parents(telemetry: Telemetry, prefix: str) -> None:
    chats = [span for span in telemetry.spans if span.name == "chat chatty"]
    parents = {span.context.span_id for span in telemetry.spans if span.name.startswith(prefix) and span.context}
    assert len(chats) == len(parents) == 4
    assert {span.parent.span_id for span in chats if span.parent} == parents


# Errors


async def test_an_error_ends_the_span_with_its_type_and_without_its_text(traced: Any, telemetry: Telemetry) -> None:
    with pytest.raises(lms.LMStudioServerError, match="the engine gave up"):
        await traced.respond("break")
    span = telemetry.span("chat chatty")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert attributes_of(span)["error.type"] == "LMStudioServerError"
    assert not span.events
    assert "gave up" not in telemetry.everything()


async def test_an_error_of_a_stream_ends_the_span(traced: Any, telemetry: Telemetry) -> None:
    stream = traced.respond_stream("break")
    with pytest.raises(lms.LMStudioServerError):
        await stream.wait_for_result()
    with pytest.raises(lms.LMStudioServerError):
        stream.result()
    assert telemetry.names == ["chat chatty"]


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


async def test_a_server_that_does_not_accept_the_client_in_time_is_an_error_of_the_connection(
    make_client: Callable[..., Any], telemetry: Telemetry
) -> None:
    async def ignore(socket: Any) -> None:
        await socket.wait_closed()

    async with fake_server(ignore) as host, make_client(host, connect_timeout=0.2) as client:
        with pytest.raises(lms.LMStudioTimeoutError):
            await client.llm.list_loaded()
    assert attributes_of(telemetry.span("connect"))["error.type"] == "LMStudioTimeoutError"


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
    span = telemetry.span("chat chatty")
    attributes = attributes_of(span)
    assert span.status.status_code == StatusCode.UNSET
    assert "error.type" not in attributes
    assert "gen_ai.response.finish_reasons" not in attributes


def test_a_break_in_a_loop_ends_the_span(server: Emulator, telemetry: Telemetry) -> None:
    with Client(server.address) as client:
        model = client.llm.model("chatty")
        for _ in model.respond_stream("for ever"):
            assert "chat chatty" not in telemetry.names
            break
        assert telemetry.names.count("chat chatty") == 1


async def test_a_break_in_an_async_loop_ends_the_span(server: Emulator, telemetry: Telemetry) -> None:
    async with AsyncClient(server.address) as client:
        model = await client.llm.model("chatty")
        async for _ in model.respond_stream("for ever"):
            assert "chat chatty" not in telemetry.names
            break
        assert telemetry.names.count("chat chatty") == 1


async def test_a_stream_that_is_collected_ends_its_span(traced: Any, telemetry: Telemetry) -> None:
    stream = traced.respond_stream("for ever")
    await stream.start()
    del stream
    gc.collect()
    assert telemetry.names == ["chat chatty"]


async def test_a_cancelled_task_ends_the_span(server: Emulator, telemetry: Telemetry) -> None:
    async with AsyncClient(server.address) as client:
        model = await client.llm.model("chatty")
        task = asyncio.ensure_future(model.respond("stall"))
        await wait_until(lambda: bool(server.predictions))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
    span = telemetry.span("chat chatty")
    assert span.status.status_code == StatusCode.UNSET


async def test_a_connection_is_reported_once(traced: Any, telemetry: Telemetry) -> None:
    with telemetry.start_span("program"):
        connecting = transport.connecting_of(None, None)
    connecting.begin()
    connecting.end()
    connecting.end(ConnectionError)
    connecting.report(None)
    connecting.report(None)
    assert attributes_of(telemetry.span("connect")) == {"gen_ai.provider.name": "lm_studio"}


async def test_a_span_is_ended_once_by_a_reader_and_a_closer_at_the_same_time(
    traced: Any, telemetry: Telemetry
) -> None:
    stream = traced.respond_stream("for ever")
    await anext(stream)
    run = stream._run
    together = threading.Barrier(8)

    def close() -> None:
        together.wait(10)
        run.close()

    threads = [threading.Thread(target=close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
    assert telemetry.names == ["chat chatty"]


async def test_a_finalizer_that_runs_inside_the_sdk_ends_the_span_in_another_thread(
    server: Emulator, telemetry: Telemetry
) -> None:
    async with AsyncClient(server.address) as client:
        model = await client.llm.model("chatty")
        streams = [model.respond_stream("for ever")]
        await streams[0].start()
        # The name of its module makes this look like code of the SDK, which may hold a lock.
        inside: dict[str, Any] = {"__name__": "opentelemetry.sdk.trace", "streams": streams, "telemetry": telemetry}
        exec("streams.clear()\nduring = telemetry.names", inside)
        assert "chat chatty" not in inside["during"]
        await on_io_thread(lambda: None)
        assert telemetry.names.count("chat chatty") == 1


# Metrics


async def test_durations_and_tokens_are_histograms(traced: Any, server: Emulator, telemetry: Telemetry) -> None:
    results = [await traced.respond("hi") for _ in range(3)]
    labels = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lm_studio",
        "gen_ai.request.model": "chatty",
        "gen_ai.response.model": "chatty",
        **server_of(server),
    }
    (duration,) = telemetry.points(DURATION)
    assert (duration.attributes, duration.count) == (labels, 3)
    assert list(duration.explicit_bounds) == pytest.approx(
        [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
    )
    tokens = {str((point.attributes or {})["gen_ai.token.type"]): point for point in telemetry.points(TOKENS)}
    stats = [result.stats for result in results]
    assert {kind: point.sum for kind, point in tokens.items()} == {
        "input": sum(each.prompt_tokens_count or 0 for each in stats),
        "output": sum(each.predicted_tokens_count or 0 for each in stats),
    }
    assert tokens["input"].attributes == {**labels, "gen_ai.token.type": "input"}
    assert list(tokens["output"].explicit_bounds) == [
        1,
        4,
        16,
        64,
        256,
        1024,
        4096,
        16384,
        65536,
        262144,
        1048576,
        4194304,
        16777216,
        67108864,
    ]


async def test_a_failed_operation_has_a_duration_with_its_error(traced: Any, telemetry: Telemetry) -> None:
    with pytest.raises(lms.LMStudioServerError):
        await traced.respond("break")
    (duration,) = telemetry.points(DURATION)
    assert (duration.attributes or {})["error.type"] == "LMStudioServerError"
    assert not telemetry.points(TOKENS)


async def test_connections_and_loads_have_no_metrics(client: Any, telemetry: Telemetry) -> None:
    await client.llm.model("chatty")
    assert "load chatty" in telemetry.names
    assert not telemetry.points(DURATION)


async def test_metrics_need_no_traces(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Telemetry()
    monkeypatch.setattr(METER_PROVIDER, recorded.metrics)
    await model.respond("hi")
    assert not recorded.names
    assert [point.count for point in recorded.points(DURATION)] == [1]
    recorded.close()


async def test_traces_need_no_metrics(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Telemetry()
    monkeypatch.setattr(TRACER_PROVIDER, recorded.traces)
    await model.respond("hi")
    assert recorded.names == ["chat chatty"]
    assert not recorded.points(DURATION)
    recorded.close()


async def test_a_prediction_that_is_not_sampled_is_in_the_metrics(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Telemetry(ALWAYS_OFF)
    monkeypatch.setattr(TRACER_PROVIDER, recorded.traces)
    monkeypatch.setattr(METER_PROVIDER, recorded.metrics)
    monkeypatch.setenv(_telemetry.CONTENT_VARIABLE, "true")
    await model.respond("hi")
    assert not recorded.names
    assert [point.count for point in recorded.points(TOKENS)] == [1, 1]
    recorded.close()


async def test_without_a_provider_nothing_is_traced(model: Any) -> None:
    assert not is_on()
    stream = model.respond_stream("hi")
    await stream.wait_for_result()
    assert stream._run._trace is None


@pytest.mark.parametrize("imported", [False, True])
def test_a_call_without_a_provider_makes_at_most_one_check_per_step(
    server: Emulator, monkeypatch: pytest.MonkeyPatch, imported: bool
) -> None:
    files = {_telemetry.__file__, transport.__file__}
    called: list[str] = []

    def profile(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename in files:
            called.append(frame.f_code.co_name)

    with Client(server.address) as client:
        model = client.llm.model("chatty", load_policy="explicit")
        vectors = client.embedding.model("vectors", load_policy="explicit")
        if not imported:
            monkeypatch.delitem(sys.modules, transport.API)
        sys.setprofile(profile)
        try:
            model.respond("count")
            vectors.embed("text")
        finally:
            sys.setprofile(None)
    # The prediction and its request, the embedding and its request.
    assert called == (["is_on", "is_on", "may_trace", "is_on", "is_on"] if imported else [])


# Content


async def test_prompts_and_responses_are_not_recorded_by_default(traced: Any, telemetry: Telemetry) -> None:
    result = await traced.respond("think about a private text")
    await traced.complete("a private text")
    assert result.content
    assert "private" not in telemetry.everything()
    assert result.content not in telemetry.everything()


@pytest.mark.parametrize("value", ["true", "True", "SPAN_ONLY"])
async def test_content_is_recorded_on_request(
    traced: Any, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(_telemetry.CONTENT_VARIABLE, value)
    chat = lms.Chat("Be brief.")
    chat.add_user_message("think")
    result = await traced.respond(chat)
    attributes = attributes_of(telemetry.span("chat chatty"))
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "think"}]},
    ]
    assert json.loads(attributes["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": result.reasoning_content},
                {"type": "text", "content": result.content},
            ],
            "finish_reason": "stop",
        }
    ]


@pytest.mark.parametrize("value", ["", "false", "EVENT_ONLY", "no"])
async def test_content_is_not_recorded_for_other_values(
    traced: Any, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(_telemetry.CONTENT_VARIABLE, value)
    await traced.respond("a private text")
    assert "private" not in telemetry.everything()
