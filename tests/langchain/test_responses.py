"""What langchain-core makes of our chunks: non_streaming streams, v1 blocks, v3 events, and non_streaming calls."""

import functools
import itertools
import operator
from typing import Any

import pytest
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, AIMessageChunk, message_chunk_to_message
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from lmstudio_integrations.langchain._responses import FIRST_TOOL_INDEX
from lmstudio_integrations.types.config import DEFAULT_PARALLEL, slots_of
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    LlmPredictionStats,
    PredictionEvent,
    PromptProgress,
    ToolCallFailed,
    ToolCallStart,
    settings_by_key,
)
from tests.langchain.replay import (
    FORMATS,
    KINDS,
    RESENT,
    Replay,
    call,
    end,
    failed,
    invoked,
    opened,
    reasoning,
    streamed,
    text,
)

in_every_format = pytest.mark.parametrize("format_", FORMATS)


def calls_of(message: AIMessage) -> list[tuple[str, dict[str, Any], str | None]]:
    return [(call["name"], call["args"], call["id"]) for call in message.tool_calls]


def invalid_calls_of(message: AIMessage) -> list[tuple[str | None, str | None]]:
    return [(call["name"], call["id"]) for call in message.invalid_tool_calls]


def blocks_of(message: AIMessage) -> list[str]:
    return [block["type"] for block in message.content_blocks]


@in_every_format
def test_text_is_joined_and_metadata_comes_once(format_: str) -> None:
    message = streamed(
        [*text("Hel", "lo", ""), end(tokensPerSecond=51.5, totalTimeSec=1.4999, numGpuLayers=-1.0)], format_
    )
    assert message.text == "Hello"
    metadata = message.response_metadata
    assert metadata["model_name"] == "a-model"
    assert metadata["model_provider"] == "lmstudio"
    assert metadata["finish_reason"] == "stop"
    if format_ != "v3":
        assert metadata["stop_reason"] == "eosFound"
        assert metadata["tokens_per_second"] == 52
        assert metadata["total_time_ms"] == 1500
        assert metadata["predictions"] == [{"tokens_per_second": 51.5, "total_time_sec": 1.4999}]
        assert metadata["num_gpu_layers"] == -1
        assert metadata["instance_identifier"] == "a-model:2"
        assert metadata["context_length"] == 2048
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] == 10


def test_every_fragment_is_one_chunk_and_the_last_is_marked() -> None:
    chunks = list(Replay(events=[*text("a", "b", "", "c"), end()]).stream("q"))
    assert [chunk.content for chunk in chunks] == ["a", "b", "", "c", ""]
    assert [chunk.chunk_position for chunk in chunks] == [None, None, None, None, "last"]
    assert all(chunk.response_metadata["model_provider"] == "lmstudio" for chunk in chunks)
    assert [chunk.usage_metadata is None for chunk in chunks] == [True, True, True, True, False]
    assert [set(chunk.response_metadata) for chunk in chunks[:-1]] == [{"model_provider"}] * 4


def test_a_non_streaming_response_has_reasoning_as_kwarg_and_as_block() -> None:
    message = invoked([*reasoning("Let ", "me."), *text("Yes"), end()])
    assert message.content == "Yes"
    tags = {"start": "<think>", "end": "</think>", "length": 7, "at": 0}
    assert message.additional_kwargs == {"reasoning_content": "Let me.", "reasoning_tags": [tags]}
    assert blocks_of(message) == ["reasoning", "text"]
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_token_details"] == {"reasoning": 4}


