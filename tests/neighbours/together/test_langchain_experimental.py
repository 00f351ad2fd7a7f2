"""A graph is read from a text, a text is split by meaning, and a table answers a question."""

from typing import Any

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "langchain-experimental",
    "tabulate",
    group="retrieval",
    job="reads a graph from a text, splits a text by meaning, and answers questions about a table",
    settings="`LLMGraphTransformer` requests `allowed_nodes` as an enum of OpenAI only; other models read them in a "
    "description, and `strict_mode`, which is the default, drops what does not fit",
)


async def test_a_graph_is_read_from_a_text(serve: Serve) -> None:
    import json

    from langchain_core.documents import Document
    from langchain_experimental.graph_transformers import LLMGraphTransformer

    from lmstudio_integrations.langchain import ChatLMStudio

    def node(name: str, kind: str) -> dict[str, Any]:
        return {"id": name, "type": kind, "properties": [{"key": "born", "value": "1867"}]}

    works = {"source_node_id": "Marie", "source_node_type": "Person", "type": "WORKS_IN"}
    related = works | {"target_node_id": "Paris", "target_node_type": "City"}
    graph = {
        "nodes": [node("Marie", "Person"), node("Paris", "City"), node("1903", "Year")],
        "relationships": [related],
    }
    server = serve({"then": json.dumps(graph)})
    transformer = LLMGraphTransformer(
        ChatLMStudio(model=CHAT),
        allowed_nodes=["Person", "City"],
        allowed_relationships=[("Person", "WORKS_IN", "City")],
        node_properties=["born"],
    )
    text = Document("Marie worked in Paris in 1903.")
    for (read,) in (
        transformer.convert_to_graph_documents([text]),
        await transformer.aconvert_to_graph_documents([text]),
    ):
        assert [(each.id, each.type, each.properties) for each in read.nodes] == [
            ("Marie", "Person", {"born": "1867"}),
            ("Paris", "City", {"born": "1867"}),
        ]
        assert [(each.source.id, each.type, each.target.id) for each in read.relationships] == [
            ("Marie", "WORKS_IN", "Paris")
        ]
    for record in server.predictions:
        assert record.config["structured"]["jsonSchema"]["title"] == "DynamicGraph"
        assert not record.tools


async def test_a_text_is_split_by_meaning(real: Emulator) -> None:
    from langchain_experimental.text_splitter import SemanticChunker

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    sailing = "The ferry leaves the harbour at noon. The boat crosses the bay. The ship lands at the pier."
    baking = "Mix flour and water for the dough. Knead the dough and bake the bread."
    splitter = SemanticChunker(LMStudioEmbeddings(model=REAL_EMBEDDING), buffer_size=0, number_of_chunks=2)
    assert splitter.split_text(f"{sailing} {baking}") == [sailing, baking]
    assert len(real.embedded_texts) == 5


def test_a_table_answers_a_question(serve: Serve) -> None:
    import pandas as pd
    from langchain_experimental.agents import create_pandas_dataframe_agent

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"role": "tool"}, "then": "Together: {last}"},
        {"then": [{"tool": "python_repl_ast", "arguments": {"query": "df['price'].sum()"}}]},
    )
    table = pd.DataFrame({"kind": ["day", "year"], "price": [9, 90]})
    agent = create_pandas_dataframe_agent(
        ChatLMStudio(model=CHAT), table, agent_type="tool-calling", allow_dangerous_code=True
    )
    assert agent.invoke({"input": "What do all tickets cost?"})["output"] == "Together: 99"
    asked, _ = server.predictions
    assert [each["function"]["name"] for each in asked.tools] == ["python_repl_ast"]
    assert "|  0 | day    |       9 |" in str(asked.messages[0]["content"])
