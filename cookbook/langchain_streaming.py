"""A conversation, streamed: show the pieces as they come, keep the whole for the next turn, stop in the middle.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_MODEL` names another model.
"""

import os

from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage, SystemMessage

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")


def say(model: ChatLMStudio, messages: list[BaseMessage]) -> AIMessageChunk:
    """Print an answer while it comes, and return the whole of it."""
    answer = AIMessageChunk(content="")
    for chunk in model.stream(messages):
        print(chunk.text, end="", flush=True)
        answer += chunk
    print()
    return answer


def main() -> None:
    """Ask twice, then ask for more than is wanted."""
    model = ChatLMStudio(model=MODEL, temperature=0, max_tokens=60)

    messages: list[BaseMessage] = [SystemMessage("You are a helpful assistant."), HumanMessage("Why is the sky blue?")]
    first = say(model, messages)
    second = say(model, [*messages, first, HumanMessage("Say it in five words.")])
    for answer in (first, second):
        print(answer.usage_metadata, answer.response_metadata["finish_reason"])
    assert first.usage_metadata
    assert second.usage_metadata
    assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]

    pieces: list[str] = []
    for chunk in model.stream("Count to a thousand, one number a line."):
        pieces.append(chunk.text)
        if len(pieces) == 5:
            break  # the server stops, too
    print("".join(pieces))
    assert len(pieces) == 5


if __name__ == "__main__":
    main()
