"""The thoughts of a model go back to it as it wrote them, on every way to send a conversation."""

import asyncio
import base64
import json
import pickle
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from langchain.agents import create_agent
from langchain_core.load import dumps, loads
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    message_chunk_to_message,
    messages_from_dict,
    messages_to_dict,
    trim_messages,
)
from langgraph.checkpoint.memory import MemorySaver
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ImageBlock, TextBlock, ThinkingBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import BaseMemory, Memory
from llama_index.core.tools import FunctionTool
from sqlalchemy.ext.asyncio import create_async_engine

import lmstudio_integrations as lms
from lmstudio_integrations._support.leaves import MissingLeafError
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import METHODS, messages_of, said, whole
from tests.client.both import sync_client
from tests.support import template_functions
from tests.support.adapters import covering
from tests.support.template_functions import Said, Template, TemplateEngine, answers
from tests.support.web import PIXEL
from tools.leaves import has_leaf

PNG = base64.b64encode(PIXEL).decode()

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}},
}
CONFIG: Any = {"rawTools": {"type": "toolArray", "tools": [TOOL]}}

CALL_THOUGHT, BETWEEN, SECOND_THOUGHT = "\nShould I look? Yes </tool>,\n\n\tI should.\n", "\n\nI look", " Once. "
ANSWER_THOUGHT, ANSWER = "\nRain.\n", "\n\nIt rains."
BEFORE_CALL = f"<think>{CALL_THOUGHT}</think>{BETWEEN}<think>{SECOND_THOUGHT}</think>."
BEFORE_ANSWER = f"<think>{ANSWER_THOUGHT}</think>{ANSWER}"
"""What the model writes, byte for byte."""
TEXT_OF_CALL = f"{BETWEEN}."

QUESTION = "Is </think> a tag?\n<think>Does it rain?</think>"
"""A user may write tags."""

THOUGHTS = (CALL_THOUGHT, SECOND_THOUGHT, ANSWER_THOUGHT)

RULES = (
    {
        "when": {"role": "user", "last": "Does it rain", "tools": ["look"]},
        "then": [
            {"reasoning": CALL_THOUGHT},
            {"text": BETWEEN},
            {"reasoning": SECOND_THOUGHT},
            {"text": "."},
            {"tool": "look"},
        ],
    },
    {"when": {"role": "tool"}, "then": [{"reasoning": ANSWER_THOUGHT}, {"text": ANSWER}]},
    {
        "when": {"last": "^In the text", "tools": ["look"]},
        "then": [{"reasoning": "Hm."}, {"text": 'I do.\n<tool_call>{"name": "look", "arguments": {}}</tool_call>'}],
    },
    {"when": {"last": "^Quick"}, "then": [{"reasoning": ""}, {"text": "Yes."}]},
    {"then": [{"reasoning": "Hm."}, {"text": "Well."}]},
)


def picky(said: Said) -> str:
    """Reject a thought that is longer than those of a small conversation."""
    return template_functions.rejected(said) if "Should I look" in said.text else template_functions.kept(said)


def broken(said: Said) -> str:
    """Reject a conversation that is not a small one, with thoughts or without."""
    return picky(Said("<think>Should I look</think>") if "I look" in said.text else said)


TEMPLATES = {
    "kept": template_functions.kept,
    "stripped": template_functions.stripped,
    "copied": template_functions.copied,
    "misplaced": template_functions.after_empty,
    "rejected": template_functions.rejected,
    "bare": template_functions.lenient_channels,
    "picky": picky,
    "broken": broken,
}


class Served(NamedTuple):
    """A server, and the engine of its models."""

    server: Emulator
    engine: TemplateEngine

    @property
    def host(self) -> str:
        return self.server.address

    def sent(self) -> list[str]:
        """Return the texts of the assistant in the last prompt."""
        messages = self.server.predictions[-1].messages
        return answers(
            each if isinstance(each["content"], list) else {**each, "content": [{"text": each["content"]}]}
            for each in messages
        )

    def questions(self) -> list[Any]:
        """Return what the user says in the last prompt."""
        return [each["content"] for each in self.server.predictions[-1].messages if each["role"] == "user"]


