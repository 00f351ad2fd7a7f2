"""The thoughts of a model go back to it as it wrote them, on every way to send a conversation."""

import asyncio
import base64
import json
import pickle
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from inspect import iscoroutine
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
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
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ImageBlock, TextBlock, ThinkingBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import BaseMemory, Memory
from llama_index.core.tools import FunctionTool
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.toolkits import PNG
from tests.support import template_functions
from tests.support.adapters import covering
from tests.support.template_functions import Said, Template, TemplateEngine, answers

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
    {
        "when": {"last": "^ReAct"},
        "then": [{"reasoning": CALL_THOUGHT}, {"text": "Thought: I look.\nAction: look\nAction Input: {}"}],
    },
    {"when": {"last": "^Confuse"}, "then": [{"reasoning": CALL_THOUGHT}, {"text": "Thought: I look.\nAction: {"}]},
    {
        "when": {"last": "^(Observation|Error)"},
        "then": [{"reasoning": ANSWER_THOUGHT}, {"text": "Thought: I know.\nAnswer: It rains."}],
    },
    {"when": {"last": "^Quick"}, "then": [{"reasoning": ""}, {"text": "Yes."}]},
    {"when": {"last": "^Summarize"}, "then": [{"reasoning": "Short."}, {"text": "It was about rain."}]},
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


def langchain(respond: Callable[[Any, list[Any]], Any], restored: Callable[[Any], Any] = list, **own: Any) -> Way:
    def run(host: str, model: str, questions: Sequence[str], settings: Mapping[str, Any]) -> list[BaseMessage]:
        llm = ChatLMStudio(model=model, host=host, **own, **settings).bind_tools([TOOL])
        messages: list[Any] = []
        for question in questions:
            messages.append(HumanMessage(question))
            while messages[-1].type != "ai" or messages[-1].tool_calls:
                messages = restored(messages)
                response = respond(llm, messages)
                results = [ToolMessage("It rains.", tool_call_id=call["id"]) for call in response.tool_calls]
                messages += [response, *results]
        return messages

    return run


def streamed(model: Any, messages: list[Any]) -> Any:
    whole, *rest = model.stream(messages)
    return message_chunk_to_message(sum(rest, whole))


async def astreamed(model: Any, messages: list[Any]) -> Any:
    chunks = [chunk async for chunk in model.astream(messages)]
    return message_chunk_to_message(sum(chunks[1:], chunks[0]))


def llama_index(respond: Callable[..., Any], restored: Callable[[Any], Any] = list) -> Way:
    def run(host: str, model: str, questions: Sequence[str], settings: Mapping[str, Any]) -> list[ChatMessage]:
        llm, messages = LMStudio(model=model, host=host, **settings), list[ChatMessage]()
        for question in questions:
            messages.append(ChatMessage(question, role="user"))
            calls: Any = [None]
            while calls:
                messages = restored(messages)
                response = respond(llm, messages)
                response = asyncio.run(response) if iscoroutine(response) else response
                calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
                messages.append(response.message)
                messages += [
                    ChatMessage("It rains.", role="tool", additional_kwargs={"tool_call_id": call.tool_id})
                    for call in calls
                ]
        return messages

    return run


async def last_of(stream: Awaitable[Any]) -> Any:
    return [each async for each in await stream][-1]


Opened = Callable[[str, str], AbstractContextManager[Callable[..., lms.PredictionResult]]]


def native(opened: Opened, restored: Callable[[Any], Any] = lambda chat: chat) -> Way:
    def run(host: str, model: str, questions: Sequence[str], settings: Mapping[str, Any]) -> lms.Chat:
        chat = lms.Chat()
        with opened(host, model) as respond:
            for question in questions:
                chat.add_user_message(question)
                calls: Any = [None]
                while calls:
                    chat = restored(chat)
                    result = respond(chat, **{"config": CONFIG, **settings})
                    calls = result.tool_call_requests
                    chat.add_assistant_response(result, calls)
                    for call in calls:
                        chat.add_tool_result({"content": "It rains.", "toolCallId": call.id, "name": call.name})
        return chat

    return run


@contextmanager
def natively(host: str, model: str) -> Iterator[Any]:
    with lms.Client(host) as client:
        yield client.llm.model(model).respond


