"""Logfire records the spans of this package, and the runs of LangChain that LangSmith exports to OpenTelemetry."""

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, langchain_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "logfire",
    "langsmith",
    "langchain-openai",
    "langchain-ollama",
    group="tracing",
    job="the spans of this package, and runs of LangChain beside those of ChatOpenAI and ChatOllama",
    settings="LangSmith guesses `gen_ai.system` from the name of the model, so a Qwen is `qwen`, as with Ollama; "
    "`langsmith.metadata.ls_provider` is `lmstudio`",
    environment={
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_OTEL_ENABLED": "true",
        "LANGSMITH_OTEL_ONLY": "true",
        "LANGSMITH_API_KEY": "key",
        "LANGSMITH_ENDPOINT": "http://127.0.0.1:9",
        "LOGFIRE_SEND_TO_LOGFIRE": "false",
        "LOGFIRE_CONSOLE": "false",
    },
)


def test_spans_are_recorded(serve: Serve, collector: Collector) -> None:
    import logfire
    from langchain_core.tracers.langchain import get_client, wait_for_all_tracers
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    server = serve(*RULES)
    collector.answer = answer
    exporter = InMemorySpanExporter()
    logfire.configure(additional_span_processors=[SimpleSpanProcessor(exporter)])
    for model in langchain_models(collector.address).values():
        for way in WAYS:
            call_langchain(model, way)
    wait_for_all_tracers()
    get_client().flush()
    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    ours = [dict(span.attributes or {}) for span in spans if span.name == f"chat {CHAT}"]
    assert [each["gen_ai.provider.name"] for each in ours] == ["lmstudio"] * 4
    for each, sent in zip(ours[:3], server.predictions, strict=False):
        assert each["gen_ai.request.model"] == each["gen_ai.response.model"] == CHAT
        assert each["gen_ai.usage.input_tokens"] == sent.stats["promptTokensCount"]
        assert each["gen_ai.usage.output_tokens"] == sent.stats["predictedTokensCount"]
    assert [each.get("error.type") for each in ours] == [None, None, None, "LMStudioPredictionError"]
    runs = [
        dict(span.attributes or {}) for span in spans if "langsmith.metadata.ls_provider" in (span.attributes or {})
    ]
    assert [run["langsmith.metadata.ls_provider"] for run in runs] == [
        name for name in ("lmstudio", "openai", "ollama") for _ in WAYS
    ]
    assert [run["gen_ai.request.model"] for run in runs] == [CHAT] * 4 + ["gpt-4o"] * 4 + ["qwen3"] * 4
    assert [run["gen_ai.system"] for run in runs] == ["qwen"] * 4 + ["openai"] * 4 + ["qwen"] * 4
