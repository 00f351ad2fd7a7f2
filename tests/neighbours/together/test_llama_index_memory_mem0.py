"""An agent remembers what a person said in an earlier conversation, with Mem0 as its memory."""

import json
from pathlib import Path

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-memory-mem0",
    "mem0ai",
    "faiss-cpu",
    group="llama-index",
    job="an agent with Mem0 as its memory",
    settings='in the configuration of Mem0, the providers `"langchain"` with `ChatLMStudio(context_length=16384)` (its '
    "prompt has 8,600 tokens) and `LMStudioEmbeddings`; Mem0 takes no LlamaIndex objects",
    environment={"MEM0_TELEMETRY": "false"},
    weekly=True,
)


async def test_an_agent_remembers(serve: Serve, outward: list[str], tmp_path: Path) -> None:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.memory.mem0 import Mem0Memory

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
    from lmstudio_integrations.llama_index import LMStudio

    fact = "User is allergic to peanuts"
    server = serve(
        {"when": {"last": "New Messages[\\s\\S]*peanuts"}, "then": json.dumps({"memory": [{"id": "0", "text": fact}]})},
        {"when": {"last": "New Messages"}, "then": '{"memory": []}'},
        {"when": {"last": "must I not eat"}, "then": "No peanuts."},
        {"then": "Noted."},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    store = {"path": str(tmp_path / "store"), "embedding_model_dims": 384, "distance_strategy": "cosine"}
    extracting = ChatLMStudio(model=CHAT, context_length=16384)
    config = {
        "llm": {"provider": "langchain", "config": {"model": extracting}},
        "embedder": {"provider": "langchain", "config": {"model": LMStudioEmbeddings(model=REAL_EMBEDDING)}},
        "vector_store": {"provider": "faiss", "config": store},
        "history_db_path": str(tmp_path / "history.db"),
    }
    llm = LMStudio(model=CHAT, context_length=16384).load()
    first = Mem0Memory.from_config(context={"user_id": "ada"}, config=config)
    assert str(await FunctionAgent(tools=[], llm=llm).run("I am allergic to peanuts.", memory=first)) == "Noted."
    later = Mem0Memory.from_config(context={"user_id": "ada"}, config=config)
    answer = await FunctionAgent(tools=[], llm=llm).run("What must I not eat?", memory=later)
    assert str(answer) == "No peanuts."
    assert set(outward) <= {"socket.getaddrinfo raw.githubusercontent.com"}  # of spaCy
    outward.clear()
    (asked,) = [each for each in server.predictions if each.text == "No peanuts."]
    assert [each["role"] for each in asked.messages] == ["system", "user"]
    assert fact in str(asked.messages[0])
    assert fact in [each.text for each in server.embedded_texts]
    assert [each.config["contextLength"] for each in server.loads if each.key == CHAT] == [16384]