@contextmanager
def natively_streamed(host: str, model: str) -> Iterator[Any]:
    with lms.Client(host) as client:
        handle = client.llm.model(model)

        def respond(chat: lms.Chat, **given: Any) -> lms.PredictionResult:
            stream = handle.respond_stream(chat, **given)
            for _ in stream:
                pass
            return stream.result()

        yield respond


@contextmanager
def anatively(host: str, model: str) -> Iterator[Any]:
    with asyncio.Runner() as runner:
        client = lms.AsyncClient(host)
        handle = runner.run(client.llm.model(model))
        yield lambda chat, **given: runner.run(handle.respond(chat, **given))
        runner.run(client.aclose())


def look() -> str:
    """Looks."""
    return "It rains."


def acting(host: str, model: str, questions: Sequence[str], settings: Mapping[str, Any]) -> lms.Chat:
    chat = lms.Chat()
    with lms.Client(host) as client:
        handle = client.llm.model(model)
        for question in questions:
            chat.add_user_message(question)
            handle.act(chat, [look], on_message=chat.append, **settings)
    return chat


def aacting(host: str, model: str, questions: Sequence[str], settings: Mapping[str, Any]) -> lms.Chat:
    chat = lms.Chat()

    async def run() -> None:
        async with lms.AsyncClient(host) as client:
            handle = await client.llm.model(model)
            for question in questions:
                chat.add_user_message(question)
                await handle.act(chat, [look], on_message=chat.append, **settings)

    asyncio.run(run())
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


def whole_memory(llm: LMStudio, database: AsyncEngine) -> BaseMemory:
    return Memory.from_defaults(async_engine=database)


@asynccontextmanager
async def remembering(
    llm: LMStudio, memory_of: Callable[[LMStudio, AsyncEngine], BaseMemory] = whole_memory
) -> AsyncIterator[BaseMemory]:
    database = create_async_engine("sqlite+aiosqlite://")
    try:
        yield memory_of(llm, database)
    finally:
        await database.dispose()


def llama_index_agent(
    *, streaming: bool = False, memory_of: Callable[[LMStudio, AsyncEngine], BaseMemory] = whole_memory
) -> Way:
    def run(host: str, model: str, questions: Sequence[str], settings: Mapping[str, Any]) -> Any:
        async def ask() -> None:
            llm = LMStudio(model=model, host=host, **settings)
            agent = FunctionAgent(tools=[FunctionTool.from_defaults(look)], llm=llm, streaming=streaming)
            async with remembering(llm, memory_of) as memory:
                for question in questions:
                    await agent.run(question, memory=memory)

        asyncio.run(ask())

    return run


