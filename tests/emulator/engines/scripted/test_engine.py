"""The scripted engine without rules: loads, the default response, tokens, vectors, the template, cancelling."""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import pytest

from lmstudio_integrations.emulator.engines.base import EngineEvent, GenerateRequest, LoadRequest
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, words
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import LlmPredictionFragment, PromptProgress
from tests.emulator.engines.scripted.models import FakeSleep, always, generate_request, load, respond, tool
from tests.support.event_loop import ticks_during


def test_the_architecture_of_a_scripted_model_is_scripted() -> None:
    engine = ScriptedEngine()
    assert engine.name == "scripted"
    assert engine.metadata(None, "llm").architecture == "scripted"
    assert engine.metadata(None, "llm").embedding_length is None
    assert engine.metadata("anything", "embedding").embedding_length == 768


async def test_a_load_reports_progress_in_steps_and_takes_load_seconds() -> None:
    fake_sleep = FakeSleep()
    seen: list[float] = []
    await ScriptedEngine(fake_sleep).load(LoadRequest("m", "llm", engine_settings={"load_seconds": 2.0}), seen.append)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert len(set(seen)) >= 5
    assert math.isclose(sum(fake_sleep.seconds), 2.0)


async def test_without_a_rule_the_response_quotes_the_prompt() -> None:
    got = await respond(question="Is water wet")
    assert '"Is water wet"' in got.content
    assert got.content.endswith("?")
    assert got.end.stop_reason == "eosFound"


async def test_the_same_request_gets_the_same_events() -> None:
    first, second = await respond(always("one two three")), await respond(always("one two three"))
    assert first == second


async def test_each_word_is_a_token_and_the_end_of_the_sequence_counts_as_one() -> None:
    got = await respond(always("one two three four"))
    assert [fragment.content for fragment in got.fragments] == ["one", " two", " three", " four"]
    assert [fragment.tokens_count for fragment in got.fragments] == [1, 1, 1, 1]
    assert got.end.predicted_tokens == 5


async def test_the_prompt_is_counted_in_the_tokens_of_the_rendered_template() -> None:
    model = await load()
    request = generate_request("How are you?", tools=[tool("add", a={"type": "integer"})])
    assert request.history is not None
    rendered = await model.apply_template(request.history, request.tools, request.config)
    events = [event async for event in model.generate(request)]
    progress = [event for event in events if isinstance(event, PromptProgress)]
    count = len(await model.tokenize(rendered))
    assert [event.progress for event in progress] == [0.0, 1.0]
    for event in progress:
        details = event.details
        assert details is not None
        assert details["totalPromptTokenCount"] == count
        parts = ("cachedTokenCount", "processedPromptTokenCount", "unprocessedPromptTokenCount")
        assert sum(details[part] for part in parts) == count


async def test_a_raw_prompt_is_read_as_it_is() -> None:
    model = await load()
    request = GenerateRequest(LlmPredictionConfig(), prompt="Once upon a time")
    *_, end = [event async for event in model.generate(request)]
    assert end.prompt_tokens == 4  # type: ignore[union-attr]  # the last event of every prediction is Finished


def test_a_token_has_the_same_number_in_every_process() -> None:
    assert words.token_id("hello") == 3 + 0x3610A686 % (2**31 - 3)


async def test_an_embedding_model_adds_a_start_and_an_end_token() -> None:
    plain, marked = await load(), await load(kind="embedding")
    tokens = await plain.tokenize("some words here")
    assert len(tokens) == 3
    assert await marked.tokenize("some words here") == [words.START_TOKEN, *tokens, words.END_TOKEN]


@pytest.mark.parametrize("text", ["The cat sat on the mat.", "", "…", "\ud800", "ß" * 10_000])
async def test_vectors_have_unit_length_and_the_length_that_is_declared(text: str) -> None:
    model = await load(kind="embedding", embedding_length=384)
    vector = await model.embed(text)
    assert len(vector) == 384
    assert math.isclose(math.hypot(*vector), 1.0)
    assert all(isinstance(value, float) for value in vector)
    assert vector == await model.embed(text)


