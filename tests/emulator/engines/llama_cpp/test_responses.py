"""llama.cpp's response chunks as events: reasoning, tool calls, progress, ends. Without an engine."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import ManualClock
from lmstudio_integrations.emulator.engines.base import EngineEvent, Fault, Finished
from lmstudio_integrations.emulator.engines.generation import DEFAULT_TAGS, Tags, progress_details
from lmstudio_integrations.emulator.engines.llama_cpp.responses import (
    Delta,
    JsonCall,
    NativeCalls,
    ResponseReader,
    TextParser,
    end_of_prompt,
    known_tags,
    overlap,
    read_chat,
    read_completion,
)
from lmstudio_integrations.emulator.server.handlers.prediction import StatsCollector

plain_text = partial(TextParser, Tags("<think>", "</think>", enabled=False))
tagged_text = partial(TextParser, DEFAULT_TAGS)


def chat_chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def feed_all(reader: Any, texts: Iterable[str]) -> list[EngineEvent]:
    events = [event for text in texts for event in reader.feed(lms.LlmPredictionFragment(text))]
    return [*events, *reader.end()]


def outline(events: Iterable[EngineEvent]) -> list[tuple[str, str]]:
    """Return the kind and the text of each event, neighbors of one kind joined."""
    named = [_named(event) for event in events]
    return [(kind, "".join(text for _, text in group)) for kind, group in groupby(named, key=lambda each: each[0])]


def _named(event: EngineEvent) -> tuple[str, str]:
    match event:
        case lms.LlmPredictionFragment():
            assert event.is_structural == event.reasoning_type.endswith("Tag")
            return event.reasoning_type, event.content
        case lms.ToolCallName():
            return "name", event.name
        case lms.ToolCallArguments():
            return "arguments", event.content
        case lms.ToolCallEnd():
            return f"call of {event.name} with {json.dumps(event.arguments)}", str(event.raw_content)
        case lms.ToolCallFailed():
            return "failed call", str(event.raw_content)
        case _:
            return type(event).__name__, ""


START, FIRST, LAST = ("ToolCallStart", ""), ("reasoningStartTag", "<think>"), ("reasoningEndTag", "</think>")
CALL = '{\n "name": "a\\"b",\n "arguments": {"x": "}{\\"", "y": [1]}\n}'
MARKED = '<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>'
FORM = '[TOOL_REQUEST]{"name": "b", "arguments": {}}[END_TOOL_REQUEST]'

TEXTS: dict[str, tuple[Callable[[], Any], str, list[tuple[str, str]]]] = {
    "reasoning": (
        tagged_text,
        "<think>so 1 < 2</think>Yes <b>",
        [FIRST, ("reasoning", "so 1 < 2"), LAST, ("none", "Yes <b>")],
    ),
    "the start of a tag that never comes": (tagged_text, "a <thin <", [("none", "a <thin <")]),
    "a start tag at the end of the prompt": (
        partial(tagged_text, "<think>\n"),
        "so 1 < 2\n</think>\n\nYes",
        [("reasoningStartTag", "<think>\n"), ("reasoning", "so 1 < 2\n"), LAST, ("none", "\n\nYes")],
    ),
    "a forced call": (
        JsonCall,
        CALL,
        [
            START,
            ("name", 'a"b'),
            ("arguments", '{"x": "}{\\"", "y": [1]}'),
            ('call of a"b with {"x": "}{\\"", "y": [1]}', CALL),
        ],
    ),
    "calls between markers": (
        partial(tagged_text, calls=True),
        f"<think><tool_call></think>So <b>: {MARKED}\n{FORM} <tool_call",
        [
            *(FIRST, ("reasoning", "<tool_call>"), LAST, ("none", "So <b>: "), START),
            *(("name", "a"), ("arguments", '{"x": 1}'), ('call of a with {"x": 1}', MARKED), ("none", "\n"), START),
            *(("name", "b"), ("arguments", "{}"), ("call of b with {}", FORM), ("none", " <tool_call")),
        ],
    ),
    "markers where the engine reads calls": (tagged_text, FORM, [("none", FORM)]),
    "a call between markers that cannot be read": (
        partial(plain_text, calls=True),
        "<tool_call>no</tool_call>",
        [START, ("failed call", "<tool_call>no</tool_call>")],
    ),
    "a call whose end marker is missing": (
        partial(plain_text, calls=True),
        "<tool_call>{",
        [START, ("failed call", "<tool_call>{</tool_call>")],
    ),
    "a call that is cut off": (
        JsonCall,
        '{"name": "a", "arguments": {"x": 1',
        [
            START,
            ("name", "a"),
            ("arguments", '{"x": 1'),
            ("failed call", '{"name": "a", "arguments": {"x": 1'),
        ],
    ),
    "no call at all": (JsonCall, "", [START, ("failed call", "")]),
    "a call without arguments": (JsonCall, '{"name": "a"}', [START, ("failed call", '{"name": "a"}')]),
    "a name that is no text": (
        JsonCall,
        '{"name": "\\x", "arguments": 1',
        [START, ("failed call", '{"name": "\\x", "arguments": 1')],
    ),
}
"""What reads a text, the text, and what comes out however it is split."""


@pytest.mark.parametrize("size", [1, 5, 300])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_has_the_same_events_however_it_is_split(name: str, size: int) -> None:
    make, text, expected = TEXTS[name]
    fragments = [text[at : at + size] for at in range(0, len(text), size)]
    events = feed_all(make(), fragments)
    assert outline(events) == expected
    starts, ends = (
        [event.id for event in events if isinstance(event, kind)] for kind in (lms.ToolCallStart, lms.ToolCallEnd)
    )
    assert starts[: len(ends)] == ends


def test_each_token_is_counted_once_and_the_tag_that_the_prompt_has_is_none() -> None:
    repeated = ["<think>\nso", " 1", "</thi", "nk> Yes"]  # llama.cpp repeats the tag, which the model has not written
    opening, *fragments = feed_all(TextParser(DEFAULT_TAGS, "<think>\n"), repeated)
    assert opening == lms.LlmPredictionFragment("<think>\n", 0, reasoning_type="reasoningStartTag", is_structural=True)
    assert outline(fragments) == [("reasoning", "so 1"), LAST, ("none", " Yes")]
    assert sum(each.tokens_count for each in fragments if isinstance(each, lms.LlmPredictionFragment)) == 4
    empty = "<think>\n\n</think>\n\n"
    assert outline(feed_all(TextParser(DEFAULT_TAGS, empty), [f"{empty}Y", "es"])) == [("none", "Yes")]


def test_tokens_with_probabilities_stay_with_their_text() -> None:
    reader = tagged_text()
    assert list(reader.feed(lms.LlmPredictionFragment("<th", tokens=[{"id": 1}]))) == []
    fragments = reader.feed(lms.LlmPredictionFragment("ink>x", tokens=[{"id": 2}]))
    assert [each.tokens for each in fragments if isinstance(each, lms.LlmPredictionFragment)] == [
        [{"id": 1}, {"id": 2}],
        None,
    ]


def test_reasoning_that_the_engine_has_separated_gets_its_tags_back() -> None:
    response = ResponseReader(plain_text(), 5)
    chunks = [chat_chunk(reasoning_content="hm"), chat_chunk(content="Yes")]
    events = [event for chunk in chunks for event in response.read(read_chat(chunk))]
    assert outline(events) == [FIRST, ("reasoning", "hm"), LAST, ("none", "Yes")]


def test_a_call_may_be_one_long_fragment() -> None:
    written = json.dumps({"text": "a " * 5_000})
    events = feed_all(JsonCall(), [f'{{"name": "a", "arguments": {written}}}'])
    assert [event.content for event in events if isinstance(event, lms.ToolCallArguments)] == [written[:-1], "}"]


def test_native_calls_come_one_after_the_other() -> None:
    response = ResponseReader(plain_text(), 5)
    deltas = [
        {"index": 0, "id": "x1", "function": {"name": "add", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": " 1}"}},
        {"index": 1, "id": "x2", "function": {"name": "now", "arguments": ""}},
        {"index": 2, "id": "x3", "function": {"name": "bad", "arguments": '{"a'}},
    ]
    events = [event for delta in deltas for event in response.read(read_chat(chat_chunk(tool_calls=[delta])))]
    events += response.read(Delta(end={"stop_type": "eos"}))
    assert outline(events) == [
        *(START, ("name", "add"), ("arguments", '{"a": 1}'), ('call of add with {"a": 1}', '{"a": 1}')),
        *(START, ("name", "now"), ("call of now with {}", "")),
        *(START, ("name", "bad"), ("arguments", '{"a'), ("failed call", '{"a'), ("Finished", "")),
    ]
    assert [event.id for event in events if isinstance(event, lms.ToolCallEnd)] == ["x1", "x2"]
    assert list(NativeCalls().end()) == []


@pytest.mark.parametrize(
    ("end", "max_tokens", "reason", "stop"),
    [
        ({"stop_type": "eos"}, 9, "eosFound", None),
        ({"stop_type": "word", "stopping_word": "X"}, 9, "stopStringFound", "X"),
        ({"stop_type": "word", "stopping_word": "CALL"}, 9, "toolCalls", None),
        ({"stop_type": "limit", "tokens_predicted": 9}, 9, "maxPredictedTokensReached", None),
        ({"stop_type": "limit", "tokens_predicted": 8}, 9, "contextLengthReached", None),
        ({"stop_type": "limit", "tokens_predicted": 9}, None, "contextLengthReached", None),
    ],
)
def test_each_end_has_its_reason(end: dict[str, Any], max_tokens: int | None, reason: str, stop: str | None) -> None:
    response = ResponseReader(plain_text(), 5, max_tokens=max_tokens, call_stops=["CALL"])
    assert list(response.read(Delta(end=end)))[-1] == Finished(reason, 5, end.get("tokens_predicted", 0), stop)


def timed(chunk: dict[str, Any], tokens: int) -> dict[str, Any]:
    return chunk | {"timings": {"predicted_n": tokens, "predicted_per_second": 7.5 if tokens > 1 else 0}}


def test_token_counts_and_speed_are_those_of_the_engine() -> None:
    response = ResponseReader(plain_text(), 5)
    chunks = [timed(chat_chunk(content=text), tokens) for text, tokens in (("鷲", 3), ("鶴", 6), ("a", 7))]
    fragments = [event for chunk in chunks for event in response.read(read_chat(chunk))]
    assert [fragment.tokens_count for fragment in fragments if isinstance(fragment, lms.LlmPredictionFragment)] == [
        3,
        3,
        1,
    ]
    for tokens, stats in ((7, {"tokensPerSecond": 7.5}), (1, {})):
        end = timed({"content": "", "stop": True, "tokens_predicted": tokens}, tokens)
        finished = list(ResponseReader(plain_text(), 5).read(read_completion(end)))[-1]
        assert isinstance(finished, Finished)
        assert finished.stats == stats


def test_progress_is_complete_even_if_the_engine_omits_steps() -> None:
    response, collector = ResponseReader(plain_text(), 10), StatsCollector(ManualClock())
    events: list[EngineEvent] = [response.begin()]
    for state in ({"total": 10, "cache": 4, "processed": 4}, {"total": 10, "cache": 4, "processed": 8}):
        events += response.read(Delta(progress=state))
    events += response.read(Delta(text="a"))
    assert [event.progress for event in events if isinstance(event, lms.PromptProgress)] == [0, 0.8]
    sent = [ready for event in events if not isinstance(event, Finished | Fault) for ready in collector.add(event)]
    progress = [event for event in sent if isinstance(event, lms.PromptProgress)]
    assert [event.progress for event in progress] == [0, 0.8, 1]
    assert progress[-1].details == progress_details(10, 10)
    assert ResponseReader(plain_text(), 0).begin().progress == 1


def test_chunks_of_both_kinds_bring_the_same_probabilities() -> None:
    entry = {"id": 7, "token": "a", "logprob": -0.5, "top_logprobs": [{"id": 7, "token": "a", "logprob": None}]}
    chat = chat_chunk(content="a")
    chat["choices"][0]["logprobs"] = {"content": [entry]}
    raw = {"content": "a", "stop": False, "completion_probabilities": [entry]}
    expected = [{"text": "a", "id": 7, "logProb": -0.5, "candidates": [{"text": "a", "id": 7}]}]
    assert read_chat(chat).tokens == read_completion(raw).tokens == expected


def test_the_tags_of_reasoning_are_those_that_the_template_has() -> None:
    assert known_tags("{% if '</think>' in text %}<think>{% endif %}") == DEFAULT_TAGS
    assert known_tags("<|channel>thought\n{{ text }}<channel|>") == Tags("<|channel>thought", "<channel|>")
    assert known_tags("{{ '<mm:think>' ~ thought ~ '</mm:think>' }}") == Tags("<mm:think>", "</mm:think>")
    assert known_tags("{{ text.split('</think>') }}") is None


@pytest.mark.parametrize(
    ("prompt", "end"),
    [
        ("<|assistant|><think>\n", "<think>\n"),
        ("<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
        ("<|user|><think>\n<|assistant|>", ""),
        ("<think>so</think>", ""),
    ],
)
def test_only_tags_at_the_very_end_of_a_prompt_open_a_response(prompt: str, end: str) -> None:
    assert end_of_prompt(prompt, DEFAULT_TAGS) == end


def test_the_longest_possible_start_of_a_string_overlaps() -> None:
    assert overlap("one <th", ["<think>", "<t", "h!"]) == 3
    assert overlap("one", ["<think>"]) == overlap("one", []) == overlap("", ["a"]) == 0