def through_json(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    return [ChatMessage.model_validate_json(message.model_dump_json()) for message in messages]


def through_v1(messages: Sequence[Any]) -> list[Any]:
    return [
        AIMessage(content=[*map(dict, message.content_blocks)]) if isinstance(message, AIMessage) else message
        for message in messages
    ]


def invoked(model: Any, messages: Any) -> Any:
    return model.invoke(messages)


def chatted(llm: LMStudio, messages: Any) -> Any:
    return llm.chat(messages, tools=[TOOL])


CALLS: dict[str, Way] = {
    "invoke": langchain(invoked),
    "ainvoke": langchain(lambda model, messages: asyncio.run(model.ainvoke(messages))),
    "stream": langchain(streamed),
    "astream": langchain(lambda model, messages: asyncio.run(astreamed(model, messages))),
    "chat": llama_index(chatted),
    "achat": llama_index(lambda llm, messages: llm.achat(messages, tools=[TOOL])),
    "stream_chat": llama_index(lambda llm, messages: [*llm.stream_chat(messages, tools=[TOOL])][-1]),
    "astream_chat": llama_index(lambda llm, messages: last_of(llm.astream_chat(messages, tools=[TOOL]))),
    "respond": native(natively),
    "respond_stream": native(natively_streamed),
    "async respond": native(anatively),
    "act": acting,
    "async act": aacting,
    "create_agent": langchain_agent(),
    "FunctionAgent": llama_index_agent(streaming=False),
    "FunctionAgent, streaming": llama_index_agent(streaming=True),
}
"""Every way to send a conversation."""

NATIVE = {"respond", "respond_stream", "async respond", "act", "async act"}

RESTORED: dict[str, Way] = {
    "pickle": langchain(invoked, lambda messages: pickle.loads(pickle.dumps(messages))),
    "loads": langchain(invoked, lambda messages: loads(dumps(messages), allowed_objects="core")),
    "dicts": langchain(
        invoked, lambda messages: messages_from_dict(json.loads(json.dumps(messages_to_dict(messages))))
    ),
    "v1": langchain(invoked, output_version="v1"),
    "v1, stream": langchain(streamed, output_version="v1"),
    "v0 to v1": langchain(invoked, through_v1),
    "v0 to v1, stream": langchain(streamed, through_v1),
    "v1 to v0": langchain(invoked, through_v1, output_version="v1"),
    "checkpointer": langchain_agent(checkpointer=MemorySaver()),
    "model_dump_json": llama_index(chatted, through_json),
    "LlamaIndex, pickle": llama_index(chatted, lambda messages: pickle.loads(pickle.dumps(messages))),
    "Chat, JSON": native(
        natively, lambda chat: lms.Chat.from_history(json.loads(json.dumps(chat.to_history().to_dict())))
    ),
    "Chat, pickle": native(natively, lambda chat: pickle.loads(pickle.dumps(chat))),
    "Chat, copy": native(natively, lambda chat: chat.copy()),
}
"""Ways on which a conversation is stored between two calls."""

every_call = pytest.mark.parametrize("way", CALLS.values(), ids=CALLS)
every_way = pytest.mark.parametrize("way", (CALLS | RESTORED).values(), ids=CALLS | RESTORED)

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.LangChainBetaWarning",
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from",
)

ALL = [BEFORE_CALL, BEFORE_ANSWER, BEFORE_CALL]
NONE = [TEXT_OF_CALL, ANSWER, TEXT_OF_CALL]


@pytest.fixture(scope="module")
def prompts_of_invoke(served: Served) -> list[str]:
    return prompts_of(served, CALLS["invoke"])


@every_way
def test_a_model_gets_its_thoughts_back_byte_for_byte(served: Served, prompts_of_invoke: list[str], way: Way) -> None:
    assert len(prompts_of_invoke) == 4
    prompts = prompts_of(served, way)
    assert served.sent() == ALL
    assert served.questions() == [QUESTION, QUESTION]
    assert way not in CALLS.values() or prompts == prompts_of_invoke


def prompts_of(served: Served, way: Way) -> list[str]:
    """Return the messages of all prompts, without the ids of calls, and results as text: that of `act` is JSON."""
    before = len(served.server.predictions)
    way(served.host, "kept", [QUESTION, QUESTION], {})
    found = [json.dumps(each.messages) for each in served.server.predictions[before:]]
    return [
        re.sub(r'"(id|toolCallId)": "\d+"', "", each).replace(json.dumps('"It rains."'), json.dumps("It rains."))
        for each in found
    ]


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_react_agent_keeps_the_thoughts_of_messages_that_it_does_not_write_anew(
    served: Served, *, streaming: bool
) -> None:
    llm = LMStudio(model="kept", host=served.host)
    agent = ReActAgent(tools=[FunctionTool.from_defaults(look)], llm=llm, streaming=streaming)
    call = "Thought: I look.\nAction: look\nAction Input: {}"
    async with remembering(llm) as memory:
        await agent.run("ReAct", memory=memory)
        assert served.sent() == [call]
        await agent.run("Confuse", memory=memory)
    turn = f"{call}\nObservation: It rains.\nThought: I know.\nAnswer: It rains."
    assert served.sent() == [turn, f"<think>{CALL_THOUGHT}</think>Thought: I look.\nAction: {{"]


