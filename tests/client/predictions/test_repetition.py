"""A response that only repeats itself: what is one, what is none, and what becomes of the response."""

import asyncio
import json
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.entries.stop_on_repetition import StopOnRepetition
from lmstudio_integrations.client.predictions.middleware import Ask, Events
from lmstudio_integrations.client.predictions.plan import Plan, PredictionOptions
from lmstudio_integrations.client.predictions.repetition import Repetition, is_repeated
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.protocol.kv_config import stack_of
from lmstudio_integrations.types.chat import WireHistory
from tests.client.fake import Socket, authenticate, fake_server, receive, send
from tests.client.prediction_frames import END, fragment, loaded_handle, packet, weather
from tests.client.predictions.legitimate_texts import TEXTS
from tests.client.predictions.middlewares import passed
from tests.support.gate import AT_THE_GATE, Gate

LOOPS: list[dict[str, str]] = json.loads(Path(__file__).with_name("loops.json").read_text(encoding="utf-8"))
SENTENCE = "Let me think about it again. "
PLACE: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather", "parameters": PLACE}}
TOOLS = lms.LlmPredictionConfig(raw_tools={"type": "toolArray", "tools": [TOOL]})
REQUIRED_TOOL = TOOLS.merged(lms.LlmPredictionConfig(tool_choice={"type": "generic", "mode": "required"}))
JSON = lms.LlmPredictionConfig(structured={"type": "json"})
PLAIN = lms.LlmPredictionConfig()

MOST = 8_000 + 256 + 64
"""Characters after which a loop of a short block is stopped: the rule, up to the next look, a fragment."""


# What is a repetition -------------------------------------------------------------------------------------------------


class Stop(NamedTuple):
    """How a response was stopped: what was found, and how many characters had arrived by then."""

    repetition: Repetition
    at: int


class Cancelled:
    """Counts how often a call is cancelled."""

    def __init__(self) -> None:
        self.times = 0

    def cancel(self) -> None:
        self.times += 1


def find_stop(
    text: str,
    channel: str = "text",
    settings: lms.LlmPredictionConfig = TOOLS,
    *,
    limit: bool | int = True,
    prompt: str = "",
) -> Stop | None:
    """Return how a response is stopped; `None` if it is not."""
    middleware = StopOnRepetition(Plan(settings, PredictionOptions(stop_on_repetition=limit)))
    ask = asking(Cancelled())
    ask.parameter = {"history": WireHistory.of_prompt(prompt).to_dict(), "predictionConfigStack": stack_of(settings)}
    if channel == "arguments":
        middleware.events([lms.ToolCallStart("1"), lms.ToolCallName("weather")], ask)
    for at in range(0, len(text), 64):
        content = text[at : at + 64]
        event: lms.PredictionEvent = lms.ToolCallArguments(content)
        if channel != "arguments":
            event = lms.LlmPredictionFragment(content, reasoning_type="none" if channel == "text" else channel)
        ask.raw.add_all([event])
        middleware.events([event], ask)
        if middleware.repetition is not None:
            return Stop(middleware.repetition[1], at + len(content))
    return None


