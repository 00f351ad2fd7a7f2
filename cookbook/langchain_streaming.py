"""A streaming chat: print chunks as they arrive, take a second turn, and cancel.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL`
to use another model.
"""

import os

from langchain_core.messages import (
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")


def stream_response(
    model: ChatLMStudio, messages: list[BaseMessage]
) -> AIMessageChunk:
    """Print a response as it is generated; return the complete message."""
    response = AIMessageChunk(content="")
    for chunk in model.stream(messages):
        print(chunk.text, end="", flush=True)
        response += chunk
    print()
    return response


def main() -> None:
    """Run two turns of a chat; then cancel a long response."""
    model = ChatLMStudio(model=MODEL, temperature=0, max_tokens=60)

    messages: list[BaseMessage] = [
        SystemMessage("You are a helpful assistant."),
        HumanMessage("Why is the sky blue?"),
    ]
    first = stream_response(model, messages)
    second = stream_response(
        model, [*messages, first, HumanMessage("Say it in five words.")]
    )
    for message in (first, second):
        print(message.usage_metadata, message.response_metadata["finish_reason"])
    assert first.usage_metadata
    assert second.usage_metadata
    assert (
        second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]
    )

    texts: list[str] = []
    for chunk in model.stream("Count to a thousand, one number a line."):
        texts.append(chunk.text)
        if len(texts) == 5:
            break  # cancels the prediction on the server
    print("".join(texts))
    assert len(texts) == 5


if __name__ == "__main__":
    main()