@pytest.mark.parametrize("way", [CALLS[name] for name in ("invoke", "astream", "achat", "act", "create_agent")])
def test_a_thought_before_a_call_in_the_text_goes_back(served: Served, way: Way) -> None:
    way(served.host, "kept", ["In the text"], {})
    assert served.sent() == ["<think>Hm.</think>I do.\n"]


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
def test_each_load_is_asked_once_even_by_a_new_object(served: Served, make: Any) -> None:
    asked = []
    for load in range(2):
        for _ in range(2):
            llm = make(model="kept", host=served.host)
            served.engine.renderings.clear()
            if make is ChatLMStudio:
                llm.invoke([FOREIGN["content blocks"], HumanMessage("Well?")])
            else:
                llm.chat([FOREIGN["LlamaIndex"], ChatMessage("Well?", role="user")])
            asked.append(len(served.engine.renderings))
        if load == 0:
            served.server.unload("kept")
    assert asked == [1, 0, 1, 0]


MODES: dict[str, tuple[str, Any, list[str]]] = {
    "auto": ("misplaced", "auto", NONE),
    "auto, copied": ("copied", "auto", [BEFORE_CALL, ANSWER, BEFORE_CALL]),
    "auto, stripped": ("stripped", "auto", ALL),
    "auto, rejected": ("rejected", "auto", NONE),
    "always": ("misplaced", "always", ALL),
    "True": ("misplaced", True, ALL),
    "turn": ("misplaced", "turn", [*NONE[:2], BEFORE_CALL]),
    "False": ("kept", False, NONE),
    "always, rejected": ("rejected", "always", NONE),
}


@pytest.mark.parametrize(("way", "name"), covering(["stream", "astream_chat", "respond", "act"], MODES))
def test_a_setting_decides_what_is_sent(served: Served, way: str, name: str) -> None:
    model, mode, expected = MODES[name]
    CALLS[way](served.host, model, [QUESTION, QUESTION], {"send_reasoning": mode})
    assert served.sent() == expected


@pytest.mark.parametrize(
    ("way", "model"),
    covering(["stream", "astream_chat", "act"], ["kept", "stripped", "copied", "misplaced", "rejected", "bare"]),
)
def test_each_prompt_begins_with_the_one_before(served: Served, way: str, model: str) -> None:
    served.engine.prompts.clear()
    CALLS[way](served.host, model, [QUESTION] * 3, {})
    prompts = served.engine.prompts
    assert len(prompts) == 6
    for before, after in pairwise(prompts):
        assert after.startswith(before)


# Thoughts that are not whole ------------------------------------------------------------------------------------------


CUT_OFF: dict[str, tuple[Way, dict[str, Any]]] = {
    name: (
        way,
        {"config": {**({} if "act" in name else CONFIG), "maxTokens": 3}} if name in NATIVE else {"max_tokens": 3},
    )
    for name, way in CALLS.items()
    if "FunctionAgent" not in name  # which takes an empty response for an error
}


@pytest.mark.parametrize(("way", "settings"), CUT_OFF.values(), ids=CUT_OFF)
def test_a_thought_that_was_cut_off_is_not_sent(served: Served, way: Way, settings: dict[str, Any]) -> None:
    way(served.host, "kept", [QUESTION, QUESTION], settings)
    assert served.server.predictions[-1].reasoning == "\nShould I"
    assert "".join(served.sent()) == ""
    assert served.questions() == [QUESTION, QUESTION]


def test_of_a_response_that_was_cut_off_whole_thoughts_are_sent(served: Served) -> None:
    seen: set[str] = set()
    for limit in range(1, 30):
        CALLS["invoke"](served.host, "kept", [QUESTION, "Well?"], {"max_tokens": limit})
        first, *_ = served.sent()
        assert BEFORE_CALL.startswith(first)
        assert first.count("<think>") == first.count("</think>")
        seen.add(first)
    assert {"", f"<think>{CALL_THOUGHT}</think>", BEFORE_CALL} < seen


@pytest.mark.parametrize("way", CALLS.values(), ids=CALLS)
def test_an_empty_thought_is_sent_as_it_was_written(served: Served, way: Way) -> None:
    way(served.host, "kept", ["Quick: is it?", "Well?"], {})
    assert served.sent() == ["<think></think>Yes."]


def conversation(served: Served, **own: Any) -> list[BaseMessage]:
    """Return a conversation with two calls and two answers, each with thoughts."""
    messages: list[BaseMessage] = langchain(invoked, **own)(served.host, "kept", [QUESTION, QUESTION], {})
    return messages


