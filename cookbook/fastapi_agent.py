"""Serve an agent with FastAPI, and stop its model when the client disconnects.

The endpoint streams what the agent does as JSON lines: what its tools return, and
the text of its response. The agent remembers each chat.

When the client disconnects, FastAPI cancels the task that reads the agent.
LangGraph finishes its step, so the model would write on. `cancel_on_close` stops
it. Of that turn, the memory has the question, and what the tools have returned.

Start the server with `uvicorn fastapi_agent:app` in the folder of this file.
`python fastapi_agent.py` tries the server without one.
"""

import asyncio
import json
from collections.abc import AsyncIterable
from typing import Literal

from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio


def departures(destination: str) -> str:
    """Return when the ferries to a destination leave."""
    return f"Ferries to the {destination} leave at 10:00, 11:00 and 12:00."


app = FastAPI()
model = ChatLMStudio(model="qwen/qwen3-4b", temperature=0)
agent = create_agent(model, tools=[departures], checkpointer=InMemorySaver())


class Question(BaseModel):
    """What the user of a chat asks."""

    text: str


class Step(BaseModel):
    """One line of the response."""

    type: Literal["tool", "text", "error"]
    text: str


def config_of(chat: str) -> RunnableConfig:
    """Return the config with which the agent remembers a chat."""
    return {"configurable": {"thread_id": chat}}


@app.post("/chats/{chat}")
async def ask(chat: str, question: Question) -> AsyncIterable[Step]:
    """Stream what the agent does to answer a question."""
    run = agent.astream(
        {"messages": [HumanMessage(question.text)]},
        config_of(chat),
        stream_mode="messages",
    )
    try:
        async with lms.cancel_on_close(run) as messages:
            async for message, _ in messages:
                if isinstance(message, ToolMessage):
                    yield Step(type="tool", text=message.text)
                elif isinstance(message, AIMessageChunk) and message.text:
                    yield Step(type="text", text=message.text)
    except lms.LMStudioError as error:
        # The status code is sent already, so an error is a line like the others.
        yield Step(type="error", text=str(error))


async def main() -> None:
    """Ask without a server, and print what the agent did and remembers."""
    client = AsyncClient(transport=ASGITransport(app), base_url="http://town")
    question = {"text": "When does the ferry to the island leave?"}
    response = await client.post("/chats/anna", json=question, timeout=None)
    await client.aclose()
    steps = [json.loads(line) for line in response.text.splitlines()]
    for kind in ("tool", "text", "error"):
        text = "".join(each["text"] for each in steps if each["type"] == kind)
        if text:
            print(f"{kind.capitalize()}: {text}")
    remembered = (await agent.aget_state(config_of("anna"))).values["messages"]
    print("Remembered:", ", ".join(message.type for message in remembered))


if __name__ == "__main__":
    asyncio.run(main())
