"""Predictions of the llama.cpp engine on real weights: one worker for all tests. All ours."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished, GenerateRequest, Image
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppModel
from lmstudio_integrations.types.chat import Chat, ChatHistory
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)
from lmstudio_integrations.types.tools import ToolCallRequest, ToolCallResultPart
from tests.emulator.engines.llama_cpp.models import (
    ADD,
    CONTEXT_LENGTH,
    STEADY,
    TOOLS_TEMPLATE,
    WEATHER,
    all_slots_free,
    busy_slots,
    chat_of,
    count_of,
    finished,
    history_of,
    load,
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


async def test_a_chat_response_has_progress_text_and_token_counts(chat_model: LlamaCppModel) -> None:
    events = await run(chat_model, history_of("What is the capital of France?"))
    assert "Paris" in text_of(events)
    end = finished(events)
    assert end.stop_reason == "eosFound"
    formatted = await chat_model.apply_template(history_of("What is the capital of France?"), [], STEADY)
    assert end.prompt_tokens == len(await chat_model.tokenize(formatted))
    # One fragment a token, and the token that ends the response counts, too.
    assert end.predicted_tokens == count_of(events, LlmPredictionFragment) + 1


async def test_characters_of_several_tokens_are_counted_by_the_engine(chat_model: LlamaCppModel) -> None:
    grammar = {"type": "gbnf", "gbnfGrammar": 'root ::= "鷲鶴鷺"'}
    events = await run(chat_model, history_of("Go."), config=settings(structured=grammar))
    counts = [event.tokens_count for event in events if isinstance(event, LlmPredictionFragment)]
    end = finished(events)
    assert len(counts) < sum(counts) == end.predicted_tokens - 1
    assert end.stats["tokensPerSecond"] > 0


async def test_a_pattern_of_a_schema_constrains_the_output(chat_model: LlamaCppModel) -> None:
    pattern = r"^\d{3}-\w{2}$"
    schema = {"type": "json", "jsonSchema": {"type": "string", "pattern": pattern}}
    events = await run(chat_model, history_of("Go."), config=settings(structured=schema, max_tokens=40))
    assert re.search(pattern, json.loads(text_of(events)))


async def test_progress_runs_from_nothing_to_everything_before_the_first_fragment(chat_model: LlamaCppModel) -> None:
    events = await run(chat_model, history_of("count " * 300), config=settings(max_tokens=2))
    steps = [event for event in events if isinstance(event, PromptProgress)]
    values = [step.progress for step in steps]
    assert values[0] == 0
    assert values[-1] == 1
    assert len(values) >= 3
    assert values == sorted(set(values))
    assert events.index(steps[-1]) < next(
        at for at, event in enumerate(events) if isinstance(event, LlmPredictionFragment)
    )
    total = finished(events).prompt_tokens
    for step in steps:
        details = step.details or {}
        assert details["totalPromptTokenCount"] == total
        parts = ("cachedTokenCount", "processedPromptTokenCount", "unprocessedPromptTokenCount")
        assert sum(details[part] for part in parts) == total


async def test_a_prompt_that_was_read_before_comes_from_the_cache(chat_model: LlamaCppModel) -> None:
    history = history_of("remember " * 60)
    first = await run(chat_model, history, config=settings(max_tokens=1))
    events = await run(chat_model, history, config=settings(max_tokens=1))
    assert finished(events) == finished(first)
    last = [event for event in events if isinstance(event, PromptProgress)][-1]
    assert last.progress == 1
    assert last.details is not None
    assert last.details["cachedTokenCount"] > last.details["totalPromptTokenCount"] / 2


async def test_max_tokens_ends_a_response(chat_model: LlamaCppModel) -> None:
    events = await run(chat_model, history_of("Tell a story."), config=settings(max_tokens=7))
    assert finished(events).stop_reason == "maxPredictedTokensReached"
    assert finished(events).predicted_tokens == 7


async def test_a_stop_string_ends_a_response_and_is_omitted(chat_model: LlamaCppModel) -> None:
    config = settings(stop_strings=["nothing", " four"], max_tokens=60)
    events = await run(chat_model, prompt="one, two, three, four, five, six, one, two, three,", config=config)
    end = finished(events)
    assert (end.stop_reason, end.stop_string) == ("stopStringFound", " four")
    assert " four" not in text_of(events)


async def test_a_stop_string_of_tool_calls_ends_as_one(chat_model: LlamaCppModel) -> None:
    config = settings(tool_call_stop_strings=[" four"], max_tokens=60)
    events = await run(chat_model, prompt="one, two, three, four, five, six, one, two, three,", config=config)
    assert finished(events).stop_reason == "toolCalls"


async def test_a_full_context_window_ends_a_response(chat_model: LlamaCppModel) -> None:
    events = await run(chat_model, prompt="A long story. Once upon a time", context_length=32)
    end = finished(events)
    assert end.stop_reason == "contextLengthReached"
    assert end.prompt_tokens + end.predicted_tokens == 32


async def test_raw_text_is_continued(chat_model: LlamaCppModel) -> None:
    events = await run(chat_model, prompt="1, 2, 3, 4, 5,", config=settings(max_tokens=8, repeat_penalty=False))
    assert "6" in text_of(events)
    assert finished(events).prompt_tokens == len(await chat_model.tokenize("1, 2, 3, 4, 5,"))


@pytest.mark.parametrize("prompt", ["", "\x00", "\ud83d alone", "a\udc00"])
async def test_unusual_text_gets_a_response(chat_model: LlamaCppModel, prompt: str) -> None:
    assert finished(await run(chat_model, prompt=prompt, config=settings(max_tokens=2))).predicted_tokens <= 2
    history = history_of(prompt, system=prompt)
    assert finished(await run(chat_model, history, config=settings(max_tokens=2))).predicted_tokens == 2
    assert isinstance(await chat_model.tokenize(prompt), list)


@pytest.mark.parametrize("raw", [True, False])
async def test_probabilities_come_with_each_token(chat_model: LlamaCppModel, raw: bool) -> None:
    requested: dict[str, Any] = {"prompt": "Once upon"} if raw else {"history": history_of("Say hello.")}
    events = await run(chat_model, **requested, config=settings(max_tokens=3, log_probs=2))
    fragments = [event for event in events if isinstance(event, LlmPredictionFragment)]
    assert fragments
    for fragment in fragments:
        assert fragment.tokens is not None
        assert "".join(token["text"] for token in fragment.tokens) == fragment.content
        for token in fragment.tokens:
            assert isinstance(token["id"], int)
            assert token["logProb"] <= 0
            assert len(token["candidates"]) == 2


async def test_no_candidates_are_listed_if_none_are_requested_from_llama_cpp(chat_model: LlamaCppModel) -> None:
    events = await run(chat_model, history_of("Hi"), config=settings(max_tokens=1, log_probs=0))
    first = next(event for event in events if isinstance(event, LlmPredictionFragment))
    assert first.tokens is not None
    assert first.tokens[0]["candidates"] == []


async def test_the_same_seed_gives_the_same_response(chat_model: LlamaCppModel) -> None:
    config = settings(temperature=1.5, seed=7, max_tokens=12)
    responses = [text_of(await run(chat_model, history_of("Say something odd."), config=config)) for _ in range(2)]
    assert responses[0] == responses[1]


async def test_a_forbidden_token_is_not_written(chat_model: LlamaCppModel) -> None:
    question, (paris,) = history_of("What is the capital of France?"), await chat_model.tokenize(" Paris")
    assert " Paris" in text_of(await run(chat_model, question, config=settings(max_tokens=12)))
    forbidding = settings(max_tokens=12, logit_bias={paris: float("-inf")})
    assert " Paris" not in text_of(await run(chat_model, question, config=forbidding))


async def test_structured_output_matches_the_schema(chat_model: LlamaCppModel) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    config = settings(structured={"type": "json", "jsonSchema": schema}, temperature=1.0, max_tokens=100)
    events = await run(chat_model, history_of("Invent a person."), config=config)
    assert finished(events).stop_reason == "eosFound"
    value = json.loads(text_of(events))
    assert set(value) == {"name", "age"}
    assert isinstance(value["age"], int)


async def test_structured_output_without_a_schema_is_json(chat_model: LlamaCppModel) -> None:
    config = settings(structured={"type": "json"}, max_tokens=5)
    events = await run(chat_model, history_of("Give a JSON object with one key."), config=config)
    assert text_of(events).lstrip()[0] in '{["-0123456789tfn'


async def test_a_grammar_constrains_the_output(chat_model: LlamaCppModel) -> None:
    config = settings(structured={"type": "gbnf", "gbnfGrammar": 'root ::= "left" | "right"'})
    assert text_of(await run(chat_model, history_of("Which way?"), config=config)) in {"left", "right"}
    assert text_of(await run(chat_model, prompt="Which way?", config=config)) in {"left", "right"}


@pytest.mark.parametrize(
    ("structured", "words"),
    [
        ({"type": "gbnf", "gbnfGrammar": "root ::= nowhere"}, "grammar"),
        ({"type": "json", "jsonSchema": {"$ref": "#/$defs/None"}}, "cannot resolve"),
        ({"type": "json", "jsonSchema": {"type": "nonsense"}}, "nonsense"),
        ({"type": "json", "jsonSchema": False}, "must be an object"),
    ],
)
async def test_a_bad_constraint_is_rejected_and_the_model_survives(
    chat_model: LlamaCppModel, structured: dict[str, Any], words: str
) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        await run(chat_model, history_of("Hi"), config=settings(structured=structured))
    assert not caught.value.fatal
    assert finished(await run(chat_model, history_of("Hi"), config=settings(max_tokens=1))).predicted_tokens == 1


async def test_a_required_tool_call_is_streamed_and_not_processed_again(chat_model: LlamaCppModel) -> None:
    chat, tools = chat_of("What is 17 plus 25?"), [ADD, WEATHER]
    events = await run(chat_model, chat.to_history(), tools=tools, tool_choice="required")
    kinds = [type(event) for event in events if not isinstance(event, PromptProgress)]
    assert kinds[:2] == [ToolCallStart, ToolCallName]
    assert kinds[-2:] == [ToolCallEnd, Finished]
    assert set(kinds[2:-2]) == {ToolCallArguments}
    start = next(event for event in events if isinstance(event, ToolCallStart))
    end = next(event for event in events if isinstance(event, ToolCallEnd))
    assert start.id == end.id
    assert end.name == "add"
    assert end.arguments is not None
    assert set(end.arguments) == {"a", "b"}
    written = "".join(event.content for event in events if isinstance(event, ToolCallArguments))
    assert json.loads(written) == end.arguments
    chat.add_assistant_response("", [end.to_request()])
    chat.add_tool_results([ToolCallResultPart(content="42", tool_call_id=end.id, name=end.name)])
    second = await run(
        chat_model, chat.to_history(), tools=tools, tool_choice="required", config=settings(max_tokens=1)
    )
    *_, progress = [event.details for event in second if isinstance(event, PromptProgress)]
    assert progress is not None
    before = finished(events)
    # The token that ends the call was never read.
    assert progress["cachedTokenCount"] >= before.prompt_tokens + before.predicted_tokens - 1


async def test_a_call_that_is_cut_off_has_failed(chat_model: LlamaCppModel) -> None:
    config = settings(max_tokens=6)
    events = await run(chat_model, history_of("1 plus 2?"), tools=[ADD], tool_choice="required", config=config)
    failed = [event for event in events if isinstance(event, ToolCallFailed)]
    assert len(failed) == 1
    assert "parse tool call" in str(failed[0].error["title"])
    assert finished(events).stop_reason == "maxPredictedTokensReached"


async def test_a_required_call_and_structured_output_exclude_each_other(chat_model: LlamaCppModel) -> None:
    config = settings(structured={"type": "json"})
    with pytest.raises(EngineError, match="structured"):
        await run(chat_model, history_of("Hi"), tools=[ADD], tool_choice="required", config=config)


async def test_a_template_without_tools_gets_calls_and_results_as_text(chat_model: LlamaCppModel) -> None:
    chat = chat_of("17 plus 25?")
    chat.add_assistant_response("", [ToolCallRequest(id="7", name="add", arguments={"a": 17, "b": 25})])
    chat.add_tool_results([ToolCallResultPart(content="42", tool_call_id="7")])
    formatted = await chat_model.apply_template(chat.to_history(), [ADD], STEADY)
    assert '[TOOL_REQUEST]{"name": "add", "arguments": {"a": 17, "b": 25}}[END_TOOL_REQUEST]' in formatted
    assert "[TOOL_RESULT]42[END_TOOL_RESULT]" in formatted
    assert formatted.endswith("<|im_start|>assistant\n")
    assert "42" in text_of(await run(chat_model, chat.to_history(), tools=[ADD]))


async def test_the_assistants_last_words_are_not_sent_again(chat_model: LlamaCppModel) -> None:
    chat = chat_of("Count.")
    chat.add_assistant_response("ZEBRA")
    assert not text_of(await run(chat_model, chat.to_history(), config=settings(max_tokens=5))).startswith("ZEBRA")


async def test_a_template_of_prefixes_is_used(chat_model: LlamaCppModel) -> None:
    manual = {"beforeUser": "Q: ", "afterUser": "\n", "beforeAssistant": "A:", "beforeSystem": "", "afterSystem": "\n"}
    config = settings(
        prompt_template={"type": "manual", "manualPromptTemplate": manual, "stopStrings": ["Q:"]}, max_tokens=40
    )
    history = history_of("Is water wet?", system="Short answers.")
    assert await chat_model.apply_template(history, [], config) == "Short answers.\nQ: Is water wet?\nA:"
    events = await run(chat_model, history, config=config)
    assert finished(events).prompt_tokens == len(await chat_model.tokenize("Short answers.\nQ: Is water wet?\nA:"))
    assert "Q:" not in text_of(events)


async def test_a_call_can_be_required_under_a_template_of_prefixes(chat_model: LlamaCppModel) -> None:
    config = settings(prompt_template={"type": "manual", "manualPromptTemplate": {"beforeUser": "Q: "}})
    events = await run(chat_model, history_of("3 plus 4?"), tools=[ADD], tool_choice="required", config=config)
    assert count_of(events, ToolCallEnd) == 1
    assert text_of(events) == ""


@pytest.mark.parametrize(
    "config",
    [
        {"draft_model": "another"},
        {"prompt_template": {"type": "jinja", "jinjaPromptTemplate": {"template": "x"}, "stopStrings": []}},
        {"structured": {"type": "gbnf", "gbnfGrammar": "%llguidance {}"}},
    ],
)
async def test_unsupported_settings_are_rejected(chat_model: LlamaCppModel, config: dict[str, Any]) -> None:
    with pytest.raises(EngineError) as caught:
        await run(chat_model, history_of("Hi"), config=settings(**config))
    assert caught.value.display_data is not None
    assert caught.value.display_data["code"] == "generic.engineDoesNotSupportFeature"


async def test_an_image_is_rejected_by_a_model_without_vision(chat_model: LlamaCppModel) -> None:
    chat = Chat()
    image = FileHandle(name="cat.png", identifier="1", size_bytes=4, file_type="image")
    chat.add_user_message("What is this?", images=[image])
    with pytest.raises(EngineError, match="image"):
        await run(chat_model, chat.to_history(), images={"1": Image("cat.png", b"\x89PNG")})
    # The template alone omits images, even if they were never uploaded.
    assert "What is this?" in await chat_model.apply_template(chat.to_history(), [], STEADY)


def long_chat(turns: int) -> ChatHistory:
    chat = Chat("SYSTEM")
    chat.add_user_message("FIRST " * 5)
    for turn in range(turns):
        chat.add_assistant_response(f"answer {turn} " * 5)
        chat.add_user_message(f"question {turn} " * 5)
    chat.add_assistant_response("almost done")
    chat.add_user_message("LAST")
    return chat.to_history()


async def test_a_conversation_that_is_too_long_is_shortened(chat_model: LlamaCppModel) -> None:
    config = settings(context_overflow_policy="rollingWindow", max_tokens=2)
    events = await run(chat_model, long_chat(20), config=config, context_length=200)
    end = finished(events)
    assert end.stop_reason == "maxPredictedTokensReached"
    assert 100 < end.prompt_tokens <= 175


async def test_a_prompt_that_cannot_fit_is_rejected_with_the_message_of_a_real_server(
    chat_model: LlamaCppModel,
) -> None:
    with pytest.raises(EngineError, match=r"keep the first \d{3,} tokens .* context length of only 400 tokens"):
        await run(chat_model, history_of("word " * 900), context_length=400)
    config = settings(context_overflow_policy="stopAtLimit")
    with pytest.raises(EngineError, match=r"keep the first \d{3,} tokens"):
        await run(chat_model, long_chat(60), config=config, context_length=400)


async def test_raw_text_that_is_too_long_loses_its_middle(chat_model: LlamaCppModel) -> None:
    config = settings(context_overflow_policy="truncateMiddle", max_tokens=1)
    events = await run(chat_model, prompt="word " * 900, config=config, context_length=200)
    assert finished(events).prompt_tokens == 175


async def test_closing_the_generator_frees_the_slot(chat_model: LlamaCppModel) -> None:
    stream = chat_model.generate(
        GenerateRequest(STEADY, history_of("Tell a very long story."), context_length=CONTEXT_LENGTH)
    )
    async for event in stream:
        if isinstance(event, LlmPredictionFragment):
            break
    assert await busy_slots(chat_model) == 1
    await stream.aclose()  # type: ignore[attr-defined]  # the Protocol promises an iterator only
    await all_slots_free(chat_model)


async def test_a_cancel_while_the_prompt_is_read_frees_the_slot(chat_model: LlamaCppModel) -> None:
    stream = chat_model.generate(GenerateRequest(STEADY, history_of("page " * 900), context_length=CONTEXT_LENGTH))
    steps = 0
    async for event in stream:
        steps += isinstance(event, PromptProgress)
        if steps == 2:
            break
    await stream.aclose()  # type: ignore[attr-defined]  # the Protocol promises an iterator only
    await all_slots_free(chat_model)


async def test_cancelling_a_task_that_waits_for_a_slot_keeps_the_others(chat_model: LlamaCppModel) -> None:
    config = settings(max_tokens=20)
    started: asyncio.Queue[int] = asyncio.Queue()

    async def predict(number: int) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        async for event in chat_model.generate(
            GenerateRequest(config, history_of("Hello"), context_length=CONTEXT_LENGTH)
        ):
            events.append(event)
            started.put_nowait(number)
        return events

    running = [asyncio.create_task(predict(number)) for number in range(2)]
    seen = {await started.get()}
    while len(seen) < 2:
        seen.add(await started.get())
    waiting = asyncio.create_task(predict(2))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for events in await asyncio.gather(*running):
        assert finished(events).predicted_tokens > 0


async def test_two_full_context_windows_at_once_have_caches_of_their_own() -> None:
    model = await load(context_length=128, slots=2)
    try:
        config = settings(max_tokens=2)
        both = await asyncio.gather(*(run(model, prompt=word * 100, config=config) for word in (" north", " south")))
        for events in both:
            assert finished(events).prompt_tokens == 100
            assert finished(events).predicted_tokens == 2
    finally:
        await model.close()


async def test_more_conversations_than_slots_stay_cached() -> None:
    model = await load(context_length=512, slots=2)
    try:
        chats = [chat_of(f"Topic {number}: the weather in the mountains.") for number in range(3)]
        before: list[int] = []
        for turn in range(2):
            lengths: list[int] = []
            for number, chat in enumerate(chats):
                events = await run(model, chat.to_history(), config=settings(max_tokens=2), context_length=512)
                details = [event.details for event in events if isinstance(event, PromptProgress)][-1] or {}
                assert not turn or details["cachedTokenCount"] >= before[number] - 1
                lengths.append(finished(events).prompt_tokens)
                chat.add_assistant_response(text_of(events))
                chat.add_user_message("And then?")
            before = lengths
    finally:
        await model.close()


async def test_special_tokens_of_the_template_count_as_one_token(chat_model: LlamaCppModel) -> None:
    assert len(await chat_model.tokenize("<|im_end|>")) == 1
    assert await chat_model.tokenize("") == []


async def test_a_template_given_at_load_knows_tools() -> None:
    template = {"type": "jinja", "jinjaPromptTemplate": {"template": TOOLS_TEMPLATE}}
    model = await load(context_length=512, slots=1, fields={"llm.load.promptTemplate": template})
    try:
        assert model.tools
        chat = chat_of("17 plus 25?")
        chat.add_assistant_response("", [ToolCallRequest(id="7", name="add", arguments={"a": 17, "b": 25})])
        chat.add_tool_results([ToolCallResultPart(content="42", tool_call_id="7")])
        formatted = await model.apply_template(chat.to_history(), [ADD], STEADY)
        assert formatted.startswith("TOOLS [")
        assert '<tool_call>{"name": "add", "arguments": {"a": 17, "b": 25}}</tool_call>' in formatted
        assert "<|im_start|>tool\n42" in formatted
        events = await run(model, chat.to_history(), tools=[ADD], config=settings(max_tokens=3), context_length=512)
        assert finished(events).prompt_tokens == len(await model.tokenize(formatted))
        with pytest.raises(EngineError, match="probabilities of tokens where tools"):
            await run(model, chat.to_history(), tools=[ADD], config=settings(log_probs=1), context_length=512)
    finally:
        await model.close()
