"""What tracers of LangChain get of our model and of its peers, key by key: each key that is true of ours is there."""

from collections.abc import Mapping
from typing import Any

import pytest
from neighbour_peers import RULES, WAYS, answer, call_langchain, langchain_models
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "langchain-openai",
    "langchain-ollama",
    group="peers",
    job="the peers of this package: what a run, a response and a stream tell tracers",
    settings="ChatOllama's `invocation_params` have no model and no settings, and its runs no `ls_max_tokens`",
)

OLLAMA = {"created_at", "done", "done_reason", "model", "total_duration", "load_duration", "prompt_eval_count"} | {
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
}
"""Ollama's own names, most of which ours has as `finish_reason`, `model_name`, `token_usage`, `total_time_ms` …"""

NOT_OURS = {
    "serialized": {"repr"},  # of an object that cannot be loaded again
    "serialized.kwargs": {"openai_api_base", "openai_api_key", "model_name", "max_retries"},
    "invocation_params": {"model_name", "stream", "max_completion_tokens"},  # `model`, `max_tokens`
    "llm_output": {"id", "system_fingerprint"},
    "llm_output.token_usage": {"completion_tokens_details"},  # of reasoning, which was none
    "usage_metadata": {"output_token_details"},  # likewise
    "generation_info": {"logprobs"} | OLLAMA,
    "response_metadata": {"logprobs", "id", "system_fingerprint"} | OLLAMA,  # `logprobs` if they are requested
}
"""The keys of the peers that ours does not have, by their place."""


def members(run: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the keys of each place of a run."""
    places = {
        "serialized": run["serialized"],
        "serialized.kwargs": run["serialized"].get("kwargs"),
        "metadata": run["metadata"],
        "invocation_params": run["invocation_params"],
        "options": run["options"],
    }
    if "result" in run:
        generation, llm_output = run["result"].generations[0][0], run["result"].llm_output or {}
        places |= {
            "llm_output": llm_output,
            "llm_output.token_usage": llm_output.get("token_usage"),
            "generation_info": generation.generation_info,
            "response_metadata": generation.message.response_metadata,
            "usage_metadata": generation.message.usage_metadata,
        }
    return {place: set(values or ()) for place, values in places.items()}


def runs(collector: Collector) -> dict[tuple[str, str], dict[str, Any]]:
    from langchain_core.callbacks import BaseCallbackHandler

    class Handler(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **given: Any) -> None:
            run.update(serialized=serialized, messages=messages, **given)

        def on_llm_end(self, response: Any, **_: Any) -> None:
            run["result"] = response

        def on_llm_error(self, error: BaseException, **_: Any) -> None:
            run["error"] = error

    collector.answer = answer
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, model in langchain_models(collector.address).items():
        for way in WAYS:
            run = found[name, way] = {}
            call_langchain(model, way, [Handler()])
    return found


def test_ours_has_each_key_of_the_peers_that_is_true_of_it(serve: Serve, collector: Collector) -> None:
    serve(*RULES)
    found = runs(collector)
    lacking: dict[str, set[str]] = {}
    for way in WAYS:
        ours = members(found["lmstudio", way])
        for peer in ("openai", "ollama"):
            for place, keys in members(found[peer, way]).items():
                lacking.setdefault(place, set()).update(keys - ours[place])
    assert {place: keys for place, keys in lacking.items() if keys} == NOT_OURS


def test_the_values_are_those_that_were_sent(serve: Serve, collector: Collector) -> None:
    server = serve(*RULES)
    found = runs(collector)
    sent = server.predictions[0]
    for way, finish in (("invoke", "stop"), ("stream", "stop"), ("tool", "tool_calls")):
        run = found["lmstudio", way]
        generation = run["result"].generations[0][0]
        assert {**run["metadata"], "lc_versions": 0} == {
            "ls_provider": "lmstudio",
            "ls_model_name": CHAT,
            "ls_model_type": "chat",
            "ls_temperature": 0.2,
            "ls_max_tokens": 50,
            "ls_stop": ["END"],
            "ls_integration": "langchain_chat_model",
            "lc_versions": 0,
        }
        assert run["serialized"]["name"] == "ChatLMStudio"
        assert run["invocation_params"]["stop"] == ["END"] == sent.config["stopStrings"]
        assert generation.generation_info == {"finish_reason": finish, "model_name": CHAT, "model_provider": "lmstudio"}
        metadata = generation.message.response_metadata
        assert (metadata["model_provider"], metadata["model_name"], metadata["finish_reason"]) == (
            "lmstudio",
            CHAT,
            finish,
        )
        assert [tool["function"]["name"] for tool in run["invocation_params"].get("tools", ())] == (
            ["ferry"] if way == "tool" else []
        )
    assert str(found["lmstudio", "fail"]["error"]) == "Chat response error: it broke"
    params = {key: found["lmstudio", "invoke"]["invocation_params"][key] for key in ("model", "temperature", "seed")}
    assert params == {"model": CHAT, "temperature": 0.2, "seed": 3}