def copies_of(block: str) -> str:
    return block * (20_000 // len(block) + 20)


WITHOUT_WORDS = ("<tr><td></td>", "!", "G", "\N{ADULT}")
"""How the loops of texts begin whose blocks have no words."""


@pytest.mark.parametrize("loop", LOOPS, ids=[f"{number}, {loop['source']}" for number, loop in enumerate(LOOPS)])
@pytest.mark.parametrize("limit", [True, 8_000])
def test_a_loop_is_stopped(loop: dict[str, str], limit: bool | int) -> None:
    before, block, is_json = loop["before"], loop["block"], loop["channel"] == "json"
    channel, settings = ("text", JSON) if is_json else (loop["channel"], TOOLS if limit is True else PLAIN)
    stop = find_stop(before + copies_of(block), channel, settings, limit=limit, prompt=loop["prompt"])
    if limit is True and channel == "text" and block.startswith(WITHOUT_WORDS):
        assert stop is None
        return
    assert stop is not None
    start = stop.repetition.start - len("\x1eweather" if channel == "arguments" else "")
    assert abs(start - len(before)) <= len(block)
    assert stop.at - len(before) <= max(12 * len(block), 8_000) + 256 + 64 + len(block)


@pytest.mark.parametrize(("size", "channel"), [(4_001, "text"), (16_000, "reasoning"), (16_000, "arguments")])
def test_a_block_of_many_characters_is_found(size: int, channel: str) -> None:
    block = " ".join(random.Random(1).choices(SENTENCE.split(), k=size))[:size]
    stop = find_stop("Well. " + block * 13, channel)
    assert stop is not None
    assert len(stop.repetition.block) == size


def test_the_same_call_without_end_is_found() -> None:
    middleware, ask = watching(), asking(Cancelled())
    call: Events = [
        lms.ToolCallStart("1"),
        lms.ToolCallName("f"),
        lms.ToolCallArguments("{}"),
        lms.ToolCallEnd("1", "f", {}),
    ]
    passed(middleware, [call] * 2_500, ask)
    assert middleware.repetition is not None
    assert middleware.repetition[0] == "tool calls"
    assert middleware.repetition[1].block == "\x1ef{}"


@pytest.mark.parametrize(("channel", "settings"), [("text", PLAIN), ("text", TOOLS), ("arguments", TOOLS)])
@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_a_legitimate_text_is_not_stopped(
    texts: Sequence[str], channel: str, settings: lms.LlmPredictionConfig
) -> None:
    """A text in arguments is a string of JSON."""
    for text in texts:
        written = json.dumps({"content": text}, ensure_ascii=False) if channel == "arguments" else text
        assert find_stop(written, channel, settings) is None


REVIEWS = json.dumps([{"label": "other", "reason": "the review names no topic", "relevant": False}] * 300)
UNTOUCHED: dict[str, tuple[str, str, lms.LlmPredictionConfig, bool | int]] = {
    "a loop in a plain response": (SENTENCE * 900, "text", PLAIN, True),
    "equal items in a format": (REVIEWS, "text", JSON, True),
    "equal items in a format, with a number": (REVIEWS, "text", JSON, 1_000),
    "equal items in a format that are taken for reasoning": (REVIEWS, "reasoning", JSON, True),
    "equal items in a format, beside tools": (REVIEWS, "text", TOOLS.merged(JSON), True),
    "equal items in a required call": (REVIEWS, "arguments", REQUIRED_TOOL, True),
    "equal items in the text of a required call": (REVIEWS, "text", REQUIRED_TOOL, True),
    "eleven copies": (("0123456789 " + SENTENCE * 40 + "\n") * 11, "reasoning", PLAIN, True),
    "copies that do not adjoin": (
        "\n".join(SENTENCE * 12 + str(number) * 400 for number in range(12)),
        "text",
        TOOLS,
        5_000,
    ),
    "a text with many words": (
        "These seven words are not a loop, because all of them differ from each other now",
        "text",
        PLAIN,
        60,
    ),
}


@pytest.mark.parametrize("case", UNTOUCHED.values(), ids=UNTOUCHED)
def test_what_is_not_watched_is_not_stopped(case: tuple[str, str, lms.LlmPredictionConfig, bool | int]) -> None:
    text, channel, settings, limit = case
    assert find_stop(text, channel, settings, limit=limit) is None


LIMITS: dict[str, tuple[str, bool | int, lms.LlmPredictionConfig, tuple[int, int]]] = {
    "the default": (SENTENCE * 900, True, TOOLS, (8_000, MOST)),
    "a lower limit": (SENTENCE * 20, 300, PLAIN, (300, 556)),
    "a higher one, reached": (SENTENCE * 900, 20_000, PLAIN, (20_000, 20_256)),
    "copies are fewest, above a limit": ("0123456789" * 30 + SENTENCE * 30, 60, PLAIN, (87, 350)),
    "three copies are fewest": ("0123456789" * 30 + "abc" * 33, 1, PLAIN, (36, 256)),
    "a block that ends with copies of its own": (("ab" * 60 + SENTENCE * 4) * 30, 400, PLAIN, (708, 1_200)),
    "white space in JSON": ("{" + "".join(random.Random(3).choices(" \n\t", k=9_000)), True, JSON, (8_000, MOST)),
    "white space in JSON, with a limit": ("{" + " " * 9_000, 2_000, JSON, (2_000, 2_256)),
}


@pytest.mark.parametrize(("text", "limit", "settings", "expected"), LIMITS.values(), ids=LIMITS)
def test_the_limit_is_that_of_the_rule_or_given(
    text: str, limit: bool | int, settings: lms.LlmPredictionConfig, expected: tuple[int, int]
) -> None:
    stop = find_stop(text, limit=limit, settings=settings)
    assert stop is not None
    assert expected[0] <= stop.at - stop.repetition.start <= expected[1] + 64


def test_a_repetition_begins_where_the_text_has_it_however_long_that_is() -> None:
    before = " ".join(str(number) for number in range(80_000))
    stop = find_stop(before + SENTENCE * 300)
    assert stop is not None
    assert abs(stop.repetition.start - len(before)) < len(SENTENCE)


PROMPTS = {
    "has it twice": (f"Go on: {SENTENCE * 2}", True),
    "has it more often": (f"Go on: {SENTENCE * 9}", True),
    "has it once": (f"Go on: {SENTENCE}", False),
    "has it twice, but not in a row": (f"{SENTENCE} No: {SENTENCE}", False),
    "does not have it": ("Go on", False),
}


@pytest.mark.parametrize(("prompt", "expected"), PROMPTS.values(), ids=PROMPTS)
def test_a_block_that_the_prompt_repeats_is_no_reason(prompt: str, expected: bool) -> None:
    assert (find_stop(SENTENCE * 300, prompt=prompt) is None) == expected
    for shift in range(len(SENTENCE)):
        assert is_repeated(SENTENCE[shift:] + SENTENCE[:shift], prompt) == expected


def test_the_prompt_may_repeat_it_in_lines_that_are_arguments() -> None:
    line = "I verify once more that nothing is missing.\n"
    for text, channel in ((line * 300, "text"), (line.replace("\n", "\\n") * 300, "arguments")):
        assert find_stop(text, channel) is not None
        assert find_stop(text, channel, prompt=line * 3) is None


@pytest.mark.parametrize("value", [0, -1, 2**60, 1.5, "yes", None])
def test_anything_but_a_switch_or_a_number_is_an_error(value: Any) -> None:
    with lms.Client("127.0.0.1:1") as client:
        model = client.llm.lazy_model("m")
        for call in (model.respond, model.complete, lambda text, **given: model.act(text, [weather], **given)):
            with pytest.raises(lms.LMStudioValueError, match="must be True, False or a positive whole number"):
                call("Hi", stop_on_repetition=value)


# What becomes of the response -----------------------------------------------------------------------------------------


def ended(stop_reason: str | None) -> lms.PredictionEnd:
    return lms.PredictionEnd({} if stop_reason is None else {"stopReason": stop_reason}, {}, {}, {})


def text(content: str = SENTENCE * 80, kind: str = "none", *, is_markup: bool = False) -> lms.LlmPredictionFragment:
    return lms.LlmPredictionFragment(content, reasoning_type=kind, is_structural=is_markup)


def watching(**options: Any) -> StopOnRepetition:
    return StopOnRepetition(Plan(TOOLS, PredictionOptions(stop_on_repetition=True, **options)))


def asking(call: Cancelled) -> Ask:
    made: Any = call
    return Ask(request=made)


class Case(NamedTuple):
    """A response, and what is expected of it: the stop reason, where the repetition begins, how often it cancels."""

    batches: Sequence[Sequence[lms.PredictionEvent]]
    sent: str | None
    stop_reason: str
    start: int | None = None
    cancels: int = 1
    is_cancelled: bool = False


LOOP: Events = [text(), text(), text(), text()]
CALL: Events = [lms.ToolCallStart("1"), lms.ToolCallArguments('{"a": "' + SENTENCE * 300)]
FIRST_CALL: Events = [lms.ToolCallStart("0"), lms.ToolCallArguments("x" * 300)]
COMPLETE = lms.ToolCallEnd("1", "look", {})
EMPTY_THOUGHT = [text("<think>", "reasoningStartTag"), text("</think>", "reasoningEndTag")]
STOPPED = "userStopped"
CASES = {
    "text": Case([LOOP], STOPPED, "repetition", 0),
    "text after another": Case([[text("Oslo, yes. ")], LOOP], STOPPED, "repetition", 9),
    "text that goes on": Case([LOOP, LOOP], STOPPED, "repetition", 0),
    "reasoning": Case([[text(kind="reasoning")] * 4], STOPPED, "repetition", 0),
    "tags": Case([EMPTY_THOUGHT] * 700, STOPPED, "repetition", 0),
    "markup": Case([[text("<|end|>", is_markup=True)]] * 1_200, STOPPED, "repetition", 0),
    "text and reasoning in turns": Case(
        [[text("I see. "), text("Well, ", "reasoning")]] * 700, STOPPED, STOPPED, None, 0
    ),
    "arguments": Case([CALL], STOPPED, "repetition", 8),
    "white space in arguments": Case(
        [[lms.ToolCallStart("1"), lms.ToolCallArguments("{" + " " * 8_000)]], STOPPED, "repetition", 2
    ),
    "arguments in the same batch as other ones": Case([[*FIRST_CALL, COMPLETE, *CALL]], STOPPED, "repetition", 309),
    "arguments after other ones": Case([FIRST_CALL, [COMPLETE, *CALL]], STOPPED, "repetition", 309),
    "no statistics": Case([LOOP], None, "repetition", 0),
    "the server had ended it": Case([LOOP], "eosFound", "eosFound"),
    "the server had called": Case([LOOP, [lms.ToolCallStart("1"), COMPLETE]], "toolCalls", "toolCalls"),
    "the caller has cancelled it, too": Case([LOOP], STOPPED, STOPPED, is_cancelled=True),
    "no repetition": Case([[text("Hi")], [lms.PromptProgress(1.0)]], "eosFound", "eosFound", None, 0),
}


WARNING = "stop_on_repetition=False"
may_warn = pytest.mark.filterwarnings(f"ignore:.*{WARNING}")


@may_warn
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


def test_a_model_that_is_stopped_is_one_warning() -> None:
    def stop(model: str) -> None:
        end = lms.PredictionEnd({"stopReason": STOPPED}, {"modelKey": model}, {}, {})
        passed(watching(), [LOOP, [end]], asking(Cancelled()))

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for model in ("stopped twice", "stopped twice", "stopped once"):
            stop(model)
    assert [each.category for each in found] == [lms.LMStudioConfigWarning] * 2
    assert all("its text only repeated" in str(each.message) and WARNING in str(each.message) for each in found)


def test_the_last_batch_is_not_looked_at() -> None:
    call = Cancelled()
    delivered, _ = passed(watching(), [[*LOOP, ended(STOPPED)]], asking(call))
    assert (delivered.end and delivered.end.stop_reason, call.times) == (STOPPED, 0)


def test_each_ask_is_watched_anew() -> None:
    middleware, call = watching(), Cancelled()
    for _ in range(5):
        passed(middleware, [[*LOOP[:2]]], asking(call))
    assert call.times == 0


@may_warn
def test_the_end_of_another_ask_is_not_that_of_the_repetition() -> None:
    middleware = watching()
    passed(middleware, [LOOP], asking(Cancelled()))
    delivered, _ = passed(middleware, [[ended(STOPPED)]], asking(Cancelled()))
    assert (delivered.end and delivered.end.stop_reason) == STOPPED


# With a server --------------------------------------------------------------------------------------------------------

LONG = SENTENCE * 300
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
    rule("white", ANSWER, *[{"text": " " * 500}, {"text": "\n"}] * 17),
    rule("call, then loop", CALLED, {"text": LONG}),
)


