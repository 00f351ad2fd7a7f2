"""Tools: their definitions, the calls that a model asks for, and the answers (protocol §6.2, §6.3)."""

from typing import Any, Literal

from lmstudio_integrations.types._base import TaggedModel, WireModel


class ToolCallRequest(TaggedModel):
    """A call that the model asks for; `arguments` is parsed, never JSON text."""

    type: Literal["function"] = "function"
    id: str | None = None
    name: str
    arguments: dict[str, Any] | None = None


class ToolCallRequestPart(TaggedModel):
    """A tool call inside an assistant message."""

    type: Literal["toolCallRequest"] = "toolCallRequest"
    tool_call_request: ToolCallRequest


class ToolCallResultPart(TaggedModel):
    """The answer of a tool, inside a tool message."""

    type: Literal["toolCallResult"] = "toolCallResult"
    content: str
    tool_call_id: str | None = None
    name: str | None = None


class ToolFunction(WireModel):
    """What a tool is called, what it does, what it takes."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(TaggedModel):
    """A tool as the model is told of it."""

    type: Literal["function"] = "function"
    function: ToolFunction
