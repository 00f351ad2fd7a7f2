"""The scripted engine without rules: loads, tokens, the prompt cache, vectors, the template, cancelling."""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineError, EngineEvent, GenerateRequest, LoadRequest
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, ScriptedModel, words
from lmstudio_integrations.types.functions import Tool
from tests.emulator.engines.scripted.models import (
    FakeSleep,
    Response,
    always,
    events_of,
    generate_request,
    load,
    respond,
    tool,
)
from tests.support.event_loop import ticks_during


async def test_a_load_reports_progress_in_steps_and_takes_load_seconds() -> None:
    fake_sleep = FakeSleep()
    seen: list[float] = []
    await ScriptedEngine(fake_sleep).load(LoadRequest("m", "llm", engine_settings={"load_seconds": 2.0}), seen.append)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert len(set(seen)) >= 5
    assert math.isclose(sum(fake_sleep.seconds), 2.0)


async def test_each_word_is_a_token_and_the_end_of_the_sequence_counts_as_one() -> None:
    got = await respond(always("one two three four"))
    assert [fragment.content for fragment in got.fragments] == ["one", " two", " three", " four"]
    assert [fragment.tokens_count for fragment in got.fragments] == [1, 1, 1, 1]
    assert got.end.predicted_tokens == 5
    assert words.token_id("hello") == 3 + 0x3610A686 % (2**31 - 3), "the same number in every process"


async def test_the_prompt_is_counted_in_the_tokens_of_the_rendered_template() -> None:
    model = await load()
    request = generate_request("How are you?", tools=[tool("add", a={"type": "integer"})])
    assert request.history is not None
    rendered = await model.apply_template(request.history, request.tools, request.config)
    progress = Response(await events_of(model, request)).of_type(lms.PromptProgress)
    count = len(await model.tokenize(rendered))
    assert [event.progress for event in progress] == [0.0, 1.0]
    for event in progress:
        assert event.details["totalPromptTokenCount"] == count
        parts = ("cachedTokenCount", "processedPromptTokenCount", "unprocessedPromptTokenCount")
        assert sum(event.details[part] for part in parts) == count


# The prompt cache

TOOLS = [tool("add", a={"type": "integer"}), tool("tell", text={"type": "string"})]


def chat(*texts: str) -> lms.Chat:
    """A conversation of a system message, then questions and responses."""
    made = lms.Chat(texts[0])
    for number, text in enumerate(texts[1:]):
        (made.add_assistant_response if number % 2 else made.add_user_message)(text)
    return made


async def cached(model: ScriptedModel, request: GenerateRequest) -> int:
    details = Response(await events_of(model, request)).of_type(lms.PromptProgress)[-1].details
    assert details["cachedTokenCount"] + details["processedPromptTokenCount"] == details["totalPromptTokenCount"]
    return int(details["cachedTokenCount"])


def tokens(some: lms.Chat, tools: list[Tool] | None = None) -> int:
    """The tokens of messages in the middle of a prompt."""
    rendered = words.render(some.to_history().messages, tools or [])
    return words.count(rendered) - words.count(words.render([], []))


async def test_whole_messages_that_an_earlier_prompt_began_with_are_cached() -> None:
    model = await load(always("Fine."))
    first = generate_request(chat("Be brief.", "How are you?"), tools=TOOLS)
    assert await cached(model, first) == 0
    assert await cached(model, first) == tokens(chat("Be brief.", "How are you?"), TOOLS)
    grown = chat("Be brief.", "How are you?", "Fine.", "And now?")
    assert await cached(model, generate_request(grown, tools=TOOLS)) == tokens(chat("Be brief.", "How are you?"), TOOLS)
    other = chat("Be brief.", "Who are you?")
    assert await cached(model, generate_request(other, tools=TOOLS)) == tokens(chat("Be brief."), TOOLS)
    assert await cached(model, generate_request(grown, tools=TOOLS[::-1])) == 0
    clock = chat("It is noon. Be brief.", "How are you?")
    only_tools = tokens(chat("Be brief."), TOOLS) - tokens(chat("Be brief."))
    assert await cached(model, generate_request(clock, tools=TOOLS)) == only_tools


async def test_raw_prompts_are_not_cached() -> None:
    model = await load(always("Fine."))
    request = GenerateRequest(generate_request().config, prompt="Once upon a time", context_length=4096)
    assert [await cached(model, request) for _ in range(2)] == [0, 0]


