"""LlamaIndex's own instrumentation, and its counter of tokens, over each way of a call."""

from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_llama_index, llama_index_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    "llama-index-llms-openai",
    "llama-index-llms-ollama",
    group="tracing",
    job="events of chats with the model, settings, usage and errors, beside LlamaIndex's OpenAI and Ollama",
)


def test_events(serve: Serve, collector: Collector) -> None:
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMChatStartEvent
    from llama_index.core.instrumentation.events.span import SpanDropEvent

    started: list[dict[str, Any]] = []
    ended: list[Any] = []
    errors: list[str] = []

    class Handler(BaseEventHandler):
        def handle(self, event: Any, **_: Any) -> None:
            if isinstance(event, LLMChatStartEvent):
                started.append(event.model_dict)
            elif isinstance(event, LLMChatEndEvent):
                ended.append(event.response)
            elif isinstance(event, SpanDropEvent):
                errors.append(event.err_str)

    server = serve(*RULES)
    collector.answer = answer
    get_dispatcher().add_event_handler(Handler())
    for model in llama_index_models(collector.address).values():
        for way in WAYS:
            call_llama_index(model, way)
    names = [each["class_name"] for each in started]
    assert names == ["LMStudio"] * 4 + ["openai_llm"] * 4 + ["Ollama_llm"] * 4
    assert [each["model_name"] for each in started] == [CHAT] * 4 + ["gpt-4o"] * 4 + ["qwen3"] * 4
    assert {(each["model"], each["temperature"]) for each in started[:4]} == {(CHAT, 0.2)}
    peers = {key for each in started[4:] for key in each}
    assert peers <= started[0].keys()
    assert errors[0] == "Chat response error: it broke"
    for response, sent in zip(ended[:3], server.predictions, strict=False):
        usage = {
            "prompt_tokens": sent.stats["promptTokensCount"],
            "completion_tokens": sent.stats["predictedTokensCount"],
            "total_tokens": sent.stats["totalTokensCount"],
        }
        assert response.additional_kwargs == usage
        assert {**response.raw["usage"], "prompt_tokens_details": 0} == {**usage, "prompt_tokens_details": 0}
    assert [response.raw["finish_reason"] for response in ended[:3]] == ["stop", "stop", "tool_calls"]


def test_the_counter_of_tokens(serve: Serve, collector: Collector) -> None:
    from llama_index.core.callbacks import CallbackManager, TokenCountingHandler

    server = serve(*RULES)
    collector.answer = answer
    model = llama_index_models(collector.address)["lmstudio"]
    counter = TokenCountingHandler(tokenizer=model.tokenize)
    model.callback_manager = CallbackManager([counter])
    call_llama_index(model, "invoke")
    call_llama_index(model, "stream")
    sent = [each.stats for each in server.predictions]
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (
        sum(each["promptTokensCount"] for each in sent),
        sum(each["predictedTokensCount"] for each in sent),
    )
