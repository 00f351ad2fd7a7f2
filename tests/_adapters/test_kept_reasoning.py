"""`keep_reasoning` on every way to send a conversation, with the real engine and templates that have a switch."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ThinkingBlock

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioUnsupportedError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.reasoning import ReasoningPart
from tests.support import recurrent_model
from tests.support.adapters import covering
from tests.support.chat_templates import TEMPLATES

pytestmark = pytest.mark.slow

SWITCHED = [name for name, template in TEMPLATES.items() if template.switch is not None]
FIXED = "keeps_running_turn"
SAID = (("Is it one?", "Count.", "One."), ("And then?", "Count on.", "Two."))
LAST = "Sure?"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose models have the templates of their names."""

    def entry(name: str) -> ModelEntry:
        file: Path = tmp_path_factory.getbasetemp() / f"{name}.gguf"
        return ModelEntry(key=name, weights=str(recurrent_model.write(file, TEMPLATES[name].source)))

    with Emulator([entry(name) for name in [*SWITCHED, FIXED]], auto_evict=False) as server:
        yield server.address


# Ways to send the conversation: each returns how many tokens the prompt had -------------------------------------------


def chat() -> lms.Chat:
    said = lms.Chat()
    for question, thought, answer in SAID:
        said.add_user_message(question)
        content = [ReasoningPart(text=thought).to_dict(), {"type": "text", "text": answer}]
        said.append({"role": "assistant", "content": content})
    said.add_user_message(LAST)
    return said


def langchain(respond: Callable[[ChatLMStudio, list[Any]], Any]) -> Any:
    def ask(host: str, model: str, **settings: Any) -> int:
        messages: list[Any] = []
        for question, thought, answer in SAID:
            messages += [HumanMessage(question), AIMessage(answer, additional_kwargs={"reasoning_content": thought})]
        llm = ChatLMStudio(model=model, host=host, max_tokens=1, **settings)
        return int(respond(llm, [*messages, HumanMessage(LAST)]).usage_metadata["input_tokens"])

    return ask


def llama_index(respond: Callable[[LMStudio, list[ChatMessage]], Any]) -> Any:
    def ask(host: str, model: str, **settings: Any) -> int:
        messages: list[ChatMessage] = []
        for question, thought, answer in SAID:
            blocks = [ThinkingBlock(content=thought), TextBlock(text=answer)]
            messages += [ChatMessage(question), ChatMessage(blocks=blocks, role="assistant")]
        llm = LMStudio(model=model, host=host, max_tokens=1, **settings)
        return int(respond(llm, [*messages, ChatMessage(LAST)]).additional_kwargs["prompt_tokens"])

    return ask


def native(respond: Callable[..., lms.PredictionResult]) -> Any:
    def ask(host: str, model: str, **settings: Any) -> int:
        with lms.Client(host) as client:
            return respond(client.llm.model(model), config={"max_tokens": 1}, **settings).stats.prompt_tokens_count or 0

    return ask


def async_native(host: str, model: str, **settings: Any) -> int:
    async def ask() -> int:
        async with lms.AsyncClient(host) as client:
            handle = await client.llm.model(model)
            result = await handle.respond(chat(), config={"max_tokens": 1}, **settings)
            return result.stats.prompt_tokens_count or 0

    return asyncio.run(ask())


def look() -> str:
    """Looks."""
    return "It rains."


def acted(model: lms.LLM, **settings: Any) -> Any:
    rounds: list[lms.PredictionResult] = []
    model.act(chat(), [look], on_prediction_completed=rounds.append, **settings)
    return rounds[0]


async def last(stream: AsyncIterable[Any] | Awaitable[AsyncIterable[Any]]) -> Any:
    chunks = await stream if isinstance(stream, Awaitable) else stream
    return [each async for each in chunks][-1]


def whole(chunks: Any) -> Any:
    first, *rest = chunks
    return sum(rest, first)


WAYS: dict[str, Any] = {
    "invoke": langchain(lambda llm, messages: llm.invoke(messages)),
    "ainvoke": langchain(lambda llm, messages: asyncio.run(llm.ainvoke(messages))),
    "stream": langchain(lambda llm, messages: whole(llm.stream(messages))),
    "chat": llama_index(lambda llm, messages: llm.chat(messages)),
    "stream_chat": llama_index(lambda llm, messages: [*llm.stream_chat(messages)][-1]),
    "astream_chat": llama_index(lambda llm, messages: asyncio.run(last(llm.astream_chat(messages)))),
    "respond": native(lambda model, **settings: model.respond(chat(), **settings)),
    "async respond": async_native,
    "act": native(acted),
}


@pytest.mark.parametrize(("name", "model"), covering(WAYS, SWITCHED))
def test_a_switch_of_the_template_keeps_the_thoughts_of_all_turns(host: str, name: str, model: str) -> None:
    way = WAYS[name]
    with lms.Client(host) as client:
        handle = client.llm.model(model)
        prompts = {keeps: handle.apply_prompt_template(chat(), keep_reasoning=keeps) for keeps in (False, True)}
        used = handle.get_context_use(chat(), keep_reasoning=True).used
        tokens = handle.count_tokens([*prompts.values()])
    assert [thought in prompts[keeps] for keeps in prompts for _, thought, _ in SAID] == [False, False, True, True]
    assert way(host, model, keep_reasoning=True) - way(host, model) == tokens[True] - tokens[False]
    assert used == tokens[True]


@pytest.mark.parametrize("way", [WAYS["invoke"], WAYS["stream_chat"]])
def test_a_template_without_a_switch_is_an_error(host: str, way: Any) -> None:
    with pytest.raises(LMStudioUnsupportedError, match="tried: the template as it is, a switch in it, but it has none"):
        way(host, FIXED, keep_reasoning=True)


def test_tokens_are_counted_as_they_are_sent(host: str) -> None:
    counts = []
    for keeps in (False, True):
        llm = ChatLMStudio(model="clears_by_default", host=host, keep_reasoning=keeps)
        messages: list[Any] = [HumanMessage("a"), AIMessage("b", additional_kwargs={"reasoning_content": "Count."})]
        counts.append(llm.get_num_tokens_from_messages([*messages, HumanMessage("c")]))
    assert counts[1] - counts[0] == len("Count.")
