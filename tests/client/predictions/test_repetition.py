"""A response that only repeats itself: what is one, what is none, and what becomes of the response."""

import base64
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.entries.stop_on_repetition import StopOnRepetition
from lmstudio_integrations.client.predictions.middleware import Ask, Events
from lmstudio_integrations.client.predictions.plan import Plan
from lmstudio_integrations.client.predictions.repetition import is_repeated
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from tests.client.predictions.middlewares import passed
from tests.support.gate import AT_THE_GATE, Gate
from tools.repetition_sweep import Loop, find_stop, in_fragments, loops

LOOPS = loops()
SENTENCE = "Let me think about it again. "
JSON = LlmPredictionConfig(structured={"type": "json"})


# What is a repetition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS, ids=[f"{number}, {loop.source}" for number, loop in enumerate(LOOPS)])
def test_a_loop_is_stopped_in_time(loop: Loop) -> None:
    stop = loop.find_stop()
    assert stop is not None
    assert stop.at - len(loop.before) <= loop.limit
    assert abs(stop.repetition.start - len(loop.before)) <= max(loop.period, 150)


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"Rain in {city}."


def numbered(line: str, count: int = 400) -> str:
    return "".join(line.format(number, number * number % 97) for number in range(count))


def picture() -> str:
    line = "  .:*+=%@#  "
    return "\n".join(line[abs(row % 12 - 6) :] * 6 for row in range(100))


def bytes_of(count: int) -> bytes:
    return random.Random(1).randbytes(count)


VERSE = "The tide comes in, the tide goes out,\nand nobody knows what it is about.\n"
TEXTS = {
    "a table": numbered("| {} | open | {} | no |\n"),
    "CSV": "id,state,value\n" + numbered("{},open,{}\n"),
    "rows of numbers that are alike": "\n".join(["0.25,0.5,0.75," * 60] * 10),
    "code": numbered("    assert look({}) == {}\n"),
    "a log": numbered("12:00:{1} INFO request {0} was served\n"),
    "a log that counts": numbered("PASS: base/print.exp: p &table[{}*8]\n", 150),
    "a list of numbers": "\n".join(map(str, range(3000))),
    "a list of numbers in a line": ", ".join(map(str, range(3000))),
    "JSON": numbered('{{"id": {}, "value": {}, "state": "open"}},\n'),
    "empty fields": "a,,,,,,,,,b\n" * 300,
    "ASCII art": picture(),
    "a border": "=" * 500 + "\n" + "-" * 500,
    "a song": "".join(f"\n{bytes_of(900)[verse * 99 :].hex()[:90]}\n{VERSE * 4}" for verse in range(6)),
    "base64": base64.b64encode(bytes_of(20_000)).decode(),
    "base64 of zeros": base64.b64encode(bytes_of(500) + bytes(5_000) + bytes_of(500)).decode(),
    "spaces": "a" + " " * 5_000 + "b",
    "a sentence 40 times": "All work and no play. " * 40,
    "two long copies": "".join(numbered("This is line {} of the {} that there are. ", 60) for _ in range(2)),
    "few words, on many lines": "".join(random.Random(2).choices(["red ", "green ", "blue\n"], k=4_000)),
}