def shortened(messages: list[Any]) -> list[Any]:
    """Cut the texts of the model down to three characters."""
    return [
        each.model_copy(update={"content": each.content[:3]}) if isinstance(each, AIMessage) else each
        for each in messages
    ]


def replaced(messages: list[Any]) -> list[Any]:
    return [
        each.model_copy(update={"content": "It may rain or not."}) if isinstance(each, AIMessage) else each
        for each in messages
    ]


def emptied(messages: list[Any]) -> list[Any]:
    return [each.model_copy(update={"content": ""}) if isinstance(each, AIMessage) else each for each in messages]


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
    "texts shortened": shortened,
    "texts replaced": replaced,
    "texts emptied": emptied,
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
    return {*thoughts} <= WHOLE and has_no_thoughts(before, *rests)


def has_no_thoughts(*texts: str) -> bool:
    return not any(thought.strip() in text for text in texts for thought in THOUGHTS)


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_an_edited_conversation_has_no_half_thoughts(served: Served, version: str) -> None:
    given = conversation(served, output_version=version)
    llm = ChatLMStudio(model="kept", host=served.host)
    for name, edit in EDITS.items():
        llm.invoke([*edit(given), HumanMessage("Well?")])
        for text in served.sent():
            assert has_whole_thoughts(text), name


def test_a_summary_has_no_thoughts_and_what_stays_has_whole_ones(served: Served) -> None:
    summarize = SummarizationMiddleware(
        ChatLMStudio(model="kept", host=served.host),
        trigger=("messages", 5),
        keep=("messages", 2),
        summary_prompt="Summarize: {messages}",
        trim_tokens_to_summarize=None,
    )
    langchain_agent(middleware=[summarize])(served.host, "kept", [QUESTION, QUESTION], {})
    summaries = [each for each in served.server.predictions if "Summarize" in json.dumps(each.messages)]
    assert summaries
    for thought in (*THOUGHTS, "Short."):
        assert thought.strip() not in json.dumps([each.messages for each in summaries])
    assert served.sent()[-1:] == [BEFORE_CALL]
    assert "Short." not in json.dumps(served.server.predictions[-1].messages)


BLOCK_EDITS: dict[str, tuple[Callable[[list[Any]], list[Any]], str]] = {
    "text shortened": (
        lambda blocks: [block if block.block_type != "text" else TextBlock(text="I") for block in blocks],
        f"<think>{CALL_THOUGHT}</think>I",
    ),
    "text removed": (
        lambda blocks: [block for block in blocks if block.block_type != "text"],
        f"<think>{CALL_THOUGHT}</think>",
    ),
    "thought removed": (lambda blocks: [block for block in blocks if block.block_type != "thinking"], TEXT_OF_CALL),
    "thought replaced": (
        lambda blocks: [
            block.model_copy(update={"content": "Other."}) if block.block_type == "thinking" else block
            for block in blocks
        ],
        f"<think>Other.</think>{TEXT_OF_CALL}",
    ),
}


@pytest.mark.parametrize(("edit", "expected"), BLOCK_EDITS.values(), ids=BLOCK_EDITS)
def test_edited_blocks_have_no_half_thoughts(
    served: Served, edit: Callable[[list[Any]], list[Any]], expected: str
) -> None:
    messages = CALLS["chat"](served.host, "kept", [QUESTION], {})
    messages[1].blocks = edit(messages[1].blocks)
    LMStudio(model="kept", host=served.host).chat([*messages, ChatMessage("Well?", role="user")])
    assert served.sent() == [expected, BEFORE_ANSWER]


