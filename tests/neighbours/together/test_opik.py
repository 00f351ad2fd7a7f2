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
    settings='`OpikTracer(provider="lmstudio")`: it looks for the model and its usage only in runs of a list of '
    "providers, without ours and Ollama. The model is in the metadata as `ls_model_name`, the usage in the output",
    environment={
        "OPIK_WORKSPACE": "default",
        "OPIK_PROJECT_NAME": "ferries",
        "OPIK_SENTRY_ENABLE": "false",
    },
)


def test_spans_are_recorded(serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    from opik.integrations.langchain import OpikTracer

    def answer_either(request: Received) -> tuple[int, Any]:
        return (200, {}) if request.path.startswith("/opik") else answer(request)

    server = serve(*RULES)
    collector.answer = answer_either
    monkeypatch.setenv("OPIK_URL_OVERRIDE", f"{collector.address}/opik/api")
    models = langchain_models(collector.address)
    tracers = {"lmstudio": OpikTracer(provider="lmstudio"), "openai": OpikTracer(), "ollama": OpikTracer()}
    for name, model in models.items():
        for way in WAYS:
            call_langchain(model, way, [tracers[name]])
    spans: dict[str, dict[str, Any]] = {}
    for tracer in tracers.values():
        tracer.flush()
    for request in collector.requests:
        if request.path.endswith("/spans/batch"):
            zipped = request.headers.get("content-encoding") == "gzip"
            for span in json.loads(gzip.decompress(request.body) if zipped else request.body)["spans"]:
                if span.get("type") == "llm" and span.get("end_time"):
                    spans[span["id"]] = span
    found = sorted(spans.values(), key=lambda span: span["start_time"])
    assert [span["name"] for span in found] == ["ChatLMStudio"] * 4 + ["ChatOpenAI"] * 4 + ["ChatOllama"] * 4
    assert [span.get("provider") for span in found] == [*["lmstudio"] * 3, None, *["openai"] * 3, *[None] * 5]
    assert [span.get("model") for span in found] == [*[None] * 4, *["gpt-4o"] * 3, *[None] * 5]
    assert [bool(span.get("usage")) for span in found] == [*[False] * 4, *[True] * 3, *[False] * 5]
    assert {span["metadata"]["ls_model_name"] for span in found[:4]} == {CHAT}
    for span, sent in zip(found[:3], server.predictions, strict=False):
        usage = span["output"]["generations"][0][0]["message"]["kwargs"]["usage_metadata"]
        assert usage["total_tokens"] == sent.stats["totalTokensCount"]
    assert "LangChainPredictionError('Chat response error: it broke')" in found[3]["error_info"]["traceback"]
