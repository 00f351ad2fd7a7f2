"""`keep_reasoning` on every way to send a conversation, with the real engine and templates that have a switch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ThinkingBlock

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioUnsupportedError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.types.reasoning import ReasoningPart
from tests._adapters.ways import METHODS, said, seen_of
from tests.support import recurrent_model
from tests.support.adapters import covering
from tests.support.chat_templates import TEMPLATES

pytestmark = [pytest.mark.slow, pytest.mark.leaf("reasoning_replay")]

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


def chat() -> lms.Chat:
    conversation = lms.Chat()
    for question, thought, answer in SAID:
        conversation.add_user_message(question)
        content = [ReasoningPart(text=thought).to_dict(), {"type": "text", "text": answer}]
        conversation.append({"role": "assistant", "content": content})
    conversation.add_user_message(LAST)
    return conversation


def messages(make: Any) -> list[Any]:
    found = list[Any]()
    for question, thought, answer in SAID:
        if make is ChatLMStudio:
            found += [HumanMessage(question), AIMessage(answer, additional_kwargs={"reasoning_content": thought})]
        else:
            blocks = [ThinkingBlock(content=thought), TextBlock(text=answer)]
            found += [*said(question), ChatMessage(blocks=blocks, role="assistant")]
    return [*found, HumanMessage(LAST) if make is ChatLMStudio else ChatMessage(LAST)]


def tokens_of(name: str, host: str, model: str, **settings: Any) -> int:
    """Send the conversation; return how many tokens the prompt had."""
    if name == "native":
        with lms.Client(host) as client:
            given = {"config": {"max_tokens": 1}, **settings}
            return client.llm.model(model).respond(chat(), **given).stats.prompt_tokens_count or 0
    make, method = METHODS[name]
    llm = make(model=model, host=host, max_tokens=1, **settings)
    return int(seen_of(method(llm, messages(make)))["prompt"])


@pytest.mark.parametrize(("name", "model"), covering(["invoke", "astream", "chat", "native"], SWITCHED))
def test_a_switch_of_the_template_keeps_the_thoughts_of_all_turns(host: str, name: str, model: str) -> None:
    with lms.Client(host) as client:
        handle = client.llm.model(model)
        prompts = {keeps: handle.apply_prompt_template(chat(), keep_reasoning=keeps) for keeps in (False, True)}
        used = handle.get_context_use(chat(), keep_reasoning=True).used
        tokens = handle.count_tokens([*prompts.values()])
    assert [thought in prompts[keeps] for keeps in prompts for _, thought, _ in SAID] == [False, False, True, True]
    without = tokens_of(name, host, model)
    assert tokens_of(name, host, model, keep_reasoning=True) - without == tokens[True] - tokens[False]
    assert used == tokens[True]


@pytest.mark.parametrize("name", ["invoke", "stream_chat"])
def test_a_template_without_a_switch_is_an_error(host: str, name: str) -> None:
    with pytest.raises(LMStudioUnsupportedError, match="tried: the template as it is, a switch in it, but it has none"):
        tokens_of(name, host, FIXED, keep_reasoning=True)


def test_tokens_are_counted_as_they_are_sent(host: str) -> None:
    counts = []
    for keeps in (False, True):
        llm = ChatLMStudio(model="clears_by_default", host=host, keep_reasoning=keeps)
        given: list[Any] = [HumanMessage("a"), AIMessage("b", additional_kwargs={"reasoning_content": "Count."})]
        counts.append(llm.get_num_tokens_from_messages([*given, HumanMessage("c")]))
    assert counts[1] - counts[0] == len("Count.")
