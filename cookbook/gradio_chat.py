"""Chat in the browser with Gradio, and stop the model.

Start the server with `uvicorn --factory gradio_chat:create_app` in the folder of
this file, and open http://127.0.0.1:8000. `python gradio_chat.py` sends one message
without a browser.

Gradio keeps the conversation of each tab, and passes it with every message. If the
user clicks Stop, Gradio cancels the task that reads `respond`. This cancels the
prediction in LM Studio, even while the prompt is processed. It needs an async
generator: a sync one runs in a thread and ends only with its next token. If the tab
is closed, the model stops with its next token, too; the page of the recipe
[with FastAPI](fastapi_chat.md) stops it at once.

Streamlit takes about as many lines (`st.chat_message` and `st.write_stream`), but
its Stop always waits for the next token, and it installs half as much again.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio
from fastapi import FastAPI

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio()


async def respond(message: str, history: list[Any]) -> AsyncIterator[list[Any]]:
    """Stream the response to a message: what there is of its reasoning and text."""
    earlier = [each for each in history if not each["metadata"]]  # no reasoning
    reasoning = text = ""
    try:
        async for chunk in model.astream([*earlier, ("user", message)]):
            for block in chunk.content_blocks:
                if block["type"] == "reasoning":
                    reasoning += block.get("reasoning", "")
            text += chunk.text
            folded = gradio.ChatMessage(reasoning, metadata={"title": "Reasoning"})
            yield [folded, text] if reasoning else [text]
    except lms.LMStudioError as error:
        gradio.Warning(str(error), duration=None)  # an exception would end the chat


def create_app() -> FastAPI:
    """Return the page as an app."""
    page = gradio.ChatInterface(
        respond,
        title="Chat",
        chatbot=gradio.Chatbot(buttons=["copy"]),  # and none that shares it online
        concurrency_limit=None,  # LM Studio decides how many it serves at once
        analytics_enabled=False,  # else Gradio sends usage data to its makers
    )
    app: FastAPI = gradio.mount_gradio_app(FastAPI(), page, path="")
    return app


async def main() -> None:
    """Send one message without a browser, and print the response."""
    responses = [each async for each in respond("When does the ferry leave?", [])]
    *reasoning, text = responses[-1]
    for each in reasoning:
        print("Reasoning:", each.content)
    print("Text:", text)
    if not text:
        raise SystemExit("The model did not write any text; take a larger model.")


if __name__ == "__main__":
    try:
        print("Model:", lms.llm().get_info().model_key)
    except lms.LMStudioError as error:
        raise SystemExit(error) from None
    asyncio.run(main())