class Serving(NamedTuple):
    """A server, and its model."""

    server: Emulator
    model: Any


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    server = Emulator([ModelEntry(key="m", rules=RULES)], engines=Gate().engines())
    with server, lms.Client(server.address) as client:
        yield Serving(server, client.llm.model("m"))


WAYS: dict[str, Callable[[Any], tuple[lms.PredictionResult, str]]] = {
    "respond_stream": lambda model: streamed(model.respond_stream("loop", stop_on_repetition=8_000)),
    "complete": lambda model: (model.complete("loop", stop_on_repetition=8_000), ""),
    "tools and a format": lambda model: (model.respond("loop", **OFFERED, response_format=PLACE, tools_first=True), ""),
}
OFFERED: dict[str, Any] = {"config": TOOLS, "rescue_tool_calls": True, "stop_on_repetition": True}


def streamed(stream: Any) -> tuple[lms.PredictionResult, str]:
    parts = "".join(fragment.content for fragment in stream)
    return stream.result(), parts


@may_warn
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_response_that_is_stopped_keeps_what_was_delivered(serving: Serving, way: Callable[[Any], Any]) -> None:
    before = len(serving.server.predictions)
    result, parts = way(serving.model)
    assert ("Oslo. " + LONG).startswith(result.content)
    assert len(result.content) >= 8_000
    assert parts in {"", result.content}
    assert (result.stats.stop_reason, result.stats.repetition_start) == ("repetition", 4)
    (prediction,) = serving.server.predictions[before:]  # nothing is asked after it
    assert prediction.stop_reason == "userStopped"