def serving(**templates: Template) -> Served:
    engine = TemplateEngine(**templates)
    models = [ModelEntry(key=key, rules=RULES, vision=True) for key in templates]
    return Served(Emulator(models, engines={engine.name: engine}, auto_evict=False), engine)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    found = serving(**TEMPLATES)
    with found.server:
        yield found


@pytest.fixture
def fresh() -> Iterator[Served]:
    """A server whose instances nobody has asked yet."""
    found = serving(**TEMPLATES)
    with found.server:
        yield found


# Ways through a conversation ------------------------------------------------------------------------------------------

Way = Callable[[str, str, Sequence[str], Mapping[str, Any]], Any]
"""Asks a model questions, and gives it the results of its calls: host, model, questions, settings of the calls."""


def exchanged(llm: Any, response: Any) -> list[Any]:
    """Return the message of a response, and the results of its calls."""
    if isinstance(response, BaseMessage):
        message: Any = message_chunk_to_message(response)  # others stay as they are
        return [message, *(ToolMessage("It rains.", tool_call_id=call["id"]) for call in message.tool_calls)]
    calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    ids = [{"tool_call_id": call.tool_id} for call in calls]
    return [response.message, *(ChatMessage("It rains.", role="tool", additional_kwargs=each) for each in ids)]


def framework(name: str, restored: Callable[[Any], Any] = list, **own: Any) -> Way:
    make, method = METHODS[name]

    def run(host: str, model: str, questions: Sequence[str], settings: Mapping[str, Any]) -> list[Any]:
        llm, messages = make(model=model, host=host, **own, **settings), list[Any]()
        for question in questions:
            messages += messages_of(make, [("user", question)])
            new = [None, None]
            while len(new) > 1:
                messages = restored(messages)
                new = exchanged(llm, whole(method(llm, messages, tools=[TOOL])))
                messages += new
        return messages

    return run


def native(turn: Callable[..., Any], make_client: Any = sync_client) -> Way:
    async def converse(host: str, model: str, questions: Sequence[str], settings: Mapping[str, Any]) -> lms.Chat:
        chat = lms.Chat()
        async with make_client(host) as client:
            handle = await client.llm.model(model)
            for question in questions:
                chat.add_user_message(question)
                chat = await turn(handle, chat, settings)
        return chat

    return lambda *given: asyncio.run(converse(*given))


async def respond(model: Any, chat: lms.Chat, given: Mapping[str, Any], restored: Any = lambda chat: chat) -> lms.Chat:
    calls: Any = [None]
    while calls:
        chat = restored(chat)
        result = await model.respond_stream(chat, **{"config": CONFIG, **given}).wait_for_result()
        calls = result.tool_call_requests
        chat.add_assistant_response(result, calls)
        for call in calls:
            chat.add_tool_result({"content": "It rains.", "toolCallId": call.id, "name": call.name})
    return chat


def look() -> str:
    """Looks."""
    return "It rains."


async def act(model: Any, chat: lms.Chat, given: Mapping[str, Any]) -> lms.Chat:
    await model.act(chat, [look], on_message=chat.append, **given)
    return chat


def langchain_agent(**options: Any) -> Way:
    def run(host: str, model: str, questions: Sequence[str], settings: Mapping[str, Any]) -> list[Any]:
        agent: Any = create_agent(ChatLMStudio(model=model, host=host, **settings), [look], **options)
        thread: Any = {"configurable": {"thread_id": "1"}}
        messages: list[Any] = []
        for question in questions:
            earlier = [] if options.get("checkpointer") else messages
            messages = agent.invoke({"messages": [*earlier, HumanMessage(question)]}, thread)["messages"]
        return messages

    return run


@asynccontextmanager
async def remembering() -> AsyncIterator[BaseMemory]:
    database = create_async_engine("sqlite+aiosqlite://")
    try:
        yield Memory.from_defaults(async_engine=database)
    finally:
        await database.dispose()


def llama_index_agent(*, streaming: bool) -> Way:
    async def ask(host: str, model: str, questions: Sequence[str], settings: Mapping[str, Any]) -> None:
        llm = LMStudio(model=model, host=host, **settings)
        agent = FunctionAgent(tools=[FunctionTool.from_defaults(look)], llm=llm, streaming=streaming)
        async with remembering() as memory:
            for question in questions:
                await agent.run(question, memory=memory)

    return lambda *given: asyncio.run(ask(*given))