# Vectors


async def test_vectors_have_unit_length_and_the_length_that_is_declared() -> None:
    model = await load(kind="embedding", embedding_length=384)
    for text in ("The cat sat on the mat.", "", "…", "\ud800"):
        vector = await model.embed(text)
        assert len(vector) == 384
        assert math.isclose(math.hypot(*vector), 1.0)
        assert all(isinstance(value, float) for value in vector)
        assert vector == await model.embed(text)
    assert len(await (await load(kind="embedding")).embed("text")) == 768
    assert ScriptedEngine().metadata("anything", "embedding").embedding_length == 768


async def test_like_texts_lie_nearer_to_each_other_than_unlike_ones() -> None:
    model = await load(kind="embedding")
    cat, cats, money = [
        await model.embed(text)
        for text in ("A cat sleeps on the sofa", "Cats are sleeping on sofas", "Quarterly revenue rose sharply")
    ]
    like, unlike = (math.fsum(map(float.__mul__, cat, other)) for other in (cats, money))
    assert like > 3 * abs(unlike)


# The template


async def test_the_template_renders_roles_tools_files_calls_and_results() -> None:
    image: Any = {"type": "file", "name": "cat.png", "identifier": "lost", "sizeBytes": 3, "fileType": "image"}
    made = lms.Chat("Be brief.")
    made.add_user_message("What is this?", images=[image])
    call = {"type": "toolCallRequest", "toolCallRequest": {"name": "look", "arguments": {"at": 1}}}
    made.append({"role": "assistant", "content": [{"type": "text", "text": "Let me look."}, call]})
    made.append({"role": "tool", "content": [{"type": "toolCallResult", "content": "a cat"}]})
    text = await (await load()).apply_template(made.to_history(), [tool("look")], lms.LlmPredictionConfig())
    places = [
        text.index(part)
        for part in (
            "<|tools|>",
            '"look"',
            "<|system|>\nBe brief.",
            "<|user|>\nWhat is this?",
            "[cat.png]",
            '<|assistant|>\nLet me look.<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>',
            "<|tool|>\na cat\n",
        )
    ]
    assert places == sorted(places)
    assert text.endswith("<|assistant|>\n")


async def test_a_manual_template_is_rendered_and_a_jinja_template_rejected() -> None:
    model, history = await load(), lms.Chat.from_history("Hi").to_history()
    manual = {"type": "manual", "manualPromptTemplate": {"beforeUser": "U:", "afterUser": ";", "beforeAssistant": "A:"}}
    config = lms.LlmPredictionConfig(prompt_template={**manual, "stopStrings": []})
    assert await model.apply_template(history, [], config) == "U:Hi;A:"
    jinja = lms.LlmPredictionConfig(
        prompt_template={**manual, "type": "jinja", "jinjaPromptTemplate": {"template": "{{ x }}"}}
    )
    with pytest.raises(EngineError, match="does not support Jinja") as caught:
        await model.apply_template(history, [], jinja)
    assert caught.value.display_data is not None
    assert caught.value.display_data["code"] == "generic.engineDoesNotSupportFeature"
    assert not caught.value.fatal


# Time


async def test_a_pace_is_kept_before_every_token_and_the_end() -> None:
    fake_sleep = FakeSleep()
    model = await load(always("one two three"), engine=ScriptedEngine(fake_sleep), tokens_per_second=4.0)
    fake_sleep.seconds.clear()
    assert await events_of(model, generate_request())
    assert fake_sleep.seconds == [0.25] * 4


@pytest.mark.parametrize("stop_strings", [[], ["never there"]])
async def test_other_work_has_a_turn_before_every_token_even_without_a_pace(stop_strings: list[str]) -> None:
    model = await load(always("word " * 50))
    assert await ticks_during(events_of(model, generate_request(stop_strings=stop_strings))) >= 50


async def test_a_prediction_can_be_closed_between_any_two_tokens() -> None:
    model = await load(always("word " * 1000))
    for requested in (0, 1, 7):
        generation = cast("AsyncGenerator[EngineEvent, None]", model.generate(generate_request()))
        got: list[EngineEvent] = []
        async with aclosing(generation) as events:
            async for event in events:
                got.extend([event] if isinstance(event, lms.LlmPredictionFragment) else [])
                if len(got) == requested:
                    break
        assert len(got) == requested
        assert [event async for event in generation] == []