@may_warn
def test_white_space_after_a_response_in_a_format_leaves_it(serving: Serving) -> None:
    result = serving.model.respond("white", response_format=PLACE, stop_on_repetition=True)
    assert result.parsed == {"city": "Oslo"}
    assert (result.stats.stop_reason, result.stats.repetition_start) == ("repetition", len(ANSWER["text"]))


@may_warn
def test_a_thought_that_is_stopped_is_not_continued_by_grammar(serving: Serving) -> None:
    given = {"response_format": PLACE, "config": {"enable_thinking": True}, "stop_on_repetition": True}
    before = len(serving.server.predictions)
    assert serving.model.respond("think", **given).stats.stop_reason == "eosFound"
    result = serving.model.respond("think", **given)
    assert (result.content, result.stats.stop_reason) == ("", "repetition")
    assert result.reasoning_content.startswith("Oslo? Let me")
    assert len(serving.server.predictions) == before + 2


async def test_the_callers_cancel_stays_one() -> None:
    cancelled = asyncio.Event()

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        for _ in range(20):
            await send(socket, fragment(SENTENCE * 20))
        assert (await receive(socket))["message"]["type"] == "cancel"
        await send(socket, fragment("Well."))
        await cancelled.wait()
        await send(socket, packet({**END, "stats": {"stopReason": STOPPED}}))

    def cancel_at_the_end(fragment: lms.LlmPredictionFragment) -> None:
        if fragment.content == "Well.":
            stream.cancel()
            cancelled.set()

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        stream = loaded_handle(client).respond_stream(
            "loop", stop_on_repetition=8_000, on_prediction_fragment=cancel_at_the_end
        )
        assert (await stream.wait_for_result()).stats.stop_reason == STOPPED


@may_warn
@pytest.mark.parametrize(
    ("prompt", "rounds", "stop_reason"),
    [("loop", 1, "repetition"), ("call, then loop", 2, None)],
)
def test_act_stops_such_a_round_by_default(serving: Serving, prompt: str, rounds: int, stop_reason: str | None) -> None:
    ends: list[str] = []
    done = serving.model.act(
        prompt, [weather], on_prediction_completed=lambda result: ends.append(result.stats.stop_reason)
    )
    assert (done.rounds, done.stop_reason, ends) == (rounds, stop_reason, ["repetition", "eosFound"][:rounds])


# A budget of reasoning ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "expected"), [(0, 1), (10, 1), (100, 0)])
def test_a_budget_that_is_ignored_is_one_warning(budget: int, expected: int) -> None:
    thought = {"text": f"<think>{'Hm ' * 300}</think>Yes."}
    server = Emulator([ModelEntry(key="m", rules=({"then": [thought]},))])
    with server, lms.Client(server.address) as client, warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            client.llm.model("m").respond("Hi", config={"reasoning_budget": budget})
    assert [each.category for each in found] == [lms.LMStudioConfigWarning] * expected
    assert all(f"ignores reasoning_budget={budget}" in str(each.message) for each in found)