def through_v1(messages: Sequence[Any]) -> list[Any]:
    return [
        AIMessage(content=[*map(dict, message.content_blocks)]) if isinstance(message, AIMessage) else message
        for message in messages
    ]


CALLS: dict[str, Way] = {
    **{name: framework(name) for name in METHODS},
    "respond": native(respond),
    "async respond": native(respond, lms.AsyncClient),
    "act": native(act),
    "async act": native(act, lms.AsyncClient),
    "create_agent": langchain_agent(),
    "FunctionAgent": llama_index_agent(streaming=False),
    "FunctionAgent, streaming": llama_index_agent(streaming=True),
}
"""Every way to send a conversation."""

RESTORED: dict[str, Way] = {
    "pickle": framework("invoke", lambda messages: pickle.loads(pickle.dumps(messages))),
    "loads": framework("invoke", lambda messages: loads(dumps(messages), allowed_objects="core")),
    "dicts": framework(
        "invoke", lambda messages: messages_from_dict(json.loads(json.dumps(messages_to_dict(messages))))
    ),
    "v1": framework("invoke", output_version="v1"),
    "v1, stream": framework("stream", output_version="v1"),
    "v0 to v1": framework("invoke", through_v1),
    "v0 to v1, stream": framework("stream", through_v1),
    "v1 to v0": framework("invoke", through_v1, output_version="v1"),
    "checkpointer": langchain_agent(checkpointer=MemorySaver()),
    "model_dump_json": framework(
        "chat", lambda messages: [ChatMessage.model_validate_json(each.model_dump_json()) for each in messages]
    ),
    "Chat, JSON": native(
        partial(
            respond, restored=lambda chat: lms.Chat.from_history(json.loads(json.dumps(chat.to_history().to_dict())))
        )
    ),
    "Chat, pickle": native(partial(respond, restored=lambda chat: pickle.loads(pickle.dumps(chat)))),
    "Chat, copy": native(partial(respond, restored=lambda chat: chat.copy())),
}
"""Ways on which a conversation is stored between two calls."""


if not has_leaf("tool_loop"):
    del CALLS["act"], CALLS["async act"]


def there(*names: str) -> list[str]:
    """Return the calls that are in this copy of the package."""
    return [name for name in names if name in CALLS]


def some(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", [CALLS[name] for name in there(*names)], ids=there(*names))


FRAMEWORK_WARNINGS = pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.LangChainBetaWarning",
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from",
)

ALL = [BEFORE_CALL, BEFORE_ANSWER, BEFORE_CALL]
NONE = [text.removeprefix("\n\n") for text in (TEXT_OF_CALL, ANSWER, TEXT_OF_CALL)]


@pytest.fixture(scope="module")
def prompts_of_invoke(served: Served) -> list[str]:
    return prompts_of(served, CALLS["invoke"])


@pytest.mark.parametrize("way", (CALLS | RESTORED).values(), ids=CALLS | RESTORED)
def test_a_model_gets_its_thoughts_back_byte_for_byte(served: Served, prompts_of_invoke: list[str], way: Way) -> None:
    assert len(prompts_of_invoke) == 4
    prompts = prompts_of(served, way)
    assert served.sent() == ALL
    assert served.questions() == [QUESTION, QUESTION]
    assert way not in CALLS.values() or prompts == prompts_of_invoke


def prompts_of(served: Served, way: Way) -> list[str]:
    """Return the messages of all prompts, without the ids of calls, and results as text: that of `act` is JSON."""
    before = len(served.server.predictions)
    way(served.host, "kept", [QUESTION, QUESTION], {"send_reasoning": "always"})
    found = [json.dumps(each.messages) for each in served.server.predictions[before:]]
    return [
        re.sub(r'"(id|toolCallId)": "\d+"', "", each).replace(json.dumps('"It rains."'), json.dumps("It rains."))
        for each in found
    ]


@pytest.mark.leaf("calls_in_text")
@some("astream", "achat", "act")
def test_a_thought_before_a_call_in_the_text_goes_back(served: Served, way: Way) -> None:
    way(served.host, "kept", ["In the text"], {})
    assert served.sent() == ["<think>Hm.</think>I do.\n"]


