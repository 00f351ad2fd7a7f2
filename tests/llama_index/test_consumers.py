"""What LlamaIndex builds on a language model and an embedding model: engines, agents, pipelines, counters."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.postprocessor import LLMRerank, StructuredLLMRerank
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import BaseModel

from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.errors import LMStudioStructuredOutputError
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding, LMStudioTokenizer
from tests._adapters.ways import AGENT_WARNINGS
from tests.llama_index.conftest import Listener
from tests.llama_index.scripted_server import CHAT, CONTEXT_LENGTH, Server
from tests.support.gate import AT_THE_GATE, Gate

pytestmark = AGENT_WARNINGS

RAIN = "It rained in Oslo."
QUESTION = "What was the weather in Oslo?"


class Report(BaseModel):
    """A report."""

    city: str


def server_with(*rules: Mapping[str, Any], context_length: int = 8192) -> Server:
    """Return a server whose model follows these rules."""
    return Server([ModelEntry(key=CHAT, rules=rules, context_length=context_length)])


@pytest.fixture
def embedding(server: Server) -> Iterator[LMStudioEmbedding]:
    with server.embedding() as model:
        yield model


@pytest.fixture
def index(embedding: LMStudioEmbedding) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents([Document(text=RAIN), Document(text="Cats sleep.")], embed_model=embedding)


def weather(city: str) -> str:
    """Report the weather of a city."""
    return f"rain in {city}"


# Engines --------------------------------------------------------------------------------------------------------------


async def test_a_query_engine_responds_from_documents(server: Server, llm: LMStudio, index: VectorStoreIndex) -> None:
    engine = index.as_query_engine(llm=llm.load(), similarity_top_k=1)
    response = engine.query(QUESTION)
    assert [node.node.get_content() for node in response.source_nodes] == [RAIN]
    assert str(response)
    assert RAIN in repr(server.conversation)
    assert str(await engine.aquery(QUESTION)) == str(response)


def test_a_query_engine_has_room_for_its_prompt_beside_the_longest_response(
    server: Server, index: VectorStoreIndex
) -> None:
    with server.llm(max_tokens=CONTEXT_LENGTH) as llm:
        llm.load()
        index.as_query_engine(llm=llm).query("count")
    assert server.last_request.config.max_tokens == CONTEXT_LENGTH


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("mode", ["refine", "compact", "simple_summarize", "tree_summarize", "accumulate"])
def test_a_response_synthesizer_has_room_for_the_chat_template(
    monkeypatch: pytest.MonkeyPatch, loaded: bool, mode: str
) -> None:
    """LlamaIndex counts the texts of messages only, and fills the context window to the last token."""
    header = "<|user|> " + "You are a helpful assistant. " * 8
    monkeypatch.setattr(words, "_PLAIN", {**words._PLAIN, "user": (header, "\n")})
    nodes = [NodeWithScore(node=TextNode(text="rain " * 2000)) for _ in range(2)]
    with server_with(context_length=1024) as server, server.llm(max_tokens=5, context_length=1024) as llm:
        synthesizer = get_response_synthesizer(llm=llm.load() if loaded else llm, response_mode=ResponseMode(mode))
        assert str(synthesizer.synthesize(QUESTION, nodes))


def test_a_chat_engine_streams_into_another_thread(llm: LMStudio) -> None:
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=ChatMemoryBuffer.from_defaults(llm=llm))
    response = engine.stream_chat("count")
    assert "".join(response.response_gen) == "0 1 2 3 4 5 6 7 8 9"
    assert engine.chat_history[-1].content == "0 1 2 3 4 5 6 7 8 9"


# Rerankers of core ----------------------------------------------------------------------------------------------------

SLOTS = 2
BATCH, NODES = 5, [NodeWithScore(node=TextNode(text=f"Text {number}.")) for number in range(20)]
MALFORMED = NodeWithScore(node=TextNode(text="malformed"))
GRADED: tuple[dict[str, Any], ...] = (
    {"when": {"last": "malformed"}, "then": [{"text": '{"documents": [{"document_number": "the first'}]},
    {"when": {"structured": True}, "then": [{"text": '{"documents": [{"document_number": 2, "relevance": 9}]}'}]},
    {"then": [AT_THE_GATE, {"text": "Doc: 2, Relevance: 9"}]},
)


@pytest.fixture
def grading(gate: Gate) -> Iterator[Server]:
    """A server whose model prefers the second of several documents, and runs two predictions at once."""
    with Server([ModelEntry(key=CHAT, rules=GRADED, slots=SLOTS)], engines=gate.engines()) as server:
        yield server


async def ranked(make: Any, llm: LMStudio, nodes: list[NodeWithScore], *, is_async: bool) -> list[tuple[str, Any]]:
    reranker = make(llm=llm, choice_batch_size=BATCH, top_n=len(nodes))
    query = QueryBundle(QUESTION)
    found = await reranker.apostprocess_nodes(nodes, query) if is_async else reranker.postprocess_nodes(nodes, query)
    return [(each.node.get_content(), each.score) for each in found]


BEST = [(f"Text {number}.", 9) for number in (1, 6, 11, 16)]
"""The second of each batch."""


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("make", [LLMRerank, StructuredLLMRerank])
async def test_rerankers_of_core_grade_all_batches(grading: Server, gate: Gate, make: Any, is_async: bool) -> None:
    gate.open()
    with grading.llm() as llm:
        assert await ranked(make, llm, NODES, is_async=is_async) == BEST
    assert grading.prediction_count == len(NODES) // BATCH


async def test_batches_that_core_sends_at_once_wait_for_a_slot(grading: Server, gate: Gate) -> None:
    def held(state: str) -> int:
        return sum(each.state == state for each in grading.predictions)

    with grading.llm() as llm:
        task = asyncio.create_task(ranked(LLMRerank, llm, NODES, is_async=True))
        await asyncio.to_thread(grading.wait_for, lambda: (held("running"), held("queued")) == (SLOTS, 2))
        gate.open()
        assert await task == BEST


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_batch_with_a_malformed_grade_is_left_out_or_an_error(
    grading: Server, gate: Gate, is_async: bool
) -> None:
    gate.open()
    nodes = [*NODES[:7], MALFORMED, *NODES[8:]]
    with grading.llm() as llm:
        assert await ranked(LLMRerank, llm, nodes, is_async=is_async) == [BEST[0], *BEST[2:]]
        with pytest.raises(LMStudioStructuredOutputError, match="not the structured output"):
            await ranked(StructuredLLMRerank, llm, nodes, is_async=is_async)
    grading.wait_for(lambda: all(each.state == "ended" for each in grading.predictions))


# Agents ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_function_agent_calls_tools_and_responds(server: Server, llm: LMStudio, streaming: bool) -> None:
    agent = FunctionAgent(tools=[weather], llm=llm, streaming=streaming)
    handler = agent.run("weather please")
    seen = [event async for event in handler.stream_events()]
    assert str(await handler) == "The tool said rain in Oslo."
    (result,) = [event for event in seen if isinstance(event, ToolCallResult)]
    assert (result.tool_name, result.tool_kwargs) == ("weather", {"city": "Oslo"})
    assert any(isinstance(event, AgentStream) for event in seen) == streaming


async def test_an_agent_may_require_the_first_tool(server: Server, llm: LMStudio) -> None:
    agent = FunctionAgent(tools=[weather], llm=llm, initial_tool_choice="weather")
    assert str(await agent.run("weather please")) == "The tool said rain in Oslo."
    assert [record.tool_choice for record in server.predictions] == ["required", "auto"]


async def test_a_react_agent_calls_tools_and_responds() -> None:
    rules: list[dict[str, Any]] = [
        {"when": {"last": "^Observation"}, "then": [{"text": "Thought: I know.\nAnswer: Rain in Oslo."}]},
        {"when": {}, "then": [{"text": 'Thought: I look.\nAction: weather\nAction Input: {"city": "Oslo"}'}]},
    ]
    with server_with(*rules) as other, other.llm() as llm:
        assert str(await ReActAgent(tools=[weather], llm=llm).run("weather?")) == "Rain in Oslo."


@pytest.mark.parametrize("whose", ["workflow", "agent"])
async def test_agents_delegate_and_report_an_instance_by_one_more_prediction(whose: str) -> None:
    handoff = {"tool": "handoff", "arguments": {"to_agent": "writer", "reason": "it writes"}}
    rules: list[dict[str, Any]] = [
        {"when": {"structured": True}, "then": [{"text": '{"city": "Oslo"}'}]},
        {"when": {"tools": ["handoff", "weather"]}, "then": [handoff]},
        {"when": {}, "then": [{"text": "It rains in Oslo."}]},
    ]
    of_agent, of_workflow = (Report, None) if whose == "agent" else (None, Report)
    with server_with(*rules) as other, other.llm() as llm:
        first = FunctionAgent(
            name="asker", description="asks", tools=[weather], llm=llm, can_handoff_to=["writer"], system_prompt="Ask."
        )
        second = FunctionAgent(
            name="writer", description="writes", llm=llm, system_prompt="Write.", output_cls=of_agent
        )
        workflow = AgentWorkflow(agents=[first, second], root_agent="asker", output_cls=of_workflow)
        output: Any = await workflow.run("weather?")
        predictions = other.predictions
    assert str(output) == "It rains in Oslo."
    assert output.current_agent_name == "writer"
    assert output.structured_response == {"city": "Oslo"}
    assert [(bool(each.tools), "structured" in each.config) for each in predictions] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    assert "It rains in Oslo." in predictions[-1].messages[-1]["content"]


# Pipelines, memory, counters ------------------------------------------------------------------------------------------


def test_memories_are_as_long_as_the_context_window(llm: LMStudio) -> None:
    memory = ChatMemoryBuffer.from_defaults(llm=llm.load())
    assert memory.token_limit == int(8192 * 0.75)
    memory.put(llm.chat([ChatMessage(content="think")]).message)
    assert memory.get()[-1].content == "Done now."


def announced(listener: Listener) -> list[str]:
    """Return what was said of beginnings and ends."""
    names = [type(event).__name__ for event in listener.events]
    return [name for name in names if name.endswith(("StartEvent", "EndEvent"))]


def both_ends_of(path: str) -> list[str]:
    """Return what is to be said of one call."""
    kind = "LLMCompletion" if "complete" in path else "LLMChat"
    return [f"{kind}StartEvent", f"{kind}EndEvent"]


@pytest.mark.parametrize("prefix", ["", "a"])
@pytest.mark.parametrize("path", ["chat", "stream_chat", "complete", "stream_complete"])
async def test_every_call_is_announced_once(llm: LMStudio, listener: Listener, path: str, prefix: str) -> None:
    given: Any = "count" if "complete" in path else [ChatMessage(content="count")]
    response = getattr(llm, prefix + path)(given)
    response = await response if prefix else response
    if "stream" in path:
        chunks = [chunk async for chunk in response] if prefix else list(response)
        assert len(listener.names("InProgress")) == len(chunks)
    assert announced(listener) == both_ends_of(path)


def test_the_tokenizer_serves_a_splitter(llm: LMStudio) -> None:
    splitter = TokenTextSplitter(chunk_size=8, chunk_overlap=0, tokenizer=LMStudioTokenizer(llm))
    assert len(splitter.split_text("one two three four five six seven eight. nine ten eleven twelve.")) > 1
