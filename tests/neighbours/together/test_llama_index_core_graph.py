"""Three extractors write paths of texts into a property graph, and a question finds them by synonyms and by vectors."""

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    group="llama-index",
    job="a property graph index with three extractors, and retrieval by synonyms and vectors",
)

TEXT = "Anna works for Nordline. Nordline runs the ferry."
TYPED = (
    '[{"head": "Nordline", "head_type": "COMPANY", "relation": "RUNS", "tail": "Ferry", "tail_type": "SHIP"},'
    ' {"head": "Ferry", "head_type": "SHIP", "relation": "CALLS_AT", "tail": "Island", "tail_type": "PLACE"}]'
)
SCHEMA = (
    '{"triplets": [{"subject": {"type": "PERSON", "name": "Anna"}, "relation": {"type": "WORKS_FOR"},'
    ' "object": {"type": "COMPANY", "name": "Nordline"}}]}'
)
RULES = (
    {
        "when": {"last": "in the form of \\(subject, predicate, object\\)"},
        "then": "(Anna, works for, Nordline)\n(Nordline, runs, ferry)",
    },
    {"when": {"last": "INITIAL ONTOLOGY"}, "then": TYPED},
    {"when": {"last": "according to the provided schema", "structured": True}, "then": SCHEMA},
    {"when": {"last": "generate synonyms"}, "then": "employer^nordline"},
    {"when": {"last": "Context information"}, "then": "She works for Nordline."},
)


@pytest.mark.parametrize("kind", ["simple", "schema", "dynamic"])
def test_an_extractor_fills_a_graph_that_answers(serve: Serve, kind: str) -> None:
    from typing import Any, Literal

    from llama_index.core import Document, PropertyGraphIndex
    from llama_index.core.indices.property_graph import (
        DynamicLLMPathExtractor,
        LLMSynonymRetriever,
        SchemaLLMPathExtractor,
        SimpleLLMPathExtractor,
        VectorContextRetriever,
    )

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    server = serve(*RULES, models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"])
    llm = LMStudio(model=CHAT).load()
    embed_model = LMStudioEmbedding(model=REAL_EMBEDDING)
    people: Any = Literal["PERSON", "COMPANY"]
    relations: Any = Literal["WORKS_FOR", "RUNS"]
    extractors: dict[str, Any] = {
        "simple": SimpleLLMPathExtractor(llm=llm, max_paths_per_chunk=5, raise_on_error=True),
        "schema": SchemaLLMPathExtractor(
            llm=llm,
            possible_entities=people,
            possible_relations=relations,
            kg_validation_schema=[("PERSON", "WORKS_FOR", "COMPANY")],
            raise_on_error=True,
        ),
        "dynamic": DynamicLLMPathExtractor(
            llm=llm, allowed_entity_types=["COMPANY", "SHIP"], allowed_relation_types=["RUNS"], raise_on_error=True
        ),
    }
    index = PropertyGraphIndex.from_documents(
        [Document(text=TEXT)],
        llm=llm,
        embed_model=embed_model,
        kg_extractors=[extractors[kind]],
        show_progress=False,
    )
    graph = index.property_graph_store
    nodes = graph.get(properties={})
    found = {(start.id, path.label, end.id) for start, path, end in graph.get_rel_map(nodes, ignore_rels=["SOURCE"])}
    assert (
        found
        == {
            "simple": {("Anna", "Works for", "Nordline"), ("Nordline", "Runs", "Ferry")},
            "schema": {("Anna", "WORKS_FOR", "Nordline")},
            "dynamic": {("Nordline", "RUNS", "Ferry"), ("Ferry", "CALLS_AT", "Island")},
        }[kind]
    )
    (extracted,) = server.predictions
    if kind == "schema":
        required = extracted.config["structured"]["jsonSchema"]
        assert required["$defs"]["Entity"]["properties"]["type"]["enum"] == ["PERSON", "COMPANY"], required
    by_synonyms = LLMSynonymRetriever(graph, llm=llm, include_text=False)
    by_vectors = VectorContextRetriever(
        graph, embed_model=embed_model, vector_store=index.vector_store, include_text=False, similarity_top_k=1
    )
    synonyms = {node.text for node in by_synonyms.retrieve("Who is the employer?")}
    near = {node.text for node in by_vectors.retrieve("Nordline")}
    start = "Anna -> WORKS_FOR -> Nordline" if kind == "schema" else "Nordline"
    assert any(start in each for each in synonyms), synonyms
    assert any("Nordline" in each for each in near), near
    engine = index.as_query_engine(llm=llm, sub_retrievers=[by_synonyms, by_vectors])
    assert str(engine.query("Where does Anna work?")) == "She works for Nordline."
    assert "Nordline" in {each.text for each in server.embedded_texts}
