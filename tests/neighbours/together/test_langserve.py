"""A chain is served over HTTP, and called, streamed and batched as if it ran here."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "langserve",
    "fastapi",
    "uvicorn",
    "sse-starlette",
    group="retrieval",
    job="serves a chain and a model over HTTP",
)


@contextmanager
def _running(app: Any) -> Iterator[str]:
    from uvicorn import Config, Server

    server = Server(Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)


async def test_a_chain_is_served(serve: Serve) -> None:
    from fastapi import FastAPI
    from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langserve import RemoteRunnable, add_routes

    from lmstudio_integrations.langchain import ChatLMStudio

    def book(pier: int) -> str:
        """Book a ferry."""
        raise NotImplementedError

    server = serve(
        {"when": {"tools": ["book"]}, "then": [{"tool": "book", "arguments": {"pier": 7}}]},
        {"then": "You want to {last}."},
    )
    model = ChatLMStudio(model=CHAT)
    app = FastAPI()
    prompt = ChatPromptTemplate([("system", "Be brief."), ("user", "{wish}")])
    add_routes(app, prompt | model | StrOutputParser(), path="/chain")
    add_routes(app, model, path="/model")
    add_routes(app, model.bind_tools([book]), path="/tools")
    with _running(app) as address:
        chain: RemoteRunnable[Any, str] = RemoteRunnable(f"{address}/chain")
        assert chain.invoke({"wish": "swim"}) == "You want to swim."
        assert await chain.ainvoke({"wish": "sail"}) == "You want to sail."
        parts = list(chain.stream({"wish": "read"}))
        assert ("".join(parts), len(parts) > 1) == ("You want to read.", True)
        assert "".join([part async for part in chain.astream({"wish": "rest"})]) == "You want to rest."
        wishes = [{"wish": "eat"}, {"wish": "sleep"}]
        assert chain.batch(wishes) == ["You want to eat.", "You want to sleep."]

        remote: RemoteRunnable[Any, AIMessage] = RemoteRunnable(f"{address}/model")
        said = remote.invoke([HumanMessage("go")])
        assert (said.text, said.response_metadata["model_name"]) == ("You want to go.", CHAT)
        assert said.usage_metadata is not None
        first, *rest = remote.stream("stay")
        assert isinstance(first, AIMessageChunk)
        assert (first + rest).text == "You want to stay."
        (call,) = RemoteRunnable[Any, AIMessage](f"{address}/tools").invoke("Book a ferry.").tool_calls
        assert (call["name"], call["args"]) == ("book", {"pier": 7})
    roles = [[each["role"] for each in record.messages] for record in server.predictions]
    assert roles == [["system", "user"]] * 6 + [["user"]] * 3
