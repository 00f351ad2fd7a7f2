"""MLflow's automatic tracing of LangChain and LlamaIndex, in a database of its own."""

from pathlib import Path
from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, call_llama_index, langchain_models, llama_index_models
from neighbour_servers import CHAT, Collector, Serve

from lmstudio_integrations.emulator import ModelEntry

pytestmark = pytest.mark.neighbour(
    "mlflow",
    "langchain-openai",
    "langchain-ollama",
    "llama-index-llms-openai",
    "llama-index-llms-ollama",
    group="tracing",
    job="`autolog` of LangChain and LlamaIndex records models, usage and errors, beside those of the peers",
    settings="with LlamaIndex it takes the publisher of a key such as `qwen/qwen3-4b` for the provider. For costs it "
    "loads litellm, which downloads a list of prices unless `LITELLM_LOCAL_MODEL_COST_MAP` is set",
    environment={
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    },
    weekly=True,
)


@pytest.fixture
def traces(tmp_path: Path) -> Any:
    """Returns what is recorded of the spans, the oldest first."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = mlflow.set_experiment("ferries").experiment_id

    def found() -> list[tuple[Any, ...]]:
        recorded = mlflow.search_traces(
            locations=[experiment], return_type="list", order_by=["timestamp_ms ASC"], include_spans=True
        )
        spans = [span for trace in recorded for span in trace.data.spans if not span.name.endswith("_with_tools")]
        keys = ("mlflow.llm.provider", "mlflow.llm.model", "mlflow.chat.tokenUsage")
        return [(*map(span.attributes.get, keys), span.status.status_code.value) for span in spans]

    return found


def counts(stats: Any) -> tuple[int, int, int]:
    return stats["promptTokensCount"], stats["predictedTokensCount"], stats["totalTokensCount"]


def test_langchain(serve: Serve, collector: Collector, traces: Any) -> None:
    import mlflow

    server = serve(*RULES)
    collector.answer = answer
    mlflow.langchain.autolog()
    for model in langchain_models(collector.address).values():
        for way in WAYS:
            call_langchain(model, way)
    mlflow.langchain.autolog(disable=True)
    found = traces()
    assert [each[:2] for each in found] == [
        *[("lmstudio", CHAT)] * 4,
        *[("openai", "gpt-4o")] * 4,
        *[("ollama", "qwen3")] * 4,
    ]
    assert [each[3] for each in found] == ["OK", "OK", "OK", "ERROR"] * 3
    for (_, _, usage, _), sent in zip(found[:3], server.predictions, strict=False):
        assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == counts(sent.stats)
        assert "cache_read_input_tokens" in usage


def test_llama_index(serve: Serve, collector: Collector, traces: Any) -> None:
    import mlflow

    from lmstudio_integrations.llama_index import LMStudio

    server = serve(*RULES, models=[ModelEntry(key="qwen/qwen3-4b")])
    collector.answer = answer
    mlflow.llama_index.autolog()
    for name, model in llama_index_models(collector.address).items():
        for way in WAYS if name == "lmstudio" else WAYS[:3]:
            call_llama_index(model, way)
    LMStudio(model="qwen/qwen3-4b").complete("Which piers?")
    mlflow.llama_index.autolog(disable=True)
    found = traces()
    assert [each[:2] for each in found] == [
        *[("lmstudio", CHAT)] * 4,
        *[("openai", "gpt-4o")] * 3,
        *[("ollama", "qwen3")] * 3,
        ("qwen", "qwen/qwen3-4b"),
    ]
    assert [each[3] for each in found] == ["OK", "OK", "OK", "ERROR", *["OK"] * 7]
    for (_, _, usage, _), sent in zip(found[:3], server.predictions, strict=False):
        assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == counts(sent.stats)
