"""A conversation that only grows, and whose prompts begin differently all the same: natively and in both frameworks."""

import asyncio
import re
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import dynamic_prompt
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests.emulator.engines.llama_cpp.models import CHAT
from tests.support.adapters import covering

RULES = "You are a guide for travelers, and you keep to the point. " * 5
SCRIPT: tuple[dict[str, Any], ...] = (
    {"when": {"last": "^Look"}, "then": [{"tool": "weather", "arguments": {"city": "Oslo"}}]},
    {"when": {"last": "^Glance"}, "then": [{"tool": "weather"}]},
    {"when": {"last": "^Say"}, "then": [{"text": "I would rather talk about the weather, and for a long time."}]},
    {"when": {"last": "^Name"}, "then": [{"text": '{"name": "Oslo"}'}]},
)


def tool(name: str) -> dict[str, Any]:
    """Return a tool that the scripted model never calls."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": f"Find {name}.", "parameters": parameters}}


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([ModelEntry(key="m", rules=SCRIPT)]) as running:
        yield running


@contextmanager
def reported() -> Iterator[list[str]]:
    """Collect the warnings about the cache. They name the line of this test, and there are no others."""
    found: list[str] = []

    def add(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        assert (category, filename) == (lms.LMStudioPromptCacheWarning, __file__)
        found.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", lms.LMStudioPromptCacheWarning)
        warnings.showwarning = add
        yield found


# Ways to respond ------------------------------------------------------------------------------------------------------

Turns = list[tuple[str, str]]
"""The roles and texts of a conversation."""


class Answer(NamedTuple):
    """A response: its text, the tokens of it and its prompt, and how many of them were in the cache."""

    text: str
    tokens: int
    cached: int


Way = Callable[[str, Turns, list[Any]], Answer]


def of_message(message: Any) -> Answer:
    usage, cached = message.usage_metadata, message.response_metadata["cached_tokens"]
    assert usage["input_token_details"]["cache_read"] == cached
    return Answer(message.text, usage["total_tokens"], cached)


def of_response(response: Any) -> Answer:
    usage, cached = response.raw["usage"], response.raw["stats"]["cached_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == cached
    return Answer(str(response.message.content), usage["total_tokens"], cached)


def of_result(result: lms.PredictionResult) -> Answer:
    assert result.cached_tokens is not None
    return Answer(result.content, result.stats.total_tokens_count or 0, result.cached_tokens)


def chat_messages(turns: Turns) -> list[ChatMessage]:
    return [ChatMessage(text, role=role) for role, text in turns]


def history(turns: Turns) -> Any:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def offered(tools: list[Any]) -> Any:
    return {"rawTools": {"type": "toolArray", "tools": tools}} if tools else {}


def native(host: str, turns: Turns, tools: list[Any]) -> Answer:
    with lms.Client(host) as client:
        return of_result(client.llm.model("m").respond(history(turns), config=offered(tools)))


async def native_async(host: str, turns: Turns, tools: list[Any]) -> Answer:
    async with lms.AsyncClient(host) as client:
        stream = (await client.llm.model("m")).respond_stream(history(turns), config=offered(tools))
        await all_of(stream)
        return of_result(stream.result())


async def all_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in stream]


def langchain(host: str, turns: Turns, tools: list[Any]) -> Answer:
    return of_message(ChatLMStudio(model="m", host=host).invoke(turns, tools=tools))


async def langchain_async(host: str, turns: Turns, tools: list[Any]) -> Answer:
    chunks = await all_of(ChatLMStudio(model="m", host=host).astream(turns, tools=tools))
    return of_message(sum(chunks[1:], chunks[0]))


def llama_index(host: str, turns: Turns, tools: list[Any]) -> Answer:
    return of_response(LMStudio(model="m", host=host).chat(chat_messages(turns), tools=tools))


async def llama_index_async(host: str, turns: Turns, tools: list[Any]) -> Answer:
    stream = await LMStudio(model="m", host=host).astream_chat(chat_messages(turns), tools=tools)
    return of_response((await all_of(stream))[-1])


def waiting(call: Callable[..., Any]) -> Way:
    return lambda *arguments: asyncio.run(call(*arguments))


WAYS: dict[str, Way] = {
    "native": native,
    "native stream, async": waiting(native_async),
    "LangChain": langchain,
    "LangChain stream, async": waiting(langchain_async),
    "LlamaIndex": llama_index,
    "LlamaIndex stream, async": waiting(llama_index_async),
}

# Prompts that begin differently ---------------------------------------------------------------------------------------

Change = Callable[[Turns, int], Turns]
TOOLS = [tool("weather"), tool("hotels"), tool("trains")]
CASES: dict[str, tuple[str | None, Change, Callable[[int], list[Any]]]] = {
    "a clock": (
        r"message 0 \(system\) differs",
        lambda turns, turn: [("system", f"{RULES} It is 12:0{turn}."), *turns[1:]],
        lambda _: [],
    ),
    "tools of two agents": (None, lambda turns, _: turns, lambda turn: TOOLS[turn % 2 :]),
    "a first message that is rewritten": (
        r"message 0 \(user\) differs",
        lambda turns, turn: [("user", f"{turns[1][1]} This is question {turn}."), *turns[2:]],
        lambda _: TOOLS,
    ),
    "context at the front": (
        r"message 0 \(system\) was not in the call before",
        lambda turns, turn: [*([("system", f"It rains in {turn} cities.")] if turn else []), *turns[1:]],
        lambda _: [],
    ),
    "nothing": (None, lambda turns, _: turns, lambda _: TOOLS),
}
trips = count()
"""No conversation is the same: what is remembered of a server is still there for the next one at its address."""


@pytest.mark.parametrize(("name", "case"), covering(WAYS, CASES))
def test_the_place_is_reported_once(server: Emulator, name: str, case: str) -> None:
    way, (place, change, tools) = WAYS[name], CASES[case]
    turns, before, expected = [("system", RULES)], Answer("", 0, 0), list[int]()
    with reported() as found:
        for turn in range(4):
            question = f"Trip {next(trips)}: where does this train go, what is there to see, and how long does it take?"
            turns.append(("user", f"{question} {'Take your time. ' * 5}"))
            answer = way(server.address, change(turns, turn), tools(turn))
            turns.append(("assistant", answer.text))
            if len(found) > len(expected):
                expected.append(before.tokens - answer.cached)
            before = answer
    assert len(found) == (place is not None)
    for text, lost in zip(found, expected, strict=True):
        assert re.match(str(place), text)
        (tokens,) = re.findall(r"processes (\d+) tokens again", text)
        assert int(tokens) == pytest.approx(lost, rel=0.05)


# Chains, engines and agents -------------------------------------------------------------------------------------------

QUESTIONS = ["Where does the train to Oslo go?", "And how long does it take to get there?", "Is there a later one?"]


def documents(question: str) -> list[str]:
    """Return what a retriever finds: something else for each question."""
    return [f"{number}. There is something to read about {question!r} in this long guide." for number in range(6)]


class Retriever(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=text), score=1.0) for text in documents(query_bundle.query_str)]


def ask_a_chain(host: str) -> None:
    prompt = ChatPromptTemplate(
        [("system", "Use this: {context}"), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    chain, history = prompt | ChatLMStudio(model="m", host=host), list[Any]()
    for question in QUESTIONS:
        given = {"context": "\n".join(documents(question)), "history": history, "question": question}
        history += [HumanMessage(question), chain.invoke(given)]


def ask_an_engine(host: str) -> None:
    llm, memory = LMStudio(model="m", host=host), ChatMemoryBuffer.from_defaults(token_limit=4096)
    engine = ContextChatEngine.from_defaults(Retriever(), llm=llm, memory=memory)
    for question in QUESTIONS:
        engine.chat(question)


def run_an_agent(host: str, question: str = "Look out of the window.") -> None:
    ticks = count()
    clock = dynamic_prompt(lambda _: f"{RULES} It is 12:0{next(ticks)}.")
    agent = create_agent(ChatLMStudio(model="m", host=host), [weather], middleware=[clock])
    agent.invoke({"messages": [HumanMessage(question)]})


def run_an_agent_whose_call_is_mended(host: str) -> None:
    run_an_agent(host, "Glance out of the window.")


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"Rain in {city}, and more of it in the evening."


@pytest.mark.parametrize("ask", [ask_a_chain, ask_an_engine, run_an_agent, run_an_agent_whose_call_is_mended])
def test_what_changes_in_the_system_message_is_reported_once(server: Emulator, ask: Callable[[str], None]) -> None:
    with reported() as found:
        ask(server.address)
    (text,) = found
    assert text.startswith("message 0 (system) differs")


# What is not reported: a warning is an error --------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_a_tool_loop_may_end_without_tools(server: Emulator, is_async: bool) -> None:
    chat = lms.Chat(RULES)

    async def act(question: str) -> None:
        async with lms.AsyncClient(server.address) as client:
            chat.add_user_message(question)
            model = await client.llm.model("m")
            await model.act(chat, [weather], max_prediction_rounds=2, on_message=chat.append)

    for number in range(3):
        if is_async:
            asyncio.run(act(f"Look out of the window for the weather, number {number}."))
            continue
        with lms.Client(server.address) as client:
            chat.add_user_message(f"Look out of the window for the weather, number {number}.")
            client.llm.model("m").act(chat, [weather], max_prediction_rounds=2, on_message=chat.append)
    assert [bool(each.tools) for each in server.predictions] == [True, False] * 3


def test_a_call_by_grammar_is_no_turn_of_its_own(server: Emulator) -> None:
    model = ChatLMStudio(model="m", host=server.address).bind_tools([weather], tool_choice="any")
    messages: list[Any] = [SystemMessage(RULES)]
    for number in range(5):
        messages.append(HumanMessage(f"Say what the weather is in city {number}. Think about it for a while."))
        response = model.invoke(messages)
        messages += [response, *(ToolMessage(weather("Oslo"), tool_call_id=each["id"]) for each in response.tool_calls)]
    assert [bool(each.tools) for each in server.predictions][:2] == [True, False]


def test_a_correction_is_a_turn(server: Emulator) -> None:
    schema = {"title": "City", "type": "object", "properties": {"name": {"type": "integer"}}, "required": ["name"]}
    model = ChatLMStudio(model="m", host=server.address)
    structured = model.with_structured_output(schema, include_raw=True, max_attempts=3)
    messages: list[Any] = [SystemMessage(RULES)]
    for number in range(2):
        messages.append(HumanMessage(f"Name city number {number}. Take your time, and think about it for a while."))
        messages.append(structured.invoke(messages)["raw"])
    assert messages[-1].response_metadata["attempts"] > 1
    assert (
        messages[-1].response_metadata["cached_tokens"]
        == messages[-1].usage_metadata["input_token_details"]["cache_read"]
    )


# A real model ---------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_the_tokens_are_those_that_a_real_engine_processes_again() -> None:
    engine, cached = LlamaCppEngine(threads=1, offline=True), list[list[int]]()
    reported_in = list[int]()
    with (
        Emulator([f"{CHAT}={CHAT}"], engines={"llama_cpp": engine}) as server,
        lms.Client(server.address) as client,
        reported() as found,
    ):
        model = client.llm.model(CHAT, config={"contextLength": 1024})
        for ticks in (False, True):
            turns, counts = [("user", f"Trip {next(trips)}: where does this train go?")], list[int]()
            while len(counts) < 3:
                clock = ("system", f"{RULES} You never hurry. It is 12:0{len(counts) * ticks}.")
                result = model.respond(history([clock, *turns]), config={"maxTokens": 8, "temperature": 0})
                turns += [("assistant", result.content), ("user", "And where does the next one go, if there is one?")]
                reported_in += [len(counts)] * (len(found) > len(reported_in))
                counts.append(result.cached_tokens or 0)
            cached.append(counts)
    (text,), (steady, ticking), (turn,) = found, cached, reported_in  # what the model says decides in which turn
    (tokens,) = re.findall(r"processes (\d+) tokens again", text)
    assert int(tokens) == pytest.approx(steady[turn] - ticking[turn], rel=0.05)
