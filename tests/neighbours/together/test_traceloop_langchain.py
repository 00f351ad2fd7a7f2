"""OpenLLMetry's instrumentation of LangChain makes spans, in the list of whose providers ours is missing."""

import json
from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, langchain_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "opentelemetry-instrumentation-langchain",
    "langchain-openai",
    "langchain-ollama",
    group="tracing",
    job="spans with model, settings, tools, usage and errors, beside those of ChatOpenAI and ChatOllama",
    settings="it knows a provider only by the name of the class, so `gen_ai.provider.name` is `langchain`; "
    "`traceloop.association.properties.ls_provider` is `lmstudio`",
    environment={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "lmstudio_integrations"},
)


def test_spans_are_made(serve: Serve, collector: Collector, tracing: tuple[Any, Any]) -> None:
    from opentelemetry.instrumentation.langchain import LangchainInstrumentor

    server = serve(*RULES)
    collector.answer = answer
    provider, exporter = tracing
    LangchainInstrumentor().instrument(tracer_provider=provider)
    for model in langchain_models(collector.address).values():
        for way in WAYS:
            call_langchain(model, way)
    spans = exporter.get_finished_spans()
    assert [span.name.removesuffix(".chat") for span in spans] == [
        name for name in ("ChatLMStudio", "ChatOpenAI", "ChatOllama") for _ in WAYS
    ]
    found = [dict(span.attributes or {}) for span in spans]
    assert [each["gen_ai.provider.name"] for each in found] == ["langchain"] * 4 + ["openai"] * 4 + ["ollama"] * 4
    property_ = "traceloop.association.properties.ls_provider"
    assert [each[property_] for each in found] == ["lmstudio"] * 4 + ["openai"] * 4 + ["ollama"] * 4
    assert [each["gen_ai.request.model"] for each in found] == [CHAT] * 4 + ["gpt-4o"] * 4 + ["unknown"] * 4
    finish = [("stop",), ("stop",), ("tool_call",), None]
    reasons = [each.get("gen_ai.response.finish_reasons") for each in found]
    assert reasons == [*finish, *finish, *[None] * 4]
    for each, sent in zip(found[:3], server.predictions, strict=False):
        assert each["gen_ai.response.model"] == CHAT
        assert each["gen_ai.usage.input_tokens"] == sent.stats["promptTokensCount"]
        assert each["gen_ai.usage.output_tokens"] == sent.stats["predictedTokensCount"]
        assert "gen_ai.usage.cache_read.input_tokens" in each
    for each in found[:4]:
        settings = ("temperature", "max_tokens", "top_p")
        assert [each[f"gen_ai.request.{name}"] for name in settings] == [0.2, 50, 0.9]
    assert json.loads(str(found[2]["gen_ai.tool.definitions"]))[0]["name"] == "ferry"
    (message,) = json.loads(str(found[2]["gen_ai.output.messages"]))
    assert message["parts"][0]["arguments"] == {"pier": 7}
    assert [span.status.status_code.name for span in spans] == ["UNSET", "UNSET", "UNSET", "ERROR"] * 3
    assert (found[3]["error.type"], spans[3].status.description) == (
        "LangChainPredictionError",
        "Chat response error: it broke",
    )
