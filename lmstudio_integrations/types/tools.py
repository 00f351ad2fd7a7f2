"""Tools: definitions, the calls that a model requests, and their results.

See `docs/protocol.md#tool-call-requests` and `docs/protocol.md#tool-definitions`.
"""

from typing import Any, Literal

from lmstudio_integrations.types._wire_model import TaggedModel, WireModel


class ToolCallRequest(TaggedModel):
    """A call that the model requests; `arguments` is parsed, never JSON text."""

    type: Literal["function"] = "function"
    id: str | None = None
    name: str
    arguments: dict[str, Any] | None = None


class ToolCallRequestPart(TaggedModel):
    """A tool call inside an assistant message."""

    type: Literal["toolCallRequest"] = "toolCallRequest"
    tool_call_request: ToolCallRequest


class ToolCallResultPart(TaggedModel):
    """The result of a tool, inside a tool message."""

    type: Literal["toolCallResult"] = "toolCallResult"
    content: str
    tool_call_id: str | None = None
    name: str | None = None


class ToolFunction(WireModel):
    """The name, description and parameters of a tool."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(TaggedModel):
    """The definition of a tool, as sent to the model."""

    type: Literal["function"] = "function"
    function: ToolFunction
