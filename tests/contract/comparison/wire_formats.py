"""What the two HTTP protocols share: requests parsed for the engine, and responses written from its events."""

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
    """The server rejects this request."""


class ResponseWriter:
    """Accumulates the events of a prediction and encodes them as a response.

    Args:
        model: The model's name in the request.
        parallel: Whether the response may have several tool calls.
    """

    content_type = "application/json"

    def __init__(self, model: str = "", *, parallel: bool = True) -> None:
        self.model = model
        self._parallel = parallel
        self.text = ""
        self.reasoning = ""
        self.logprobs: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.end: Finished | None = None

    def add(self, event: EngineEvent) -> dict[str, Any] | None:
        """Accumulate an event; return what is new: `text`, `reasoning`, `call` or `end`, and `logprobs`."""
        if isinstance(event, LlmPredictionFragment):
            kind = {"none": "text", "reasoning": "reasoning"}.get(event.reasoning_type)
            if kind is None:
                return None
            setattr(self, kind, getattr(self, kind) + event.content)
            new = [{"token": token["text"], "logprob": token["logProb"]} for token in event.tokens or ()]
            self.logprobs += new
            return {kind: event.content, **({"logprobs": new} if new else {})}
        if isinstance(event, ToolCallEnd):
            return self._add_call({"id": event.id, "name": event.name, "arguments": event.arguments or {}})
        if isinstance(event, ToolCallFailed):
            # LM Studio's HTTP server forwards the raw text of the model.
            self.text += event.raw_content or ""
            return {"text": event.raw_content or ""}
        if isinstance(event, Finished):
            self.end = event
            return {"end": True}
        return None

    def _add_call(self, call: dict[str, Any]) -> dict[str, Any] | None:
        if self.calls and not self._parallel:
            return None
        self.calls.append(call)
        return {"call": call}

    def encode(self, event: EngineEvent) -> Sequence[bytes]:
        """Encode an event of a streaming response."""
        raise NotImplementedError

    def complete(self) -> dict[str, Any]:
        """Return the non-streaming response."""
        raise NotImplementedError

    def vectors(self, vectors: list[list[float]]) -> dict[str, Any]:
        """Return the response to an embedding request."""
        raise NotImplementedError


@dataclass
class ParsedRequest:
    """A request, parsed for the engine; `texts` are the texts to embed, `reasoning` that of the assistant messages."""

    response: ResponseWriter
    stream: bool = False
    history: ChatHistory | None = None
    prompt: str | None = None
    tools: Sequence[Tool] = ()
    tool_choice: Literal["none", "auto", "required"] = "auto"
    images: Mapping[str, Image] = field(default_factory=dict[str, Image])
    reasoning: Sequence[str] = ()
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    texts: list[str] | None = None


class HistoryBuilder:
    """Collects messages; images get identifiers."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.images: dict[str, Image] = {}
        self.reasoning: list[str] = []

    def add(
        self,
        role: str,
        texts: Sequence[str],
        encoded_images: Sequence[str],
        calls: Sequence[ToolCallRequest],
        reasoning: str | None,
    ) -> None:
        """Add a message with base64-encoded images. Only an assistant message has calls and reasoning."""
        parts: list[Any] = [TextPart(text=text) for text in texts]
        parts += self._files(encoded_images)
        if role in {"system", "developer"}:
            self.messages.append(SystemMessage(content=parts))
        elif role == "assistant":
            parts += [ToolCallRequestPart(tool_call_request=call) for call in calls]
            self.messages.append(AssistantMessage(content=parts))
            self.reasoning.append(reasoning or "")
        else:
            self.messages.append(UserMessage(content=parts))

    def add_result(self, text: str, encoded_images: Sequence[str], call_id: str | None) -> None:
        """Add a tool result."""
        fields: dict[str, Any] = {"content": text, **({"tool_call_id": call_id} if call_id else {})}
        self._files(encoded_images)
        self.messages.append(ToolMessage(content=[ToolCallResultPart.from_dict(fields)]))

    def _files(self, encoded_images: Sequence[str]) -> list[FileHandle]:
        """Record images under new identifiers."""
        files: list[FileHandle] = []
        for encoded in encoded_images:
            data, name = base64.b64decode(encoded), f"image-{len(self.images)}"
            self.images[name] = Image(name, data)
            files.append(FileHandle(name=name, identifier=name, size_bytes=len(data), file_type="image"))
        return files

    def finish(self) -> ChatHistory:
        """Return the chat history."""
        return ChatHistory(messages=list(self.messages))
