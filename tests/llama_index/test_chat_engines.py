"""Two turns of each chat engine and agent of LlamaIndex, on a model that reasons: what is remembered and sent."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    MultiModalCondensePlusContextChatEngine,
    MultiModalContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.memory import BaseMemory, ChatMemoryBuffer

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests._adapters.test_sent_reasoning import remembering
from tests._adapters.ways import AGENT_WARNINGS
from tests.llama_index.conftest import Listener
from tests.support import template_functions
from tests.support.adapters import covering
from tests.support.template_functions import TemplateEngine

pytestmark = AGENT_WARNINGS

QUESTIONS = ("Does it rain?", "And tomorrow?")
THOUGHT, ANSWER = "\nI look outside.\n", "\n\nIt rains."
WRITTEN = f"<think>{THOUGHT}</think>{ANSWER}"
"""What the model writes, byte for byte."""
SYSTEM = "Be brief."


class Served(NamedTuple):
    """A server, and the engine of its models, whose templates keep thoughts, or strip them."""

    server: Emulator
    engine: TemplateEngine
    documents: VectorStoreIndex


@pytest.fixture(scope="module")
def index() -> Iterator[VectorStoreIndex]:
    with Emulator([ModelEntry(key="vectors", kind="embedding")]) as vectors:
        embed_model = LMStudioEmbedding(model="vectors", host=vectors.address)
        yield VectorStoreIndex.from_documents([Document(text="Clouds.")], embed_model=embed_model)


@pytest.fixture
def served(index: VectorStoreIndex) -> Iterator[Served]:
    """A server with nothing in its cache."""
    engine = TemplateEngine(kept=template_functions.kept, stripped=template_functions.stripped)
    rules = ({"then": [{"reasoning": THOUGHT}, {"text": ANSWER}]},)
    models = [ModelEntry(key=key, rules=rules) for key in ("kept", "stripped")]
    with Emulator(models, engines={engine.name: engine}) as server:
        yield Served(server, engine, index)


Ask = Callable[[str], Awaitable[str]]
Way = Callable[[Served, LMStudio, BaseMemory], Ask]
"""Returns what asks a question."""

# Chat engines ---------------------------------------------------------------------------------------------------------

ENGINES: dict[str, Callable[[Served, LMStudio, BaseMemory], Any]] = {
    "simple": lambda _served, llm, memory: SimpleChatEngine.from_defaults(llm=llm, memory=memory, system_prompt=SYSTEM),
    "context": lambda served, llm, memory: ContextChatEngine.from_defaults(
        retriever=served.documents.as_retriever(), llm=llm, memory=memory
    ),
    "condense plus context": lambda served, llm, memory: CondensePlusContextChatEngine.from_defaults(
        retriever=served.documents.as_retriever(), llm=llm, memory=memory
    ),
    "condense question": lambda served, llm, memory: CondenseQuestionChatEngine.from_defaults(
        query_engine=served.documents.as_query_engine(llm=llm), llm=llm, memory=memory
    ),
    "multi-modal context": lambda served, llm, memory: MultiModalContextChatEngine.from_defaults(
        retriever=served.documents.as_retriever(), multi_modal_llm=llm, memory=memory, system_prompt=SYSTEM
    ),
    "multi-modal condense plus context": lambda served, llm, memory: (
        MultiModalCondensePlusContextChatEngine.from_defaults(
            retriever=served.documents.as_retriever(), multi_modal_llm=llm, memory=memory, system_prompt=SYSTEM
        )
    ),
}


async def chat(engine: Any, question: str) -> str:
    return str(engine.chat(question))


async def achat(engine: Any, question: str) -> str:
    return str(await engine.achat(question))


async def stream_chat(engine: Any, question: str) -> str:
    return "".join(engine.stream_chat(question).response_gen)


async def astream_chat(engine: Any, question: str) -> str:
    response = await engine.astream_chat(question)
    return "".join([token async for token in response.async_response_gen()])


def of_engine(name: str, method: Callable[[Any, str], Awaitable[str]]) -> Way:
    def begin(served: Served, llm: LMStudio, memory: BaseMemory) -> Ask:
        engine = ENGINES[name](served, llm, memory)
        return lambda question: method(engine, question)

    return begin


# Agents ---------------------------------------------------------------------------------------------------------------


def of_agent(make: Any, *, streaming: bool, in_workflow: bool = False) -> Way:
    def begin(_served: Served, llm: LMStudio, memory: BaseMemory) -> Ask:
        agent: Any = make(name="guide", llm=llm, system_prompt=SYSTEM, streaming=streaming)
        runner = AgentWorkflow(agents=[agent]) if in_workflow else agent

        async def ask(question: str) -> str:
            return str(await runner.run(question, memory=memory))

        return ask

    return begin


# Expected -------------------------------------------------------------------------------------------------------------

KEEPING: dict[str, Way] = {
    **{
        f"{name}{', streaming' * streaming}": of_agent(
            FunctionAgent, streaming=streaming, in_workflow=name == "AgentWorkflow"
        )
        for name in ("FunctionAgent", "AgentWorkflow")
        for streaming in (True, False)
    },
    **{f"simple, {each.__name__}": of_engine("simple", each) for each in (chat, achat)},
}
"""What remembers a message as the model wrote it."""

TEXT_ONLY: dict[str, Way] = {
    **{f"simple, {each.__name__}": of_engine("simple", each) for each in (stream_chat, astream_chat)},
    **{
        f"{name}, {each.__name__}": of_engine(name, each)
        for name in ("context", "condense plus context")
        for each in (chat, achat, stream_chat, astream_chat)
    },
    **{f"ReActAgent{', streaming' * each}": of_agent(ReActAgent, streaming=each) for each in (False, True)},
}
"""What remembers the text of it alone."""

OTHERS: dict[str, Way] = {
    f"{name}, {each.__name__}": of_engine(name, each)
    for name in ("condense question", "multi-modal context", "multi-modal condense plus context")
    for each in (chat, achat, stream_chat, astream_chat)
}
"""What remembers the text, and sends other questions than it remembers: no prompt begins with the one before."""


class Talk(NamedTuple):
    """What has come of two turns.

    Attributes:
        first: What the model read at first.
        last: What it read at last.
        cached: How many tokens of that were in the cache.
    """

    first: str
    last: str
    cached: int


def talk(served: Served, listener: Listener, way: Way, model: str = "kept", make_memory: Any = remembering) -> Talk:
    """Ask both questions; check that the caller and the memory have the answers."""
    llm = LMStudio(model=model, host=served.server.address, send_reasoning="always").load()

    async def converse() -> None:
        async with make_memory() as memory:
            ask = way(served, llm, memory)
            for question in QUESTIONS:
                assert (await ask(question)).strip() == ANSWER.strip()
            messages = await memory.aget_all()
        assert [message.role for message in messages] == ["user", "assistant"] * 2
        assert [message.content for message in messages[::2]] == [*QUESTIONS]
        assert all(message.content.endswith(ANSWER.strip()) for message in messages[1::2])

    asyncio.run(converse())
    ends: list[Any] = [event for event in listener.events if isinstance(event, LLMChatEndEvent)]
    cached = ends[-1].response.raw["usage"]["prompt_tokens_details"]["cached_tokens"]
    return Talk(served.engine.prompts[0], served.engine.prompts[-1], cached)


CASES: dict[str, tuple[str, Any]] = {
    "thoughts are kept": ("kept", remembering),
    "in a ChatMemoryBuffer": ("kept", lambda: nullcontext(ChatMemoryBuffer(token_limit=1000))),
    "thoughts are stripped": ("stripped", remembering),
}


@pytest.mark.parametrize(("name", "case"), covering(KEEPING, CASES))
def test_a_message_of_the_memory_goes_back_as_the_model_wrote_it(
    served: Served, listener: Listener, name: str, case: str
) -> None:
    model, make_memory = CASES[case]
    found = talk(served, listener, KEEPING[name], model, make_memory)
    assert found.last.startswith(found.first + (WRITTEN if model == "kept" else ANSWER.strip()))
    assert found.cached > 0


@pytest.mark.sampled(5)
@pytest.mark.parametrize("way", TEXT_ONLY.values(), ids=TEXT_ONLY)
def test_of_messages_without_thoughts_the_answer_goes_back(served: Served, listener: Listener, way: Way) -> None:
    found = talk(served, listener, way)
    assert found.last.startswith(found.first)
    assert ANSWER.strip() in found.last
    assert THOUGHT.strip() not in found.last
    assert found.cached > 0


@pytest.mark.sampled(5)
@pytest.mark.parametrize("way", OTHERS.values(), ids=OTHERS)
def test_the_answers_of_engines_that_rewrite_questions_are_in_the_memory(
    served: Served, listener: Listener, way: Way
) -> None:
    assert talk(served, listener, way).cached > 0