@pytest.mark.leaf("reasoning_replay")
def test_each_load_is_asked_once_even_by_a_new_object(served: Served) -> None:
    asked = []
    for load in range(2):
        for _ in range(2):
            served.engine.renderings.clear()
            send(ChatLMStudio(model="kept", host=served.host), FOREIGN["content blocks"])
            asked.append(len(served.engine.renderings))
        if load == 0:
            served.server.unload("kept")
    assert asked == [1, 0, 1, 0]


def send(llm: Any, message: Any) -> None:
    """Send an assistant message of a framework between two questions."""
    if isinstance(llm, ChatLMStudio):
        llm.invoke([message, HumanMessage("Well?")])
    else:
        llm.chat([message, *said("Well?")])


MODES: dict[str, tuple[str, Any, list[str]]] = {
    "always": ("misplaced", "always", ALL),
    "True": ("misplaced", True, ALL),
    "turn": ("misplaced", "turn", [*NONE[:2], BEFORE_CALL]),
    "False": ("kept", False, NONE),
    "always, rejected": ("rejected", "always", NONE),
}


@pytest.mark.parametrize(("way", "name"), covering(there("stream", "astream_chat", "respond", "act"), MODES))
def test_a_setting_decides_what_is_sent(served: Served, way: str, name: str) -> None:
    model, mode, expected = MODES[name]
    CALLS[way](served.host, model, [QUESTION, QUESTION], {"send_reasoning": mode})
    assert served.sent() == expected


MEASURED: dict[str, list[str]] = {
    "kept": ALL,
    "misplaced": NONE,
    "copied": [BEFORE_CALL, NONE[1], BEFORE_CALL],
}


@pytest.mark.leaf("reasoning_replay")
@pytest.mark.parametrize(("way", "model"), covering(there("stream", "astream_chat", "respond", "act"), MEASURED))
def test_by_default_the_template_decides_what_is_sent(served: Served, way: str, model: str) -> None:
    CALLS[way](served.host, model, [QUESTION, QUESTION], {})
    assert served.sent() == MEASURED[model]


@pytest.mark.leaf("reasoning_replay")
@pytest.mark.parametrize(
    ("way", "model"), covering(there("stream", "act"), ["kept", "stripped", "copied", "misplaced", "rejected", "bare"])
)
def test_each_prompt_begins_with_the_one_before(served: Served, way: str, model: str) -> None:
    served.engine.prompts.clear()
    CALLS[way](served.host, model, [QUESTION] * 3, {})
    prompts = served.engine.prompts
    assert len(prompts) == 6
    for before, after in pairwise(prompts):
        assert after.startswith(before)


