"""Chat in the browser with FastAPI, and stop when the tab closes.

The endpoint streams the response of the model as JSON lines, one for each fragment
of the reasoning or the text, and a page shows them. If the tab is closed, or its
user clicks Stop, FastAPI cancels the task that reads the endpoint. This cancels the
prediction in LM Studio, even while the prompt is processed.

Start the server with `uvicorn fastapi_chat:app` in the folder of this file, and
open http://127.0.0.1:8000. The page is `fastapi_chat.html`, which loads nothing
from other sites. `python fastapi_chat.py` tries the server once, without a browser.
"""

import asyncio
import json
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Literal

from fastapi import FastAPI
from fastapi.responses import FileResponse
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

PAGE = Path(__file__).with_suffix(".html")

app = FastAPI()
model = ChatLMStudio(model="qwen/qwen3-4b")


class Message(BaseModel):
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    content: str


class Fragment(BaseModel):
    """One line of the response."""

    type: Literal["reasoning", "text", "error"]
    text: str


@app.get("/", response_class=FileResponse)
async def page() -> Path:
    """Return the page."""
    return PAGE


@app.post("/chat")
async def chat(conversation: list[Message]) -> AsyncIterable[Fragment]:
    """Stream the response to the last message of a conversation."""
    messages = [each.model_dump() for each in conversation]
    try:
        async for chunk in model.astream(messages):
            for block in chunk.content_blocks:
                if block["type"] == "reasoning":
                    yield Fragment(
                        type="reasoning", text=block.get("reasoning", "")
                    )
                elif block["type"] == "text":
                    yield Fragment(type="text", text=block["text"])
    except lms.LMStudioError as error:
        # The status code is sent already, so an error is a line like the others.
        yield Fragment(type="error", text=str(error))


async def main() -> None:
    """Send one message without a browser, and print the lines of the response."""
    client = AsyncClient(transport=ASGITransport(app), base_url="http://town")
    conversation = [{"role": "user", "content": "When does the ferry leave?"}]
    response = await client.post("/chat", json=conversation, timeout=None)
    await client.aclose()
    fragments = [json.loads(line) for line in response.text.splitlines()]
    for kind in ("reasoning", "text", "error"):
        text = "".join(each["text"] for each in fragments if each["type"] == kind)
        if text:
            print(f"{kind.capitalize()}: {text}")


if __name__ == "__main__":
    asyncio.run(main())
