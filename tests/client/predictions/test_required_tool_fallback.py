"""A required call that is requested by grammar, where that fails or stands beside a response format."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import Emulator, ModelEntry

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
REQUEST: dict[str, Any] = {
    "config": {
        "rawTools": {"type": "toolArray", "tools": [TOOL]},
        "toolChoice": {"type": "generic", "mode": "required"},
    },
    "required_tool_fallback": True,
}
BY_GRAMMAR = {"last": "Now call one of the tools"}
TEXT = {"then": [{"text": "one two three"}]}


@pytest.fixture
def serve() -> Iterator[Callable[..., Emulator]]:
    """Start the server of a model with rules."""
    running: list[Emulator] = []

    def start(*rules: Any) -> Emulator:
        running.append(Emulator([ModelEntry(key="m", rules=rules)]))
        running[0].start()
        return running[0]

    yield start
    for server in running:
        server.stop()


async def test_the_first_response_stays_as_it_was_if_the_server_has_no_grammar(
    make_client: Callable[..., Any], serve: Callable[..., Emulator]
) -> None:
    server = serve({"when": BY_GRAMMAR, "then": [{"text": "{"}, {"error": "no grammar"}]}, TEXT)
    async with make_client(server.address) as client:
        model = await client.llm.model("m")
        for _ in range(2):
            before = await model.respond("Hello there", config={"rawTools": REQUEST["config"]["rawTools"]})
        result = await model.respond("Hello there", **REQUEST)
    assert (result.content, result.stats.stop_reason) == ("one two three", "eosFound")
    assert result.cached_tokens == before.cached_tokens > 0
    assert result.stats.total_tokens_count == before.stats.total_tokens_count


async def test_the_first_response_stays_if_the_model_cannot_be_loaded_again(
    make_client: Callable[..., Any], serve: Callable[..., Emulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve({"when": {"load": True, "round": 2}, "then": [{"fault": "out_of_memory"}]}, TEXT)
    start_all, predictions = Operation.start_all, list[object]()

    def unload_before_the_second(operation: Any, namespace: Any, endpoint: Any, *args: Any, **kwargs: Any) -> Any:
        if endpoint.name == "predict":
            predictions.append(endpoint)
            if len(predictions) == 2:
                server.unload("m")
        return start_all(operation, namespace, endpoint, *args, **kwargs)

    monkeypatch.setattr(Operation, "start_all", unload_before_the_second)
    async with make_client(server.address) as client:
        result = await (await client.llm.model("m")).respond("Hello", **REQUEST)
    assert (result.content, len(predictions)) == ("one two three", 2)


async def test_beside_a_format_the_text_is_delivered_at_once_and_the_call_ends_it(
    make_client: Callable[..., Any], serve: Callable[..., Emulator]
) -> None:
    server = serve({"when": BY_GRAMMAR, "then": [{"text": '{"name": "look", "arguments": {}}'}]}, TEXT)
    kinds: list[str] = []
    async with make_client(server.address) as client:
        stream = (await client.llm.model("m")).respond_stream(
            "Hello", **REQUEST, tools_first=True, response_format={"type": "object", "properties": {}}
        )
        async for event in stream.events():
            if isinstance(event, lms.LlmPredictionFragment) and not kinds:
                assert len(server.predictions) == 1  # the second one is made when this is read on
            if not isinstance(event, lms.PromptProgress):
                kinds.append(type(event).__name__)
    assert kinds[:3] == ["LlmPredictionFragment"] * 3
    assert kinds[-2:] == ["ToolCallEnd", "PredictionEnd"]
    assert len(server.predictions) == 2
