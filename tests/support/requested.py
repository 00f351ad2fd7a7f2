"""The requests that a model received, as the native client's types, so that tests read them by attribute."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from lmstudio_integrations.emulator import PredictionRecord
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import Tool


@dataclass(frozen=True)
class Requested:
    """The request of a prediction.

    Attributes:
        config: The settings that were sent, but for the tools.
        history: The conversation; `None` for a text to continue.
        prompt: The text to continue.
        tools: The tools that may be called.
        tool_choice: Whether one must be.
        images: The digests of the images in the conversation.
        reasoning: The reasoning of each assistant message, from the field that the protocol has for it. LM Studio's own
            has none.
    """

    config: LlmPredictionConfig
    history: ChatHistory | None
    prompt: str | None
    tools: Sequence[Tool]
    tool_choice: str
    images: list[str]
    reasoning: Sequence[str] = ()

    @classmethod
    def of(cls, record: PredictionRecord) -> Self:
        """Read a record."""
        return cls(
            config=LlmPredictionConfig.from_dict(record.config),
            history=None if record.raw else ChatHistory.from_dict({"messages": [*map(_in_parts, record.messages)]}),
            prompt=record.prompt,
            tools=[Tool.from_dict(tool) for tool in record.tools],
            tool_choice=record.tool_choice,
            images=[image["sha256"] for image in record.images],
        )


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    content = message["content"]
    return message | {"content": [{"type": "text", "text": content}] if isinstance(content, str) else content}


def chosen(record: PredictionRecord) -> dict[str, Any]:
    """Return the settings that were sent, but for the one that the adapters always send."""
    return {
        name: value
        for name, value in record.config.items()
        if (name, value) != ("contextOverflowPolicy", "stopAtLimit")
    }


def digest(content: bytes) -> str:
    """Return what stands for a file."""
    return hashlib.sha256(content).hexdigest()
