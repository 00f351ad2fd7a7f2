"""OpenLLMetry's instrumentation of LlamaIndex makes spans."""

from typing import Any

import pytest
from neighbour_peers import RULES, answer, call_llama_index, llama_index_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "opentelemetry-instrumentation-llamaindex",
    "llama-index-llms-ollama",
    group="tracing",
    job="spans with provider, model, usage and the reason of the end, beside those of LlamaIndex's Ollama",
    settings="it records no `complete` (only chats) and no call that fails, of any model",
    environment={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "lmstudio_integrations"},
)


def test_spans_are_made(serve: Serve, collector: Collector, tracing: tuple[Any, Any]) -> None:
    from opentelemetry.instrumentation.llamaindex import LlamaIndexInstrumentor

    server = serve(*RULES)
    collector.answer = answer
    provider, exporter = tracing
    LlamaIndexInstrumentor().instrument(tracer_provider=provider)
    models = llama_index_models(collector.address)
    for name in ("lmstudio", "ollama"):
        for way in ("invoke", "stream", "tool", "fail"):
            call_llama_index(models[name], way)
    found = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
    chats = [each for each in found if each.get("gen_ai.operation.name") == "chat"]
    assert [each["gen_ai.provider.name"] for each in chats] == ["lmstudio"] * 3 + ["ollama_llm"] * 3
    assert [each["gen_ai.request.model"] for each in chats] == [CHAT] * 3 + [None] * 3
    assert [each["gen_ai.request.temperature"] for each in chats] == [0.2] * 3 + [None] * 3
    assert [each["gen_ai.response.model"] for each in chats] == [CHAT] * 3 + ["qwen3"] * 3
    reasons = [each["gen_ai.response.finish_reasons"] for each in chats]
    assert reasons == [("stop",), ("stop",), ("tool_call",), ("stop",), ("stop",), ("stop",)]
    for each, sent in zip(chats[:3], server.predictions, strict=False):
        assert each["gen_ai.usage.input_tokens"] == sent.stats["promptTokensCount"]
        assert each["gen_ai.usage.output_tokens"] == sent.stats["predictedTokensCount"]
        assert each["gen_ai.usage.total_tokens"] == sent.stats["totalTokensCount"]
        assert "gen_ai.usage.cache_read.input_tokens" in each