@some("stream", "achat", "act", "async respond")
def test_a_copy_that_does_not_measure_templates_sends_the_thoughts_of_the_turn(
    fresh: Served, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.client.models.reasoning_replay", None)
    way(fresh.host, "misplaced", [QUESTION, QUESTION], {})
    assert fresh.sent() == [*NONE[:2], BEFORE_CALL]
    assert not fresh.engine.renderings
    way(fresh.host, "picky", [QUESTION], {})
    assert fresh.sent() == NONE[:1]
    with pytest.raises(MissingLeafError, match="without the measuring of chat templates"):
        way(fresh.host, "kept", [QUESTION], {"keep_reasoning": True})


# Thoughts that are not whole ------------------------------------------------------------------------------------------

CUT_OFF: dict[str, dict[str, Any]] = {
    **{name: {"max_tokens": 3} for name in ("invoke", "astream", "chat", "astream_chat", "create_agent")},
    "respond": {"config": {**CONFIG, "maxTokens": 3}},
    "act": {"config": {"maxTokens": 3}},
}


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_thought_that_was_cut_off_is_not_sent(served: Served, name: str) -> None:
    CALLS[name](served.host, "kept", [QUESTION, QUESTION], {"send_reasoning": "always", **CUT_OFF[name]})
    assert served.server.predictions[-1].reasoning == "\nShould I"
    assert "".join(served.sent()) == ""
    assert served.questions() == [QUESTION, QUESTION]


def test_of_a_response_that_was_cut_off_whole_thoughts_are_sent(served: Served) -> None:
    seen: set[str] = set()
    for limit in range(1, 30):
        settings = {"send_reasoning": "always", "max_tokens": limit}
        CALLS["invoke"](served.host, "kept", [QUESTION, "Well?"], settings)
        first, *_ = served.sent()
        assert BEFORE_CALL.startswith(first)
        assert first.count("<think>") == first.count("</think>")
        seen.add(first)
    assert {"", f"<think>{CALL_THOUGHT}</think>", BEFORE_CALL} < seen


IN_SECOND_THOUGHT: list[dict[str, Any]] = [
    *({"reasoning": "One."}, {"text": "Well. "}, {"reasoning": "Two, or is it three?"}, {"text": "Two."}),
]
LEFT: dict[str, tuple[type, dict[str, Any], str]] = {
    "stream": (ChatLMStudio, {}, "Well. "),
    "astream": (ChatLMStudio, {}, "Well. "),
    "stream of blocks": (ChatLMStudio, {"output_version": "v1"}, "<think>One.</think>Well. "),
    "stream_chat": (LMStudio, {}, "Well. "),
    "astream_chat": (LMStudio, {}, "Well. "),
}
"""Ways to leave a stream, and what of the response is sent: only blocks say where the first thought ends."""


@pytest.mark.parametrize("name", LEFT)
def test_a_later_thought_in_which_a_stream_was_left_is_not_sent(name: str) -> None:
    make, settings, expected = LEFT[name]
    rule = {"when": {"last": "^go"}, "then": IN_SECOND_THOUGHT}
    with Emulator([ModelEntry(key="m", rules=(rule,))]) as server:
        with make(model="m", host=server.address, send_reasoning="always", **settings) as model:
            question = messages_of(make, [("user", "go")])
            chunks = METHODS[name.split(maxsplit=1)[0]][1](model, question)
            read = (whole(chunks[:count]) for count in range(1, len(chunks)))
            left = next(each for each in read if "or is it" in repr(each))
            answer = left if make is ChatLMStudio else left.message
            METHODS["invoke" if make is ChatLMStudio else "chat"][1](model, [*question, answer, *question])
        assert server.predictions[-1].messages[1] == {"role": "assistant", "content": expected}


@some("invoke", "astream", "chat", "astream_chat", "respond", "act")
def test_an_empty_thought_is_sent_as_it_was_written(served: Served, way: Way) -> None:
    way(served.host, "kept", ["Quick: is it?", "Well?"], {"send_reasoning": "always"})
    assert served.sent() == ["<think></think>Yes."]


def conversation(served: Served, **own: Any) -> list[BaseMessage]:
    """Return a conversation with two calls and two answers, each with thoughts."""
    messages: list[BaseMessage] = framework("invoke", **own)(served.host, "kept", [QUESTION, QUESTION], {})
    return messages


def edited(content: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    """Return what writes other texts into the messages of the model."""
    return lambda messages: [
        each.model_copy(update={"content": content(each.content)}) if isinstance(each, AIMessage) else each
        for each in messages
    ]


def without_tags(messages: list[Any]) -> list[Any]:
    """Keep only what a provider without tags would have."""
    return [
        AIMessage(each.content, tool_calls=each.tool_calls, additional_kwargs={"reasoning_content": thought})
        if (thought := each.additional_kwargs.get("reasoning_content"))
        else each
        for each in messages
    ]


def trimmed(strategy: Any, tokens: int) -> Callable[[list[Any]], list[Any]]:
    def count(messages: list[Any]) -> int:
        return sum(len(each.text) for each in messages)

    return lambda messages: trim_messages(
        messages,
        max_tokens=tokens,
        token_counter=count,
        strategy=strategy,
        allow_partial=True,
        text_splitter=list,
    )


EDITS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "nothing": list,
    "texts shortened": edited(lambda content: content[:3]),
    "texts replaced": edited(lambda _: "It may rain or not."),
    "texts emptied": edited(lambda _: ""),
    "tags lost": without_tags,
    **{
        f"{strategy} {tokens}": trimmed(strategy, tokens)
        for strategy in ("first", "last")
        for tokens in range(3, 75, 6)
    },
}

WHOLE = {*THOUGHTS, CALL_THOUGHT + SECOND_THOUGHT}


def has_whole_thoughts(text: str) -> bool:
    """Whether a text of the assistant has no part of a thought outside of its tags, and no part alone between them."""
    before, *opened = text.split("<think>")
    if "</think>" in before or any(each.count("</think>") != 1 for each in opened):
        return False
    thoughts, rests = ([each.split("</think>")[at] for each in opened] for at in (0, 1))
    leaks = [thought for thought in THOUGHTS for each in (before, *rests) if thought.strip() in each]
    return {*thoughts} <= WHOLE and not leaks


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_an_edited_conversation_has_no_half_thoughts(served: Served, version: str) -> None:
    given = conversation(served, output_version=version)
    llm = ChatLMStudio(model="kept", host=served.host, send_reasoning="always")
    for name, edit in EDITS.items():
        llm.invoke([*edit(given), HumanMessage("Well?")])
        for text in served.sent():
            assert has_whole_thoughts(text), name


@pytest.mark.parametrize(
    ("model", "settings", "is_counted"),
    [
        ("kept", {}, True),
        pytest.param("misplaced", {}, False, marks=pytest.mark.leaf("reasoning_replay")),
        ("kept", {"send_reasoning": False}, False),
    ],
)
def test_thoughts_count_where_the_template_rejects_a_part(
    served: Served, monkeypatch: pytest.MonkeyPatch, model: str, settings: dict[str, Any], is_counted: bool
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise lms.LMStudioPromptTemplateError("roles must alternate")

    call, answer = [each for each in conversation(served) if isinstance(each, AIMessage)][:2]
    llm = ChatLMStudio(model=model, host=served.host, **settings)
    monkeypatch.setattr(LanguageModel, "apply_prompt_template", fail)
    for given, written in ((call, BEFORE_CALL), (answer, BEFORE_ANSWER)):
        without = given.model_copy(update={"additional_kwargs": {}})
        counts = [llm.get_num_tokens_from_messages([each]) for each in (given, without)]
        thoughts = words.count(written) - words.count(without.text)
        assert thoughts >= 3
        assert counts[0] - counts[1] == (thoughts if is_counted else 0)


# Thoughts of others ---------------------------------------------------------------------------------------------------

FOREIGN: dict[str, Any] = {
    "blocks of Anthropic": AIMessage(
        [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": "Yes."}]
    ),
    "content blocks": AIMessage([{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "Yes."}]),
    "DeepSeek, Ollama": AIMessage("Yes.", additional_kwargs={"reasoning_content": "Hm."}),
    "invalid tags": AIMessage(
        "Yes.", additional_kwargs={"reasoning_content": "Hm.", "reasoning_tags": [{"start": 1}, None, "x"]}
    ),
    "LlamaIndex": ChatMessage(role="assistant", blocks=[ThinkingBlock(content="Hm."), TextBlock(text="Yes.")]),
    "LlamaIndex, tags that are no list": ChatMessage(
        role="assistant",
        blocks=[ThinkingBlock(content="Hm.", additional_information={"reasoning_tags": 1}), TextBlock(text="Yes.")],
    ),
}


@pytest.mark.parametrize("message", FOREIGN.values(), ids=FOREIGN)
def test_a_thought_of_another_provider_gets_the_tags_of_the_model(served: Served, message: Any) -> None:
    make = ChatLMStudio if isinstance(message, AIMessage) else LMStudio
    send(make(model="kept", host=served.host, send_reasoning="always"), message)
    assert served.sent() == ["<think>Hm.</think>Yes."]


def test_a_message_made_of_the_content_blocks_of_two_has_the_thoughts_of_both(served: Served) -> None:
    llm = ChatLMStudio(model="kept", host=served.host, send_reasoning="always")
    blocks: list[Any] = [*llm.invoke("Hi").content_blocks]
    other = {"type": "thinking", "thinking": "Other."}
    for first in (blocks, [other, *blocks[1:]]):
        llm.invoke([HumanMessage("Well?"), AIMessage([*first, *blocks]), HumanMessage("Well?")])
        thought = "Hm." if first is blocks else "Other."
        assert served.sent() == [f"<think>{thought}</think>Well.<think>Hm.</think>Well."]


def test_a_thought_of_another_model_gets_the_tags_of_the_model(served: Served) -> None:
    brackets = {"enabled": True, "start_string": "[THINK]", "end_string": "[/THINK]"}
    other = ChatLMStudio(
        model="stripped", host=served.host, prediction_config={"reasoning_parsing": brackets}, send_reasoning="always"
    )
    first = other.invoke(QUESTION)
    assert first.additional_kwargs["reasoning_tags"][0]["start"] == "[THINK]"
    messages: list[Any] = [HumanMessage("Well?"), first, HumanMessage("Well?")]
    other.invoke(messages)
    assert served.sent() == ["[THINK]Hm.[/THINK]Well."]
    ChatLMStudio(model="kept", host=served.host, send_reasoning="always").invoke(messages)
    assert served.sent() == ["<think>Hm.</think>Well."]


@pytest.mark.parametrize(
    ("model", "mode"), [("kept", "auto"), ("copied", "turn"), ("misplaced", "auto"), ("misplaced", "always")]
)
def test_tokens_are_counted_as_they_are_sent(served: Served, model: str, mode: Any) -> None:
    given = conversation(served)[:-1]  # a call in the turn that goes on
    llm = ChatLMStudio(model=model, host=served.host, send_reasoning=mode)
    counted = llm.get_num_tokens_from_messages(given)
    llm.invoke(given)
    assert counted == words.count(served.engine.prompts[-1])
    chat = CALLS["respond"](served.host, "kept", [QUESTION], {})
    chat.add_user_message(QUESTION)
    with lms.Client(served.host) as client:
        handle = client.llm.model(model)
        use = handle.get_context_use(chat, send_reasoning=mode)
        prompt = handle.apply_prompt_template(chat, send_reasoning=mode)
        handle.respond(chat, send_reasoning=mode)
    assert (use.used, prompt) == (words.count(prompt), served.engine.prompts[-1])


# Prompts that are rejected --------------------------------------------------------------------------------------------


MODES_AND_RENDERINGS = pytest.mark.parametrize(
    ("mode", "renderings"), [("always", 0), pytest.param("auto", 1, marks=pytest.mark.leaf("reasoning_replay"))]
)
"""Modes, and how many renderings each needs to find out what the template does."""


@MODES_AND_RENDERINGS
@some("stream", "achat", "act", "async respond")
def test_a_rejected_prompt_is_sent_again_without_thoughts_once(
    fresh: Served, way: Way, mode: str, renderings: int
) -> None:
    way(fresh.host, "picky", [QUESTION, QUESTION], {"send_reasoning": mode})
    assert fresh.sent() == NONE
    assert [each.error is None for each in fresh.server.predictions] == [True, False, True, True, True]
    assert len(fresh.engine.renderings) == renderings


@pytest.mark.parametrize(("way", "mode"), [("stream", "auto"), ("achat", "always"), ("async respond", False)])
def test_a_prompt_that_is_rejected_for_another_reason_is_an_error_and_nothing_is_remembered(
    fresh: Served, way: str, mode: Any
) -> None:
    with pytest.raises(lms.LMStudioPromptTemplateError, match="no tags, please"):
        CALLS[way](fresh.host, "broken", [QUESTION], {"send_reasoning": mode})
    assert [each.error is None for each in fresh.server.predictions] == [True] + [False] * (1 if mode is False else 2)
    send(ChatLMStudio(model="broken", host=fresh.host, send_reasoning="always"), FOREIGN["content blocks"])
    assert fresh.sent() == ["<think>Hm.</think>Yes."]


@MODES_AND_RENDERINGS
def test_a_rendering_that_is_rejected_is_made_again_without_thoughts(fresh: Served, mode: Any, renderings: int) -> None:
    chat = CALLS["respond"](fresh.host, "kept", [QUESTION], {})
    fresh.engine.renderings.clear()
    with lms.Client(fresh.host) as client:
        handle = client.llm.model("picky")
        prompts = [handle.apply_prompt_template(chat, send_reasoning=mode) for _ in range(2)]
        assert prompts[0] == prompts[1] == handle.apply_prompt_template(chat, send_reasoning=False)
        assert len(fresh.engine.renderings) == 4 + renderings  # of which one was rejected
        broken_one = client.llm.model("broken")
        with pytest.raises(lms.LMStudioPromptTemplateError, match="no tags, please"):
            broken_one.apply_prompt_template(chat, send_reasoning=mode)
        small = lms.Chat()
        small.append({"role": "assistant", "content": [{"type": "reasoning", "text": "Hm."}, "Yes."]})
        assert "Hm." in broken_one.apply_prompt_template(small, send_reasoning=mode)


# Images, hosts, and what is no setting --------------------------------------------------------------------------------


def test_thoughts_are_sent_beside_images(served: Served) -> None:
    url = f"data:image/png;base64,{PNG}"
    image = HumanMessage([{"type": "text", "text": "Well?"}, {"type": "image_url", "image_url": {"url": url}}])
    ChatLMStudio(model="kept", host=served.host, send_reasoning="always").invoke(
        [image, FOREIGN["DeepSeek, Ollama"], image]
    )
    assert served.sent() == ["<think>Hm.</think>Yes."]
    shown = ChatMessage(role="user", blocks=[TextBlock(text="Well?"), ImageBlock(image=PNG.encode())])
    LMStudio(model="kept", host=served.host, send_reasoning="always").chat([shown, FOREIGN["LlamaIndex"], shown])
    assert served.sent() == ["<think>Hm.</think>Yes."]
    assert len(served.server.predictions[-1].images) == 2


@pytest.mark.leaf("hosts", "reasoning_replay")
@pytest.mark.parametrize(("make", "name"), [(ChatLMStudio, "content blocks"), (LMStudio, "LlamaIndex")])
def test_each_host_gets_what_its_template_takes(make: Any, name: str) -> None:
    first, second = serving(m=template_functions.kept), serving(m=template_functions.after_empty)
    with first.server, second.server:
        llm = make(model="m", host=[first.host, second.host])
        for served, expected in ((first, ["<think>Hm.</think>Yes."]), (second, ["Yes."])):
            send(llm, FOREIGN[name])
            assert served.sent() == expected
            assert len(served.engine.renderings) == 1
            served.server.stop()


@pytest.mark.leaf("reasoning_replay")
def test_a_model_that_another_program_has_loaded_again_is_asked_anew_after_its_first_response() -> None:
    loads = list[str]()

    def template(said: Said) -> str:
        return template_functions.after_empty(said) if loads else template_functions.kept(said)

    served, sent = serving(m=template), list[list[str]]()
    with served.server, lms.Client(served.host) as other_program:
        llm = ChatLMStudio(model="m", host=served.host)
        for is_again in (False, True, False):
            if is_again:
                served.server.unload("m")
                loads.append(other_program.llm.model("m").identifier)
            send(llm, FOREIGN["content blocks"])
            sent.append(served.sent())
    assert sent == [["<think>Hm.</think>Yes."]] * 2 + [["Yes."]]


CALLED: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "stream": lambda host, given: [*ChatLMStudio(model="kept", host=host).stream("Well?", **given)],
    "chat": lambda host, given: LMStudio(model="kept", host=host).chat(said("Well?"), **given),
    "async act": lambda host, given: CALLS["async act"](host, "kept", ["Well?"], given),
}


@pytest.mark.parametrize("name", [name for name in CALLED if name != "async act" or name in CALLS])
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"send_reasoning": "nonsense"}, "send_reasoning.*nonsense"),
        ({"keep_reasoning": "nonsense"}, "keep_reasoning.*nonsense"),
        ({"send_reasoning": "turn", "keep_reasoning": True}, "keep_reasoning=True contradicts send_reasoning='turn'"),
        ({"send_reasoning": False, "keep_reasoning": True}, "keep_reasoning=True contradicts send_reasoning=False"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(served: Served, name: str, settings: dict[str, Any], text: str) -> None:
    before = len(served.server.predictions)
    with pytest.raises(lms.LMStudioValueError, match=text):
        CALLED[name](served.host, settings)
    assert len(served.server.predictions) == before


@pytest.mark.parametrize("mode", ["always", False])
def test_a_setting_of_the_call_overrides_that_of_the_object(served: Served, mode: Any) -> None:
    thought, expected = FOREIGN["content blocks"], [["<think>Hm.</think>Yes."], ["Yes."]][mode is False]
    other: Any = "always" if mode is False else False
    llm = ChatLMStudio(model="misplaced", host=served.host, send_reasoning=other)
    llm.invoke([thought, HumanMessage("Well?")], send_reasoning=mode)
    assert served.sent() == expected
    llm.bind(send_reasoning=mode).invoke([thought, HumanMessage("Well?")])
    assert served.sent() == expected
    llama = LMStudio(model="misplaced", host=served.host, send_reasoning=other)
    llama.chat([FOREIGN["LlamaIndex"], *said("Well?")], send_reasoning=mode)
    assert served.sent() == expected
