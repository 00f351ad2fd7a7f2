"""Conversations with thoughts, as each interface has them: what it is asked, and what becomes of its response."""

from typing import Any, Literal

from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, TextBlock, ThinkingBlock

import lmstudio_integrations as lms

Family = Literal["native", "LangChain", "LlamaIndex"]

THOUGHT = "Where do ferries land?"
"""What models think in these tests, in words that they do not say."""

_QUESTION, _ANSWER = "Which pier?", "Pier 7."


def with_thought(family: Family) -> list[Any]:
    """Return a conversation in which a model thought before it responded."""
    if family == "LangChain":
        answer: Any = AIMessage(_ANSWER, additional_kwargs={"reasoning_content": THOUGHT})
    elif family == "LlamaIndex":
        answer = ChatMessage(role="assistant", blocks=[ThinkingBlock(content=THOUGHT), TextBlock(text=_ANSWER)])
    else:
        answer = {"role": "assistant", "content": [{"type": "reasoning", "text": THOUGHT}, _ANSWER]}
    return [of_user(family, _QUESTION), answer]


def of_user(family: Family, text: str) -> Any:
    """Return a message of the user."""
    if family == "LangChain":
        return HumanMessage(text)
    return ChatMessage(text, role="user") if family == "LlamaIndex" else {"role": "user", "content": text}


def of_model(response: Any) -> Any:
    """Return a response as a message."""
    match response:
        case lms.PredictionResult():
            return lms.Chat().add_assistant_response(response)
        case ChatResponse():
            return response.message
        case _:
            return response


def thought_of(response: Any) -> str:
    """Return what a model thought before it responded."""
    match response:
        case lms.PredictionResult():
            return response.reasoning_content
        case ChatResponse():
            blocks = response.message.blocks
            return "".join(block.content or "" for block in blocks if isinstance(block, ThinkingBlock))
        case _:
            return str(response.additional_kwargs["reasoning_content"])
