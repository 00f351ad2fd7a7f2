"""Opik's tracer records spans of a model, in the list of whose providers ours is missing."""

import gzip
import json
from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, langchain_models
from neighbour_servers import CHAT, Collector, Received, Serve

pytestmark = pytest.mark.neighbour(
    "opik",
    "langchain-openai",
    "langchain-ollama",
    group="tracing",
    job="the tracer records spans, beside those of ChatOpenAI and ChatOllama",
    settings="[an extractor](#opik): it looks for model and usage only in runs of a list of providers, which names "
    "neither LM Studio nor Ollama",
    environment={
        "OPIK_WORKSPACE": "default",
        "OPIK_PROJECT_NAME": "ferries",
        "OPIK_SENTRY_ENABLE": "false",
    },
)


def answer_either(request: Received) -> tuple[int, Any]:
    """Answer as Opik or as a peer's server."""
    return (200, {}) if request.path.startswith("/opik") else answer(request)


def spans_of(collector: Collector) -> list[dict[str, Any]]:
    """Return the spans of models that Opik has received, in the order of their starts."""
    spans: dict[str, dict[str, Any]] = {}
    for request in collector.requests:
        if request.path.endswith("/spans/batch"):
            zipped = request.headers.get("content-encoding") == "gzip"
            for span in json.loads(gzip.decompress(request.body) if zipped else request.body)["spans"]:
                if span.get("type") == "llm" and span.get("end_time"):
                    spans[span["id"]] = span
    return sorted(spans.values(), key=lambda span: span["start_time"])


def test_spans_are_recorded(serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    from opik.integrations.langchain import OpikTracer

    server = serve(*RULES)
    collector.answer = answer_either
    monkeypatch.setenv("OPIK_URL_OVERRIDE", f"{collector.address}/opik/api")
    models = langchain_models(collector.address)
    tracers = {"lmstudio": OpikTracer(provider="lmstudio"), "openai": OpikTracer(), "ollama": OpikTracer()}
    for name, model in models.items():
        for way in WAYS:
            call_langchain(model, way, [tracers[name]])
    for tracer in tracers.values():
        tracer.flush()
    found = spans_of(collector)
    assert [span["name"] for span in found] == ["ChatLMStudio"] * 4 + ["ChatOpenAI"] * 4 + ["ChatOllama"] * 4
    assert [span.get("provider") for span in found] == [*["lmstudio"] * 3, None, *["openai"] * 3, *[None] * 5]
    assert [span.get("model") for span in found] == [*[None] * 4, *["gpt-4o"] * 3, *[None] * 5]
    assert [bool(span.get("usage")) for span in found] == [*[False] * 4, *[True] * 3, *[False] * 5]
    assert {span["metadata"]["ls_model_name"] for span in found[:4]} == {CHAT}
    for span, sent in zip(found[:3], server.predictions, strict=False):
        usage = span["output"]["generations"][0][0]["message"]["kwargs"]["usage_metadata"]
        assert usage["total_tokens"] == sent.stats["totalTokensCount"]
    assert "LangChainPredictionError('Chat response error: it broke')" in found[3]["error_info"]["traceback"]

    import opik_extractor

    collector.requests.clear()
    seen = len(server.predictions)
    tracer = OpikTracer()
    for way in WAYS:
        call_langchain(models["lmstudio"], way, [tracer])
    tracer.flush()
    *answered, failed = spans_of(collector)
    assert {(span["provider"], span["model"]) for span in answered} == {(opik_extractor.LMStudioUsage.PROVIDER, CHAT)}
    assert [span["usage"]["total_tokens"] for span in answered] == [
        sent.stats["totalTokensCount"] for sent in server.predictions[seen : seen + 3]
    ]
    assert "it broke" in failed["error_info"]["traceback"]
