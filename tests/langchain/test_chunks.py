"""What langchain-core makes of our chunks: plain streams, v1 blocks, v3 events, and plain calls."""

from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from lmstudio_integrations.langchain._chunks import FIRST_TOOL_INDEX, ChunkStream, Options
from lmstudio_integrations.langchain._settings import _parallel_predictions
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEvent, PromptProgress
from tests.langchain.replay import FORMATS, Replay, call, end, failed, invoked, opened, streamed, text, thought

in_every_format = pytest.mark.parametrize("format_", FORMATS)


def calls_of(message: AIMessage) -> list[tuple[str, dict[str, Any], str | None]]:
    return [(call["name"], call["args"], call["id"]) for call in message.tool_calls]


def blocks_of(message: AIMessage) -> list[str]:
    return [block["type"] for block in message.content_blocks]


@in_every_format
def test_text_is_joined_and_metadata_comes_once(format_: str) -> None:
    message = streamed([*text("Hel", "lo", ""), end(tokensPerSecond=51.5, numGpuLayers=-1)], format_)
    assert message.text == "Hello"
    metadata = message.response_metadata
    assert metadata["model_name"] == "a-model"
    assert metadata["model_provider"] == "lmstudio"
    assert metadata["finish_reason"] == "stop"
    if format_ != "v3":
        assert metadata["stop_reason"] == "eosFound"
        assert metadata["tokens_per_second"] == 51.5
        assert metadata["num_gpu_layers"] == -1
        assert metadata["instance_identifier"] == "a-model:2"
        assert metadata["context_length"] == 2048
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] == 10


def test_every_fragment_is_one_chunk_and_the_last_says_so() -> None:
    chunks = list(Replay(events=[*text("a", "b", "", "c"), end()]).stream("q"))
    assert [chunk.content for chunk in chunks] == ["a", "b", "", "c", ""]
    assert [chunk.chunk_position for chunk in chunks] == [None, None, None, None, "last"]
    assert all(chunk.response_metadata["model_provider"] == "lmstudio" for chunk in chunks)
    assert [chunk.usage_metadata is None for chunk in chunks] == [True, True, True, True, False]
    assert [set(chunk.response_metadata) for chunk in chunks[:-1]] == [{"model_provider"}] * 4


@in_every_format
def test_reasoning_stands_apart_from_the_answer(format_: str) -> None:
    message = streamed([*thought("Let ", "me."), *text("Yes", "!"), end()], format_)
    assert message.text == "Yes!"
    assert blocks_of(message) == ["reasoning", "text"]
    assert message.content_blocks[0].get("reasoning") == "Let me."
    if format_ == "v0":
        assert message.content == "Yes!"
        assert message.additional_kwargs["reasoning_content"] == "Let me."


def test_a_plain_call_has_reasoning_as_kwarg_and_as_block() -> None:
    message = invoked([*thought("Let ", "me."), *text("Yes"), end()])
    assert message.content == "Yes"
    assert message.additional_kwargs == {"reasoning_content": "Let me."}
    assert blocks_of(message) == ["reasoning", "text"]
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_token_details"] == {"reasoning": 4}


def test_structural_fragments_are_not_content() -> None:
    token = {"text": "<|channel|>", "id": 1, "logProb": -0.5}
    mark = LlmPredictionFragment("<|channel|>", is_structural=True)
    events = [mark, LlmPredictionFragment("<|end|>", is_structural=True, tokens=[token]), *text("Hi"), end()]
    for message in (streamed(events, "v0"), invoked(events)):
        assert message.content == "Hi"
        assert "logprobs" not in message.response_metadata


@in_every_format
def test_a_call_after_text_keeps_its_name_id_and_arguments(format_: str) -> None:
    """Core numbers text blocks from 0; a call with such a number would be merged into the text."""
    events = [*text("Let me ", "check."), *call("c1", "f", {"a": 1}, '{"a"', ": 1}"), end("toolCalls")]
    message = streamed(events, format_)
    assert message.text == "Let me check."
    assert calls_of(message) == [("f", {"a": 1}, "c1")]
    assert blocks_of(message) == ["text", "tool_call"]


