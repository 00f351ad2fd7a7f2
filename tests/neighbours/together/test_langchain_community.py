"""An agent answers from an SQLite file, and FAISS and BM25 search documents together."""

from pathlib import Path

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "langchain-community",
    "langchain-classic",
    "faiss-cpu",
    "rank-bm25",
    group="retrieval",
    job="an agent queries an SQLite file; a saved FAISS index and BM25 search documents together",
)

QUERY = "SELECT price FROM tickets WHERE kind = 'day'"


@pytest.mark.parametrize("agent_type", ["tool-calling", "zero-shot-react-description"])
async def test_an_agent_queries_a_database(serve: Serve, tmp_path: Path, agent_type: str) -> None:
    import sqlite3
    from contextlib import closing

    from langchain_community.agent_toolkits import SQLDatabaseToolkit, create_sql_agent
    from langchain_community.utilities import SQLDatabase

    from lmstudio_integrations.langchain import ChatLMStudio

    file = tmp_path / "tickets.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE tickets (kind TEXT, price INTEGER)")
        connection.execute("INSERT INTO tickets VALUES ('day', 9), ('year', 90)")

    has_tools = agent_type == "tool-calling"
    steps = {
        r"(^|Observation: )SELECT": ("sql_db_query", "query", QUERY),
        "CREATE TABLE": ("sql_db_query_checker", "query", QUERY),
        "(^|Observation: )tickets": ("sql_db_schema", "table_names", "tickets"),
        "day ticket|I should look": ("sql_db_list_tables", "tool_input", ""),
    }
    server = serve(
        {"when": {"last": "Double check the sqlite query"}, "then": QUERY},
        {"when": {"last": r"\[\(9,\)\]"}, "then": "It costs 9." if has_tools else "I know.\nFinal Answer: It costs 9."},
        *(
            {
                "when": {"last": seen},
                "then": [{"tool": tool, "arguments": {name: value}}]
                if has_tools
                else f"Next.\nAction: {tool}\nAction Input: {value}\nObservation: invented",
            }
            for seen, (tool, name, value) in steps.items()
        ),
    )
    model = ChatLMStudio(model=CHAT)
    toolkit = SQLDatabaseToolkit(db=SQLDatabase.from_uri(f"sqlite:///{file}"), llm=model)
    executor = create_sql_agent(model, toolkit, agent_type=agent_type)
    question = {"input": "What does a day ticket cost?"}
    for ended in (executor.invoke(question), await executor.ainvoke(question)):
        assert ended["output"] == "It costs 9."
    assert len(server.predictions) == 12
    begun = [each["role"] for each in server.predictions[0].messages]
    assert begun == (["system", "user", "assistant"] if has_tools else ["user"])  # it begins the answer itself
    for record in server.predictions:
        is_agent = "Double check" not in str(record.messages[-1]["content"])
        offered = [each["function"]["name"] for each in record.tools]
        assert offered == ([tool.name for tool in toolkit.get_tools()] if is_agent and has_tools else [])
        assert record.config.get("stopStrings") == (["\nObservation"] if is_agent and not has_tools else None)


async def test_an_index_and_words_find_documents(real: Emulator, tmp_path: Path) -> None:
    from langchain_classic.retrievers import EnsembleRetriever
    from langchain_community.retrievers import BM25Retriever
    from langchain_community.vectorstores import FAISS

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    texts = ["The ferry takes twenty minutes.", "The swimming pool costs four euros.", "The library opens at nine."]
    embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    FAISS.from_texts(texts, embeddings).save_local(str(tmp_path))
    index = FAISS.load_local(str(tmp_path), embeddings, allow_dangerous_deserialization=True)
    question = "How long does one sail?"
    for found in (index.similarity_search(question, k=1), await index.asimilarity_search(question, k=1)):
        assert [document.page_content for document in found] == texts[:1]
    ((_, score),) = index.similarity_search_with_relevance_scores(texts[0], k=1)
    assert score == pytest.approx(1.0, abs=1e-5)

    words = BM25Retriever.from_texts(texts, k=1)
    both = EnsembleRetriever(retrievers=[words, index.as_retriever(search_kwargs={"k": 1})], weights=[0.5, 0.5])
    assert {document.page_content for document in both.invoke("What does a swim cost at nine.")} == set(texts[1:])
    embedded = [record.text for record in real.embedded_texts]
    assert embedded == [*texts, question, question, texts[0], "What does a swim cost at nine."]
