"""Runs are posted to a LangSmith server: a response, a stream, a call of a tool, and an error."""

import json
from email import message_from_bytes
from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, langchain_models
from neighbour_servers import CHAT, Collector, Received, Serve

pytestmark = pytest.mark.neighbour(
    "langsmith",
    "langchain-openai",
    "langchain-ollama",
    group="tracing",
    job="runs of responses, streams, tools and errors are posted, beside those of ChatOpenAI and ChatOllama",
    environment={"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": "key"},
)


def parts(request: Received) -> list[tuple[list[str], Any]]:
    """Return the parts of a request: `post` or `patch`, the identifier and, apart from a run itself, its member."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message: Any = message_from_bytes(head + request.body)
    return [
        (part.get_param("name", header="content-disposition").split("."), json.loads(part.get_payload(decode=True)))
        for part in message.get_payload()
    ]


def test_runs_are_posted(serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_core.tracers.langchain import get_client, wait_for_all_tracers

    server = serve(*RULES)
    monkeypatch.setenv("LANGSMITH_ENDPOINT", f"{collector.address}/langsmith")

    def answer_either(request: Received) -> tuple[int, Any]:
        return (200, {}) if request.path.startswith("/langsmith") else answer(request)

    collector.answer = answer_either
    for model in langchain_models(collector.address).values():
        for way in WAYS:
            call_langchain(model, way)
    wait_for_all_tracers()
    get_client().flush()
    runs: dict[str, dict[str, Any]] = {}
    for request in collector.requests:
        if request.path == "/langsmith/runs/multipart":
            assert request.headers["x-api-key"] == "key"
            for name, value in parts(request):
                run = runs.setdefault(name[1], {})
                run |= {name[2]: value} if name[2:] else value
    posted = sorted(runs.values(), key=lambda run: run["dotted_order"])
    assert [run["name"] for run in posted] == ["ChatLMStudio"] * 4 + ["ChatOpenAI"] * 4 + ["ChatOllama"] * 4
    assert {run["run_type"] for run in posted} == {"llm"}
    kinds = ["ls_provider", "ls_model_name", "ls_model_type", "ls_max_tokens", "ls_stop"]
    described = [tuple(json.dumps(run["extra"]["metadata"].get(kind)) for kind in kinds) for run in posted]
    assert described == [
        *[('"lmstudio"', f'"{CHAT}"', '"chat"', "50", '["END"]')] * 4,
        *[('"openai"', '"gpt-4o"', '"chat"', "50", '["END"]')] * 4,
        *[('"ollama"', '"qwen3"', '"chat"', "null", '["END"]')] * 4,
    ]
    stats = [sent.stats for sent in server.predictions[:3]]
    usages = [run["extra"]["metadata"]["usage_metadata"] for run in posted[:3]]
    assert [(each["input_tokens"], each["output_tokens"]) for each in usages] == [
        (each["promptTokensCount"], each["predictedTokensCount"]) for each in stats
    ]
    assert all("cache_read" in each["input_token_details"] for each in usages)
    for run in posted[:4]:
        parameters = run["extra"]["invocation_params"]
        assert (parameters["model"], parameters["temperature"], parameters["stop"]) == (CHAT, 0.2, ["END"])
        assert parameters["host"] == f"ws://{server.address}"
    whole, stream, tool, failed = posted[:4]
    assert [event["name"] for event in stream["events"]] == ["start", "new_token", "end"]
    assert whole["outputs"]["generations"][0][0]["text"] == stream["outputs"]["generations"][0][0]["text"]
    assert tool["extra"]["invocation_params"]["tools"][0]["function"]["name"] == "ferry"
    assert failed["error"].startswith("LangChainPredictionError('Chat response error: it broke')")
