"""A structured model fills classes, as a model of its own and in a query engine; a question becomes SQL."""

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    group="llama-index",
    job="a structured model (`as_structured_llm`), and a question that becomes SQL",
)


async def test_a_structured_model_fills_a_class(serve: Serve) -> None:
    from llama_index.core import Document, SummaryIndex
    from llama_index.core.llms import ChatMessage
    from pydantic import BaseModel, Field

    from lmstudio_integrations.llama_index import LMStudio

    class Ferry(BaseModel):
        """A ferry."""

        pier: int = Field(ge=1)
        minutes: int

    server = serve({"when": {"structured": True}, "then": '{"pier": 7, "minutes": 20}'})
    llm = LMStudio(model=CHAT).load()
    structured = llm.as_structured_llm(Ferry)
    expected = Ferry(pier=7, minutes=20)
    messages = [ChatMessage("Tell me about the ferry.")]
    assert structured.chat(messages).raw == expected
    assert (await structured.achat(messages)).raw == expected
    assert [chunk.raw for chunk in structured.stream_chat(messages)][-1] == expected
    index = SummaryIndex.from_documents([Document(text="The ferry takes twenty minutes from pier 7.")])
    engine = index.as_query_engine(llm=structured, response_mode="tree_summarize")
    assert engine.query("When and where?").response == expected
    by_class = index.as_query_engine(llm=llm, output_cls=Ferry, response_mode="compact")
    assert by_class.query("When and where?").response == expected
    assert len(server.predictions) == 5
    for each in server.predictions:
        schema = each.config["structured"]["jsonSchema"]
        assert (schema["title"], schema["required"]) == ("Ferry", ["pier", "minutes"])
        assert each.tools == []


async def test_a_question_becomes_sql(serve: Serve) -> None:
    from llama_index.core import SQLDatabase
    from llama_index.core.query_engine import NLSQLTableQueryEngine
    from neighbour_servers import EMBEDDING
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import StaticPool

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    query = "SELECT minutes FROM ferry WHERE name = 'island'"
    server = serve(
        {"when": {"last": "syntactically correct sqlite query"}, "then": f"{query}\nSQLResult: 20\nAnswer: 20"},
        {"when": {"last": "SQL Response: \\[\\(20,\\)\\]"}, "then": "Twenty minutes."},
    )
    # one connection in all threads: each other one would have an empty database in memory
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE ferry (name TEXT, minutes INTEGER)"))
        connection.execute(text("INSERT INTO ferry VALUES ('island', 20), ('town', 5)"))
    asking = NLSQLTableQueryEngine(
        SQLDatabase(engine, include_tables=["ferry"]),
        llm=LMStudio(model=CHAT).load(),
        tables=["ferry"],
        embed_model=LMStudioEmbedding(model=EMBEDDING),
    )
    for response in (asking.query("How long to the island?"), await asking.aquery("How long to the island?")):
        assert str(response) == "Twenty minutes."
        assert (response.metadata["sql_query"], response.metadata["result"]) == (query, [(20,)])
    assert len(server.predictions) == 4
    assert "Table 'ferry' has columns: name (TEXT), minutes (INTEGER)" in str(server.predictions[0].messages)