@pytest.mark.parametrize(
    ("model", "settings", "is_counted"),
    [("kept", {}, True), ("misplaced", {}, False), ("misplaced", {"send_reasoning": True}, True)]
    + [("kept", {"send_reasoning": mode}, mode == "turn") for mode in ("turn", False)],
)
def test_thoughts_count_where_the_template_rejects_a_part(
    served: Served, monkeypatch: pytest.MonkeyPatch, model: str, settings: dict[str, Any], is_counted: bool
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise lms.LMStudioPromptTemplateError("roles must alternate")

    call, answer = [each for each in conversation(served) if isinstance(each, AIMessage)][:2]
    llm = ChatLMStudio(model=model, host=served.host, **settings)
    monkeypatch.setattr(lms.LLM, "apply_prompt_template", fail)
    for given, written in ((call, BEFORE_CALL), (answer, BEFORE_ANSWER)):
        without = given.model_copy(update={"additional_kwargs": {}})
        counts = [llm.get_num_tokens_from_messages([each]) for each in (given, without)]
        thoughts = words.count(written) - words.count(without.text)
        assert thoughts >= 3
        assert counts[0] - counts[1] == (thoughts if is_counted else 0)


def test_a_redacted_text_has_no_thought_inside(served: Served) -> None:
    messages = conversation(served)
    messages[1].content = "[REDACTED_EMAIL] is what I look at."
    ChatLMStudio(model="kept", host=served.host).invoke([*messages, HumanMessage("Well?")])
    assert served.sent()[0] == f"<think>{CALL_THOUGHT}</think>[REDACTED_EMAIL] is what I look at."


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
    "tags that are no list": AIMessage("Yes.", additional_kwargs={"reasoning_content": "Hm.", "reasoning_tags": 1}),
    "LlamaIndex": ChatMessage(role="assistant", blocks=[ThinkingBlock(content="Hm."), TextBlock(text="Yes.")]),
    "LlamaIndex, tags that are no list": ChatMessage(
        role="assistant",
        blocks=[ThinkingBlock(content="Hm.", additional_information={"reasoning_tags": 1}), TextBlock(text="Yes.")],
    ),
    "LlamaIndex, invalid tags": ChatMessage(
        role="assistant",
        blocks=[
            ThinkingBlock(content="Hm.", additional_information={"reasoning_tags": [{"at": 1}]}),
            TextBlock(text="Yes."),
        ],
    ),
}


@pytest.mark.parametrize("message", FOREIGN.values(), ids=FOREIGN)
def test_a_thought_of_another_provider_gets_the_tags_of_the_model(served: Served, message: Any) -> None:
    if isinstance(message, AIMessage):
        ChatLMStudio(model="kept", host=served.host).invoke([message, HumanMessage("Well?")])
    else:
        LMStudio(model="kept", host=served.host).chat([message, ChatMessage("Well?", role="user")])
    assert served.sent() == ["<think>Hm.</think>Yes."]


def test_a_message_made_of_the_content_blocks_of_two_has_the_thoughts_of_both(served: Served) -> None:
    llm = ChatLMStudio(model="kept", host=served.host)
    blocks: list[Any] = [*llm.invoke("Hi").content_blocks]
    other = {"type": "thinking", "thinking": "Other."}
    for first in (blocks, [other, *blocks[1:]]):
        llm.invoke([HumanMessage("Well?"), AIMessage([*first, *blocks]), HumanMessage("Well?")])
        thought = "Hm." if first is blocks else "Other."
        assert served.sent() == [f"<think>{thought}</think>Well.<think>Hm.</think>Well."]


def test_a_thought_of_another_model_gets_the_tags_of_the_model(served: Served) -> None:
    brackets = {"enabled": True, "start_string": "[THINK]", "end_string": "[/THINK]"}
    other = ChatLMStudio(model="stripped", host=served.host, reasoning_parsing=brackets, send_reasoning="always")
    first = other.invoke(QUESTION)
    assert first.additional_kwargs["reasoning_tags"][0]["start"] == "[THINK]"
    messages: list[Any] = [HumanMessage("Well?"), first, HumanMessage("Well?")]
    other.invoke(messages)
    assert served.sent() == ["[THINK]Hm.[/THINK]Well."]
    ChatLMStudio(model="kept", host=served.host).invoke(messages)
    assert served.sent() == ["<think>Hm.</think>Well."]


# What is counted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "mode"), covering(["kept", "copied", "misplaced", "rejected"], ["auto", "always", "turn", False])
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


@every_call
def test_a_rejected_prompt_is_sent_again_without_thoughts_once(fresh: Served, way: Way) -> None:
    way(fresh.host, "picky", [QUESTION, QUESTION], {})
    assert fresh.sent() == NONE
    assert [each.error is None for each in fresh.server.predictions] == [True, False, True, True, True]
    assert len(fresh.engine.renderings) == 1


