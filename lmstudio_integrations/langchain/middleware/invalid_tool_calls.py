"""`InvalidToolCallMiddleware`: lets a model make a call again that cannot be read."""

from typing import Any, TypeGuard

from langchain.agents.middleware import AgentMiddleware, AgentState, hook_config
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from lmstudio_integrations.client.support.arguments import whole_number
from lmstudio_integrations.langchain.middleware._turns import made_result, running_turn


class InvalidToolCallMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Ask the model again if all calls of its message are invalid; an agent would end with such a message.

    A call is invalid if it is cut off, or cannot be read. It stays in `invalid_tool_calls` of its message, and gets a
    result that says what is wrong with it. The model sees its text, the name of the tool without arguments, and that
    result. If the model has been asked `most` times in a turn of the user, or if the context window is full, the run
    ends with the invalid message, as it would without this.

    The object has no state, so that threads can share it.

    ```python
    from langchain.agents import create_agent

    from lmstudio_integrations.langchain import ChatLMStudio
    from lmstudio_integrations.langchain.middleware import InvalidToolCallMiddleware

    model = ChatLMStudio(model="qwen/qwen3-4b")
    agent = create_agent(model, middleware=[InvalidToolCallMiddleware(most=2)])
    ```

    Args:
        most: How often the model is asked again in a turn of the user. The default is 1.

    Raises:
        LMStudioValueError: If `most` is not an integer of at least 1.
    """

    def __init__(self, *, most: int = 1) -> None:
        super().__init__()
        self.most: int = whole_number(most, "most") or 1

    @hook_config(can_jump_to=["model"])
    def after_model(
        self,
        state: AgentState[Any],
        runtime: Any,  # noqa: ARG002 - LangChain's
    ) -> dict[str, Any] | None:
        """Let the model make a call again; LangChain calls this."""
        turn = running_turn(state["messages"])
        message = turn[-1] if turn else None
        if not _is_invalid(message) or message.response_metadata.get("stop_reason") == "contextLengthReached":
            return None
        if sum(map(_is_invalid, turn)) > self.most:
            return None
        return {"jump_to": "model", "messages": _answers(message)}

    @hook_config(can_jump_to=["model"])
    async def aafter_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Let the model make a call again; LangChain calls this."""
        return self.after_model(state, runtime)


def _is_invalid(message: BaseMessage | None) -> TypeGuard[AIMessage]:
    return isinstance(message, AIMessage) and bool(message.invalid_tool_calls) and not message.tool_calls


def _answers(message: AIMessage) -> list[ToolMessage]:
    """Return the results of invalid calls. Without an identifier, there is no place for one."""
    return [
        made_result(
            f"the call could not be read, and did not run: {call['error'] or 'it is no valid JSON'}. Make it again, "
            "with complete arguments.",
            call,
            source="invalid_tool_call",
        )
        for call in message.invalid_tool_calls
        if call["id"]
    ]