def test_structural_fragments_are_not_content() -> None:
    token = {"text": "<|channel|>", "id": 1, "logProb": -0.5}
    markup = LlmPredictionFragment("<|channel|>", is_structural=True)
    events = [markup, LlmPredictionFragment("<|end|>", is_structural=True, tokens=[token]), *text("Hi"), end()]
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
def test_parallel_calls_with_text_and_reasoning_around_them_stay_separate(format_: str) -> None:
    events = [
        *reasoning("Hm."),
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
    assert message.response_metadata["normalized_finish_reason"] == "tool_call"


def test_fragments_of_arguments_are_streamed_with_name_and_id_once() -> None:
    events = [*call("c1", "f", {"a": "xy"}, '{"a":', ' "x', 'y"}'), end()]
    fragments = [chunk.tool_call_chunks[0] for chunk in Replay(events=events).stream("q") if chunk.tool_call_chunks]
    assert [fragment["args"] for fragment in fragments] == ["", '{"a":', ' "x', 'y"}']
    assert [fragment["name"] for fragment in fragments] == ["f", None, None, None]
    assert [fragment["id"] for fragment in fragments] == ["c1", None, None, None]
    assert {fragment["index"] for fragment in fragments} == {FIRST_TOOL_INDEX}


@in_every_format
@pytest.mark.parametrize(
    ("fragments", "arguments"),
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
def test_arguments_are_those_that_the_server_parsed(
    format_: str, fragments: tuple[str, ...], arguments: dict[str, Any]
) -> None:
    message = streamed([*call("c1", "f", arguments, *fragments), end()], format_)
    assert calls_of(message) == [("f", arguments, "c1")]
    assert message.invalid_tool_calls == []


@in_every_format
def test_fragments_that_the_server_promises_to_be_json_are_not_checked(format_: str) -> None:
    """The promise is about one call: the next one is checked again."""
    odd = ("{'a'", ": 1}")
    marked = [ToolCallStart("c1", "json"), *call("c1", "f", {"a": 1}, *odd)[1:]]
    events = [*marked, *call("c2", "f", {"a": 1}, *odd), end()]
    sent = [each["args"] for chunk in Replay(events=events).stream("q") for each in chunk.tool_call_chunks]
    assert sent[:3] == ["", *odd]
    assert sent.count(odd[0]) == 1
    assert calls_of(streamed(events, format_)) == [("f", {"a": 1}, "c1"), ("f", {"a": 1}, "c2")]


@in_every_format
def test_calls_of_which_only_the_first_is_promised_to_be_json_are_both_right(format_: str) -> None:
    first = [ToolCallStart("c1", "json"), *call("c1", "f", {"a": 1}, '{"a"', ": 1}")[1:]]
    message = streamed([*first, *call("c2", "g", {"b": [2]}, "<b>", "2"), end()], format_)
    assert calls_of(message) == [("f", {"a": 1}, "c1"), ("g", {"b": [2]}, "c2")]
    assert message.invalid_tool_calls == []


@in_every_format
def test_arguments_that_were_streamed_wrongly_are_invalidated_and_sent_again(format_: str) -> None:
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
def test_a_failed_or_truncated_call_is_invalid(format_: str, events: list[PredictionEvent], finish: str) -> None:
    for message in (streamed(events, format_), invoked(events)):
        assert message.tool_calls == []
        assert invalid_calls_of(message) == [("f", "c1")]
        assert message.response_metadata["finish_reason"] == finish
    (invalid,) = invoked(events).invalid_tool_calls
    assert invalid["error"]
    assert invoked(events).response_metadata["tool_call_errors"] == [invalid["error"]]


@pytest.mark.parametrize(
    ("stop_reason", "raw", "normalized"),
    [
        ("eosFound", "stop", "stop"),
        ("stopStringFound", "stop", "stop"),
        ("toolCalls", "tool_calls", "tool_call"),
        ("maxPredictedTokensReached", "length", "length"),
        ("contextLengthReached", "length", "context_exceeded"),
        ("failed", "failed", "error"),
        ("modelUnloaded", "modelUnloaded", "error"),
        ("userStopped", "userStopped", "other"),
        ("repetition", "repetition", "other"),
        ("newOfThisYear", "newOfThisYear", "other"),
    ],
)
def test_each_stop_reason_has_a_word_that_all_providers_share(stop_reason: str, raw: str, normalized: str) -> None:
    for message in (streamed([*text("a"), end(stop_reason)], "v0"), invoked([*text("a"), end(stop_reason)])):
        metadata = message.response_metadata
        assert (metadata["finish_reason"], metadata["normalized_finish_reason"]) == (raw, normalized)


MALFORMED = [
    ("[1, 2]", "]]"),
    ("[1, 2", ""),
    ('"Oslo"', "]"),
    ("<parameter=city>Oslo", ""),
    (" null", "]"),
    ('{"a": 1} trailing [', "]]"),
    ('{"a": 1} the "quo\\', '\\"]'),
    ("{'a': 1}", "]"),
    ('{"a": \\"b', '"]'),
]


@in_every_format
@pytest.mark.parametrize(("written", "suffix"), MALFORMED)
def test_malformed_arguments_are_all_there(format_: str, written: str, suffix: str) -> None:
    """What core would read as JSON gets an end that it cannot read."""
    for split in (1, 3, 100):
        fragments = [written[at : at + split] for at in range(0, len(written), split)]
        for events in (
            [*opened("c1", "f", *fragments), failed(), end()],
            [*opened("c1", "f", *fragments), end("userStopped")],
            [*opened("c1", "f"), ToolCallFailed({"title": "no call"}, written), end()],
        ):
            message, whole = streamed(events, format_), invoked(events)
            assert not message.tool_calls
            assert [call["args"] for call in message.invalid_tool_calls] == [written + suffix]
            assert [call["args"] for call in whole.invalid_tool_calls] == [written]
            assert whole.response_metadata["tool_call_errors"] == message.response_metadata["tool_call_errors"]


@in_every_format
def test_an_unfinished_call_is_invalid_when_the_next_begins(format_: str) -> None:
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


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_the_sum_of_the_chunks_is_the_non_streaming_message(name: str, parallel: bool) -> None:
    settings: dict[str, Any] = {"parallel": parallel, "alternatives": 1}
    message, whole = streamed(KINDS[name], "v0", **settings), invoked(KINDS[name], **settings)
    for field in ("content", "additional_kwargs", "response_metadata", "usage_metadata", "tool_calls"):
        assert getattr(message, field) == getattr(whole, field), field
    assert name == RESENT or invalid_calls_of(message) == invalid_calls_of(whole)
    # Core takes the class of the first chunk.
    assert type(Replay(events=KINDS[name]).invoke("q", stream=True)) is AIMessage


ODD = float("inf")
ANSWERS: list[list[PredictionEvent]] = [
    [*text("one"), end("stopStringFound", stopString="x", tokensPerSecond=51.5, numGpuLayers=3.0)],
    [*text("two"), end(tokensPerSecond=40, totalTimeSec=1.5, usedDraftModelKey="d", acceptedDraftTokensCount=2)],
    [end("failed", tokensPerSecond=ODD, totalTimeSec="soon")],
    [*reasoning("Hm."), *call("c1", "f", {"a": 1}, '{"a": 1}'), end("toolCalls", timeToFirstTokenSec=0.25)],
    [*text("three"), end("maxPredictedTokensReached", tokensPerSecond=51.25, numGpuLayers=-1, totalTimeSec=0.5)],
    [*text("four"), end(modelLoadTimeSec=2.5, acceptedDraftTokensCount=5, forcedByGrammar=True, totalTimeSec=1)],
]
"""Responses whose statistics have every type, some of them none that they should have."""


@pytest.mark.parametrize("output_version", ["v0", "v1"])
async def test_chunks_and_sums_of_several_responses_can_be_added(output_version: str) -> None:
    models = [Replay(events=events, output_version=output_version) for events in ANSWERS]
    by_model = [list(model.stream("q")) for model in models]
    for answers in (by_model, [[chunk async for chunk in model.astream("q")] for model in models]):
        sums: list[AIMessageChunk] = [functools.reduce(operator.add, chunks) for chunks in answers]
        entries = [each.response_metadata["predictions"][0] for each in sums]
        for total in (
            functools.reduce(operator.add, itertools.chain(*answers)),
            functools.reduce(operator.add, sums),
            functools.reduce(operator.add, (sums[0], *itertools.chain(*answers[1:-1]), sums[-1])),
            functools.reduce(operator.add, (sums[0] + sums[1], sums[2] + sums[3], sums[4] + sums[5])),
        ):
            assert type(total) is AIMessageChunk
            assert total.text == "onetwothreefour"
            assert total.usage_metadata is not None
            assert total.usage_metadata["total_tokens"] == 60
            assert (calls_of(total), total.invalid_tool_calls) == ([("f", {"a": 1}, "c1")], [])
            assert total.response_metadata["predictions"] == entries
        assert [each.get("tokens_per_second") for each in entries] == [51.5, 40, None, None, 51.25, None]
        for left, right in itertools.permutations(range(len(sums)), 2):
            metadata = (sums[left] + sums[right]).response_metadata
            assert metadata["predictions"] == [entries[left], entries[right]]
        assert (sums[0] + sums[1]).response_metadata["tokens_per_second"] == 52 + 40
        assert (sums[1] + sums[4]).response_metadata["total_time_ms"] == 2000


def test_core_makes_a_message_of_the_last_chunk_and_of_sums() -> None:
    chunks = list(Replay(events=ANSWERS[0]).stream("q"))
    for chunk in (chunks[-1], functools.reduce(operator.add, chunks)):
        assert type(message_chunk_to_message(chunk)) is AIMessage
        assert type(chunk) is AIMessageChunk
        assert load(dumpd(chunk), allowed_objects="messages") == chunk


def test_a_strict_checkpoint_gives_back_chunks_and_sums(caplog: pytest.LogCaptureFixture) -> None:
    chunks = [chunk for events in ANSWERS for chunk in Replay(events=events).stream("q")]
    kept = [*chunks, functools.reduce(operator.add, chunks), invoked(ANSWERS[1])]
    serializer = JsonPlusSerializer(allowed_msgpack_modules=None)
    assert serializer.loads_typed(serializer.dumps_typed(kept)) == kept
    assert caplog.text == ""


def test_every_statistic_that_is_no_whole_number_has_one_that_can_be_added() -> None:
    """A float beside another is an error of core's, so a new statistic of the server must not bring one."""
    floats: dict[str, Any] = {
        str(each.alias): 0.5 for each in LlmPredictionStats.model_fields.values() if "float" in str(each.annotation)
    }
    metadata = streamed([*text("a"), end(**floats)], "v0").response_metadata
    assert len(floats) > 4
    assert not [name for name, value in metadata.items() if isinstance(value, float)]
    assert set(metadata["predictions"][0]) | {"num_gpu_layers"} == {
        name for name, each in LlmPredictionStats.model_fields.items() if "float" in str(each.annotation)
    }


RESPONDED: list[list[PredictionEvent]] = [
    text(" ", "Yes"),
    [LlmPredictionFragment("Yes", tokens=[{"text": "Yes"}])],
    call("c1", "f", {}),
]
BLANK: list[list[PredictionEvent]] = [
    [],
    text(" ", "\n"),
    [LlmPredictionFragment(" ", tokens=[{"text": " "}])],
]


@pytest.mark.parametrize("respond", [lambda events, **settings: streamed(events, "v0", **settings), invoked])
def test_a_missing_required_call_and_a_response_of_reasoning_alone_are_logged(
    respond: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for rest in (*RESPONDED, [*opened("c1", "f"), failed()]):
        respond([*reasoning("Hm."), *rest, end()])
    respond([end()])
    assert respond([*opened("c1", "f"), failed(), end()], required=True).invalid_tool_calls
    assert respond([*call("c1", "f", {}), end()], required=True).tool_calls
    assert "required" not in caplog.text
    assert "all reasoning" not in caplog.text
    assert respond([*text("No."), end()], required=True).text == "No."
    assert caplog.text.count("'a-model': a tool call was required") == 1
    for rest in BLANK:
        caplog.clear()
        respond([*reasoning("Hm."), *rest, end("maxPredictedTokensReached")], required=rest is BLANK[0])
        (record,) = caplog.records
        assert "the response of 'a-model' is all reasoning; raise max_tokens" in record.getMessage()


@in_every_format
def test_cached_and_reasoning_tokens_are_reported(format_: str) -> None:
    progress = PromptProgress(1.0, {"cachedTokenCount": 5, "totalPromptTokenCount": 7})
    events = [PromptProgress(0.0), progress, *reasoning("a", "b"), *text("c"), end()]
    usage = streamed(events, format_).usage_metadata
    assert usage == {
        "input_tokens": 7,
        "output_tokens": 3,
        "total_tokens": 10,
        "input_token_details": {"cache_read": 5},
        "output_token_details": {"reasoning": 4},
    }
    assert invoked(events).usage_metadata == usage


def test_usage_is_absent_if_it_is_not_sent() -> None:
    silent = end()
    silent.stats = {"stopReason": "eosFound"}
    assert invoked([*text("a"), silent]).usage_metadata is None
    assert streamed([*text("a"), silent], "v0").usage_metadata is None


def test_log_probabilities_are_on_every_chunk_and_add_up() -> None:
    token = {"text": "a", "id": 1, "logProb": -0.5, "candidates": [{"text": "b", "id": 2, "logProb": -1.5}]}
    events: list[PredictionEvent] = [
        LlmPredictionFragment("a", tokens=[token]),
        LlmPredictionFragment("a", tokens=[token]),
        end(),
    ]
    logged = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.5}]}
    chunks = list(Replay(events=events, alternatives=1).stream("q"))
    assert chunks[0].response_metadata["logprobs"] == {"content": [logged]}
    assert streamed(events, "v0", alternatives=1).response_metadata["logprobs"] == {"content": [logged, logged]}
    assert invoked(events, alternatives=1).response_metadata["logprobs"] == {"content": [logged, logged]}
    alone = {**logged, "top_logprobs": []}
    assert invoked(events).response_metadata["logprobs"] == {"content": [alone, alone]}


def test_tool_events_without_a_call_are_ignored() -> None:
    stray = opened("c", "f", '{"a": 1}')[1:]
    message = streamed([*stray, *text("a"), end()], "v0")
    assert (message.content, message.tool_calls, message.invalid_tool_calls) == ("a", [], [])
    assert invoked([*stray, *text("a"), end()]).content == "a"
    (invalid,) = streamed([failed(), end()], "v0").invalid_tool_calls
    assert invalid["id"]


@pytest.mark.parametrize(("value", "parallel"), [(3, 3), (0, None), (1024, None), ("3", None), (True, None)])
def test_only_a_valid_number_of_parallel_predictions_is_read_from_the_load_config(
    value: Any, parallel: int | None
) -> None:
    fields = [{"key": "llm.load.seed"}, {"key": "llm.load.numParallelSessions", "value": value}]
    assert slots_of("llm", settings_by_key({"fields": fields})) == (parallel or DEFAULT_PARALLEL["llm"])
    assert settings_by_key({}) == {}
