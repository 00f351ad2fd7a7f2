"""What the two HTTP protocols have in common: a request in the engine's words, an answer as it grows."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished, Image
from lmstudio_integrations.types.chat import (
    AssistantMessage,
    ChatHistory,
    Message,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.results import LlmPredictionFragment, ToolCallEnd, ToolCallFailed
from lmstudio_integrations.types.tools import (
    Tool,
    ToolCallRequest,
    ToolCallRequestPart,
    ToolCallResultPart,
)


class BadRequestError(Exception):
    """The server does not take this request."""


class Answer:
    """An answer as it grows."""

    content_type = "application/json"

    def __init__(self) -> None:
        self.text = ""
        self.thinking = ""
        self.calls: list[dict[str, Any]] = []
        self.end: Finished | None = None

    def take(self, event: EngineEvent) -> dict[str, Any] | None:
        """Take an event in; return what is new: `text`, `thinking`, `call` or `end`."""
        if isinstance(event, LlmPredictionFragment):
            kind = {"none": "text", "reasoning": "thinking"}.get(event.reasoning_type)
            if kind is None:
                return None
            setattr(self, kind, getattr(self, kind) + event.content)
            return {kind: event.content}
        if isinstance(event, ToolCallEnd):
            call = {"id": event.id, "name": event.name, "arguments": event.arguments or {}}
            self.calls.append(call)
            return {"call": call}
        if isinstance(event, ToolCallFailed):
            # LM Studio's HTTP server hands on what the model wrote.
            self.text += event.raw_content or ""
            return {"text": event.raw_content or ""}
        if isinstance(event, Finished):
            self.end = event
            return {"end": True}
        return None

    def pieces(self, event: EngineEvent) -> Sequence[bytes]:
        """Return what is sent for an event."""
        raise NotImplementedError

    def whole(self) -> dict[str, Any]:
        """Return the whole answer."""
        raise NotImplementedError

    def vectors(self, vectors: list[list[float]]) -> dict[str, Any]:
        """Return vectors."""
        raise NotImplementedError


@dataclass
class Asked:
    """A request in the engine's words; `texts` are to be embedded."""

    answer: Answer
    model: str = ""
    stream: bool = False
    history: ChatHistory | None = None
    prompt: str | None = None
    tools: Sequence[Tool] = ()
    tool_choice: Literal["none", "auto", "required"] = "auto"
    images: Mapping[str, Image] = field(default_factory=dict[str, Image])
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    texts: list[str] | None = None


class History:
    """Collects messages; images get identifiers."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.images: dict[str, Image] = {}

    def add(self, role: str, texts: Sequence[str], pictures: Sequence[str], calls: Sequence[ToolCallRequest]) -> None:
        """Add a message; images are base64."""
        parts: list[Any] = [TextPart(text=text) for text in texts]
        for picture in pictures:
            data = base64.b64decode(picture)
            identifier = f"image-{len(self.images)}"
            self.images[identifier] = Image(identifier, data)
            parts.append(FileHandle(name=identifier, identifier=identifier, size_bytes=len(data), file_type="image"))
        if role in {"system", "developer"}:
            self.messages.append(SystemMessage(content=parts))
        elif role == "assistant":
            parts += [ToolCallRequestPart(tool_call_request=call) for call in calls]
            self.messages.append(AssistantMessage(content=parts))
        else:
            self.messages.append(UserMessage(content=parts))

    def add_result(self, text: str, call_id: str | None) -> None:
        """Add the answer of a tool."""
        fields: dict[str, Any] = {"content": text, **({"tool_call_id": call_id} if call_id else {})}
        self.messages.append(ToolMessage(content=[ToolCallResultPart.from_dict(fields)]))

    def finish(self) -> ChatHistory:
        """Return the conversation."""
        return ChatHistory(messages=list(self.messages))
