"""A memory that extracts facts from a conversation, keeps them in a store, and finds them again."""

import json
from pathlib import Path
from typing import Any

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "mem0ai",
    "faiss-cpu",
    group="applications",
    job="a memory extracts facts from a conversation, keeps them and finds them",
    settings="`ChatLMStudio(context_length=16384)`: its first prompt has 8,600 tokens. The store needs the length of "
    "the vectors, `embedding_model_dims`. It embeds memories as queries: if the model has prefixes, "
    '`LMStudioEmbeddings(query_prefix="")`. It asks for JSON in words only. Its default store, Qdrant, downloads '
    "`Qdrant/bm25` if `fastembed` is installed; FAISS downloads nothing. If spaCy is installed, Mem0 tries to download "
    "`en_core_web_sm`, and works without it",
    environment={"MEM0_TELEMETRY": "false"},
)

FACTS = ["User takes the ferry to Oslo on Mondays", "User is allergic to peanuts"]
SAID = [{"role": "user", "content": "I take the Monday ferry to Oslo. I am allergic to peanuts."}]


def config(folder: Path, **settings: Any) -> dict[str, Any]:
    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    store = {"path": str(folder / "store"), "embedding_model_dims": 384, "distance_strategy": "cosine"}
    return {
        "llm": {"provider": "langchain", "config": {"model": ChatLMStudio(model=CHAT, **settings)}},
        "embedder": {"provider": "langchain", "config": {"model": LMStudioEmbeddings(model=REAL_EMBEDDING)}},
        "vector_store": {"provider": "faiss", "config": store},
        "history_db_path": str(folder / "history.db"),
    }


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_facts_are_kept_and_found(serve: Serve, outward: list[str], tmp_path: Path, way: str) -> None:
    from mem0 import AsyncMemory, Memory

    written = {"memory": [{"id": str(i), "text": fact, "attributed_to": "user"} for i, fact in enumerate(FACTS)]}
    server = serve({"then": json.dumps(written)}, models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"])
    question, ada = "What must she not eat?", {"user_id": "ada"}
    if way == "sync":
        memory = Memory.from_config(config(tmp_path, context_length=16384))
        added = memory.add(SAID, **ada)
        found = memory.search(question, filters=ada, top_k=1)
    else:
        async_memory = AsyncMemory.from_config(config(tmp_path, context_length=16384))
        added = await async_memory.add(SAID, **ada)
        found = await async_memory.search(question, filters=ada, top_k=1)
    assert [each["memory"] for each in added["results"]] == FACTS
    assert [each["memory"] for each in found["results"]] == ["User is allergic to peanuts"]
    assert set(outward) <= {"socket.getaddrinfo raw.githubusercontent.com"}  # of spaCy
    outward.clear()
    (asked,) = server.predictions
    assert [each["role"] for each in asked.messages] == ["system", "user"]
    assert "structured" not in asked.config
    assert [each.text for each in server.embedded_texts] == [f"user: {SAID[0]['content']}\n", *FACTS, question]
    assert [each.config.get("contextLength") for each in server.loads if each.key == CHAT] == [16384]


def test_a_usual_context_is_too_short(serve: Serve, tmp_path: Path) -> None:
    from mem0 import Memory
    from mem0.exceptions import LLMError

    serve(context_length=4096, models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"])
    with pytest.raises(LLMError, match="the model is loaded with a context length of 4096"):
        Memory.from_config(config(tmp_path)).add(SAID, user_id="ada")
