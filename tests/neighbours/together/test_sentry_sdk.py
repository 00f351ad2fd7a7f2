"""Sentry's LangChain integration makes spans of the calls, and an issue of an error."""

from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, langchain_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "sentry-sdk",
    "langchain-openai",
    "langchain-ollama",
    group="tracing",
    job="spans with model, settings, tools and usage, and an issue for an error, beside those of its peers",
    settings="`gen_ai.system` is what each class calls itself: `chat-lmstudio`, `openai-chat`, `chat-ollama`",
)


def test_spans_and_issues(serve: Serve, collector: Collector) -> None:
    import sentry_sdk
    from sentry_sdk.integrations.langchain import LangchainIntegration
    from sentry_sdk.transport import Transport

    items: list[tuple[str, Any]] = []

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            items.extend((item.headers["type"], item.payload.json) for item in envelope.items)

    server = serve(*RULES)
    collector.answer = answer
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=Kept,
        traces_sample_rate=1.0,
        send_default_pii=True,
        integrations=[LangchainIntegration()],
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    with sentry_sdk.start_transaction(name="ask"):
        for model in langchain_models(collector.address).values():
            for way in WAYS:
                call_langchain(model, way)
    sentry_sdk.flush()
    spans = [span for kind, value in items if kind == "span" for span in value["items"]]
    found = [{key: value["value"] for key, value in span["attributes"].items()} for span in spans]
    assert [span["name"] for span in spans] == [f"chat {CHAT}"] * 4 + ["chat gpt-4o"] * 4 + ["chat"] * 4
    systems = [each["gen_ai.system"] for each in found]
    assert systems == ["chat-lmstudio"] * 4 + ["openai-chat"] * 4 + ["chat-ollama"] * 4
    finish = [["stop"], ["stop"], ["tool_calls"], None]
    reasons = [each.get("gen_ai.response.finish_reasons") for each in found]
    assert reasons == [*finish, *finish, *[None] * 4]
    for each, sent in zip(found[:3], server.predictions, strict=False):
        assert each["gen_ai.response.model"] == CHAT
        assert each["gen_ai.usage.input_tokens"] == sent.stats["promptTokensCount"]
        assert each["gen_ai.usage.output_tokens"] == sent.stats["predictedTokensCount"]
        assert "gen_ai.usage.cache_read.input_tokens" in each
    for each in found[:4]:
        assert [each[f"gen_ai.request.{name}"] for name in ("model", "temperature", "max_tokens", "top_p")] == [
            CHAT,
            0.2,
            50,
            0.9,
        ]
    assert "ferry" in found[2]["gen_ai.request.available_tools"]
    assert '"pier": 7' in found[2]["gen_ai.response.tool_calls"]
    assert [span["status"] for span in spans] == ["ok", "ok", "ok", "error"] * 3
    issue = next(value for kind, value in items if kind == "event")
    assert [(each["type"], each["value"]) for each in issue["exception"]["values"]][-1] == (
        "LangChainPredictionError",
        "Chat response error: it broke",
    )