@pytest.mark.parametrize(("way", "mode"), covering(["stream", "achat", "async respond"], ["auto", "always", False]))
def test_a_prompt_that_is_rejected_for_another_reason_is_an_error_and_nothing_is_remembered(
    fresh: Served, way: str, mode: Any
) -> None:
    with pytest.raises(lms.LMStudioPromptTemplateError, match="no tags, please"):
        CALLS[way](fresh.host, "broken", [QUESTION], {"send_reasoning": mode})
    assert [each.error is None for each in fresh.server.predictions] == [True] + [False] * (1 if mode is False else 2)
    llm = ChatLMStudio(model="broken", host=fresh.host)
    llm.invoke([FOREIGN["content blocks"], HumanMessage("Well?")])
    assert fresh.sent() == ["<think>Hm.</think>Yes."]


def test_a_rendering_that_is_rejected_is_made_again_without_thoughts(fresh: Served) -> None:
    chat = CALLS["respond"](fresh.host, "kept", [QUESTION], {})
    fresh.engine.renderings.clear()
    with lms.Client(fresh.host) as client:
        handle = client.llm.model("picky")
        prompts = [handle.apply_prompt_template(chat) for _ in range(2)]
        assert prompts[0] == prompts[1] == handle.apply_prompt_template(chat, send_reasoning=False)
        assert len(fresh.engine.renderings) == 5  # one to find out, and one was rejected
        broken_one = client.llm.model("broken")
        with pytest.raises(lms.LMStudioPromptTemplateError, match="no tags, please"):
            broken_one.apply_prompt_template(chat)
        small = lms.Chat()
        small.append({"role": "assistant", "content": [{"type": "reasoning", "text": "Hm."}, "Yes."]})
        assert "Hm." in broken_one.apply_prompt_template(small)


# Images, hosts, and what is no setting --------------------------------------------------------------------------------


def test_thoughts_are_sent_beside_images(served: Served) -> None:
    thought = AIMessage("Yes.", additional_kwargs={"reasoning_content": "Hm."})
    url = f"data:image/png;base64,{PNG}"
    image = HumanMessage([{"type": "text", "text": "Well?"}, {"type": "image_url", "image_url": {"url": url}}])
    ChatLMStudio(model="kept", host=served.host).invoke([image, thought, image])
    sent = [served.sent()]
    blocks = [TextBlock(text="Well?"), ImageBlock(image=PNG.encode())]
    image_message: Any = ChatMessage(role="user", blocks=blocks)
    LMStudio(model="kept", host=served.host).chat([image_message, FOREIGN["LlamaIndex"], image_message])
    sent.append(served.sent())
    with lms.Client(served.host) as client:
        chat = lms.Chat()
        for _ in range(2):
            chat.add_user_message("Well?", images=[client.prepare_image(base64.b64decode(PNG))])
            chat.add_assistant_response(client.llm.model("kept").respond(chat))
            sent.append(served.sent())
    assert sent == [["<think>Hm.</think>Yes."]] * 2 + [[], ["<think>Hm.</think>Well."]]
    assert len(served.server.predictions[-1].images) == 2


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
def test_each_host_gets_what_its_template_takes(make: Any) -> None:
    first, second = serving(m=template_functions.kept), serving(m=template_functions.after_empty)
    with first.server, second.server:
        llm = make(model="m", host=[first.host, second.host])
        seen: set[str] = set()
        for served, expected in ((first, ["<think>Hm.</think>Yes."]), (second, ["Yes."])):
            if make is ChatLMStudio:
                llm.invoke([FOREIGN["content blocks"], HumanMessage("Well?")])
            else:
                llm.chat([FOREIGN["LlamaIndex"], ChatMessage("Well?", role="user")])
            assert served.sent() == expected
            seen.add(served.host)
            assert len(served.engine.renderings) == 1
            served.server.stop()
    assert len(seen) == 2


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
def test_a_model_that_another_program_has_loaded_again_is_asked_anew_after_its_first_response(make: Any) -> None:
    loads = list[str]()

    def template(said: Said) -> str:
        return template_functions.after_empty(said) if loads else template_functions.kept(said)

    served, sent = serving(m=template), list[list[str]]()
    with served.server, lms.Client(served.host) as other_program:
        llm = make(model="m", host=served.host)
        for is_again in (False, True, False):
            if is_again:
                served.server.unload("m")
                loads.append(other_program.llm.model("m").identifier)
            if make is ChatLMStudio:
                llm.invoke([FOREIGN["content blocks"], HumanMessage("Well?")])
            else:
                llm.chat([FOREIGN["LlamaIndex"], ChatMessage("Well?", role="user")])
            sent.append(served.sent())
    assert sent == [["<think>Hm.</think>Yes."]] * 2 + [["Yes."]]


