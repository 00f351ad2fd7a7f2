"""LangWatch's tracer records the calls of a LangChain model."""

import json
from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, langchain_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "langwatch",
    "langchain-openai",
    "langchain-ollama",
    group="tracing",
    job="spans with provider, model, settings, usage and errors, beside those of ChatOpenAI and ChatOllama",
    settings="streams have no usage, of any model",
    environment={"LANGWATCH_API_KEY": "key"},
    weekly=True,
)


def test_spans_are_made(serve: Serve, collector: Collector, tracing: tuple[Any, Any]) -> None:
    import langwatch
    from langwatch.langchain import LangChainTracer  # noqa: F401 - what `get_langchain_callback` needs

    server = serve(*RULES)
    collector.answer = lambda request: answer(request) if "chat" in request.path else (200, {})
    provider, exporter = tracing
    langwatch.setup(endpoint_url=collector.address, tracer_provider=provider)
    for model in langchain_models(collector.address).values():
        for way in WAYS:
            with langwatch.trace() as trace:
                call_langchain(model, way, [trace.get_langchain_callback()])
    spans = [
        span for span in exporter.get_finished_spans() if (span.attributes or {}).get("langwatch.span.type") == "llm"
    ]
    found = [dict(span.attributes or {}) for span in spans]
    assert [each["gen_ai.request.model"] for each in found] == [
        *[f"lmstudio/{CHAT}"] * 4,
        *["openai/gpt-4o"] * 4,
        *["ollama/qwen3"] * 4,
    ]
    for index in (0, 2):
        metrics, sent = json.loads(str(found[index]["langwatch.metrics"])), server.predictions[index].stats
        assert (metrics["prompt_tokens"], metrics["completion_tokens"]) == (
            sent["promptTokensCount"],
            sent["predictedTokensCount"],
        )
    assert ["langwatch.metrics" in each for each in found] == [True, False, True, False] * 2 + [False] * 4
    parameters = json.loads(str(found[0]["langwatch.params"]))
    assert parameters == {"temperature": 0.2, "top_p": 0.9, "seed": 3, "max_tokens": 50, "stop": ["END"]}
    assert [span.status.status_code.name == "ERROR" for span in spans] == [False, False, False, True] * 3
