"""Chat with the documents of a folder in the browser, with Gradio.

Put text files into the folder `documents`, start the server with
`uvicorn --factory gradio_chat:create_app`, and open http://127.0.0.1:8000. Load a
language model and an embedding model. Without documents, it is a plain chat.

Before each response, new paragraphs in the folder are embedded, and those that
are gone are deleted. Gradio keeps all conversations in the browser. Its Stop
cancels the prediction in LM Studio. If the tab is closed, the model stops with
its next token; [with FastAPI](fastapi_chat.md), it stops at once.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio
from fastapi import FastAPI
from langchain_core.vectorstores import InMemoryVectorStore

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

FOLDER = Path("documents")
model = ChatLMStudio()
store = InMemoryVectorStore(LMStudioEmbeddings())


def paragraphs() -> set[str]:
    """Return what is in the folder now."""
    files = [path.read_text(encoding="utf-8") for path in FOLDER.glob("*.txt")]
    return {text for file in files for text in file.split("\n\n")}


async def search(question: str) -> str:
    """Return the paragraphs that match a question best."""
    texts = paragraphs()
    store.delete([*store.store.keys() - texts])
    new = [*texts - store.store.keys()]
    await store.aadd_texts(new, ids=new)
    best = await store.asimilarity_search(question, k=3) if texts else []
    return "\n\n".join(each.page_content for each in best)


async def respond(message: str, history: list[Any]) -> AsyncIterator[list[Any]]:
    """Stream the sources, the reasoning and the response."""
    earlier = [each for each in history if not each["metadata"]]  # not the folded
    folded = {"Sources": "", "Reasoning": ""}
    text = ""
    try:
        sources = folded["Sources"] = await search(message)
        prompt = f"{sources}\n\nFrom these texts: {message}" if sources else message
        async for chunk in model.astream([*earlier, ("user", prompt)]):
            for block in chunk.content_blocks:
                if block["type"] == "reasoning":
                    folded["Reasoning"] += block.get("reasoning", "")
            text += chunk.text
            shown = [
                gradio.ChatMessage(content, metadata={"title": title})
                for title, content in folded.items()
                if content
            ]
            yield [*shown, text]
    except lms.LMStudioError as error:
        gradio.Warning(str(error), duration=None)  # an exception ends the chat


def create_app() -> FastAPI:
    """Return the page as an app."""
    page = gradio.ChatInterface(
        respond,
        save_history=True,
        chatbot=gradio.Chatbot(buttons=["copy"]),  # and none that shares it online
        concurrency_limit=None,  # LM Studio decides how many it serves at once
        analytics_enabled=False,  # else Gradio sends usage data to its makers
    )
    app: FastAPI = gradio.mount_gradio_app(FastAPI(), page, path="")
    return app


async def main() -> None:
    """Ask without a browser, and print the response."""
    responses = [each async for each in respond("When is the ferry?", [])]
    print("Response:", responses[-1][-1])


if __name__ == "__main__":
    try:
        lms.llm()
        lms.embedding_model()
    except lms.LMStudioError as error:
        raise SystemExit(error) from None
    asyncio.run(main())
