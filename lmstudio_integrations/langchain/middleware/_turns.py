"""What several middlewares read in the messages of an agent, and put there: the running turn, and results of calls."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, InvalidToolCall, ToolCall, ToolMessage

from lmstudio_integrations._support.typeguards import is_object

FIND_TOOLS, CALL_TOOL = "find_tools", "call_tool"
"""The tools of `ToolSearchMiddleware`."""


def running_turn(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """Return what follows the last message of the user, which a summary of the conversation is not."""
    last = max((at for at, message in enumerate(messages) if _is_by_user(message)), default=-1)
    return messages[last + 1 :]


def _is_by_user(message: BaseMessage) -> bool:
    return isinstance(message, HumanMessage) and "lc_source" not in message.additional_kwargs


def called_tool(call: ToolCall) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of the tool that a call reaches in the end."""
    name, arguments = call["args"].get("name"), call["args"].get("arguments")
    if call["name"] == CALL_TOOL and isinstance(name, str) and is_object(arguments):
        return name, arguments
    return call["name"], call["args"]


def made_result(text: str, call: ToolCall | InvalidToolCall, *, source: str) -> ToolMessage:
    """Return the result of a call that did not run, marked as core's `get_notification_metadata` reads it.

    The function that marks a message takes none of this class before langchain-core 1.8.4.
    """
    return ToolMessage(
        text,
        name=call["name"] or "unknown",
        tool_call_id=call["id"],
        status="error",
        additional_kwargs={"lc_source": source},
    )
