"""Datadog's LLM Observability records the calls of LangChain and LlamaIndex."""

from collections.abc import Iterator
from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, call_llama_index, langchain_models, llama_index_models
from neighbour_servers import CHAT, Collector, Received, Serve

pytestmark = pytest.mark.neighbour(
    "ddtrace",
    "langchain-openai",
    "langchain-ollama",
    "llama-index-llms-openai",
    "llama-index-llms-ollama",
    group="tracing",
    job="LLM Observability of LangChain and LlamaIndex, beside the peers",
    settings="streams of LangChain have no usage, of any model. With LlamaIndex it knows a provider only of modules in "
    "`llama_index.llms`: ours is `unknown`",
    environment={
        "DD_APM_TRACING_ENABLED": "false",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    },
    weekly=True,
)


@pytest.fixture
def events(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Returns what the service was sent of the calls."""
    monkeypatch.setenv("DD_LLMOBS_OVERRIDE_ORIGIN", collector.address)
    monkeypatch.setenv("DD_TRACE_AGENT_URL", collector.address)

    from ddtrace.llmobs import LLMObs

    def answer_either(request: Received) -> tuple[int, Any]:
        models = request.path.startswith(("/v1/chat", "/api/chat", "/api/show"))
        return answer(request) if models else (202, {})

    def found() -> list[tuple[Any, ...]]:
        LLMObs.flush()
        sent = [request.json for request in collector.wait_for("/api/v2/llmobs")]
        spans = [
            span for batch in sent for one in (batch if isinstance(batch, list) else [batch]) for span in one["spans"]
        ]
        spans.sort(key=lambda span: span["start_ns"])
        return [
            (*(span["meta"][key] for key in ("model_provider", "model_name")), span["metrics"], span["status"])
            for span in spans
        ]

    collector.answer = answer_either
    LLMObs.enable(ml_app="ferries", integrations_enabled=False, agentless_enabled=True, site="local", api_key="key")
    yield found
    LLMObs.disable()


def test_langchain(serve: Serve, collector: Collector, events: Any) -> None:
    from ddtrace import patch

    server = serve(*RULES)
    patch(langchain=True)
    for model in langchain_models(collector.address).values():
        for way in WAYS:
            call_langchain(model, way)
    found = events()
    assert [each[:2] for each in found] == [
        ("chat-lmstudio" if way == "stream" else "lmstudio", CHAT) for way in WAYS
    ] + [("openai-chat" if way == "stream" else "openai", "gpt-4o") for way in WAYS] + [
        ("chat-ollama" if way == "stream" else "ollama", "qwen3") for way in WAYS
    ]
    assert [bool(each[2]) for each in found] == [True, False, True, False] * 3
    assert found[0][2]["total_tokens"] == server.predictions[0].stats["totalTokensCount"]
    assert [each[3] for each in found] == ["ok", "ok", "ok", "error"] * 3


def test_llama_index(serve: Serve, collector: Collector, events: Any) -> None:
    from ddtrace import patch

    server = serve(*RULES)
    patch(llama_index=True)
    for model in llama_index_models(collector.address).values():
        for way in WAYS:
            call_llama_index(model, way)
    found = events()
    assert [each[:2] for each in found] == [
        *[("unknown", CHAT)] * 4,
        *[("openai", "gpt-4o")] * 4,
        *[("ollama", "qwen3")] * 4,
    ]
    for (_, _, metrics, _), sent in zip(found[:3], server.predictions, strict=False):
        assert metrics["input_tokens"] == sent.stats["promptTokensCount"]
        assert metrics["output_tokens"] == sent.stats["predictedTokensCount"]
    assert [each[3] for each in found] == ["ok", "ok", "ok", "error"] * 3