async def test_vectors_are_768_long_unless_something_else_is_declared() -> None:
    assert len(await (await load(kind="embedding")).embed("text")) == 768


async def test_like_texts_lie_nearer_to_each_other_than_unlike_ones() -> None:
    model = await load(kind="embedding")
    cat, cats, money = [
        await model.embed(text)
        for text in ("A cat sleeps on the sofa", "Cats are sleeping on sofas", "Quarterly revenue rose sharply")
    ]
    assert _dot(cat, cats) > 3 * abs(_dot(cat, money))


def _dot(first: list[float], second: list[float]) -> float:
    return math.fsum(one * other for one, other in zip(first, second, strict=True))


async def test_the_template_renders_roles_tools_files_calls_and_results() -> None:
    chat = Chat("Be brief.")
    chat.add_user_message(
        "What is this?",
        images=[_image_part()],
    )
    chat.append(
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me look."},
                {"type": "toolCallRequest", "toolCallRequest": {"name": "look", "arguments": {"at": 1}}},
            ],
        }
    )
    chat.append({"role": "tool", "content": [{"type": "toolCallResult", "content": "a cat"}]})
    model = await load()
    text = await model.apply_template(chat.to_history(), [tool("look")], LlmPredictionConfig())
    places = [
        text.index(part)
        for part in (
            "<|tools|>",
            '"look"',
            "<|system|>\nBe brief.",
            "<|user|>\nWhat is this?",
            "[cat.png]",
            "<|assistant|>\nLet me look.",
            '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>',
            "<|tool|>\na cat\n",
        )
    ]
    assert places == sorted(places)
    assert text.endswith("<|assistant|>\n")


def _image_part() -> Any:
    return {"type": "file", "name": "cat.png", "identifier": "never-uploaded", "sizeBytes": 3, "fileType": "image"}


async def test_a_manual_template_is_rendered_and_a_jinja_template_rejected() -> None:
    model, history = await load(), Chat.from_history("Hi").to_history()
    manual = {"type": "manual", "manualPromptTemplate": {"beforeUser": "U:", "afterUser": ";", "beforeAssistant": "A:"}}
    config = LlmPredictionConfig(prompt_template={**manual, "stopStrings": []})
    assert await model.apply_template(history, [], config) == "U:Hi;A:"
    jinja = LlmPredictionConfig(
        prompt_template={**manual, "type": "jinja", "jinjaPromptTemplate": {"template": "{{ x }}"}}
    )
    with pytest.raises(EngineError, match="does not support Jinja") as caught:
        await model.apply_template(history, [], jinja)
    assert caught.value.display_data is not None
    assert caught.value.display_data["code"] == "generic.engineDoesNotSupportFeature"
    assert not caught.value.fatal


async def test_a_pace_is_kept_before_every_token_and_the_end() -> None:
    fake_sleep = FakeSleep()
    model = await load(always("one two three"), engine=ScriptedEngine(fake_sleep), tokens_per_second=4.0)
    fake_sleep.seconds.clear()
    assert [event async for event in model.generate(generate_request())]
    assert fake_sleep.seconds == [0.25] * 4


@pytest.mark.parametrize("stop_strings", [[], ["never there"]])
async def test_other_work_has_a_turn_before_every_token_even_without_a_pace(stop_strings: list[str]) -> None:
    model = await load(always("word " * 50))

    async def generate() -> None:
        assert [event async for event in model.generate(generate_request(stop_strings=stop_strings))]

    assert await ticks_during(generate()) >= 50


async def test_a_prediction_can_be_closed_between_any_two_tokens() -> None:
    model = await load(always("word " * 1000))
    for requested in (0, 1, 7):
        generation = cast("AsyncGenerator[EngineEvent, None]", model.generate(generate_request()))
        got: list[EngineEvent] = []
        async with aclosing(generation) as events:
            async for event in events:
                got.extend([event] if isinstance(event, LlmPredictionFragment) else [])
                if len(got) == requested:
                    break
        assert len(got) == requested
        assert [event async for event in generation] == []


async def test_a_model_can_be_closed() -> None:
    model = await load()
    await model.close()
