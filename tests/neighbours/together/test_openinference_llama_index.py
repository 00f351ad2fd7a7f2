"""OpenInference's instrumentation of LlamaIndex makes spans, as Phoenix shows them."""

import json
from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_llama_index, llama_index_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "openinference-instrumentation-llama-index",
    "llama-index-llms-openai",
    "llama-index-llms-ollama",
    group="tracing",
    job="spans with model, tools, usage and errors, beside those of LlamaIndex's OpenAI and Ollama",
    settings="it knows a provider only of classes of OpenAI, Azure, Anthropic and Vertex; "
    '`using_attributes(metadata={"provider": "lmstudio"})` says ours',
    environment={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "lmstudio_integrations"},
)


def test_spans_are_made(serve: Serve, collector: Collector, tracing: tuple[Any, Any]) -> None:
    from openinference.instrumentation import using_attributes
    from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

    server = serve(*RULES)
    collector.answer = answer
    provider, exporter = tracing
    LlamaIndexInstrumentor().instrument(tracer_provider=provider)
    for name, model in llama_index_models(collector.address).items():
        with using_attributes(metadata={"provider": name}):
            for way in WAYS:
                call_llama_index(model, way)
    spans = [span for span in exporter.get_finished_spans() if not span.name.endswith("_prepare_chat_with_tools")]
    methods = ("chat", "stream_chat", "chat", "chat")
    assert [span.name for span in spans] == [
        f"{name}.{method}" for name in ("LMStudio", "OpenAI", "Ollama") for method in methods
    ]
    found = [dict(span.attributes or {}) for span in spans]
    assert [each.get("llm.provider") for each in found] == [None] * 4 + ["openai"] * 4 + [None] * 4
    assert [json.loads(str(each["metadata"]))["provider"] for each in found[:4]] == ["lmstudio"] * 4
    assert [each["llm.model_name"] for each in found] == [CHAT] * 4 + ["gpt-4o"] * 4 + ["qwen3"] * 4
    finish = ["stop", "stop", "tool_calls", None]
    assert [each.get("llm.finish_reason") for each in found] == [*finish, *finish, *[None] * 4]
    for each, sent in zip(found[:3], server.predictions, strict=False):
        assert each["llm.token_count.prompt"] == sent.stats["promptTokensCount"]
        assert each["llm.token_count.completion"] == sent.stats["predictedTokensCount"]
        assert "llm.token_count.prompt_details.cache_read" in each
    assert json.loads(str(found[2]["llm.tools.0.tool.json_schema"]))["function"]["name"] == "ferry"
    assert [span.status.status_code.name for span in spans] == ["OK", "OK", "OK", "ERROR"] * 3
    assert spans[3].status.description == "LMStudioPredictionError: Chat response error: it broke"
