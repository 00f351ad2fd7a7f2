"""LangChain's own tracing: events of a stream, and counts of tokens over several calls."""

from typing import Any

import pytest
from neighbour_peers import RULES, answer, langchain_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "langchain-core",
    "langchain-community",
    "langchain-openai",
    "langchain-ollama",
    group="tracing",
    job="events of a stream, and the usage of several calls, beside ChatOpenAI and ChatOllama",
)


async def test_events_and_usage(serve: Serve, collector: Collector) -> None:
    from langchain_community.callbacks import get_openai_callback
    from langchain_core.callbacks import UsageMetadataCallbackHandler

    server = serve(*RULES)
    collector.answer = answer
    usages = UsageMetadataCallbackHandler()
    providers: list[list[str]] = []
    for model in langchain_models(collector.address).values():
        config: Any = {"callbacks": [usages]}
        events = [event async for event in model.astream_events("Which piers?", config)]
        kinds = [event["event"].removeprefix("on_chat_model_") for event in events]
        assert [*dict.fromkeys(kinds)] == ["start", "stream", "end"]
        providers.append(sorted({event["metadata"]["ls_provider"] for event in events}))
        assert events[-1]["data"]["output"].text == "Piers 5 and 7."
        await model.ainvoke("Which piers?", config)
    assert providers == [["lmstudio"], ["openai"], ["ollama"]]
    assert [*usages.usage_metadata] == [CHAT, "gpt-4o", "qwen3"]
    ours = usages.usage_metadata[CHAT]
    sent = [each.stats for each in server.predictions]
    assert ours["total_tokens"] == sum(each["totalTokensCount"] for each in sent)
    assert (ours["input_tokens"], ours["output_tokens"]) == (
        sum(each["promptTokensCount"] for each in sent),
        sum(each["predictedTokensCount"] for each in sent),
    )
    with get_openai_callback() as counted:
        list(langchain_models(collector.address)["lmstudio"].stream("Which piers?"))
    assert (counted.prompt_tokens, counted.completion_tokens, counted.successful_requests, counted.total_cost) == (
        server.predictions[-1].stats["promptTokensCount"],
        server.predictions[-1].stats["predictedTokensCount"],
        1,
        0.0,
    )
