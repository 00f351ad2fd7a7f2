"""The settings of a prediction in a scripted model's response: limits, stop strings, reasoning, log-probabilities."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineError, GenerateRequest
from lmstudio_integrations.emulator.engines.scripted import Rule, words
from lmstudio_integrations.emulator.engines.scripted.writer import Writer
from lmstudio_integrations.protocol.errors import to_exception
from tests.emulator.engines.scripted.models import Response, always, events_of, load, respond

FIVE_WORDS = "one two three four five"


async def test_the_response_ends_at_max_tokens_and_the_end_token_counts() -> None:
    for limit, content, reason, predicted in (
        (3, "one two three", "maxPredictedTokensReached", 3),
        (5, FIVE_WORDS, "maxPredictedTokensReached", 5),
        (6, FIVE_WORDS, "eosFound", 6),
        (False, FIVE_WORDS, "eosFound", 6),
    ):
        got = await respond(always(FIVE_WORDS), max_tokens=limit)
        assert got.content == content
        assert (got.end.stop_reason, got.end.predicted_tokens) == (reason, predicted)


async def test_forbidden_tokens_are_left_out_and_do_not_count() -> None:
    bias = {words.token_id(" two"): float("-inf"), words.token_id(" three"): -5.0}
    got = await respond([Rule(then=[{"reasoning": "one two"}, {"text": FIVE_WORDS}])], logit_bias=bias)
    assert got.content == "<think>one</think>one three four five"
    assert got.end.predicted_tokens == len(["<think>", "one", "</think>", "one", "three", "four", "five", "end"])


async def test_a_tool_call_that_is_cut_off_fails_with_what_was_written() -> None:
    got = await respond([Rule(then=[{"tool": "add", "arguments": {"a": 1, "b": 2}}])], max_tokens=3)
    (failed,) = got.of_type(lms.ToolCallFailed)
    assert "Unexpected end of content" in failed.error["title"]
    assert failed.raw_content == '<tool_call>\n{"name": "add", "arguments": {"a":'
    assert len(got.of_type(lms.ToolCallArguments)) == 1
    assert (got.end.stop_reason, got.end.predicted_tokens) == ("maxPredictedTokensReached", 3)
    not_begun = await respond([Rule(then=[{"text": "one two"}, {"tool": "add"}])], max_tokens=2)
    assert [event for kind in (lms.ToolCallStart, lms.ToolCallFailed) for event in not_begun.of_type(kind)] == []
    assert not_begun.end.stop_reason == "maxPredictedTokensReached"


async def test_a_stop_string_ends_the_response_and_is_cut_off_with_the_rest() -> None:
    for stops, content, found in ((["o thr"], "one tw", "o thr"), (["tw", "two"], "one ", "two"), (["one"], "", "one")):
        got = await respond(always(FIVE_WORDS), stop_strings=stops)
        assert got.content == content
        assert (got.end.stop_reason, got.end.stop_string) == ("stopStringFound", found)
    steps = [{"text": "one STOP"}, {"tool": "add"}, {"error": "never"}]
    assert not (await respond([Rule(then=steps)], stop_strings=["STOP"])).of_type(lms.ToolCallStart)


async def test_what_only_looked_like_a_stop_string_is_shown_before_the_end_or_what_comes_next() -> None:
    got = await respond(always(FIVE_WORDS), stop_strings=["five six", "two three five"])
    assert [fragment.content for fragment in got.fragments] == ["one", " two", " three", " four", " five"]
    assert (got.end.stop_reason, got.end.stop_string, got.end.predicted_tokens) == ("eosFound", None, 6)
    limited = await respond(always(FIVE_WORDS), stop_strings=["three four!"], max_tokens=3)
    assert limited.content == "one two three"
    with_call = await respond([Rule(then=[{"text": FIVE_WORDS}, {"tool": "add"}])], stop_strings=["five six"])
    kinds = [type(event) for event in with_call.events]
    assert with_call.content == FIVE_WORDS
    assert kinds.index(lms.ToolCallStart) > max(i for i, kind in enumerate(kinds) if kind is lms.LlmPredictionFragment)


STOPS = st.lists(st.text(alphabet="ab ", min_size=1, max_size=4), min_size=1, max_size=3)


@given(text=st.text(alphabet="ab ", max_size=60), stops=STOPS, limit=st.integers(0, 20))
def test_the_first_stop_string_is_found_however_the_text_is_cut_into_tokens(
    text: str, stops: list[str], limit: int
) -> None:
    settings = {"stop_strings": stops, **({"max_tokens": limit} if limit else {})}
    writer = Writer(lms.LlmPredictionConfig.parse(settings), 0, None)
    shown = "".join(fragment.content for fragment in writer.write(text))
    end = writer.finish()
    assert not any(stop in shown for stop in stops)
    if end.stop_string is None:
        written = "".join(list(words.split(text))[: limit or None])
        assert shown == written
    else:
        assert text.startswith(shown + end.stop_string)
        assert end.predicted_tokens == words.count(text[: len(shown + end.stop_string)])


async def test_a_tool_call_stop_string_ends_the_response_as_a_tool_call() -> None:
    plain = await respond(always("call now <end> more"), tool_call_stop_strings=["<end>"])
    assert (plain.content, plain.end.stop_reason, plain.end.stop_string) == ("call now ", "toolCalls", None)
    two_calls = [Rule(then=[{"tool": "add"}, {"tool": "add"}])]
    called = await respond(two_calls, tool_call_stop_strings=["</tool_call>"])
    assert len(called.of_type(lms.ToolCallEnd)) == 1
    assert called.end.stop_reason == "toolCalls"


# The context window

LONG = lms.Chat.from_history(
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


async def test_the_response_ends_with_the_context_window_under_stop_at_limit() -> None:
    unlimited = await respond(always("word " * 500))
    length = unlimited.end.prompt_tokens + 20
    got = await respond(always("word " * 500), context_length=length, context_overflow_policy="stopAtLimit")
    assert (got.end.stop_reason, got.end.predicted_tokens) == ("contextLengthReached", 20)
    moving = await respond(always("word " * 500), context_length=length, context_overflow_policy="rollingWindow")
    assert (moving.end.stop_reason, moving.end.predicted_tokens) == ("eosFound", unlimited.end.predicted_tokens)


async def test_a_prompt_that_is_too_long_is_rejected_with_the_message_of_a_real_server() -> None:
    with pytest.raises(EngineError) as caught:
        await respond(question=LONG, context_length=60, context_overflow_policy="stopAtLimit")
    error = to_exception({"title": caught.value.title}, "Chat response")
    assert isinstance(error, lms.LMStudioContextOverflowError)
    assert error.limit == 60
    assert error.used == (await respond(question=LONG)).end.prompt_tokens


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("truncateMiddle", [*LONG.messages[:2], *LONG.messages[-2:]]), ("rollingWindow", LONG.messages[-2:])],
)
async def test_messages_are_dropped_until_the_prompt_fits(policy: str, kept: list[Any]) -> None:
    got = await respond(question=LONG, context_length=60, context_overflow_policy=policy)
    remaining = lms.Chat()
    for message in kept:
        remaining.append(message)
    assert got.end.prompt_tokens == (await respond(question=remaining)).end.prompt_tokens < 60
    assert got.end.stop_reason == "eosFound"
    with pytest.raises(EngineError, match=r"n_ctx \(8\)"):
        await respond(question=LONG, context_length=8, context_overflow_policy=policy)


async def test_a_conversation_without_a_user_message_loses_its_oldest_messages() -> None:
    chat = lms.Chat("s " * 50)
    chat.add_assistant_response("a " * 5)
    got = await respond(question=chat, context_length=20, context_overflow_policy="truncateMiddle")
    assert got.end.prompt_tokens < 20


async def test_words_of_a_raw_prompt_are_dropped_until_it_fits_if_any_may_be() -> None:
    model = await load(always("on"))

    def raw(policy: str) -> GenerateRequest:
        config = lms.LlmPredictionConfig.parse({"context_overflow_policy": policy})
        return GenerateRequest(config, prompt="word " * 50, context_length=10)

    got = Response(await events_of(model, raw("truncateMiddle")))
    assert (got.content, got.end.prompt_tokens) == ("on", 9)
    with pytest.raises(EngineError, match=r"n_ctx \(10\)"):
        await events_of(model, raw("stopAtLimit"))


# Reasoning

REASONING_RULE = [Rule(then=[{"reasoning": "hm hm hm"}, {"text": "yes"}])]


def kinds_of(got: Response) -> list[tuple[str, str, bool]]:
    return [(fragment.content, fragment.reasoning_type, fragment.is_structural) for fragment in got.fragments]


async def test_reasoning_stands_between_structural_tags_also_within_a_text() -> None:
    got = await respond(REASONING_RULE)
    assert kinds_of(got) == [
        ("<think>", "reasoningStartTag", True),
        ("hm", "reasoning", False),
        (" hm", "reasoning", False),
        (" hm", "reasoning", False),
        ("</think>", "reasoningEndTag", True),
        ("yes", "none", False),
    ]
    assert got.end.predicted_tokens == 7
    within = await respond(always("so<think>hm</think>yes</think>"))
    kinds = ["none", "reasoningStartTag", "reasoning", "reasoningEndTag", "none", "none"]
    assert [kind for _, kind, _ in kinds_of(within)] == kinds


async def test_reasoning_has_the_tags_of_the_settings_or_none() -> None:
    parsing = {"enabled": True, "startString": "[T]", "endString": "[/T]"}
    got = await respond(REASONING_RULE, reasoning_parsing=parsing)
    assert got.content == "[T]hm hm hm[/T]yes"
    assert [got.fragments[index].reasoning_type for index in (0, -1)] == ["reasoningStartTag", "none"]
    for parsing, content in (
        ({"enabled": False, "startString": "<think>", "endString": "</think>"}, "<think>hm hm hm</think>yes"),
        ({"enabled": True, "startString": "", "endString": ""}, "hm hm hmyes"),
    ):
        plain = await respond(REASONING_RULE, reasoning_parsing=parsing)
        assert plain.content == content
        assert {(kind, structural) for _, kind, structural in kinds_of(plain)} == {("none", False)}


async def test_reasoning_can_be_switched_off_and_ends_at_its_budget() -> None:
    settings: dict[str, Any]
    for settings, content in (
        ({"enable_thinking": False}, "yes"),
        ({"enable_thinking": True}, "<think>hm hm hm</think>yes"),
        ({"reasoning_budget": 2}, "<think>hm hm</think>yes"),
        ({"reasoning_budget": 0}, "<think></think>yes"),
        ({"reasoning_budget": False}, "<think>hm hm hm</think>yes"),
    ):
        assert (await respond(REASONING_RULE, **settings)).content == content
    twice = [Rule(then=[{"reasoning": "a b"}, {"text": "x"}, {"reasoning": "c d"}])]
    assert (await respond(twice, reasoning_budget=3)).content == "<think>a b</think>x<think>c</think>"


# Log-probabilities


async def test_logprobs_are_sent_only_on_request() -> None:
    for got in (await respond(always(FIVE_WORDS)), await respond(always(FIVE_WORDS), log_probs=False)):
        assert all(fragment.tokens is None for fragment in got.fragments)
    (fragment,) = (await respond(always("one"), log_probs=0)).fragments
    assert fragment.tokens is not None
    assert set(fragment.tokens[0]) == {"text", "id", "logProb"}


async def test_logprobs_list_the_written_token_first_and_add_up() -> None:
    for fragment in (await respond(always(FIVE_WORDS + " the"), log_probs=3)).fragments:
        assert fragment.tokens is not None
        (token,) = fragment.tokens
        candidates = token["candidates"]
        assert token["text"] == fragment.content
        assert {name: token[name] for name in ("text", "id", "logProb")} == candidates[0]
        assert len(candidates) == len({candidate["text"] for candidate in candidates}) == 3
        log_probs = [candidate["logProb"] for candidate in candidates]
        assert log_probs == sorted(log_probs, reverse=True)
        assert sum(2.718281828459045**log_prob for log_prob in log_probs) <= 1
