"""A required call that is requested by grammar, where that fails or stands beside a response format."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import Emulator, ModelEntry

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
OFFERED: Any = {"rawTools": {"type": "toolArray", "tools": [TOOL]}}
REQUEST: dict[str, Any] = {
    "config": {**OFFERED, "toolChoice": {"type": "generic", "mode": "required"}},
    "required_tool_fallback": True,
}
BY_GRAMMAR = {"last": "Now call one of the tools"}


@contextmanager
def serving(rule: dict[str, Any]) -> Iterator[tuple[Emulator, lms.LLM]]:
    """Serve a model that follows a rule, and otherwise responds with a text."""
    rules = (rule, {"when": {"last": "^Hello"}, "then": [{"text": "one two three"}]})
    with Emulator([ModelEntry(key="m", rules=rules)]) as server, lms.Client(server.address) as client:
        yield server, client.llm.model("m")


def test_the_first_response_stays_as_it_was_if_the_server_has_no_grammar() -> None:
    with serving({"when": BY_GRAMMAR, "then": [{"text": "{"}, {"error": "no grammar"}]}) as (_, model):
        model.respond("Hello there", config=OFFERED)
        before = model.respond("Hello there", config=OFFERED)
        result = model.respond("Hello there", **REQUEST)
    assert (result.content, result.stats.stop_reason) == ("one two three", "eosFound")
    assert result.cached_tokens == before.cached_tokens
    assert result.cached_tokens
    assert result.stats.total_tokens_count == before.stats.total_tokens_count


@pytest.mark.leaf
def test_the_first_response_stays_if_the_model_cannot_be_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start, predictions = Operation.start, list[object]()

    def unload_before_the_second(operation: Any, namespace: Any, endpoint: Any, *args: Any, **kwargs: Any) -> Any:
        if endpoint.name == "predict":
            predictions.append(endpoint)
            if len(predictions) == 2:
                server.unload("m")
        return start(operation, namespace, endpoint, *args, **kwargs)

    with serving({"when": {"load": True, "round": 2}, "then": [{"fault": "out_of_memory"}]}) as (server, model):
        monkeypatch.setattr(Operation, "start", unload_before_the_second)
        assert (model.respond("Hello", **REQUEST).content, len(predictions)) == ("one two three", 2)


@pytest.mark.leaf
def test_beside_a_format_the_text_is_delivered_at_once_and_the_call_ends_it() -> None:
    kinds: list[str] = []
    with serving({"when": BY_GRAMMAR, "then": [{"text": '{"name": "look", "arguments": {}}'}]}) as (server, model):
        stream = model.respond_stream(
            "Hello", **REQUEST, tools_first=True, response_format={"type": "object", "properties": {}}
        )
        for event in stream.events():
            if isinstance(event, lms.LlmPredictionFragment) and not kinds:
                assert len(server.predictions) == 1  # the second one is made when this is read on
            if not isinstance(event, lms.PromptProgress):
                kinds.append(type(event).__name__)
        assert kinds[:3] == ["LlmPredictionFragment"] * 3
        assert kinds[-2:] == ["ToolCallEnd", "PredictionEnd"]
        assert len(server.predictions) == 2
