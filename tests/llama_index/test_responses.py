"""Events of a prediction as LlamaIndex's responses."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatResponse, TextBlock, ThinkingBlock, ToolCallBlock

from lmstudio_integrations._adapters.request_tools import ToolUse
from lmstudio_integrations.llama_index import LlamaIndexToolCallError
from lmstudio_integrations.llama_index._responses import ResponseBuilder
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEvent,
    PredictionResult,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)
from tests.langchain import replay
from tests.langchain.replay import end, opened, reasoning, text
from tests.llama_index.scripted_server import raw

ALONE = ToolUse(parallel=False)
MUST = ToolUse(required=True)


def call(call_id: str | None = "c1", name: str = "add", *fragments: str, **arguments: Any) -> list[PredictionEvent]:
    return replay.call(call_id, name, arguments, *fragments)


def finished(events: Iterable[PredictionEvent]) -> PredictionResult:
    prediction = Accumulator()
    prediction.add_all(events)
    return prediction.result()


def builder_of(events: Iterable[PredictionEvent], tool_use: ToolUse | None = None) -> ResponseBuilder:
    return ResponseBuilder(tool_use or ToolUse(), lambda: finished(events))


def chunks(events: Sequence[PredictionEvent], tool_use: ToolUse | None = None) -> list[ChatResponse]:
    builder = builder_of(events, tool_use)
    steps = ((builder, builder.add(event)) for event in events)
    return [builder.chat_response(step) for builder, step in steps if step is not None]


def whole(events: Iterable[PredictionEvent], tool_use: ToolUse | None = None) -> ChatResponse:
    builder = builder_of(events, tool_use)
    return builder.chat_response(builder.add_all())


def calls_of(response: ChatResponse) -> list[tuple[str | None, str, Any]]:
    blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    return [(block.tool_call_id, block.tool_name, block.tool_kwargs) for block in blocks]


def test_markup_between_the_parts_is_not_shown() -> None:
    assert [
        chunk.delta for chunk in chunks([LlmPredictionFragment("<|channel|>", is_structural=True), *text("a"), end()])
    ] == ["a", ""]


def test_an_impossible_token_count_is_not_added() -> None:
    counts = {"h": 1, "m": -5}
    thought = [LlmPredictionFragment(part, count, reasoning_type="reasoning") for part, count in counts.items()]
    first, second, _ = chunks([*thought, end()])
    assert [first.message.blocks[1], second.message.blocks[1]] == [
        ThinkingBlock(content="h", num_tokens=1),
        ThinkingBlock(content="hm", num_tokens=1),
    ]


def test_the_last_chunk_has_usage_and_statistics() -> None:
    *earlier, last = chunks([*text("a"), end(tokensPerSecond=50.0, draftTokens=1, acceptedDraftTokensCount=2)])
    assert all(chunk.raw is None for chunk in earlier)
    assert raw(last)["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert last.additional_kwargs == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert raw(last)["stats"] == {
        "stop_reason": "eosFound",
        "tokens_per_second": 50.0,
        "accepted_draft_tokens_count": 2,
    }
    assert (raw(last)["model"], raw(last)["instance_identifier"], raw(last)["context_length"]) == (
        "a-model",
        "a-model:2",
        2048,
    )


def test_without_token_counts_of_the_server_there_is_no_usage() -> None:
    silent = end(promptTokensCount=None, predictedTokensCount=None, totalTokensCount=None)
    last = chunks([*text("a"), silent])[-1]
    assert last.additional_kwargs == {}
    assert "usage" not in raw(last)


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("eosFound", "stop"),
        ("stopStringFound", "stop"),
        ("toolCalls", "tool_calls"),
        ("maxPredictedTokensReached", "length"),
        ("contextLengthReached", "length"),
        ("userStopped", "userStopped"),
    ],
)
def test_the_finish_reason_is_in_openais_words(stop_reason: str, finish_reason: str) -> None:
    assert raw(whole([*text("a"), end(stop_reason)]))["finish_reason"] == finish_reason
    assert raw(whole([*call(), end("eosFound")]))["finish_reason"] == "tool_calls"


def test_a_response_of_reasoning_alone_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    response = whole([*reasoning("hm"), end("maxPredictedTokensReached")])
    assert raw(response)["only_reasoning"] is True
    assert response.message.content == ""
    assert "all reasoning; raise max_tokens" in caplog.text


def test_a_call_is_streamed_as_it_is_written() -> None:
    found = chunks([*call("c1", "add", '{"a"', ": 1}", a=1), end()])
    assert [calls_of(chunk) for chunk in found] == [
        [("c1", "add", "")],
        [("c1", "add", '{"a"')],
        [("c1", "add", '{"a": 1}')],
        [("c1", "add", {"a": 1})],
        [("c1", "add", {"a": 1})],
    ]


def test_calls_are_in_the_messages_kwargs_as_well() -> None:
    response = whole([*call("c1", "add", a=1), end()])
    function = {"name": "add", "arguments": '{"a": 1}'}
    assert response.message.additional_kwargs == {
        "tool_calls": [{"id": "c1", "type": "function", "function": function}]
    }


def test_fragments_before_the_name_are_held_back() -> None:
    events: list[PredictionEvent] = [
        ToolCallStart("c1"),
        ToolCallArguments("{"),
        ToolCallName("add"),
        ToolCallEnd("c1", "add", {}),
        end(),
    ]
    assert calls_of(chunks(events)[0]) == [("c1", "add", "{")]


def test_names_that_were_changed_for_the_wire_are_restored() -> None:
    response = whole([*call("c1", "Box_int_", value=3), end()], ToolUse(names={"Box_int_": "Box[int]"}))
    assert calls_of(response) == [("c1", "Box[int]", {"value": 3})]


@pytest.mark.parametrize("call_id", [None, "", "c1"])
@pytest.mark.parametrize("read", [whole, lambda events: chunks(events)[-1]], ids=["whole", "streamed"])
def test_missing_and_duplicate_identifiers_are_replaced(read: Any, call_id: str | None) -> None:
    response = read([*call("c1"), *call(call_id), end()])
    first, second = (found[0] for found in calls_of(response))
    assert first == "c1"
    assert second
    assert second != first


def test_without_parallel_calls_the_first_is_kept() -> None:
    found = chunks([*call("c1", a=1), *call("c2", "add", "{}", a=2), end()], ALONE)
    assert [calls_of(chunk) for chunk in found][-1] == [("c1", "add", {"a": 1})]
    assert len(found) == 3


def error_of(events: Iterable[PredictionEvent], tool_use: ToolUse | None = None) -> LlamaIndexToolCallError:
    with pytest.raises(LlamaIndexToolCallError) as caught:
        whole(events, tool_use)
    return caught.value


FAILED: dict[str, tuple[list[PredictionEvent], str, str | None]] = {
    "it cannot be parsed": (
        [
            *opened("c1", "add"),
            ToolCallFailed({"title": "not JSON", "cause": "a quote is missing"}, '{"a'),
        ],
        "add: not JSON: a quote is missing",
        '{"a',
    ),
    "it failed without beginning": ([ToolCallFailed({})], "the call could not be parsed", None),
    "it was cut off": ([*opened("c1", "add", '{"a": ')], "cut off (maxPredictedTokensReached)", '{"a": '),
    "the next one interrupts it": ([ToolCallStart("c1"), *call("c2")], "was not finished", None),
}


@pytest.mark.parametrize(("events", "problem", "written"), FAILED.values(), ids=FAILED)
def test_a_call_that_failed_is_an_error(events: list[PredictionEvent], problem: str, written: str | None) -> None:
    error = error_of([*text("So: "), *events, end("maxPredictedTokensReached")])
    assert problem in str(error)
    assert (error.raw_content, error.text) == (written, "So: ")


def test_a_missing_required_call_is_an_error() -> None:
    assert error_of([*text("No."), end()], MUST).text == "No."


def test_the_last_chunk_does_not_show_a_call_that_failed() -> None:
    events: list[PredictionEvent] = [ToolCallStart("c1"), ToolCallName("add"), end()]
    builder = builder_of(events)
    steps = [builder.add(event) for event in events]
    last = steps[-1]
    assert last is not None
    assert calls_of(builder.chat_response(last)) == []
    with pytest.raises(LlamaIndexToolCallError):
        builder.check()


def token(content: str, log_prob: float, *candidates: tuple[str, float]) -> dict[str, Any]:
    others = [{"text": other, "logProb": value} for other, value in candidates]
    return {"text": content, "id": 1, "logProb": log_prob, **({"candidates": others} if others else {})}


def test_log_probabilities_come_with_their_fragment() -> None:
    found = chunks([LlmPredictionFragment("a", tokens=[token("a", -0.1)]), *text("b"), end()])
    first, second, _ = (chunk.logprobs for chunk in found)
    assert first is not None
    assert [(one.token, one.logprob) for one in first[0]] == [("a", -0.1)]
    assert second is None


def test_the_alternatives_of_a_token_are_one_list() -> None:
    response = whole([LlmPredictionFragment("a", tokens=[token("a", -0.1, ("a", -0.1), ("b", -2.5))]), end()])
    assert response.logprobs is not None
    assert [[(one.token, one.logprob) for one in tokens] for tokens in response.logprobs] == [
        [("a", -0.1), ("b", -2.5)]
    ]


def test_chunks_share_no_message() -> None:
    found = chunks([*reasoning("hm"), *text("a"), *text("b"), end()])
    found[-1].message.blocks = [TextBlock(text="rewritten")]
    found[-2].message.blocks.clear()
    assert found[1].message.content == "a"


def test_completions_are_cumulative_as_well() -> None:
    thought = LlmPredictionFragment("hm", reasoning_type="reasoning")
    events: list[PredictionEvent] = [thought, *text("a", "b"), end()]
    builder = builder_of(events)
    found = []
    for event in events:
        step = builder.add(event)
        assert step is not None
        found.append(builder.completion_response(step))
    assert [(chunk.text, chunk.delta) for chunk in found] == [("", ""), ("a", "a"), ("ab", "b"), ("ab", "")]
    assert found[0].additional_kwargs == {"thinking_delta": "hm"}
    assert raw(found[-1])["usage"]["completion_tokens"] == 3
    assert found[-1].additional_kwargs["thinking"] == "hm"
    builder = builder_of(events)
    response = builder.completion_response(builder.add_all())
    assert (response.text, response.raw, response.additional_kwargs) == (
        "ab",
        found[-1].raw,
        found[-1].additional_kwargs,
    )


PREDICTIONS = {
    name: events for name, events in replay.KINDS.items() if not ({"failed", "cut", "identifier"} & {*name.split()})
}


@pytest.mark.parametrize("tool_use", [ToolUse(), ALONE])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_last_chunk_is_the_non_streaming_response(name: str, tool_use: ToolUse) -> None:
    *earlier, last = chunks(PREDICTIONS[name], tool_use)
    response = whole(PREDICTIONS[name], tool_use)
    assert (last.message, last.raw) == (response.message, response.raw)
    assert last.additional_kwargs == response.additional_kwargs
    assert [each for chunk in earlier for each in chunk.logprobs or ()] == (response.logprobs or [])


def test_a_stream_that_was_closed_before_its_end_is_not_checked() -> None:
    builder_of([], MUST).check()
