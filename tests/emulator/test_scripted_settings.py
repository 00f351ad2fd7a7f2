"""What the settings of a prediction do to a scripted model's answer: limits, stops, thoughts, odds, drafts."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmstudio_integrations.emulator.engines.base import GenerateRequest
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.scripted import Rule
from lmstudio_integrations.emulator.engines.scripted.writer import StopFinder
from lmstudio_integrations.errors import LMStudioContextOverflowError
from lmstudio_integrations.protocol.errors import to_exception
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallStart,
)
from tests.emulator._scripted import ResponseReader, answer, events_of, load, says, tool

FIVE_WORDS = "one two three four five"


@pytest.mark.parametrize(
    ("limit", "content", "reason", "predicted"),
    [
        (3, "one two three", "maxPredictedTokensReached", 3),
        (5, FIVE_WORDS, "maxPredictedTokensReached", 5),
        (6, FIVE_WORDS, "eosFound", 6),
        (False, FIVE_WORDS, "eosFound", 6),
    ],
)
async def test_the_answer_ends_at_the_most_tokens_and_the_end_mark_is_one(
    limit: Any, content: str, reason: str, predicted: int
) -> None:
    got = await answer(says(FIVE_WORDS), max_tokens=limit)
    assert got.content == content
    assert (got.end.stop_reason, got.end.predicted_tokens) == (reason, predicted)


async def test_a_tool_call_that_is_cut_off_fails_with_what_was_written() -> None:
    got = await answer([Rule(then=[{"tool": "add", "arguments": {"a": 1, "b": 2}}])], max_tokens=3)
    (failed,) = got.of_type(ToolCallFailed)
    assert "Unexpected end of content" in failed.error["title"]
    assert failed.raw_content == '<tool_call>\n{"name": "add", "arguments": {"a":'
    assert len(got.of_type(ToolCallArguments)) == 1
    assert (got.end.stop_reason, got.end.predicted_tokens) == ("maxPredictedTokensReached", 3)


async def test_a_tool_call_that_cannot_even_begin_leaves_no_trace() -> None:
    got = await answer([Rule(then=[{"text": "one two"}, {"tool": "add"}])], max_tokens=2)
    assert not got.of_type(ToolCallStart)
    assert not got.of_type(ToolCallFailed)
    assert got.end.stop_reason == "maxPredictedTokensReached"


@pytest.mark.parametrize(
    ("stops", "content", "found"),
    [
        (["three"], "one two ", "three"),
        (["o thr"], "one tw", "o thr"),
        (["two three four"], "one ", "two three four"),
        (["four", "wo"], "one t", "wo"),
        (["tw", "two"], "one ", "two"),
        (["one"], "", "one"),
    ],
)
async def test_a_stop_string_ends_the_answer_and_is_cut_off_with_what_follows(
    stops: list[str], content: str, found: str
) -> None:
    got = await answer(says(FIVE_WORDS), stop_strings=stops)
    assert got.content == content
    assert (got.end.stop_reason, got.end.stop_string) == ("stopStringFound", found)


async def test_what_only_looked_like_a_stop_string_is_shown_in_the_end() -> None:
    got = await answer(says(FIVE_WORDS), stop_strings=["five six", "two three five"])
    assert got.content == FIVE_WORDS
    assert [fragment.content for fragment in got.fragments] == ["one", " two", " three", " four", " five"]
    assert (got.end.stop_reason, got.end.stop_string, got.end.predicted_tokens) == ("eosFound", None, 6)


async def test_what_was_held_back_is_shown_when_a_limit_or_a_tool_call_comes() -> None:
    got = await answer(says(FIVE_WORDS), stop_strings=["three four!"], max_tokens=3)
    assert got.content == "one two three"
    steps = [Rule(then=[{"text": FIVE_WORDS}, {"tool": "add"}])]
    with_call = await answer(steps, stop_strings=["five six"])
    kinds = [type(event) for event in with_call.events]
    assert with_call.content == FIVE_WORDS
    assert kinds.index(ToolCallStart) > max(i for i, kind in enumerate(kinds) if kind is LlmPredictionFragment)


async def test_nothing_is_done_after_a_stop_string() -> None:
    got = await answer([Rule(then=[{"text": "one STOP"}, {"tool": "add"}, {"error": "never"}])], stop_strings=["STOP"])
    assert not got.of_type(ToolCallStart)
    assert got.end.stop_reason == "stopStringFound"


async def test_a_stop_string_of_the_prompt_template_counts_too() -> None:
    template = {"type": "manual", "manualPromptTemplate": {}, "stopStrings": ["three"]}
    got = await answer(says(FIVE_WORDS), prompt_template=template)
    assert (got.content, got.end.stop_string) == ("one two ", "three")


TEXTS = st.text(alphabet="ab ", max_size=30)
STOPS = st.lists(st.text(alphabet="ab ", min_size=1, max_size=4), min_size=1, max_size=3)


@settings(deadline=None)
@given(pieces=st.lists(TEXTS), stops=STOPS)
def test_the_first_stop_string_is_found_however_the_text_is_cut_into_tokens(
    pieces: list[str], stops: list[str]
) -> None:
    text = "".join(pieces)
    finder = StopFinder(stops)
    shown = ""
    for piece in pieces:
        shown += "".join(token.content for token in finder.feed(LlmPredictionFragment(piece)))
        assert not any(stop in shown for stop in stops)
        if finder.found is not None:
            break
    if finder.found is None:
        shown += "".join(token.content for token in finder.flush())
        assert shown == text
        assert not any(stop in text for stop in stops)
    else:
        assert text.startswith(shown + finder.found)
    assert finder.flush() == []


@settings(deadline=None)
@given(pieces=st.lists(TEXTS), stop=st.text(alphabet="ab ", min_size=1, max_size=4))
def test_with_one_stop_string_exactly_what_stands_before_it_is_shown(pieces: list[str], stop: str) -> None:
    finder = StopFinder([stop])
    shown = "".join(token.content for piece in pieces for token in _until_found(finder, piece))
    shown += "".join(token.content for token in finder.flush())
    assert shown == "".join(pieces).split(stop)[0]


def _until_found(finder: StopFinder, piece: str) -> list[LlmPredictionFragment]:
    return [] if finder.found is not None else finder.feed(LlmPredictionFragment(piece))


async def test_a_tool_call_stop_string_ends_the_answer_as_a_tool_call() -> None:
    plain = await answer(says("call now <end> more"), tool_call_stop_strings=["<end>"])
    assert (plain.content, plain.end.stop_reason, plain.end.stop_string) == ("call now ", "toolCalls", None)
    two_calls = [Rule(then=[{"tool": "add"}, {"tool": "add"}])]
    called = await answer(two_calls, tool_call_stop_strings=["</tool_call>"])
    assert len(called.of_type(ToolCallEnd)) == 1
    assert called.end.stop_reason == "toolCalls"
    assert len((await answer(two_calls)).of_type(ToolCallEnd)) == 2


LONG = Chat.from_history(
    {
        "messages": [
            {"role": "system", "content": "s " * 10},
            {"role": "user", "content": "first " * 10},
            {"role": "assistant", "content": "old " * 50},
            {"role": "user", "content": "middle " * 50},
            {"role": "assistant", "content": "new " * 10},
            {"role": "user", "content": "last " * 10},
        ]
    }
)


async def test_the_answer_ends_where_the_window_ends_if_it_shall_stop_at_the_limit() -> None:
    unlimited = await answer(says("word " * 500))
    window = unlimited.end.prompt_tokens + 20
    got = await answer(says("word " * 500), context_length=window, context_overflow_policy="stopAtLimit")
    assert (got.end.stop_reason, got.end.predicted_tokens) == ("contextLengthReached", 20)
    moving = await answer(says("word " * 500), context_length=window, context_overflow_policy="rollingWindow")
    assert (moving.end.stop_reason, moving.end.predicted_tokens) == ("eosFound", unlimited.end.predicted_tokens)


async def test_a_prompt_that_is_too_long_is_refused_in_the_words_of_a_real_server() -> None:
    with pytest.raises(EngineError) as caught:
        await answer(question=LONG, context_length=60, context_overflow_policy="stopAtLimit")
    error = to_exception({"title": caught.value.title}, "Chat response")
    assert isinstance(error, LMStudioContextOverflowError)
    assert error.limit == 60
    assert error.used == (await answer(question=LONG)).end.prompt_tokens


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("truncateMiddle", ["system", "user", "assistant", "user"]), ("rollingWindow", ["assistant", "user"])],
)
async def test_messages_are_dropped_until_the_prompt_fits(policy: str, kept: list[str]) -> None:
    got = await answer(question=LONG, context_length=60, context_overflow_policy=policy)
    messages = {
        "truncateMiddle": [*LONG.messages[:2], *LONG.messages[-2:]],
        "rollingWindow": LONG.messages[-2:],
    }[policy]
    assert [message.role for message in messages] == kept
    remaining = Chat()
    for message in messages:
        remaining.append(message)
    assert got.end.prompt_tokens == (await answer(question=remaining)).end.prompt_tokens < 60
    assert got.end.stop_reason == "eosFound"


@pytest.mark.parametrize("policy", ["truncateMiddle", "rollingWindow"])
async def test_what_must_be_kept_and_does_not_fit_is_refused(policy: str) -> None:
    with pytest.raises(EngineError, match="context length of only 8 tokens"):
        await answer(question=LONG, context_length=8, context_overflow_policy=policy)


async def test_a_conversation_without_a_user_message_loses_its_oldest_messages() -> None:
    chat = Chat("s " * 50)
    chat.add_assistant_response("a " * 5)
    got = await answer(question=chat, context_length=20, context_overflow_policy="truncateMiddle")
    assert got.end.prompt_tokens < 20


@pytest.mark.parametrize("policy", ["truncateMiddle", "rollingWindow"])
async def test_words_of_a_raw_prompt_are_dropped_until_it_fits(policy: str) -> None:
    model = await load(says("on"))
    config = LlmPredictionConfig.parse({"context_overflow_policy": policy})
    got = ResponseReader(await events_of(model, GenerateRequest(config, prompt="word " * 50, context_length=10)))
    assert (got.content, got.end.prompt_tokens) == ("on", 9)


async def test_a_raw_prompt_that_is_too_long_is_refused_if_nothing_may_be_dropped() -> None:
    model = await load()
    config = LlmPredictionConfig(context_overflow_policy="stopAtLimit")
    with pytest.raises(EngineError, match="context length of only 10 tokens"):
        await events_of(model, GenerateRequest(config, prompt="word " * 50, context_length=10))


THINKING = [Rule(then=[{"reasoning": "hm hm hm"}, {"text": "yes"}])]


def kinds_of(got: ResponseReader) -> list[tuple[str, str, bool]]:
    return [(fragment.content, fragment.reasoning_type, fragment.is_structural) for fragment in got.fragments]


async def test_thoughts_stand_between_structural_tags() -> None:
    got = await answer(THINKING)
    assert kinds_of(got) == [
        ("<think>", "reasoningStartTag", True),
        ("hm", "reasoning", False),
        (" hm", "reasoning", False),
        (" hm", "reasoning", False),
        ("</think>", "reasoningEndTag", True),
        ("yes", "none", False),
    ]
    assert got.end.predicted_tokens == 7


async def test_tags_within_a_text_are_found_too() -> None:
    got = await answer(says("so<think>hm</think>yes</think>"))
    assert [kind for _, kind, _ in kinds_of(got)] == [
        "none",
        "reasoningStartTag",
        "reasoning",
        "reasoningEndTag",
        "none",
        "none",
    ]


async def test_thoughts_have_the_tags_that_are_looked_for() -> None:
    parsing = {"enabled": True, "startString": "[T]", "endString": "[/T]"}
    got = await answer(THINKING, reasoning_parsing=parsing)
    assert got.content == "[T]hm hm hm[/T]yes"
    assert got.fragments[0].reasoning_type == "reasoningStartTag"
    assert got.fragments[-1].reasoning_type == "none"


@pytest.mark.parametrize(
    ("parsing", "content"),
    [
        ({"enabled": False, "startString": "<think>", "endString": "</think>"}, "<think>hm hm hm</think>yes"),
        ({"enabled": True, "startString": "", "endString": ""}, "hm hm hmyes"),
    ],
)
async def test_thoughts_are_plain_text_if_no_tags_are_looked_for(parsing: dict[str, Any], content: str) -> None:
    got = await answer(THINKING, reasoning_parsing=parsing)
    assert got.content == content
    assert {kind for _, kind, _ in kinds_of(got)} == {"none"}
    assert not any(structural for *_, structural in kinds_of(got))


async def test_a_model_that_shall_not_think_does_not() -> None:
    assert (await answer(THINKING, enable_thinking=False)).content == "yes"
    assert (await answer(THINKING, enable_thinking=True)).content == "<think>hm hm hm</think>yes"


@pytest.mark.parametrize(
    ("budget", "content"),
    [
        (2, "<think>hm hm</think>yes"),
        (0, "<think></think>yes"),
        (9, "<think>hm hm hm</think>yes"),
        (False, "<think>hm hm hm</think>yes"),
    ],
)
async def test_thoughts_end_where_their_budget_ends(budget: Any, content: str) -> None:
    assert (await answer(THINKING, reasoning_budget=budget)).content == content


async def test_the_budget_is_one_for_the_whole_answer() -> None:
    twice = [Rule(then=[{"reasoning": "a b"}, {"text": "x"}, {"reasoning": "c d"}])]
    got = await answer(twice, reasoning_budget=3)
    assert got.content == "<think>a b</think>x<think>c</think>"


async def test_odds_of_tokens_are_told_only_if_they_are_asked_for() -> None:
    assert all(fragment.tokens is None for fragment in (await answer(says(FIVE_WORDS))).fragments)
    assert all(fragment.tokens is None for fragment in (await answer(says(FIVE_WORDS), log_probs=False)).fragments)


async def test_odds_name_the_written_token_first_and_are_those_of_a_probability() -> None:
    for fragment in (await answer(says(FIVE_WORDS + " the"), log_probs=3)).fragments:
        assert fragment.tokens is not None
        (token,) = fragment.tokens
        candidates = token["candidates"]
        assert token["text"] == fragment.content
        assert {name: token[name] for name in ("text", "id", "logProb")} == candidates[0]
        assert len(candidates) == len({candidate["text"] for candidate in candidates}) == 3
        log_probs = [candidate["logProb"] for candidate in candidates]
        assert log_probs == sorted(log_probs, reverse=True)
        assert sum(2.718281828459045**log_prob for log_prob in log_probs) <= 1


async def test_no_candidates_are_named_if_none_are_asked_for() -> None:
    (fragment,) = (await answer(says("one"), log_probs=0)).fragments
    assert fragment.tokens is not None
    assert set(fragment.tokens[0]) == {"text", "id", "logProb"}


@pytest.mark.parametrize("draft_model", ["", None, "a-draft"])
async def test_a_scripted_model_counts_no_draft_tokens(draft_model: str | None) -> None:
    got = await answer(says(FIVE_WORDS), draft_model=draft_model)
    assert got.end.stats == {}
    assert not any(fragment.contains_drafted for fragment in got.fragments)


async def test_settings_hold_for_a_required_tool_too() -> None:
    got = await answer(tools=[tool("add", a={"type": "integer"})], tool_choice="required", max_tokens=1)
    assert got.of_type(ToolCallFailed)
    assert got.end.predicted_tokens == 1