@in_every_format
def test_parallel_calls_with_text_and_thoughts_around_them_stay_apart(format_: str) -> None:
    events = [
        *thought("Hm."),
        *text("First."),
        *call("c1", "f", {"a": 1}, '{"a": 1}'),
        *call("c2", "g", {"b": [2]}, '{"b"', ": [2]}"),
        *call("c3", "f", {}, "{}"),
        *text(" Done."),
        end(),
    ]
    message = streamed(events, format_)
    assert calls_of(message) == [("f", {"a": 1}, "c1"), ("g", {"b": [2]}, "c2"), ("f", {}, "c3")]
    assert message.invalid_tool_calls == []
    assert message.text.replace(" ", "") == "First.Done."
    assert message.response_metadata["finish_reason"] == "tool_calls"


def test_pieces_of_arguments_are_streamed_as_they_come_with_name_and_id_once() -> None:
    events = [*call("c1", "f", {"a": "xy"}, '{"a":', ' "x', 'y"}'), end()]
    pieces = [chunk.tool_call_chunks[0] for chunk in Replay(events=events).stream("q") if chunk.tool_call_chunks]
    assert [piece["args"] for piece in pieces] == ["", '{"a":', ' "x', 'y"}']
    assert [piece["name"] for piece in pieces] == ["f", None, None, None]
    assert [piece["id"] for piece in pieces] == ["c1", None, None, None]
    assert {piece["index"] for piece in pieces} == {FIRST_TOOL_INDEX}


def test_no_chunk_holds_text_and_a_call() -> None:
    events = [*text("a"), *call("c1", "f", {}, "{}"), *opened("c2", "f", '{"a'), end("maxPredictedTokensReached")]
    for chunk in Replay(events=events).stream("q"):
        assert not (chunk.content and chunk.tool_call_chunks)
        assert not (chunk.chunk_position and chunk.tool_call_chunks)


@in_every_format
@pytest.mark.parametrize(
    ("pieces", "arguments"),
    [
        ((), {"a": 1}),
        (("<parameter=a>", "1", "</parameter>"), {"a": 1}),
        (("{'a'", ": 1}"), {"a": 1}),
        (('{"a": 1', " <|end|>"), {"a": 1}),
        (('{"a":1', " <|end|>"), {"a": 1}),
        (("[", "]"), {"a": 1}),
        (("{", '"a": "é', '"}'), {"a": "é"}),
        (('{"a": 1}\n',), {"a": 1}),
    ],
)
def test_arguments_are_what_the_server_understood_whatever_the_model_wrote(
    format_: str, pieces: tuple[str, ...], arguments: dict[str, Any]
) -> None:
    message = streamed([*call("c1", "f", arguments, *pieces), end()], format_)
    assert calls_of(message) == [("f", arguments, "c1")]
    assert message.invalid_tool_calls == []


@in_every_format
def test_arguments_that_were_shown_wrongly_are_spoilt_and_sent_again(format_: str) -> None:
    message = streamed([*call("c1", "f", {"a": 1}, '{"a": "1"}'), end()], format_)
    assert calls_of(message) == [("f", {"a": 1}, "c1")]
    assert [call["id"] for call in message.invalid_tool_calls] == ["c1"]


@in_every_format
@pytest.mark.parametrize("arguments", [None, {}])
def test_missing_arguments_are_an_empty_object(format_: str, arguments: dict[str, Any] | None) -> None:
    message = streamed([*call("c1", "f", arguments), end()], format_)
    assert calls_of(message) == [("f", {}, "c1")]
    assert calls_of(invoked([*call("c1", "f", arguments), end()])) == [("f", {}, "c1")]


@in_every_format
def test_a_name_that_comes_only_at_the_end_is_enough(format_: str) -> None:
    message = streamed([*call("c1", "f", {"a": 1}, '{"a": 1}', named=False), end()], format_)
    assert calls_of(message) == [("f", {"a": 1}, "c1")]


@in_every_format
def test_a_call_without_an_identifier_gets_one(format_: str) -> None:
    (found,) = streamed([*call(None, "f", {}), end()], format_).tool_calls
    assert found["id"]
    (found,) = invoked([*call(None, "f", {}), end()]).tool_calls
    assert found["id"]


HALF = ('{"city": "Par',)
TRUNCATED: list[tuple[list[PredictionEvent], str]] = [
    ([*opened("c1", "f", *HALF), end("maxPredictedTokensReached")], "length"),
    ([*opened("c1", "f", *HALF), end("contextLengthReached")], "length"),
    ([*opened("c1", "f", '{"a": ["x'), end("maxPredictedTokensReached")], "length"),
    ([*opened("c1", "f", '{"a": 1}'), end("userStopped")], "userStopped"),
    ([*opened("c1", "f"), end("maxPredictedTokensReached")], "length"),
    ([*opened("c1", "f", *HALF), failed(), end()], "stop"),
    ([*opened("c1", "f"), failed(), end()], "stop"),
]


