"""llama.cpp's response chunks as events: reasoning, tool calls, progress, ends. Without an engine."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest

from lmstudio_integrations.emulator.engines.base import EngineEvent, Fault, Finished
from lmstudio_integrations.emulator.engines.generation import DEFAULT_TAGS, Tags, progress_details
from lmstudio_integrations.emulator.engines.llama_cpp.responses import (
    Delta,
    JsonCall,
    NativeCalls,
    ResponseReader,
    TextParser,
    parse_object,
    read_chat,
    read_completion,
)
from lmstudio_integrations.emulator.models.clock import ManualClock
from lmstudio_integrations.emulator.server.prediction_stats import StatsCollector
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

END = {"stop_type": "eos", "stopping_word": "", "tokens_predicted": 3}


def chat_chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def feed_all(reader: Any, texts: Iterable[str]) -> list[EngineEvent]:
    events = [event for text in texts for event in reader.feed(LlmPredictionFragment(text))]
    return [*events, *reader.end()]


def kinds_of(events: Iterable[EngineEvent]) -> list[tuple[str, str]]:
    """Return the text of each kind of fragment, neighbours of one kind joined."""
    fragments = [event for event in events if isinstance(event, LlmPredictionFragment)]
    return [
        (kind, "".join(fragment.content for fragment in group))
        for kind, group in itertools.groupby(fragments, key=lambda fragment: fragment.reasoning_type)
    ]


def plain_text() -> TextParser:
    return TextParser(Tags("<think>", "</think>", enabled=False))


REASONING = "<think>so 1 < 2</think>Yes <b>"
PARTED = [
    ("reasoningStartTag", "<think>"),
    ("reasoning", "so 1 < 2"),
    ("reasoningEndTag", "</think>"),
    ("none", "Yes <b>"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
def test_reasoning_is_separated_however_the_text_is_split(size: int) -> None:
    texts = [REASONING[at : at + size] for at in range(0, len(REASONING), size)]
    events = feed_all(TextParser(DEFAULT_TAGS), texts)
    assert kinds_of(events) == PARTED
    fragments = [event for event in events if isinstance(event, LlmPredictionFragment)]
    assert sum(fragment.tokens_count for fragment in fragments) == len(texts)
    assert all(fragment.is_structural == fragment.reasoning_type.endswith("Tag") for fragment in fragments)


def test_the_start_of_a_tag_that_never_comes_is_text() -> None:
    assert kinds_of(feed_all(TextParser(DEFAULT_TAGS), ["a <thi", "n", " <"])) == [("none", "a <thin <")]


def test_tokens_with_probabilities_stay_with_their_text() -> None:
    reader = TextParser(DEFAULT_TAGS)
    first = list(reader.feed(LlmPredictionFragment("<th", tokens=[{"id": 1}])))
    second = list(reader.feed(LlmPredictionFragment("ink>x", tokens=[{"id": 2}])))
    assert first == []
    fragments = [event for event in second if isinstance(event, LlmPredictionFragment)]
    assert [fragment.tokens for fragment in fragments] == [[{"id": 1}, {"id": 2}], None]


def test_text_without_separation_is_forwarded_as_it_is() -> None:
    fragment = LlmPredictionFragment("<think>so")
    assert list(plain_text().feed(fragment)) == [fragment]
    assert list(plain_text().end()) == []


OPENED = "so 1 < 2\n</think>\n\nYes <b>"


@pytest.mark.parametrize("repeated", ["", "<think>\n"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_start_tag_at_the_end_of_the_prompt_is_the_first_fragment_once(size: int, repeated: str) -> None:
    texts = [OPENED[at : at + size] for at in range(0, len(OPENED), size)]
    texts[0] = f"{repeated}{texts[0]}"
    first, *events = feed_all(TextParser(DEFAULT_TAGS, "<think>\n"), texts)
    assert first == LlmPredictionFragment("<think>\n", 0, reasoning_type="reasoningStartTag", is_structural=True)
    assert kinds_of(events) == [("reasoning", "so 1 < 2\n"), ("reasoningEndTag", "</think>"), ("none", "\n\nYes <b>")]


def test_an_empty_block_at_the_end_of_the_prompt_is_no_reasoning() -> None:
    empty = "<think>\n\n</think>\n\n"
    assert kinds_of(feed_all(TextParser(DEFAULT_TAGS, empty), [f"{empty}Y", "es"])) == [("none", "Yes")]


def test_reasoning_that_the_engine_has_separated_gets_its_tags_back() -> None:
    response = ResponseReader(plain_text(), 5)
    fragments = [
        read_chat(chat_chunk(reasoning_content="hm")),
        read_chat(chat_chunk(content="Yes")),
        Delta(end=END),
    ]
    events = [event for fragment in fragments for event in response.read(fragment)]
    assert kinds_of(events) == [
        ("reasoningStartTag", "<think>"),
        ("reasoning", "hm"),
        ("reasoningEndTag", "</think>"),
        ("none", "Yes"),
    ]


CALL = '{\n "name": "a\\"b",\n "arguments": {"x": "}{\\"", "y": [1, {"z": 2}]}\n}'


@pytest.mark.parametrize("size", [1, 2, 3, 8, 200])
def test_a_forced_call_has_the_same_events_however_it_is_split(size: int) -> None:
    texts = [CALL[at : at + size] for at in range(0, len(CALL), size)]
    events = feed_all(JsonCall(), texts)
    assert isinstance(events[0], ToolCallStart)
    assert isinstance(events[1], ToolCallName)
    assert events[1].name == 'a"b'
    written = "".join(event.content for event in events if isinstance(event, ToolCallArguments))
    assert written == '{"x": "}{\\"", "y": [1, {"z": 2}]}'
    end = events[-1]
    assert isinstance(end, ToolCallEnd)
    assert (end.id, end.name, end.raw_content) == (events[0].id, 'a"b', CALL)
    assert end.arguments == {"x": '}{"', "y": [1, {"z": 2}]}


MARKED = '<think><tool_call></think>So <b>: <tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>\n'
FORM = '[TOOL_REQUEST]{"name": "b", "arguments": {}}[END_TOOL_REQUEST] <tool_call'


@pytest.mark.parametrize("size", [1, 2, 5, 300])
def test_calls_between_markers_are_read_however_the_text_is_split(size: int) -> None:
    text = f"{MARKED}{FORM}"
    events = feed_all(TextParser(DEFAULT_TAGS, calls=True), [text[at : at + size] for at in range(0, len(text), size)])
    *reasoning, (kind, written) = kinds_of(events)
    assert reasoning == [
        ("reasoningStartTag", "<think>"),
        ("reasoning", "<tool_call>"),
        ("reasoningEndTag", "</think>"),
    ]
    assert (kind, written) == ("none", "So <b>: \n <tool_call")
    ends = [event for event in events if isinstance(event, ToolCallEnd)]
    assert [(end.name, end.arguments) for end in ends] == [("a", {"x": 1}), ("b", {})]
    assert [text.count(str(end.raw_content)) for end in ends] == [1, 1]
    assert all(str(end.raw_content).startswith(("<tool_call>", "[TOOL_REQUEST]")) for end in ends)


@pytest.mark.parametrize("text", ["<tool_call>", "<tool_call>{", "<tool_call>no</tool_call>"])
def test_a_call_between_markers_that_cannot_be_read_has_failed(text: str) -> None:
    *_, failed = feed_all(TextParser(Tags("", "", enabled=False), calls=True), [text])
    assert isinstance(failed, ToolCallFailed)


def test_markers_are_text_where_the_engine_reads_calls() -> None:
    assert kinds_of(feed_all(TextParser(DEFAULT_TAGS), [FORM])) == [("none", FORM)]


@pytest.mark.parametrize("text", ["", "{", '{"name": "a', '{"name": "a", "arguments": {"x": 1', '{"name": "a"}', "[]"])
def test_a_call_without_its_end_fails_exactly_once(text: str) -> None:
    events = feed_all(JsonCall(), [text])
    assert isinstance(events[0], ToolCallStart)
    assert [type(event) for event in events].count(ToolCallFailed) == 1
    assert not any(isinstance(event, ToolCallEnd) for event in events)
    assert isinstance(events[-1], ToolCallFailed)
    assert events[-1].raw_content == text


@pytest.mark.parametrize(
    ("beginning", "unit"),
    [
        ('{"name": "', "    "),
        ('{"name": "', "\\n"),
        ('{"name": "a", "arguments": {"x": [', "\n  "),
        ('{"name": "a", "arguments": ', "[[[["),
    ],
)
def test_a_long_call_without_its_end_takes_linear_time(beginning: str, unit: str) -> None:
    """With quadratic time, it would be minutes."""
    *_, failed = feed_all(JsonCall(), [beginning, *[unit] * 50_000])
    assert isinstance(failed, ToolCallFailed)


def test_a_call_may_be_one_long_fragment() -> None:
    written = json.dumps({"text": "a " * 5_000})
    events = feed_all(JsonCall(), [f'{{"name": "a", "arguments": {written}}}'])
    assert [event.content for event in events if isinstance(event, ToolCallArguments)] == [written[:-1], "}"]


def test_a_call_of_no_text_at_all_fails_exactly_once() -> None:
    events = feed_all(JsonCall(), [])
    assert [type(event) for event in events] == [ToolCallStart, ToolCallFailed]


def test_the_name_of_a_call_waits_for_its_arguments() -> None:
    call = JsonCall()
    (start,) = call.feed(LlmPredictionFragment('{"name": "a", "arguments": '))
    assert isinstance(start, ToolCallStart)
    assert list(call.feed(LlmPredictionFragment("{"))) == [ToolCallName("a"), ToolCallArguments("{")]
    for text in ('{"other": 1', '{"name": "\\x", "arguments": 1'):
        assert not any(isinstance(event, ToolCallName) for event in feed_all(JsonCall(), [text]))


def test_native_calls_come_one_after_the_other() -> None:
    calls = NativeCalls()
    deltas = [
        {"index": 0, "id": "x1", "function": {"name": "add", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": " 1}"}},
        {"index": 1, "id": "x2", "function": {"name": "now", "arguments": ""}},
        {"index": 2, "id": "x3", "function": {"name": "bad", "arguments": '{"a'}},
    ]
    events = [event for delta in deltas for event in calls.feed([delta])] + list(calls.end())
    assert [type(event).__name__ for event in events] == [
        *("ToolCallStart", "ToolCallName", "ToolCallArguments", "ToolCallArguments", "ToolCallEnd"),
        *("ToolCallStart", "ToolCallName", "ToolCallEnd"),
        *("ToolCallStart", "ToolCallName", "ToolCallArguments", "ToolCallFailed"),
    ]
    ends = [event for event in events if isinstance(event, ToolCallEnd)]
    assert [(end.id, end.name, end.arguments) for end in ends] == [("x1", "add", {"a": 1}), ("x2", "now", {})]
    assert list(calls.end()) == []


def test_a_native_tool_call_is_part_of_a_response() -> None:
    response = ResponseReader(plain_text(), 5)
    call = {"index": 0, "id": "x1", "function": {"name": "add", "arguments": "{}"}}
    events = [*response.read(read_chat(chat_chunk(tool_calls=[call]))), *response.read(Delta(end=END))]
    names = [type(event).__name__ for event in events]
    assert names == ["ToolCallStart", "ToolCallName", "ToolCallArguments", "ToolCallEnd", "Finished"]


@pytest.mark.parametrize(
    ("end", "reason", "stop"),
    [
        ({"stop_type": "eos"}, "eosFound", None),
        ({"stop_type": "word", "stopping_word": "X"}, "stopStringFound", "X"),
        ({"stop_type": "word", "stopping_word": "CALL"}, "toolCalls", None),
        ({"stop_type": "limit", "tokens_predicted": 9}, "maxPredictedTokensReached", None),
        ({"stop_type": "limit", "tokens_predicted": 8}, "contextLengthReached", None),
        ({"stop_type": "none"}, "eosFound", None),
    ],
)
def test_each_end_has_its_reason(end: dict[str, Any], reason: str, stop: str | None) -> None:
    response = ResponseReader(plain_text(), 5, max_tokens=9, call_stops=["CALL"])
    last = list(response.read(Delta(end=end)))[-1]
    assert last == Finished(reason, 5, end.get("tokens_predicted", 0), stop)


def timed(chunk: dict[str, Any], tokens: int) -> dict[str, Any]:
    return chunk | {"timings": {"predicted_n": tokens, "predicted_per_second": 7.5 if tokens > 1 else 0}}


def test_token_counts_and_speed_are_those_of_the_engine() -> None:
    response = ResponseReader(plain_text(), 5)
    chunks = [timed(chat_chunk(content=text), tokens) for text, tokens in (("鷲", 3), ("鶴", 6), ("a", 7))]
    fragments = [event for chunk in chunks for event in response.read(read_chat(chunk))]
    assert [fragment.tokens_count for fragment in fragments if isinstance(fragment, LlmPredictionFragment)] == [3, 3, 1]
    for tokens, stats in ((7, {"tokensPerSecond": 7.5}), (1, {})):
        end = timed({"content": "", "stop": True, "tokens_predicted": tokens}, tokens)
        finished = list(ResponseReader(plain_text(), 5).read(read_completion(end)))[-1]
        assert isinstance(finished, Finished)
        assert finished.stats == stats


def test_the_default_token_limit_is_the_context_length() -> None:
    end = list(ResponseReader(plain_text(), 5).read(Delta(end={"stop_type": "limit", "tokens_predicted": 9})))[-1]
    assert isinstance(end, Finished)
    assert end.stop_reason == "contextLengthReached"


def test_progress_is_complete_even_if_the_engine_omits_steps() -> None:
    response, collector = ResponseReader(plain_text(), 10), StatsCollector(ManualClock())
    events: list[EngineEvent] = [response.begin()]
    for state in ({"total": 10, "cache": 4, "processed": 4}, {"total": 10, "cache": 4, "processed": 8}):
        events += response.read(Delta(progress=state))
    events += response.read(Delta(text="a"))
    events += response.read(Delta(text="b"))
    assert [event.progress for event in events if isinstance(event, PromptProgress)] == [0, 0.8]
    sent = [ready for event in events if not isinstance(event, Finished | Fault) for ready in collector.add(event)]
    progress = [event for event in sent if isinstance(event, PromptProgress)]
    assert [event.progress for event in progress] == [0, 0.8, 1]
    assert progress[-1].details == progress_details(10, 10)
    assert kinds_of(events) == [("none", "ab")]


def test_a_prompt_of_nothing_is_read_at_once() -> None:
    assert ResponseReader(plain_text(), 0).begin().progress == 1


def test_chunks_of_both_kinds_bring_the_same_probabilities() -> None:
    entry = {"id": 7, "token": "a", "logprob": -0.5, "top_logprobs": [{"id": 7, "token": "a", "logprob": None}]}
    chat = chat_chunk(content="a")
    chat["choices"][0]["logprobs"] = {"content": [entry]}
    raw = {"content": "a", "stop": False, "completion_probabilities": [entry]}
    expected = [{"text": "a", "id": 7, "logProb": -0.5, "candidates": [{"text": "a", "id": 7}]}]
    assert read_chat(chat).tokens == read_completion(raw).tokens == expected


def test_chunks_without_content_bring_nothing() -> None:
    assert read_chat({"choices": [], "usage": {}}) == Delta()
    assert read_chat(chat_chunk(role="assistant", content=None)) == Delta()
    assert read_completion({"content": "", "stop": False}) == Delta()


def test_only_objects_are_arguments() -> None:
    assert parse_object(json.dumps({"a": 1})) == {"a": 1}
    assert parse_object("[1]") is None
    assert parse_object("{") is None