@pytest.mark.parametrize("channel", ["text", "arguments"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_is_not_stopped(text: str, channel: str) -> None:
    if text == TEXTS["spaces"] and channel == "arguments":
        return  # a model writes no such spaces between arguments
    assert find_stop(in_fragments(text), channel) is None


LIMITS: dict[str, tuple[str, bool | int, LlmPredictionConfig | None, tuple[int, int] | None]] = {
    "a lower limit": (SENTENCE * 20, 300, None, (300, 556)),
    "a higher one": (SENTENCE * 200, 20_000, None, None),
    "a higher one, reached": (SENTENCE * 900, 20_000, None, (20_000, 20_256)),
    "copies are fewest, above a limit": ("0123456789" * 30 + SENTENCE * 30, 60, None, (87, 350)),
    "three copies are fewest": ("0123456789" * 30 + "abc" * 33, 1, None, (36, 256)),
    "few words": ("alpha beta " * 3 + "gamma " * 2 + "beta alpha " * 90, 600, None, (600, 900)),
    "a sentence": ("These seven words are not a loop, because all of them differ from each other now", 60, None, None),
    "white space": ("{" + " \n\t" * 3_000, True, None, (7_700, 8_000)),
    "white space in JSON": ("{" + "".join(random.Random(3).choices(" \n\t", k=9_000)), True, JSON, (744, 1_000)),
    "white space in JSON, with a limit": ("{" + " " * 9_000, 2_000, JSON, (2_000, 2_256)),
}


@pytest.mark.parametrize(("text", "limit", "settings", "expected"), LIMITS.values(), ids=LIMITS)
def test_the_limit_is_measured_or_given(
    text: str, limit: bool | int, settings: LlmPredictionConfig | None, expected: tuple[int, int] | None
) -> None:
    stop = find_stop(in_fragments(text), limit=limit, settings=settings)
    written = None if stop is None else stop.at - stop.repetition.start
    assert written is None if expected is None else written is not None and expected[0] <= written <= expected[1] + 4


PROMPTS = {
    "has it twice": (f"Go on: {SENTENCE * 2}", True),
    "has it more often": (f"Go on: {SENTENCE * 9}", True),
    "has it once": (f"Go on: {SENTENCE}", False),
    "has it twice, but not in a row": (f"{SENTENCE} No: {SENTENCE}", False),
    "does not have it": ("Go on", False),
}


@pytest.mark.parametrize(("prompt", "expected"), PROMPTS.values(), ids=PROMPTS)
def test_a_block_that_the_prompt_repeats_is_no_reason(prompt: str, expected: bool) -> None:
    assert (find_stop(in_fragments(SENTENCE * 300), prompt=prompt) is None) == expected
    for shift in range(len(SENTENCE)):
        assert is_repeated(SENTENCE[shift:] + SENTENCE[:shift], prompt) == expected


def test_the_prompt_may_repeat_it_in_other_lines_and_with_other_numbers() -> None:
    lines = "".join(f"Check {number}: I verify that nothing is missing.\n" for number in range(200))
    written = lines.replace("\n", "\\n")
    assert find_stop(in_fragments(lines)) is not None
    assert find_stop(in_fragments(lines), prompt=lines[:200]) is None
    assert find_stop(in_fragments(written), "arguments", prompt=lines[:200]) is None


@pytest.mark.parametrize("value", [0, -1, 2**60, 1.5, "yes", None])
def test_anything_but_a_switch_or_a_number_is_an_error(value: Any) -> None:
    with lms.Client("127.0.0.1:1") as client:
        model = client.llm.lazy_model("m")
        for call in (model.respond, model.complete, lambda text, **given: model.act(text, [weather], **given)):
            with pytest.raises(lms.LMStudioValueError, match="must be True, False or a positive whole number"):
                call("Hi", stop_on_repetition=value)


# What becomes of the response -----------------------------------------------------------------------------------------


class Cancelled:
    """Counts how often a call is cancelled."""

    def __init__(self) -> None:
        self.times = 0

    def cancel(self) -> None:
        self.times += 1


def ended(stop_reason: str | None) -> PredictionEnd:
    return PredictionEnd({} if stop_reason is None else {"stopReason": stop_reason}, {}, {}, {})


def text(content: str = SENTENCE * 20, kind: str = "none", *, is_markup: bool = False) -> LlmPredictionFragment:
    return LlmPredictionFragment(content, reasoning_type=kind, is_structural=is_markup)


def watching(**options: Any) -> StopOnRepetition:
    return StopOnRepetition(Plan([], "Test", LlmPredictionConfig(), {"stop_on_repetition": True, **options}))


def asking(call: Cancelled) -> Ask:
    made: Any = call
    return Ask(call=made)


class Case(NamedTuple):
    """A response, and what is expected of it: the stop reason, where the repetition begins, how often it cancels."""

    batches: Sequence[Sequence[PredictionEvent]]
    sent: str | None
    stop_reason: str
    start: int | None = None
    cancels: int = 1
    is_cancelled: bool = False


LOOP = [text()] * 4
CALL: Events = [ToolCallStart("1"), ToolCallArguments('{"a": "' + SENTENCE * 50)]
FIRST_CALL: Events = [ToolCallStart("0"), ToolCallArguments("x" * 300)]
COMPLETE = ToolCallEnd("1", "look", {})
EMPTY_THOUGHT = [text("<think>", "reasoningStartTag"), text("</think>", "reasoningEndTag")]
STOPPED = "userStopped"
CASES = {
    "text": Case([LOOP], STOPPED, "repetition", 0),
    "text after another": Case([[text("Oslo, yes. ")], LOOP], STOPPED, "repetition", 9),
    "text that goes on": Case([LOOP, LOOP], STOPPED, "repetition", 0),
    "reasoning": Case([[text(kind="reasoning")] * 4], STOPPED, "repetition", 0),
    "tags": Case([EMPTY_THOUGHT] * 600, STOPPED, "repetition", 0),
    "markup": Case([[text("<|end|>", is_markup=True)]] * 1_200, STOPPED, "repetition", 0),
    "text and reasoning in turns": Case(
        [[text("I see. "), text("Well, ", "reasoning")]] * 700, STOPPED, STOPPED, None, 0
    ),
    "arguments": Case([CALL], STOPPED, "repetition", 7),
    "white space in arguments": Case(
        [[ToolCallStart("1"), ToolCallArguments("{" + " " * 1_000)]], STOPPED, "repetition", 1
    ),
    "arguments in the same batch as other ones": Case([[*FIRST_CALL, COMPLETE, *CALL]], STOPPED, "repetition", 7),
    "arguments after other ones": Case([FIRST_CALL, [COMPLETE, *CALL]], STOPPED, "repetition", 7),
    "no statistics": Case([LOOP], None, "repetition", 0),
    "the server had ended it": Case([LOOP], "eosFound", "eosFound"),
    "the server had called": Case([LOOP, [ToolCallStart("1"), COMPLETE]], "toolCalls", "toolCalls"),
    "the caller has cancelled it, too": Case([LOOP], STOPPED, STOPPED, is_cancelled=True),
    "no repetition": Case([[text("Hi")], [PromptProgress(1.0)]], "eosFound", "eosFound", None, 0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_only_a_response_that_was_stopped_says_so(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    call = Cancelled()
    ask = asking(call)
    ask.is_cancelled = case.is_cancelled
    batches: list[Events] = [[*batch] for batch in case.batches]
    delivered, events = passed(watching(), [*batches, [ended(case.sent)]], ask)
    assert delivered.end is not None
    stats = delivered.end.stats
    assert (stats.get("stopReason"), stats.get("repetitionStart")) == (case.stop_reason, case.start)
    assert events[:-1] == [event for batch in batches for event in batch]
    assert call.times == case.cancels
    assert len(caplog.messages) == (case.stop_reason == "repetition")


def test_the_last_batch_is_not_looked_at() -> None:
    call = Cancelled()
    delivered, _ = passed(watching(), [[*LOOP, ended(STOPPED)]], asking(call))
    assert (delivered.end and delivered.end.stop_reason, call.times) == (STOPPED, 0)


def test_each_ask_is_watched_anew() -> None:
    middleware, call = watching(), Cancelled()
    for _ in range(3):
        passed(middleware, [[*LOOP[:2]]], asking(call))
    assert call.times == 0


# With a server --------------------------------------------------------------------------------------------------------

LONG = SENTENCE * 60
PLACE: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLED: dict[str, Any] = {"tool": "weather", "arguments": {"city": "Oslo"}}
ANSWER: dict[str, Any] = {"text": '{"city": "Oslo"}'}


def rule(prompt: str, *steps: dict[str, Any], **conditions: Any) -> dict[str, Any]:
    """Return the rule of a response that only ends if it is cancelled."""
    return {"when": {"last": f"^{prompt}", **conditions}, "then": [*steps, AT_THE_GATE]}


RULES: tuple[dict[str, Any], ...] = (
    {"when": {"last": "^think", "structured": True}, "then": [ANSWER]},
    {"when": {"role": "tool"}, "then": [{"text": "It rains."}]},
    rule("loop", {"text": "Oslo. "}, {"text": LONG}),
    rule("think", {"text": f"<think>Oslo? {LONG}"}),
    rule("white", ANSWER, *[{"text": " "}, {"text": "\n"}] * 600),
    rule("call, then loop", CALLED, {"text": LONG}),
)


class Serving(NamedTuple):
    """A server, and its model."""

    server: Emulator
    model: Any


@pytest.fixture
def serving() -> Iterator[Serving]:
    server = Emulator([ModelEntry(key="m", rules=RULES)], engines=Gate().engines())
    with server, lms.Client(server.address) as client:
        yield Serving(server, client.llm.model("m"))


WAYS: dict[str, Callable[[Any], tuple[lms.PredictionResult, str]]] = {
    "respond": lambda model: (model.respond("loop", stop_on_repetition=True), ""),
    "respond_stream": lambda model: streamed(model.respond_stream("loop", stop_on_repetition=True)),
    "complete": lambda model: (model.complete("loop", stop_on_repetition=True), ""),
    "a tool call is required": lambda model: (model.respond("loop", **REQUIRED), ""),
    "tools and a format": lambda model: (
        model.respond("loop", **REQUIRED, response_format=PLACE, tools_first=True),
        "",
    ),
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PLACE}}
REQUIRED: dict[str, Any] = {
    "config": {
        "raw_tools": {"type": "toolArray", "tools": [TOOL]},
        "tool_choice": {"type": "generic", "mode": "required"},
    },
    **dict.fromkeys(("required_tool_fallback", "rescue_tool_calls", "stop_on_repetition"), True),
}


def streamed(stream: Any) -> tuple[lms.PredictionResult, str]:
    parts = "".join(fragment.content for fragment in stream)
    return stream.result(), parts


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_response_that_is_stopped_keeps_what_was_delivered(serving: Serving, way: Callable[[Any], Any]) -> None:
    result, parts = way(serving.model)
    assert ("Oslo. " + LONG).startswith(result.content)
    assert len(result.content) > 1_300
    assert parts in {"", result.content}
    assert (result.stats.stop_reason, result.stats.repetition_start) == ("repetition", 4)
    assert len(serving.server.predictions) == 1  # nothing is asked after it
    assert serving.server.predictions[0].stop_reason == "userStopped"


def test_white_space_after_a_response_in_a_format_leaves_it(serving: Serving) -> None:
    result = serving.model.respond("white", response_format=PLACE, stop_on_repetition=True)
    assert result.parsed == {"city": "Oslo"}
    assert (result.stats.stop_reason, result.stats.repetition_start) == ("repetition", len(ANSWER["text"]))


def test_a_thought_that_is_stopped_is_not_continued_by_grammar(serving: Serving) -> None:
    given = {"response_format": PLACE, "config": {"enable_thinking": True}, "stop_on_repetition": True}
    assert serving.model.respond("think", **given).stats.stop_reason == "eosFound"
    result = serving.model.respond("think", **given)
    assert (result.content, result.stats.stop_reason) == ("", "repetition")
    assert result.reasoning_content.startswith("Oslo? Let me")
    assert len(serving.server.predictions) == 2


def test_the_callers_cancel_stays_one(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    look = StopOnRepetition._look

    def look_and_cancel(middleware: StopOnRepetition, ask: Ask) -> Any:
        found = look(middleware, ask)
        if found is not None:
            stream.cancel()
        return found

    monkeypatch.setattr(StopOnRepetition, "_look", look_and_cancel)
    stream = serving.model.respond_stream("loop", stop_on_repetition=True)
    assert stream.wait_for_result().stats.stop_reason == "userStopped"


@pytest.mark.parametrize(("prompt", "rounds"), [("loop", 1), ("call, then loop", 2)])
def test_act_stops_such_a_round_by_default(serving: Serving, prompt: str, rounds: int) -> None:
    ends: list[str] = []
    done = serving.model.act(
        prompt, [weather], on_prediction_completed=lambda result: ends.append(result.stats.stop_reason)
    )
    assert (done.rounds, ends) == (rounds, ["repetition", "eosFound"][:rounds])


# A budget of reasoning ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "expected"), [(0, 1), (10, 1), (100, 0), (False, 0)])
def test_a_budget_that_is_ignored_is_one_warning(budget: int, expected: int) -> None:
    thought = {"text": f"<think>{'Hm ' * 300}</think>Yes."}
    server = Emulator([ModelEntry(key="m", rules=({"then": [thought]},))])
    with server, lms.Client(server.address) as client, warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            client.llm.model("m").respond("Hi", config={"reasoning_budget": budget})
    assert [each.category for each in found] == [lms.LMStudioConfigWarning] * expected
    assert all(f"ignores reasoning_budget={budget}" in str(each.message) for each in found)