@in_every_format
@pytest.mark.parametrize(("events", "finish"), TRUNCATED)
def test_a_failed_or_truncated_call_is_invalid_in_a_stream(
    format_: str, events: list[PredictionEvent], finish: str
) -> None:
    message = streamed(events, format_)
    assert message.tool_calls == []
    assert [(call["name"], call["id"]) for call in message.invalid_tool_calls] == [("f", "c1")]
    assert message.response_metadata["finish_reason"] == finish


@pytest.mark.parametrize(("events", "finish"), TRUNCATED)
def test_a_failed_or_truncated_call_is_invalid_in_a_plain_call(events: list[PredictionEvent], finish: str) -> None:
    message = invoked(events)
    assert message.tool_calls == []
    (invalid,) = message.invalid_tool_calls
    assert (invalid["name"], invalid["id"]) == ("f", "c1")
    assert invalid["error"]
    assert message.response_metadata["tool_call_errors"] == [invalid["error"]]
    assert message.response_metadata["finish_reason"] == finish


@in_every_format
def test_a_call_that_was_never_finished_is_invalid_when_the_next_begins(format_: str) -> None:
    events = [*opened("c1", "f", '{"a'), *call("c2", "g", {}, "{}"), end()]
    for message in (streamed(events, format_), invoked(events)):
        assert calls_of(message) == [("g", {}, "c2")]
        assert [call["id"] for call in message.invalid_tool_calls] == ["c1"]


@in_every_format
def test_without_parallel_calls_the_first_is_kept(format_: str) -> None:
    events = [
        *opened("c0", "f", "{"),
        failed(),
        *call("c1", "f", {"a": 1}, '{"a": 1}'),
        *call("c2", "g", {}, "{}"),
        *opened("c3", "g", "{"),
        failed(),
        *opened("c4", "g", "{"),
        end(),
    ]
    for message in (streamed(events, format_, parallel=False), invoked(events, parallel=False)):
        assert calls_of(message) == [("f", {"a": 1}, "c1")]
        assert [call["id"] for call in message.invalid_tool_calls] == ["c0"]


def plain(events: list[PredictionEvent], _format: str, **options: Any) -> AIMessage:
    """Return the message of a plain call; as `streamed` otherwise."""
    return invoked(events, **options)


on_both_paths = pytest.mark.parametrize("answer", [plain, streamed])