def rendering(host: str, method: str, settings: Mapping[str, Any]) -> None:
    with lms.Client(host) as client:
        getattr(client.llm.model("kept"), method)("Well?", **settings)


def asked(way: Way, host: str, settings: Mapping[str, Any]) -> None:
    way(host, "kept", [QUESTION], settings)


NAMED: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "ChatLMStudio": lambda host, given: ChatLMStudio(model="kept", host=host, **given).invoke("Well?"),
    "invoke": lambda host, given: ChatLMStudio(model="kept", host=host).invoke("Well?", **given),
    "stream": lambda host, given: [*ChatLMStudio(model="kept", host=host).stream("Well?", **given)],
    "bind": lambda host, given: ChatLMStudio(model="kept", host=host).bind(**given).invoke("Well?"),
    "LMStudio": lambda host, given: LMStudio(model="kept", host=host, **given).chat([ChatMessage("Well?")]),
    "chat": lambda host, given: LMStudio(model="kept", host=host).chat([ChatMessage("Well?")], **given),
    **{name: partial(asked, CALLS[name]) for name in sorted(NATIVE)},
    "apply_prompt_template": lambda host, given: rendering(host, "apply_prompt_template", given),
    "get_context_use": lambda host, given: rendering(host, "get_context_use", given),
}
"""Every way to name a setting."""

WRONG: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
    "no value": ({"send_reasoning": "nonsense"}, ["send_reasoning", "nonsense", "always"]),
    "no switch": ({"keep_reasoning": "nonsense"}, ["keep_reasoning", "nonsense"]),
    "keeps and sends those of the turn": (
        {"send_reasoning": "turn", "keep_reasoning": True},
        ["keep_reasoning=True contradicts send_reasoning='turn'"],
    ),
    "keeps and sends none": (
        {"send_reasoning": False, "keep_reasoning": True},
        ["keep_reasoning=True contradicts send_reasoning=False"],
    ),
}
"""Settings, and what the error says."""


@pytest.mark.parametrize(("call", "wrong"), [*covering(NAMED, WRONG), ("apply_prompt_template", "no switch")])
def test_a_wrong_setting_is_one_clear_error(served: Served, call: str, wrong: str) -> None:
    before, (settings, expected) = len(served.server.predictions), WRONG[wrong]
    with pytest.raises((lms.LMStudioValueError, ValidationError)) as raised:
        NAMED[call](served.host, settings)
    assert [text for text in expected if text not in str(raised.value)] == []
    assert len(served.server.predictions) == before


@pytest.mark.parametrize("mode", ["always", False])
def test_a_setting_of_the_call_overrides_that_of_the_object(served: Served, mode: Any) -> None:
    thought, expected = FOREIGN["content blocks"], [["<think>Hm.</think>Yes."], ["Yes."]][mode is False]
    llm = ChatLMStudio(model="misplaced", host=served.host, send_reasoning="always" if mode is False else False)
    llm.invoke([thought, HumanMessage("Well?")], send_reasoning=mode)
    assert served.sent() == expected
    llm.bind(send_reasoning=mode).invoke([thought, HumanMessage("Well?")])
    assert served.sent() == expected
    llama = LMStudio(model="misplaced", host=served.host, send_reasoning="always" if mode is False else False)
    llama.chat([FOREIGN["LlamaIndex"], ChatMessage("Well?", role="user")], send_reasoning=mode)
    assert served.sent() == expected
