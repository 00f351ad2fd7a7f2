"""A chat application streams a response to the socket of a browser, and shows the step of the model."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from neighbour_servers import CHAT, Serve, served

pytestmark = pytest.mark.neighbour(
    "chainlit",
    group="applications",
    job="a chat application streams responses and shows the step of the model",
    settings="Pass `cl.AsyncLangchainCallbackHandler()` in `callbacks`. The step names the model, `chat-lmstudio` as "
    "the provider, and the settings with the address, but no token counts, which the handler does not read",
)

APP = f"""
import chainlit as cl
from langchain_core.prompts import ChatPromptTemplate

from lmstudio_integrations.langchain import ChatLMStudio


@cl.on_message
async def answer(message: cl.Message) -> None:
    model = ChatLMStudio(model="{CHAT}", temperature=0.5, api_token="sk-lm-abcdefgh:0123456789abcdefghij")
    chain = ChatPromptTemplate.from_template("Answer: {{question}}") | model
    response = cl.Message(content="")
    config = {{"callbacks": [cl.AsyncLangchainCallbackHandler()]}}
    async for chunk in chain.astream({{"question": message.content}}, config):
        await response.stream_token(chunk.text)
    await response.send()
"""


async def test_a_chat_application_streams(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAINLIT_APP_ROOT", str(tmp_path))
    import socketio
    from chainlit.utils import mount_chainlit
    from fastapi import FastAPI

    server = serve({"then": "Twenty minutes."})
    (tmp_path / "app.py").write_text(APP)
    app, ended = FastAPI(), asyncio.Event()
    mount_chainlit(app, str(tmp_path / "app.py"), "/chat")
    events: list[tuple[str, Mapping[str, Any]]] = []
    browser = socketio.AsyncClient()

    @browser.on("*")
    async def received(event: str, data: Mapping[str, Any]) -> None:
        events.append((event, data))
        if event == "task_end" and any(name == "stream_start" for name, _ in events):
            ended.set()

    async with served(app) as address:
        auth = {"sessionId": str(uuid4()), "clientType": "webapp", "userEnv": "{}"}
        await browser.connect(address, auth=auth, transports=["websocket"], socketio_path="/chat/ws/socket.io")
        message = {"id": str(uuid4()), "threadId": str(uuid4()), "createdAt": "2026-01-01T00:00:00Z"}
        asked = {**message, "name": "Ada", "type": "user_message", "output": "How long is the trip?"}
        await browser.emit("client_message", {"message": asked, "fileReferences": []})
        await ended.wait()
        await browser.disconnect()
    (begun,) = [data["output"] for name, data in events if name == "stream_start"]
    tokens = [data["token"] for name, data in events if name == "stream_token"]
    assert [begun, *tokens] == ["Twenty", " minutes."]
    (prediction,) = server.predictions
    assert [each["content"] for each in prediction.messages] == ["Answer: How long is the trip?"]
    (step,) = [data for name, data in events if name == "update_message" and data["type"] == "llm"]
    assert (step["name"], step["isError"]) == ("ChatLMStudio", False)
    generation = step["generation"]
    assert (generation["provider"], generation["model"]) == ("chat-lmstudio", CHAT)
    assert generation["messages"] == [{"role": "user", "content": "Answer: How long is the trip?"}]
    assert generation["messageCompletion"] == {"role": "assistant", "content": "Twenty minutes."}
    assert generation["settings"]["temperature"] == 0.5
    assert generation["settings"]["host"].endswith(server.address)
    assert "0123456789" not in str(events)
    assert generation["tokenCount"] is None
