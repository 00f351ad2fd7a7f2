"""Spans and metrics of OpenTelemetry: one for each operation, with the names of the GenAI conventions."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

import lmstudio_integrations as lms
from lmstudio_integrations.client.embeddings import EmbeddingRequest
from lmstudio_integrations.client.telemetry import CONTENT_VARIABLE, DISABLED_VARIABLE
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests.client.fake import fake_server
from tests.client.models.test_retries import Fickle
from tests.client.prediction_frames import END, fragment, joined, loaded_handle, packet, responds, weather
from tests.support.embedding import embed_texts
from tests.support.pauses import replace_pauses
from tests.support.telemetry import (
    METER_PROVIDER,
    TRACER_PROVIDER,
    Telemetry,
    attributes_of,
    is_child,
    model,
    server_of,
    telemetry,
    traced,
)
from tests.support.threads import together

__all__ = ["model", "telemetry", "traced"]

DURATION, TOKENS = "gen_ai.client.operation.duration", "gen_ai.client.token.usage"
# Operations


async def test_a_response_is_a_span(traced: Any, server: Emulator, telemetry: Telemetry) -> None:
    result = await traced.respond("think", config={"temperature": 0, "max_tokens": 50, "top_k_sampling": 3})
    span = telemetry.span("chat chatty")
    assert telemetry.names == ["chat chatty"]
    assert attributes_of(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lmstudio",
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


@contextmanager
def disabled(patch: pytest.MonkeyPatch) -> Iterator[None]:
    patch.setenv(DISABLED_VARIABLE, "flask, lmstudio_integrations")
    yield


SWITCHES: dict[str, Callable[[pytest.MonkeyPatch], AbstractContextManager[Any]]] = {
    "OpenTelemetry": lambda _: pytest.importorskip("opentelemetry.instrumentation.utils").suppress_instrumentation(),
    "OpenInference": lambda _: pytest.importorskip("openinference.instrumentation").suppress_tracing(),
    "environment": disabled,
}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)
async def test_nothing_is_recorded_of_what_is_suppressed(
    server: Emulator, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, switch: Any
) -> None:
    llm = ChatLMStudio(model="chatty", host=server.address)
    with switch(monkeypatch):
        async with lms.AsyncClient(server.address) as client:
            stream = (await client.llm.model("chatty")).respond_stream("count")
            await anext(stream)
            await stream.wait_for_result()
        await asyncio.to_thread(lambda: [*llm.stream("hi")])
        await LMStudio(model="chatty", host=server.address).acomplete("hi")
    assert (telemetry.names, telemetry.points(TOKENS)) == ([], [])
    monkeypatch.delenv(DISABLED_VARIABLE, raising=False)
    await llm.ainvoke("hi")
    assert telemetry.names == ["chat chatty"]


async def test_a_stream_is_one_span_from_its_request_to_its_end(traced: Any, telemetry: Telemetry) -> None:
    stream = traced.respond_stream("count")
    await anext(stream)
    await stream.wait_for_result()
    span = telemetry.span("chat chatty")
    attributes = span.attributes or {}
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.response.time_to_first_chunk"]
    assert attributes["gen_ai.usage.output_tokens"] == stream.stats.predicted_tokens_count


async def test_a_stream_that_arrives_at_once_has_a_first_chunk(telemetry: Telemetry) -> None:
    behave = responds(fragment("Hi"), packet(END))
    async with fake_server(behave) as host, lms.AsyncClient(host) as client:
        await joined(loaded_handle(client).respond_stream("hi"))
    assert (telemetry.span("chat chatty").attributes or {})["gen_ai.response.time_to_first_chunk"]


async def test_a_completion_is_a_text_completion(traced: Any, telemetry: Telemetry) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    await traced.complete("Once upon a time", config={"stop_strings": ["."], "seed": 1}, response_format=schema)
    attributes = attributes_of(telemetry.span("text_completion chatty"))
    assert attributes["gen_ai.output.type"] == "json"
    assert attributes["gen_ai.operation.name"] == "text_completion"
    assert attributes["gen_ai.request.stop_sequences"] == (".",)
    assert attributes["gen_ai.request.seed"] == 1


async def test_each_round_of_the_tool_loop_is_a_span(traced: Any, telemetry: Telemetry) -> None:
    await traced.act("weather", [weather], max_prediction_rounds=2)
    reasons = [attributes_of(span)["gen_ai.response.finish_reasons"] for span in telemetry.spans]
    assert telemetry.names == ["chat chatty"] * 2
    assert reasons == [("tool_call",), ("stop",)]


async def test_an_embedding_is_one_span(client: Any, server: Emulator, telemetry: Telemetry) -> None:
    model = await client.embedding.model("vectors")
    await model.embed([f"text {number}" for number in range(130)], show_progress=True)
    assert attributes_of(telemetry.span("embeddings vectors")) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "lmstudio",
        "gen_ai.request.model": "vectors",
        "gen_ai.response.model": "vectors",
        "gen_ai.embeddings.dimension.count": 16,
        **server_of(server),
    }


async def test_texts_that_have_to_be_counted_are_one_span(client: Any, telemetry: Telemetry) -> None:
    model = client.embedding.lazy_model("vectors")
    await embed_texts(model, EmbeddingRequest(["short", "long " * 300], "truncate", "chunk_size"))
    assert is_child(telemetry.span("load vectors"), telemetry.span("embeddings vectors"))


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
    for name, more in (("connect", {}), ("load chatty", {"gen_ai.request.model": "chatty"})):
        span = telemetry.span(name)
        assert is_child(span, chat)
        assert attributes_of(span) == {"gen_ai.provider.name": "lmstudio", **more, **server_of(server)}
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


async def test_a_load_outside_of_a_prediction_is_a_child_of_the_current_span(client: Any, telemetry: Telemetry) -> None:
    with telemetry.start_span("program") as program:
        await client.llm.model("chatty")
        await client.llm.model("chatty")  # which is no load
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


async def test_a_prefix_that_is_processed_again_is_an_event_and_is_counted(
    traced: Any, server: Emulator, telemetry: Telemetry
) -> None:
    await traced.warm("Be brief.", keep_warm=True)
    await asyncio.to_thread(server.unload, "chatty")
    await asyncio.to_thread(server.load, "chatty")
    await traced.respond("hi")
    await traced.respond("hi")
    assert [[event.name for event in span.events] for span in telemetry.spans if span.name == "chat chatty"] == [
        [],
        [],
        ["lmstudio.warm_again"],
    ]
    (point,) = telemetry.points("lmstudio.client.warm_again")
    assert (point.value, dict(point.attributes)["gen_ai.request.model"]) == (1, "chatty")


async def test_a_retried_prediction_is_one_span_with_an_event(
    make_client: Callable[..., Any], telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_pauses(monkeypatch, lambda _: None)
    async with fake_server(Fickle(1)) as host, make_client(host) as client:
        result = await loaded_handle(client).with_retries(2).respond("hi")
    assert result.content == "ok"
    span = telemetry.span("chat chatty")
    assert [event.name for event in span.events] == ["lmstudio.retry"]
    assert [is_child(each, span) for each in telemetry.spans if each.name == "connect"] == [True, True]


# The caller's context


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


def test_predictions_of_several_threads_have_their_own_parents(server: Emulator, telemetry: Telemetry) -> None:
    with lms.Client(server.address) as client:
        model = client.llm.model("chatty")

        def work(number: int) -> None:
            with telemetry.start_span(f"thread {number}"):
                model.respond("count")

        together(4, work)
    chats = [span for span in telemetry.spans if span.name == "chat chatty"]
    parents = {span.context.span_id for span in telemetry.spans if span.name.startswith("thread") and span.context}
    assert len(chats) == len(parents) == 4
    assert {span.parent.span_id for span in chats if span.parent} == parents


# Metrics


async def test_durations_and_tokens_are_histograms(traced: Any, server: Emulator, telemetry: Telemetry) -> None:
    results = [await traced.respond("hi") for _ in range(3)]
    labels = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lmstudio",
        "gen_ai.request.model": "chatty",
        "gen_ai.response.model": "chatty",
        **server_of(server),
    }
    (duration,) = telemetry.points(DURATION)
    assert (duration.attributes, duration.count) == (labels, 3)
    assert duration.explicit_bounds[:3] == pytest.approx((0.01, 0.02, 0.04))
    tokens = {str((point.attributes or {})["gen_ai.token.type"]): point for point in telemetry.points(TOKENS)}
    stats = [result.stats for result in results]
    assert {kind: point.sum for kind, point in tokens.items()} == {
        "input": sum(each.prompt_tokens_count or 0 for each in stats),
        "output": sum(each.predicted_tokens_count or 0 for each in stats),
    }
    assert tokens["input"].attributes == {**labels, "gen_ai.token.type": "input"}
    assert tokens["output"].explicit_bounds[:3] == (1, 4, 16)


@contextmanager
def recorded_by(
    patch: pytest.MonkeyPatch, providers: Iterable[str], sampler: Sampler = ALWAYS_ON
) -> Iterator[Telemetry]:
    """Configure some providers of the program."""
    recorded = Telemetry(sampler)
    made = {METER_PROVIDER: recorded.metrics, TRACER_PROVIDER: recorded.traces}
    for provider in providers:
        patch.setattr(provider, made[provider])
    yield recorded
    recorded.close()


@pytest.mark.parametrize(
    ("providers", "sampler", "spans", "durations"),
    [
        ([METER_PROVIDER], ALWAYS_ON, 0, 1),
        ([TRACER_PROVIDER], ALWAYS_ON, 1, 0),
        ([METER_PROVIDER, TRACER_PROVIDER], ALWAYS_OFF, 0, 1),
    ],
    ids=["metrics alone", "traces alone", "not sampled"],
)
async def test_metrics_and_traces_do_not_need_each_other(
    model: Any, monkeypatch: pytest.MonkeyPatch, providers: list[str], sampler: Sampler, spans: int, durations: int
) -> None:
    monkeypatch.setenv(CONTENT_VARIABLE, "true")
    with recorded_by(monkeypatch, providers, sampler) as recorded:
        await model.respond("hi")
        assert recorded.names == ["chat chatty"] * spans
        assert [point.count for point in recorded.points(DURATION)] == [1] * durations


@dataclass
class Forwarding:
    """A provider of another package: it forwards to one, and has no hash, as those of logfire."""

    provider: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.provider, name)


async def test_providers_need_no_hash(model: Any, monkeypatch: pytest.MonkeyPatch, telemetry: Telemetry) -> None:
    monkeypatch.setattr(TRACER_PROVIDER, Forwarding(telemetry.traces))
    monkeypatch.setattr(METER_PROVIDER, Forwarding(telemetry.metrics))
    for _ in range(2):
        await model.respond("hi")
    assert telemetry.names == ["chat chatty"] * 2
    assert [point.count for point in telemetry.points(DURATION)] == [2]


async def test_a_stream_is_traced_if_the_provider_is_configured_before_it_is_read(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = model.respond_stream("hi")
    with recorded_by(monkeypatch, [TRACER_PROVIDER]) as recorded:
        await stream.wait_for_result()
        assert recorded.names == ["chat chatty"]


# Content


@pytest.mark.parametrize("value", ["", "EVENT_ONLY"])
async def test_prompts_and_responses_are_not_recorded_unless_they_are_requested(
    traced: Any, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(CONTENT_VARIABLE, value)
    result = await traced.respond("think about a private text")
    await traced.complete("a private text")
    assert result.content
    assert "private" not in telemetry.everything()
    assert result.content not in telemetry.everything()


@pytest.mark.parametrize("value", ["True", "SPAN_ONLY"])
async def test_content_is_recorded_on_request(
    traced: Any, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(CONTENT_VARIABLE, value)
    result = await traced.respond("think")
    attributes = attributes_of(telemetry.span("chat chatty"))
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "think"}]}
    ]
    reasoning, text = json.loads(attributes["gen_ai.output.messages"])[0]["parts"]
    assert reasoning == {"type": "reasoning", "content": result.reasoning_content}
    assert text == {"type": "text", "content": result.content}