@on_both_paths
def test_a_required_call_that_did_not_come_is_logged(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert answer([*text("No."), end()], "v0", required=True).text == "No."
    assert caplog.text.count("'a-model': a tool call was required") == 1


@on_both_paths
def test_a_required_call_that_failed_or_came_is_not_logged(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert answer([*opened("c1", "f"), failed(), end()], "v0", required=True).invalid_tool_calls
    assert answer([*call("c1", "f", {}), end()], "v0", required=True).tool_calls
    assert not caplog.records


@on_both_paths
@pytest.mark.parametrize("rest", [[], text(" ", "\n"), [LlmPredictionFragment(" ", tokens=[{"text": " "}])]])
@pytest.mark.parametrize("required", [True, False])
def test_a_response_of_reasoning_alone_is_logged(
    answer: Any, rest: list[PredictionEvent], required: bool, caplog: pytest.LogCaptureFixture
) -> None:
    answer([*thought("Hm."), *rest, end("maxPredictedTokensReached")], "v0", required=required)
    (record,) = caplog.records
    assert "the response of 'a-model' is all reasoning; raise max_tokens" in record.getMessage()


@on_both_paths
@pytest.mark.parametrize(
    "rest",
    [
        text(" ", "Yes"),
        [LlmPredictionFragment("Yes", tokens=[{"text": "Yes"}])],
        call("c1", "f", {}),
        [*opened("c1", "f"), failed()],
    ],
)
def test_reasoning_with_a_response_is_not_logged(
    answer: Any, rest: list[PredictionEvent], caplog: pytest.LogCaptureFixture
) -> None:
    answer([*thought("Hm."), *rest, end()], "v0")
    answer([end()], "v0")
    assert not caplog.records


@in_every_format
def test_cached_and_reasoning_tokens_are_told_when_the_server_told_them(format_: str) -> None:
    progress = PromptProgress(1.0, {"cachedTokenCount": 5, "totalPromptTokenCount": 7})
    events = [PromptProgress(0.0), progress, *thought("a", "b"), *text("c"), end()]
    usage = streamed(events, format_).usage_metadata
    assert usage == {
        "input_tokens": 7,
        "output_tokens": 3,
        "total_tokens": 10,
        "input_token_details": {"cache_read": 5},
        "output_token_details": {"reasoning": 4},
    }
    assert invoked(events).usage_metadata == usage


def test_usage_is_absent_when_the_server_counted_nothing_or_nobody_wants_it() -> None:
    silent = end()
    silent.stats = {"stopReason": "eosFound"}
    assert invoked([*text("a"), silent]).usage_metadata is None
    assert streamed([*text("a"), silent], "v0").usage_metadata is None
    assert streamed([*text("a"), end()], "v0", usage=False).usage_metadata is None


def test_log_probabilities_are_on_every_chunk_and_add_up() -> None:
    token = {"text": "a", "id": 1, "logProb": -0.5, "candidates": [{"text": "b", "id": 2, "logProb": -1.5}]}
    events: list[PredictionEvent] = [
        LlmPredictionFragment("a", tokens=[token]),
        LlmPredictionFragment("a", tokens=[token]),
        end(),
    ]
    told = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.5}]}
    chunks = list(Replay(events=events, options=Options(alternatives=1)).stream("q"))
    assert chunks[0].response_metadata["logprobs"] == {"content": [told]}
    assert streamed(events, "v0", alternatives=1).response_metadata["logprobs"] == {"content": [told, told]}
    assert invoked(events, alternatives=1).response_metadata["logprobs"] == {"content": [told, told]}
    alone = {**told, "top_logprobs": []}
    assert invoked(events).response_metadata["logprobs"] == {"content": [alone, alone]}


def test_statistics_of_a_draft_model_are_told() -> None:
    stats: dict[str, Any] = {"usedDraftModelKey": "d", "totalDraftTokensCount": 4, "acceptedDraftTokensCount": 3}
    metadata = streamed([*text("a", "b"), end(**stats)], "v0").response_metadata
    assert metadata["used_draft_model_key"] == "d"
    assert metadata["total_draft_tokens_count"] == 4
    assert metadata["accepted_draft_tokens_count"] == 3


def test_stray_tool_events_are_harmless() -> None:
    stray = opened("c", "f", '{"a": 1}')[1:]
    message = streamed([*stray, *text("a"), end()], "v0")
    assert (message.content, message.tool_calls, message.invalid_tool_calls) == ("a", [], [])
    assert invoked([*stray, *text("a"), end()]).content == "a"
    (invalid,) = streamed([failed(), end()], "v0").invalid_tool_calls
    assert invalid["id"]


def test_the_chunks_are_validated_ones() -> None:
    (chunk,) = ChunkStream(Options()).chunks([LlmPredictionFragment("a")])
    assert isinstance(chunk.message, AIMessageChunk)
    assert chunk.text == "a"


@pytest.mark.parametrize("format_", FORMATS)
def test_a_count_of_tokens_that_cannot_be_is_left_out(format_: str) -> None:
    counts = (2, -5, 10**4_000)
    reasoning: list[PredictionEvent] = [
        LlmPredictionFragment("Hm.", each, reasoning_type="reasoning") for each in counts
    ]
    for message in (streamed([*reasoning, end()], format_), invoked([*reasoning, end()])):
        assert message.usage_metadata is not None
        assert message.usage_metadata["output_token_details"] == {"reasoning": 2}


@pytest.mark.parametrize(
    ("value", "parallel"), [(3, 3), (0, None), (-1, None), (1024, None), ("3", None), (True, None), (None, None)]
)
def test_only_a_usable_number_of_parallel_predictions_is_taken_from_the_load_config(
    value: Any, parallel: int | None
) -> None:
    fields = [{"key": "llm.load.seed"}, {"key": "llm.load.numParallelSessions", "value": value}]
    assert _parallel_predictions(replace(end(), load_model_config={"fields": fields})) == parallel
    assert _parallel_predictions(replace(end(), load_model_config={})) is None
