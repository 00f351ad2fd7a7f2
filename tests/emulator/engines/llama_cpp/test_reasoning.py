"""Reasoning that is sent back, under templates that treat it differently, with a model that cannot rewind."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.base import EngineError, EngineEvent
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppModel
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.types.functions import ToolCallResultPart
from tests.emulator.bare_client import named, wire
from tests.emulator.engines.llama_cpp.models import ADD, STEADY, chat_of, finished, load, run, text_of
from tests.support import recurrent_model
from tests.support.chat_templates import TEMPLATES, Outcome, Outcomes, Template, grammar_of, renderer

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

CONTEXT_LENGTH = 8192


@dataclass
class Loaded:
    """The model that cannot rewind, under one of the templates."""

    model: LlamaCppModel
    template: Template

    def settings(self, **fields: Any) -> lms.LlmPredictionConfig:
        changed = self.template.prediction_fields | {f"llm.prediction.{key}": value for key, value in fields.items()}
        return STEADY.merged(lms.LlmPredictionConfig.from_fields(changed))

    async def render(self, chat: lms.Chat, config: lms.LlmPredictionConfig | None = None) -> str:
        return await self.model.apply_template(chat.to_history(), [ADD], config or self.settings())

    async def count(self, chat: lms.Chat, config: lms.LlmPredictionConfig | None = None) -> int:
        return len(await self.model.tokenize(await self.render(chat, config)))

    async def respond(self, chat: lms.Chat, config: lms.LlmPredictionConfig) -> list[EngineEvent]:
        return await run(self.model, chat.to_history(), config=config, tools=[ADD], context_length=CONTEXT_LENGTH)

    async def write(self, chat: lms.Chat, text: str) -> list[EngineEvent]:
        """Let the model write a text."""
        return await self.respond(chat, self.settings(structured=grammar_of(text)["llm.prediction.structured"]))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recurrent_model.write(tmp_path_factory.mktemp("weights") / "tiny.gguf")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TEMPLATES)
async def loaded(weights: Path, request: pytest.FixtureRequest) -> AsyncIterator[Loaded]:
    template = TEMPLATES[request.param]
    fields = template.load_fields
    model = await load(weights=str(weights), slots=1, context_length=CONTEXT_LENGTH, fields=fields)
    yield Loaded(model, template)
    await model.close()


def jinja(source: str) -> dict[str, Any]:
    return {"type": "jinja", "jinjaPromptTemplate": {"template": source}, "stopStrings": []}


def add_call(chat: lms.Chat, text: str, number: int) -> None:
    """Add a message with a call, and the result."""
    chat.add_assistant_response(
        text, [lms.ToolCallRequest(id=str(number), name="add", arguments={"a": number, "b": 1})]
    )
    chat.add_tool_results([ToolCallResultPart(content=f"sum {number}", tool_call_id=str(number), name="add")])


def conversation(*, call: str = "", answer: str = "", running_call: str = "") -> lms.Chat:
    """Return a conversation in which a turn has finished, and the next runs; texts are beside what they name."""
    chat = chat_of("First question.")
    add_call(chat, call, 1)
    chat.add_assistant_response(f"{answer}First answer.")
    chat.add_user_message("Second question.")
    add_call(chat, running_call, 2)
    return chat


async def outcomes(loaded: Loaded, sent: str, config: lms.LlmPredictionConfig | None = None) -> Outcomes:
    """Return what the template does with reasoning, of which the text is `HIDDEN`, in each place."""
    places = ("call", "answer", "running_call")
    return Outcomes(**{name: await outcome(loaded, conversation(**{name: sent}), sent, config) for name in places})


async def outcome(loaded: Loaded, chat: lms.Chat, sent: str, config: lms.LlmPredictionConfig | None) -> Outcome:
    template = loaded.template
    try:
        prompt = await loaded.render(chat, config)
    except EngineError as error:
        if "tags of a channel" not in str(error):
            raise
        return "rejected"
    if "HIDDEN" not in prompt:
        return "stripped"
    if f"{template.tag('')}{sent}" in prompt:
        return "misplaced"
    return "kept" if template.tag("HIDDEN") in prompt else "copied"


async def test_each_template_treats_reasoning_as_its_table_says(loaded: Loaded) -> None:
    template = loaded.template
    start, end = template.parsing
    with_other_white_space = f"{start}\n\n\nHIDDEN\n\n\n{end}\n\n\n"
    assert loaded.model.chat_template == template.source
    assert await outcomes(loaded, with_other_white_space) == template.tagged
    if template.bare is not None:
        assert await outcomes(loaded, "HIDDEN") == template.bare
    if template.switch is not None:
        switched = loaded.settings(promptTemplate=jinja(template.switched_source))
        assert await outcomes(loaded, with_other_white_space, switched) == template.switched
        chat = conversation(call=with_other_white_space)
        events = await loaded.respond(chat, switched.merged(lms.LlmPredictionConfig(max_tokens=1)))
        assert finished(events).prompt_tokens == await loaded.count(chat, switched)


async def test_prompts_are_rendered_without_the_engine_as_with_it(loaded: Loaded) -> None:
    template = loaded.template
    sent = "so 1 < 2" if template.bare else template.tag('"so" é')
    chat = conversation(call=sent, answer="" if template.bare else sent, running_call=sent)
    prompt = await loaded.model.apply_template(chat.to_history(), [], loaded.settings())
    assert renderer(template.source)(chat.to_history().to_dict()["messages"]) == prompt


KINDS = ("reasoningStartTag", "reasoning", "reasoningEndTag", "none")


async def test_the_fragments_of_a_response_are_what_the_model_wrote(loaded: Loaded) -> None:
    template = loaded.template
    start, end = template.parsing
    chat = chat_of(f"What is {start}?")
    for reasoning in ("\n so 1 < 2\n\n  ", ""):
        text = template.write(reasoning, "\n Yes. \n\n")
        fragments = [each for each in await loaded.write(chat, text) if isinstance(each, lms.LlmPredictionFragment)]
        if template.opens:
            opening = fragments.pop(0)
            assert (opening.content, opening.tokens_count, opening.is_structural) == (template.start_tag, 0, True)
            assert opening.reasoning_type == "reasoningStartTag"
        assert "".join(each.content for each in fragments) == text
        assert sum(each.tokens_count for each in fragments) == len(text)
        parts = {kind: "".join(each.content for each in fragments if each.reasoning_type == kind) for kind in KINDS}
        assert parts["reasoningStartTag"] == ("" if template.opens else start)
        assert parts["reasoningEndTag"] == end
        assert (parts["reasoning"].strip(), parts["none"].strip()) == (reasoning.strip(), "Yes.")


async def test_a_model_may_reason_before_it_writes_json_by_a_schema(loaded: Loaded) -> None:
    config = loaded.settings(structured={"type": "json", "jsonSchema": {"const": "yes"}})
    limits = lms.LlmPredictionConfig(max_tokens=60, reasoning_budget=5)
    events = await run(loaded.model, chat_of("A question.").to_history(), config=config.merged(limits))
    kinds = [event.reasoning_type for event in events if isinstance(event, lms.LlmPredictionFragment)]
    assert text_of(events).strip("` \n").endswith('"yes"')
    assert not loaded.template.opens or (kinds[0], kinds[-1]) == ("reasoningStartTag", "none")


async def test_a_response_that_is_sent_back_whole_is_in_the_next_prompt_as_it_was_generated(loaded: Loaded) -> None:
    template, chat = loaded.template, chat_of("A question.")
    prompt, text = await loaded.render(chat), template.write("I should add.", "Let me see.", ("add", {"a": 3, "b": 1}))
    events = await loaded.write(chat, text)
    (call,) = [event for event in events if isinstance(event, lms.ToolCallEnd)]
    assert (call.name, call.arguments) == ("add", {"a": 3, "b": 1})
    assert f"{text_of(events)}{call.raw_content}".endswith(text)
    chat.add_assistant_response(text_of(events), [call.to_request()])
    if template.tagged.running_call in {"kept", "copied"}:
        assert (await loaded.render(chat)).startswith(f"{prompt}{text}")


async def test_the_template_and_its_tags_are_default_settings_of_predictions(weights: Path) -> None:
    template = TEMPLATES["strips_always"]
    weights = recurrent_model.write(weights.with_name("other.gguf"), template.source)
    with Emulator([ModelEntry(key="tiny", weights=str(weights), preload=True)]) as server, wire(server) as connection:
        call = partial(connection.result, "getBasePredictionConfig", {"specifier": named("tiny")})
        fields = {field["key"]: field["value"] for field in (await asyncio.to_thread(call))["fields"]}
    assert fields["llm.prediction.promptTemplate"] == jinja(template.source)
    assert fields.items() >= template.prediction_fields.items()


@pytest.mark.leaf("reasoning_replay")
@pytest.mark.parametrize("keep", [False, True])
async def test_reasoning_that_is_moved_to_a_field_is_not_processed_again(weights: Path, *, keep: bool) -> None:
    template = TEMPLATES["reads_field_only"]
    weights = recurrent_model.write(weights.with_name(f"field-{keep}.gguf"), template.source)
    question: list[BaseMessage] = [HumanMessage("A question.")]
    continued: list[int] = []
    with Emulator([ModelEntry(key="tiny", weights=str(weights), context_length=CONTEXT_LENGTH)]) as server:
        llm: Any = ChatLMStudio(
            model="tiny", host=server.address, temperature=0, repeat_penalty=1.0, keep_reasoning=keep
        )
        messages, before = question, 0
        for turn in range(TURNS):
            text = template.write(reasoning_of(turn), "", ("add", {"a": turn, "b": 1}))
            raw = {**template.prediction_fields, **grammar_of(text)}
            response = await llm.ainvoke(messages, tools=[ADD.to_dict()], prediction_config={"raw": raw})
            usage = response.usage_metadata
            continued.append(before - usage["input_token_details"].get("cache_read", 0))
            before = usage["input_tokens"] + usage["output_tokens"]
            (call,) = response.tool_calls
            messages = [*messages, response, ToolMessage(f"sum {turn}", tool_call_id=call["id"])]
    again = [tokens > WITHOUT_CHECKPOINT for tokens in continued[1:]]
    assert again == [not keep] * (TURNS - 1), continued


TURNS = 4
WITHOUT_CHECKPOINT = 4
"""The last tokens of a prompt: llama.cpp makes its checkpoint before them."""


def agent(template: Template, turns: int, *, without: int | None = None) -> lms.Chat:
    """Return a conversation with so many calls, perhaps one of them without its reasoning."""
    chat = chat_of("A question.")
    for turn in range(turns):
        add_call(chat, "" if turn == without else template.tag(reasoning_of(turn)), turn)
    return chat


def reasoning_of(turn: int) -> str:
    return f"number {turn}: {'hm ' * 50}"


def cached(events: list[EngineEvent]) -> int:
    *_, progress = [event for event in events if isinstance(event, lms.PromptProgress)]
    return int((progress.details or {})["cachedTokenCount"])


@pytest.mark.parametrize("loaded", ["plain_text"], indirect=True)
async def test_reasoning_that_is_omitted_costs_only_what_follows(loaded: Loaded) -> None:
    template, processed = loaded.template, 0
    for turn in range(TURNS):
        text = template.write(reasoning_of(turn), "", ("add", {"a": turn, "b": 1}))
        events = await loaded.write(agent(template, turn), text)
        assert cached(events) >= processed
        processed = finished(events).prompt_tokens
    same = await loaded.count(agent(template, TURNS - 1))
    events = await loaded.write(agent(template, TURNS, without=TURNS - 1), "So.")
    assert cached(events) >= same - WITHOUT_CHECKPOINT
