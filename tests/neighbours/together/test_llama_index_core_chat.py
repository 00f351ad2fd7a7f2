"""Chat engines condense questions and put documents before them; memories keep facts, find messages, and summarize."""

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    "llama-index-vector-stores-chroma",
    group="llama-index",
    job="chat engines of all modes, and memories that keep facts, find messages and summarize",
    settings="`tokenizer_fn=LMStudioTokenizer(llm)` where a memory must count as the model does; else it counts with "
    "the tokenizer of OpenAI, which is part of the package",
    environment={"ANONYMIZED_TELEMETRY": "False"},
)

TEXTS = ("The ferry takes twenty minutes.", "The pool costs four euros.", "The museum is closed on Mondays.")


@pytest.mark.parametrize("mode", ["simple", "context", "condense_question", "condense_plus_context"])
async def test_a_chat_engine_goes_on(serve: Serve, mode: str) -> None:
    from typing import Any

    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.chat_engine.types import ChatMode
    from llama_index.core.memory import Memory

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    condensed = "What does the pool cost on Sunday?"
    server = serve(
        {"when": {"last": "[Ff]ollow [Uu]p [\\s\\S]*Sunday"}, "then": condensed},
        {"when": {"last": "Sunday"}, "then": "Four euros on Sunday."},
        {"then": "Four euros."},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm, embed_model = LMStudio(model=CHAT).load(), LMStudioEmbedding(model=REAL_EMBEDDING)
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embed_model)
    memory = Memory.from_defaults(session_id="anna", token_limit=2000)
    engine: Any = index.as_chat_engine(chat_mode=ChatMode(mode), llm=llm, memory=memory, similarity_top_k=1)
    assert str(engine.chat("What does the pool cost?")) == "Four euros."
    streamed = await engine.astream_chat("And on Sunday?")
    assert "".join([token async for token in streamed.async_response_gen()]) == "Four euros on Sunday."
    history = await memory.aget_all()
    assert [each.role.value for each in history] == ["user", "assistant"] * 2
    assert history[-1].content == "Four euros on Sunday."
    assert any(TEXTS[1] in str(each.messages) for each in server.predictions) == (mode != "simple")
    assert (condensed in [each.text for each in server.embedded_texts]) == mode.startswith("condense")
    assert len(server.predictions) == (3 if mode.startswith("condense") else 2)


async def test_a_memory_keeps_facts_and_finds_messages(serve: Serve) -> None:
    from chromadb import EphemeralClient
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.memory import FactExtractionMemoryBlock, Memory, VectorMemoryBlock
    from llama_index.vector_stores.chroma import ChromaVectorStore

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding, LMStudioTokenizer

    server = serve(
        {"when": {"last": "fact extraction system"}, "then": "<facts><fact>Her name is Anna.</fact></facts>"},
        {"then": "I note: {last}"},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    llm, embed_model = LMStudio(model=CHAT).load(), LMStudioEmbedding(model=REAL_EMBEDDING)
    facts = FactExtractionMemoryBlock(llm=llm, max_facts=5)
    store = ChromaVectorStore(chroma_collection=EphemeralClient().create_collection("memory"))
    found = VectorMemoryBlock(vector_store=store, embed_model=embed_model, similarity_top_k=1)
    memory = Memory.from_defaults(
        session_id="anna",
        token_limit=60,
        chat_history_token_ratio=0.4,
        token_flush_size=10,
        memory_blocks=[facts, found],
        tokenizer_fn=LMStudioTokenizer(llm),
    )
    agent = FunctionAgent(tools=[], llm=llm)
    for message in ("My name is Anna, and I live on an island far away from here.", "I like ferries.", "And my name?"):
        await agent.run(message, memory=memory)
    assert facts.facts == ["Her name is Anna."]
    (last,) = [each for each in server.predictions if "And my name?" in str(each.messages[-1])]
    assert "<fact>Her name is Anna.</fact>" in str(last.messages)
    assert "island far away" in str(last.messages[0]), "found by its vector"
    assert "And my name?" in server.embedded_texts[-1].text


def test_a_memory_summarizes(serve: Serve) -> None:
    from llama_index.core.chat_engine import SimpleChatEngine
    from llama_index.core.memory import ChatSummaryMemoryBuffer

    from lmstudio_integrations.llama_index import LMStudio, LMStudioTokenizer

    server = serve(
        {"when": {"last": "Transcript so far"}, "then": "Anna asked for the ferry."},
        {"then": "It takes twenty minutes from the pier to the island."},
    )
    llm = LMStudio(model=CHAT).load()
    memory = ChatSummaryMemoryBuffer.from_defaults(llm=llm, token_limit=30, tokenizer_fn=LMStudioTokenizer(llm))
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory)
    for question in ("How long does the ferry take to the island?", "And back?", "And at night?"):
        engine.chat(question)
    summary = memory.get()[0]
    assert (summary.role.value, summary.content) == ("system", "Anna asked for the ferry.")
    (_, _, asked, *_) = server.predictions
    assert [each["role"] for each in asked.messages] == ["system", "user"]
