"""OpenInference's instrumentation of LangChain makes spans, as Phoenix shows them."""

import json
from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, langchain_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "openinference-instrumentation-langchain",
    "langchain-openai",
    "langchain-ollama",
    group="tracing",
    job="spans with provider, model, settings, tools, usage and errors, beside those of ChatOpenAI and ChatOllama",
    settings="the variable switches off the spans of this package, which come in addition",
    environment={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "lmstudio_integrations"},
)


def test_spans_are_made(serve: Serve, collector: Collector, tracing: tuple[Any, Any]) -> None:
    from openinference.instrumentation.langchain import LangChainInstrumentor
    from opentelemetry import trace

    server = serve(*RULES)
    collector.answer = answer
    provider, exporter = tracing
    trace.set_tracer_provider(provider)
    LangChainInstrumentor().instrument(tracer_provider=provider)
    for model in langchain_models(collector.address).values():
        for way in WAYS:
            call_langchain(model, way)
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["ChatLMStudio"] * 4 + ["ChatOpenAI"] * 4 + ["ChatOllama"] * 4
    found = [dict(span.attributes or {}) for span in spans]
    assert [each["llm.provider"] for each in found] == ["lmstudio"] * 4 + ["openai"] * 4 + ["ollama"] * 4
    assert [each["llm.model_name"] for each in found] == [CHAT] * 4 + ["gpt-4o"] * 4 + ["qwen3"] * 4
    # The system is whose product the model is; it says OpenAI for Ollama.
    assert [each.get("llm.system") for each in found] == [None] * 4 + ["openai"] * 8
    finish = ["stop", "stop", "tool_calls", None]
    assert [each.get("llm.finish_reason") for each in found] == [*finish, *finish, *[None] * 4]
    counts = "llm.token_count."
    for each, sent in zip(found[:3], server.predictions, strict=False):
        assert each[f"{counts}prompt"] == sent.stats["promptTokensCount"]
        assert each[f"{counts}completion"] == sent.stats["predictedTokensCount"]
        assert each[f"{counts}total"] == sent.stats["totalTokensCount"]
    # whole responses have 0, for streams it is recorded only if there were any
    assert [f"{counts}prompt_details.cache_read" in each for each in found[:3]][::2] == [True, True]
    for each in found[:4]:
        parameters = json.loads(str(each["llm.invocation_parameters"]))
        assert (parameters["model"], parameters["max_tokens"], parameters["stop"]) == (CHAT, 50, ["END"])
    schema = json.loads(str(found[2]["llm.tools.0.tool.json_schema"]))
    assert schema["function"]["name"] == "ferry"
    assert found[2]["llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments"] == '{"pier": 7}'
    assert [span.status.status_code.name for span in spans] == ["OK", "OK", "OK", "ERROR"] * 3
    assert (spans[3].events[0].attributes or {})["exception.message"] == "Chat response error: it broke"
