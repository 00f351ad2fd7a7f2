"""Langfuse's callback handler records generations, which go to its server as OpenTelemetry spans."""

import json
from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, langchain_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "langfuse",
    "langchain-openai",
    "langchain-ollama",
    group="tracing",
    job="the callback handler records models, settings, usage and errors, beside those of ChatOpenAI and ChatOllama",
    settings="it subtracts the tokens from the cache from the input; the provider is in the metadata as `ls_provider`",
    environment={"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"},
)


def test_generations_are_recorded(serve: Serve, collector: Collector) -> None:
    from langfuse import Langfuse
    from langfuse.langchain import CallbackHandler
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    server = serve(*RULES)
    collector.answer = answer
    exporter = InMemorySpanExporter()
    client = Langfuse(base_url=collector.address, span_exporter=exporter, tracer_provider=TracerProvider())
    handler = CallbackHandler()
    for model in langchain_models(collector.address).values():
        for way in WAYS:
            call_langchain(model, way, [handler])
    client.flush()
    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    prefix = "langfuse.observation."
    found = [{key.removeprefix(prefix): value for key, value in (span.attributes or {}).items()} for span in spans]
    assert [each["type"] for each in found] == ["generation"] * 12
    assert [each["model.name"] for each in found] == [CHAT] * 4 + ["gpt-4o"] * 4 + ["qwen3"] * 4
    providers = [json.loads(str(each["metadata.ls_provider"])) for each in found]
    assert providers == ["lmstudio"] * 4 + ["openai"] * 4 + ["ollama"] * 4
    parameters = [json.loads(str(each["model.parameters"])) for each in found]
    assert parameters == [
        *[{"temperature": 0.2, "max_tokens": 50, "top_p": 0.9}] * 4,
        *[{"temperature": 0.2, "max_completion_tokens": 50, "top_p": 0.9}] * 4,
        *[{}] * 4,
    ]
    usages: list[Any] = [json.loads(str(each.get("usage_details", "null"))) for each in found]
    for usage, sent in zip(usages[:3], server.predictions, strict=False):
        assert usage["input"] + usage["input_cache_read"] == sent.stats["promptTokensCount"]
        assert usage["output"] == sent.stats["predictedTokensCount"]
    assert usages[4:7] == [{"input": 8, "output": 7, "total": 18, "input_cache_read": 3}] * 3
    assert usages[8:11] == [{"input": 11, "output": 7, "total": 18}] * 3
    assert [each.get("level") for each in found] == [None, None, None, "ERROR"] * 3
    assert found[3]["status_message"] == "Chat response error: it broke"
    assert json.loads(str(found[2]["output"]))["tool_calls"][0]["args"] == {"pier": 7}
