"""A graph of knowledge is built from what is said, and searched."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "graphiti-core",
    "kuzu",
    group="applications",
    job="builds a graph of knowledge from what is said, and searches it",
    settings="It takes an `LLMClient`, whose `_generate_response` calls `with_structured_output(response_model."
    "model_json_schema())`, and an `EmbedderClient`: subclasses of a few lines. `EMBEDDING_DIM` is the length of the "
    "vectors. Pass a `cross_encoder`, too: its default needs a key of OpenAI",
    environment={"GRAPHITI_TELEMETRY_ENABLED": "false", "EMBEDDING_DIM": "384"},
    weekly=True,
)


async def test_a_graph_of_knowledge(serve: Serve, tmp_path: Path) -> None:
    from graphiti_core import Graphiti
    from graphiti_core.cross_encoder.client import CrossEncoderClient
    from graphiti_core.driver.driver import GraphProvider
    from graphiti_core.driver.kuzu_driver import KuzuDriver
    from graphiti_core.embedder.client import EmbedderClient
    from graphiti_core.graph_queries import get_fulltext_indices
    from graphiti_core.llm_client.client import LLMClient
    from graphiti_core.nodes import EpisodeType
    from graphiti_core.prompts.models import Message
    from pydantic import BaseModel

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    class Client(LLMClient):
        """Our model as a client of graphiti."""

        async def _generate_response(
            self,
            messages: list[Message],
            response_model: type[BaseModel] | None = None,
            max_tokens: int = 16384,
            model_size: Any = None,
            *,
            model: str | None = None,
        ) -> dict[str, Any]:
            assert response_model is not None
            chat = ChatLMStudio(model=CHAT).with_structured_output(response_model.model_json_schema())
            return dict(await chat.ainvoke([(each.role, each.content) for each in messages]))

    class Embedder(EmbedderClient):
        """Our embeddings as a client of graphiti."""

        async def create(self, input_data: Any) -> list[float]:
            (text,) = [input_data] if isinstance(input_data, str) else input_data
            return await LMStudioEmbeddings(model=REAL_EMBEDDING).aembed_query(text)

        async def create_batch(self, input_data_list: list[str]) -> list[list[float]]:
            return await LMStudioEmbeddings(model=REAL_EMBEDDING).aembed_documents(input_data_list)

    class Order(CrossEncoderClient):
        """Keeps the order of the search."""

        async def rank(self, query: str, passages: list[str]) -> list[tuple[str, float]]:
            return [(each, 1.0) for each in passages]

    entities = [{"name": name, "entity_type_id": 0} for name in ("Ada", "Oslo")]
    ends = {"source_entity_name": "Ada", "target_entity_name": "Oslo"}
    edge = {**ends, "relation_type": "TRAVELS_TO", "fact": "Ada takes the ferry to Oslo."}
    server = serve(
        {"when": {"last": '"title": "ExtractedEntities"'}, "then": json.dumps({"extracted_entities": entities})},
        {"when": {"last": '"title": "ExtractedEdges"'}, "then": json.dumps({"edges": [edge]})},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    driver = KuzuDriver(str(tmp_path / "graph.kuzu"))
    for query in get_fulltext_indices(GraphProvider.KUZU):
        await driver.execute_query(query)
    clients = {"llm_client": Client(None), "embedder": Embedder(), "cross_encoder": Order()}
    graph = Graphiti(graph_driver=driver, **clients)
    day = datetime(2026, 1, 1, tzinfo=UTC)
    added = await graph.add_episode("talk", "Ada: I take the ferry to Oslo.", "a talk", day, EpisodeType.message)
    assert [each.name for each in added.nodes] == ["Ada", "Oslo"]
    found = await graph.search("Where does Ada go?")
    await graph.close()
    assert [(each.name, each.fact) for each in found] == [("TRAVELS_TO", "Ada takes the ferry to Oslo.")]
    schemas = [each.config["structured"]["jsonSchema"]["title"] for each in server.predictions]
    assert schemas == ["ExtractedEntities", "ExtractedEdges", "EdgeTimestamps"]
    assert [[each["role"] for each in one.messages] for one in server.predictions] == [["system", "user"]] * 3
    embedded = [each.text for each in server.embedded_texts]
    assert {*embedded} == {"Ada", "Oslo", "Ada takes the ferry to Oslo.", "Where does Ada go?"}
