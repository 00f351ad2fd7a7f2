"""Predictions of the llama.cpp engine on real weights: one worker for most tests."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineError, EngineEvent, Finished, GenerateRequest, Image
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppModel
from lmstudio_integrations.types.functions import ToolCallResultPart
from tests.emulator.engines.llama_cpp.models import (
    ADD,
    CONTEXT_LENGTH,
    STEADY,
    TOOLS_TEMPLATE,
    WEATHER,
    busy_slots,
    chat_of,
    finished,
    history_of,
    load,
    rest_of,
    run,
    settings,
    text_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chat_model() -> AsyncIterator[LlamaCppModel]:
    model = await load()
    yield model
    await model.close()


def progress_of(events: list[EngineEvent]) -> list[lms.PromptProgress]:
    return [event for event in events if isinstance(event, lms.PromptProgress)]


def cached_tokens(events: list[EngineEvent]) -> int:
    return int((progress_of(events)[-1].details or {})["cachedTokenCount"])


def fragments_of(events: list[EngineEvent]) -> list[lms.LlmPredictionFragment]:
    return [event for event in events if isinstance(event, lms.LlmPredictionFragment)]


async def test_a_chat_response_has_text_and_token_counts(chat_model: LlamaCppModel) -> None:
    history = history_of("What is the capital of France?")
    events = await run(chat_model, history)
    assert "Paris" in text_of(events)
    end = finished(events)
    assert end.stop_reason == "eosFound"
    assert end.prompt_tokens == len(await chat_model.tokenize(await chat_model.apply_template(history, [], STEADY)))
    # One fragment a token, and the token that ends the response counts, too.
    assert end.predicted_tokens == len(fragments_of(events)) + 1


async def test_characters_of_several_tokens_are_counted_by_the_engine(chat_model: LlamaCppModel) -> None:
    grammar = {"type": "gbnf", "gbnfGrammar": 'root ::= "鷲鶴鷺"'}
    events = await run(chat_model, history_of("Go."), config=settings(structured=grammar))
    counts = [fragment.tokens_count for fragment in fragments_of(events)]
    end = finished(events)
    assert len(counts) < sum(counts) == end.predicted_tokens - 1
    assert end.stats["tokensPerSecond"] > 0


async def test_progress_runs_from_nothing_to_everything_before_the_first_fragment_and_then_from_the_cache(
    chat_model: LlamaCppModel,
) -> None:
    first, second = [await run(chat_model, history_of("count " * 150), config=settings(max_tokens=1)) for _ in range(2)]
    steps, total = progress_of(first), finished(first).prompt_tokens
    values = [step.progress for step in steps]
    assert (values[0], values[-1], values) == (0, 1, sorted(set(values)))
    assert len(values) >= 3
    assert first.index(steps[-1]) < first.index(fragments_of(first)[0])
    for step in steps:
        details = step.details or {}
        assert details["totalPromptTokenCount"] == total
        parts = ("cachedTokenCount", "processedPromptTokenCount", "unprocessedPromptTokenCount")
        assert sum(details[part] for part in parts) == total
    assert (finished(second), progress_of(second)[-1].progress) == (finished(first), 1)
    assert cached_tokens(second) > total / 2


@pytest.mark.parametrize(
    ("config", "reason", "stop_string"),
    [
        ({"max_tokens": 7}, "maxPredictedTokensReached", None),
        ({"stop_strings": ["nothing", " four"], "max_tokens": 60}, "stopStringFound", " four"),
        ({"tool_call_stop_strings": [" four"], "max_tokens": 60}, "toolCalls", None),
    ],
)
async def test_a_response_ends_as_the_settings_say(
    chat_model: LlamaCppModel, config: dict[str, Any], reason: str, stop_string: str | None
) -> None:
    prompt = "one, two, three, four, five, six, one, two, three,"
    events = await run(chat_model, prompt=prompt, config=settings(**config))
    end = finished(events)
    assert (end.stop_reason, end.stop_string) == (reason, stop_string)
    assert end.prompt_tokens == len(await chat_model.tokenize(prompt))
    assert "max" not in reason or end.predicted_tokens == 7
    assert "max" in reason or " four" not in text_of(events)


async def test_a_full_context_window_ends_a_response(chat_model: LlamaCppModel) -> None:
    end = finished(await run(chat_model, prompt="A long story. Once upon a time", context_length=32))
    assert end.stop_reason == "contextLengthReached"
    assert end.prompt_tokens + end.predicted_tokens == 32


@pytest.mark.parametrize("prompt", ["", "\x00", "\ud83d alone"])
async def test_unusual_text_gets_a_response(chat_model: LlamaCppModel, prompt: str) -> None:
    assert finished(await run(chat_model, prompt=prompt, config=settings(max_tokens=2))).predicted_tokens <= 2
    history = history_of(prompt, system=prompt)
    assert finished(await run(chat_model, history, config=settings(max_tokens=2))).predicted_tokens == 2
    assert isinstance(await chat_model.tokenize(prompt), list)


async def test_special_tokens_of_the_template_count_as_one_token(chat_model: LlamaCppModel) -> None:
    assert len(await chat_model.tokenize("<|im_end|>")) == 1
    assert await chat_model.tokenize("") == []


@pytest.mark.parametrize(("is_raw", "candidates"), [(True, 2), (False, 2), (False, 0)])
async def test_probabilities_come_with_each_token(chat_model: LlamaCppModel, is_raw: bool, candidates: int) -> None:
    request: dict[str, Any] = {"prompt": "Once upon"} if is_raw else {"history": history_of("Say hello.")}
    events = await run(chat_model, **request, config=settings(max_tokens=3, log_probs=candidates))
    tokens = [token for fragment in fragments_of(events) for token in fragment.tokens or ()]
    assert tokens
    assert "".join(token["text"] for token in tokens) == text_of(events)
    assert {len(token["candidates"]) for token in tokens} == {candidates}
    assert all(isinstance(token["id"], int) and token["logProb"] <= 0 for token in tokens)


async def test_the_same_seed_gives_the_same_response(chat_model: LlamaCppModel) -> None:
    config = settings(temperature=1.5, seed=7, max_tokens=12)
    responses = [text_of(await run(chat_model, history_of("Say something odd."), config=config)) for _ in range(2)]
    assert responses[0] == responses[1]


async def test_a_forbidden_token_is_not_written(chat_model: LlamaCppModel) -> None:
    question, (paris,) = history_of("What is the capital of France?"), await chat_model.tokenize(" Paris")
    forbidding = settings(max_tokens=12, logit_bias={paris: float("-inf")})
    assert " Paris" not in text_of(await run(chat_model, question, config=forbidding))


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("structured", "pattern"),
    [
        ({"type": "json", "jsonSchema": PERSON}, r'\{\s*"name":\s*".{0,20}",\s*"age":\s*-?\d+\s*\}'),
        ({"type": "json", "jsonSchema": {"enum": ["left", "right"]}}, '"left"|"right"'),
        ({"type": "gbnf", "gbnfGrammar": 'root ::= "left" | "right"'}, "left|right"),
    ],
)
async def test_output_is_constrained_in_chats_and_in_raw_text(
    chat_model: LlamaCppModel, structured: dict[str, Any], pattern: str
) -> None:
    config = settings(structured=structured, max_tokens=100)
    for request in ({"history": history_of("Invent a person.")}, {"prompt": "Which way?"}):
        events = await run(chat_model, **request, config=config)
        assert re.fullmatch(pattern, text_of(events))


async def test_structured_output_without_a_schema_is_json(chat_model: LlamaCppModel) -> None:
    config = settings(structured={"type": "json"}, max_tokens=5)
    events = await run(chat_model, history_of("Give a JSON object with one key."), config=config)
    assert text_of(events).lstrip()[0] in '{["-0123456789tfn'


def chat_with_image() -> lms.Chat:
    chat = lms.Chat()
    image = lms.FileHandle(name="cat.png", identifier="1", size_bytes=4, file_type="image")
    chat.add_user_message("What is this?", images=[image])
    return chat


@pytest.mark.parametrize(
    ("config", "request_changes", "words"),
    [
        ({"structured": {"type": "gbnf", "gbnfGrammar": "root ::= nowhere"}}, {}, "grammar"),
        ({"structured": {"type": "json", "jsonSchema": {"$ref": "#/$defs/None"}}}, {}, "cannot resolve"),
        ({"structured": {"type": "json", "jsonSchema": {"type": "nonsense"}}}, {}, "nonsense"),
        (
            {"structured": {"type": "gbnf", "gbnfGrammar": "%llguidance {}"}},
            {},
            "does not support this: a grammar in Lark",
        ),
        ({"structured": {"type": "json", "jsonSchema": {"type": "string", "pattern": "^a$"}}}, {}, "'pattern'"),
        ({"structured": {"type": "json"}}, {"tools": [ADD], "tool_choice": "required"}, "structured"),
        ({"draft_model": "another"}, {}, "does not support this"),
        ({}, {"history": chat_with_image().to_history(), "images": {"1": Image("cat.png", b"\x89PNG")}}, "image"),
    ],
)
async def test_what_the_engine_cannot_do_is_rejected_and_the_model_survives(
    chat_model: LlamaCppModel, config: dict[str, Any], request_changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        await run(chat_model, **({"history": history_of("Hi")} | request_changes), config=settings(**config))
    assert not caught.value.fatal
    assert finished(await run(chat_model, history_of("Hi"), config=settings(max_tokens=1))).predicted_tokens == 1


async def test_the_template_omits_images_even_if_they_were_never_uploaded(chat_model: LlamaCppModel) -> None:
    assert "What is this?" in await chat_model.apply_template(chat_with_image().to_history(), [], STEADY)


async def test_a_required_tool_call_is_streamed(chat_model: LlamaCppModel) -> None:
    chat, tools = chat_of("What is 17 plus 25?"), [ADD, WEATHER]
    events = await run(chat_model, chat.to_history(), tools=tools, tool_choice="required")
    start, name, *arguments, end, last = [event for event in events if not isinstance(event, lms.PromptProgress)]
    assert isinstance(start, lms.ToolCallStart)
    assert isinstance(end, lms.ToolCallEnd)
    assert isinstance(last, Finished)
    assert (start.id, name) == (end.id, lms.ToolCallName("add"))
    assert (end.arguments or {}).keys() == {"a", "b"}
    assert (
        json.loads("".join(event.content for event in arguments if isinstance(event, lms.ToolCallArguments)))
        == end.arguments
    )
    chat.add_assistant_response("", [end.to_request()])
    chat.add_tool_results([ToolCallResultPart(content="42", tool_call_id=end.id, name=end.name)])
    second = await run(
        chat_model, chat.to_history(), tools=tools, tool_choice="required", config=settings(max_tokens=6)
    )
    # A call goes back in the form of the template, and all that stands before it comes from the cache.
    assert cached_tokens(second) >= last.prompt_tokens - 1
    (failed,) = [event for event in second if isinstance(event, lms.ToolCallFailed)]
    assert "parse tool call" in str(failed.error["title"])
    assert finished(second).stop_reason == "maxPredictedTokensReached"


async def test_the_assistants_last_words_are_not_sent_again(chat_model: LlamaCppModel) -> None:
    chat = chat_of("Count.")
    chat.add_assistant_response("ZEBRA")
    assert not text_of(await run(chat_model, chat.to_history(), config=settings(max_tokens=5))).startswith("ZEBRA")


async def test_a_prompt_that_is_too_long_is_shortened(chat_model: LlamaCppModel) -> None:
    chat = chat_of("FIRST " * 5)
    for turn in range(20):
        chat.add_assistant_response(f"answer {turn} " * 5)
        chat.add_user_message(f"question {turn} " * 5)
    config = settings(context_overflow_policy="rollingWindow", max_tokens=2)
    end = finished(await run(chat_model, chat.to_history(), config=config, context_length=200))
    assert (100 < end.prompt_tokens <= 175, end.stop_reason) == (True, "maxPredictedTokensReached")
    config = settings(context_overflow_policy="truncateMiddle", max_tokens=1)
    assert finished(await run(chat_model, prompt="word " * 900, config=config, context_length=200)).prompt_tokens == 175
    with pytest.raises(EngineError, match=r"n_keep \(\d{3,}\) >= n_ctx \(400\)"):
        await run(chat_model, history_of("word " * 900), context_length=400)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("question", "kind"), [("page " * 900, lms.PromptProgress), ("Tell a long story.", lms.LlmPredictionFragment)]
)
async def test_closing_the_generator_frees_the_slot(
    chat_model: LlamaCppModel, question: str, kind: type[lms.PromptProgress | lms.LlmPredictionFragment]
) -> None:
    stream = chat_model.generate(GenerateRequest(STEADY, history_of(question), context_length=CONTEXT_LENGTH))
    read = 0
    async for event in stream:
        read += isinstance(event, kind)
        if read == 2:
            break
    assert await busy_slots(chat_model) == 1
    await stream.aclose()  # type: ignore[attr-defined]  # the Protocol promises an iterator only
    async with asyncio.timeout(600):
        while await busy_slots(chat_model):  # each call is a round trip to the engine
            pass


async def test_cancelling_a_task_that_waits_for_a_slot_keeps_the_others(chat_model: LlamaCppModel) -> None:
    config = settings(max_tokens=20)
    requests = [GenerateRequest(config, history_of("Hello"), context_length=CONTEXT_LENGTH) for _ in range(3)]
    *running, waiting = [chat_model.generate(request) for request in requests]
    for stream in running:
        await anext(stream)
    third = asyncio.create_task(rest_of(waiting))
    await asyncio.wait([third], timeout=0)
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third
    for events in await asyncio.gather(*map(rest_of, running)):
        assert finished(events).predicted_tokens > 0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tools_model() -> AsyncIterator[LlamaCppModel]:
    """A small model whose template knows tools."""
    template = {"type": "jinja", "jinjaPromptTemplate": {"template": TOOLS_TEMPLATE}}
    model = await load(context_length=256, slots=2, fields={"llm.load.promptTemplate": template})
    yield model
    await model.close()


@pytest.mark.exhaustive
async def test_two_full_context_windows_at_once_have_caches_of_their_own(tools_model: LlamaCppModel) -> None:
    config = settings(max_tokens=2)
    both = await asyncio.gather(*(run(tools_model, prompt=word * 130, config=config) for word in (" north", " south")))
    assert [(finished(events).prompt_tokens, finished(events).predicted_tokens) for events in both] == [(130, 2)] * 2


async def test_a_template_without_calls_gets_them_as_texts_beside_its_own_tools() -> None:
    source = re.sub(r"\{% for call.*?\{% endfor %\}", "", TOOLS_TEMPLATE)
    template = {"type": "jinja", "jinjaPromptTemplate": {"template": source}}
    model = await load(context_length=512, slots=1, fields={"llm.load.promptTemplate": template})
    chat = chat_of("What is 1 + 2?")
    chat.add_assistant_response("", [lms.ToolCallRequest(id="1", name="add", arguments={"a": 1, "b": 2})])
    chat.add_tool_results([ToolCallResultPart(content="three", tool_call_id="1", name="add")])
    try:
        prompt = await model.apply_template(chat.to_history(), [ADD], STEADY)
    finally:
        await model.close()
    assert model.tools
    assert prompt.startswith("TOOLS [")
    call = r"\[TOOL_REQUEST\].*\"add\".*\[END_TOOL_REQUEST\]"
    assert re.search(rf"{call}<\|im_end\|>\n<\|im_start\|>tool\nthree", prompt)


async def converse(model: LlamaCppModel, topics: Sequence[str], replies: Sequence[str]) -> None:
    """Let conversations take turns; each finds in the cache what was sent and received in it before."""
    chats = [chat_of(topic) for topic in topics]
    before = [0] * len(chats)
    for reply in replies:
        for number, chat in enumerate(chats):
            events = await run(model, chat.to_history(), config=settings(max_tokens=2))
            assert cached_tokens(events) >= before[number] - 1
            before[number] = finished(events).prompt_tokens
            chat.add_assistant_response(text_of(events))
            chat.add_user_message(reply)


async def test_more_conversations_than_slots_stay_cached(tools_model: LlamaCppModel) -> None:
    topics = [f"Topic {number}: the weather in the mountains." for number in range(3)]
    await converse(tools_model, topics, ["And then?"] * 2)


async def test_conversations_with_one_system_prompt_find_their_caches_however_much_a_turn_adds() -> None:
    model = await load(slots=4)
    try:
        topics = [f"Topic {number}: {'the weather ' * 20}" for number in range(4)]
        await converse(model, topics, [f"And then? {'the weather ' * count}" for count in (5, 60, 5, 5)])
    finally:
        await model.close()


async def test_read_in_small_steps_an_answer_does_not_depend_on_what_the_model_has_read_before() -> None:
    question = history_of("What is the capital of France?", "Be brief.")
    answers: set[str] = set()
    for before in ([], [history_of("rain " * 80)]):
        model = await load(slots=1, fields={"llm.load.llama.evalBatchSize": 32})
        try:
            for history in before:
                await run(model, history, config=settings(max_tokens=1))
            events = await run(model, question, config=settings(max_tokens=9))
        finally:
            await model.close()
        assert (cached_tokens(events) > 0) == bool(before)
        answers.add(text_of(events))
    assert len(answers) == 1


async def test_a_template_given_at_load_knows_tools(tools_model: LlamaCppModel) -> None:
    assert tools_model.tools
    chat = chat_of("17 plus 25?")
    chat.add_assistant_response("", [lms.ToolCallRequest(id="7", name="add", arguments={"a": 17, "b": 25})])
    chat.add_tool_results([ToolCallResultPart(content="42", tool_call_id="7")])
    formatted = await tools_model.apply_template(chat.to_history(), [ADD], STEADY)
    assert formatted.startswith("TOOLS [")
    assert '<tool_call>{"name": "add", "arguments": {"a": 17, "b": 25}}</tool_call>' in formatted
    assert "<|im_start|>tool\n42" in formatted
    events = await run(tools_model, chat.to_history(), tools=[ADD], config=settings(max_tokens=3))
    assert finished(events).prompt_tokens == len(await tools_model.tokenize(formatted))
    with pytest.raises(EngineError, match="logprobs is not supported with tools"):
        await run(tools_model, chat.to_history(), tools=[ADD], config=settings(log_probs=1))
