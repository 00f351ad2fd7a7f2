"""`RepeatedToolCallMiddleware`: ends the loop of an agent that makes the same tool call again and again."""

import logging
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeGuard

from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import Command

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.client.predictions.tool_loop.repeated_calls import (
    MadeCall,
    RepeatedCalls,
    RequestedCall,
    find_repeated,
)
from lmstudio_integrations.client.support.arguments import texts_of, whole_number
from lmstudio_integrations.langchain.middleware._turns import called_tool, made_result, running_turn

logger: logging.Logger = logging.getLogger(__name__)

_REPEATABLE = "repeatable"
"""The tag, or the member of the metadata, by which a tool says that its calls may repeat."""

_MARK = "repeated_tool_call"
"""What our results have as their source, and the stop reason of a run that was ended."""

_Request: TypeAlias = ModelRequest[Any]
_Response: TypeAlias = ModelResponse[Any]


class RepeatedToolCallMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Answer a tool call that repeats in place of running its tool, and end a run that goes on with it.

    A call repeats if the same tool had the same arguments and returned the same result each time, in this turn of the
    user, and nothing new came in between: a test that runs again after an edit does not repeat, two calls that
    alternate do. Calls in one message count, too. The `most`-th time, the model reads that its call did not run, and
    why. If it still makes the call for the `2 * most`-th time, and no other, the run ends: the last message says why,
    and its `response_metadata` have the `stop_reason` `repeated_tool_call`, and the call.

    What was called is read in the messages, so that threads can share the object. List it before
    `ToolSearchMiddleware`: after it, it sees calls of `call_tool` before they are mended, which do not equal those
    that were made.

    ```python
    from langchain.agents import create_agent

    from lmstudio_integrations.langchain import ChatLMStudio
    from lmstudio_integrations.langchain.middleware import RepeatedToolCallMiddleware

    model = ChatLMStudio(model="qwen/qwen3-4b")
    agent = create_agent(model, middleware=[RepeatedToolCallMiddleware()])
    ```

    Args:
        most: The number of the call that is answered. The default is 3, so that a tool runs twice. At least 2.
        repeatable: The names of tools whose calls may repeat, such as reads and polls. A tool can say so itself, with
            the tag `repeatable`, or with `metadata={"repeatable": True}`.

    Raises:
        LMStudioValueError: If an argument cannot be used.
    """

    def __init__(self, *, most: int = 3, repeatable: Iterable[str] = ()) -> None:
        super().__init__()
        self.most: int = whole_number(most, "most", least=2) or 3
        self.repeatable: frozenset[str] = frozenset(texts_of(repeatable, "repeatable"))

    def wrap_model_call(
        self, request: _Request, handler: Callable[[_Request], _Response]
    ) -> _Response | ExtendedModelResponse[Any]:
        """Answer calls that repeat; LangChain calls this."""
        answered = list[Any]()
        while True:
            response = handler(request.override(messages=[*request.messages, *answered]))
            reviewed = self._review(request, response, answered)
            if reviewed is not None:
                return reviewed

    async def awrap_model_call(
        self, request: _Request, handler: Callable[[_Request], Awaitable[_Response]]
    ) -> _Response | ExtendedModelResponse[Any]:
        """Answer calls that repeat; LangChain calls this."""
        answered = list[Any]()
        while True:
            response = await handler(request.override(messages=[*request.messages, *answered]))
            reviewed = self._review(request, response, answered)
            if reviewed is not None:
                return reviewed

    def _review(
        self, request: _Request, response: _Response, answered: list[Any]
    ) -> _Response | ExtendedModelResponse[Any] | None:
        """Return the response with its answers; `None` to call the model again, because all its calls are answered.

        The last message keeps only calls that run: a middleware that asks a person about calls asks about that message.

        Args:
            request: The request.
            response: The response of the model.
            answered: The messages of earlier responses to this request with their answers; those of this one follow.
        """
        result = [*response.result]
        message = next((each for each in reversed(result) if isinstance(each, AIMessage)), None)
        if message is None or not message.tool_calls or response.structured_response is not None:
            return replace(response, result=[*answered, *result])
        names = self.repeatable | {tool.name for tool in request.tools if _is_repeatable(tool)}
        called = [called_tool(call) for call in message.tool_calls]
        calls = [RequestedCall(name, arguments, name in names) for name, arguments in called]
        # The messages of the request may be shortened; those of the state are what was called.
        past = _past_calls(running_turn([*request.state["messages"], *answered]))
        repeated = find_repeated(list(past), calls, most=self.most)
        have_results = {each.tool_call_id for each in result if isinstance(each, ToolMessage)}
        answers = list(_answers(message, have_results, repeated))
        if repeated.ending is not None:
            # A message without calls ends an agent, but not one that still lacks its structured response.
            ended = replace(response, result=[*answered, *result, *answers, _last_message(repeated.ending, repeated)])
            return ExtendedModelResponse(ended, Command(update={"jump_to": "end"}))
        do_not_run = have_results | {each.tool_call_id for each in answers}
        if answers and all(call["id"] in do_not_run for call in message.tool_calls):
            answered += [*result, *answers]
            return None
        if answers:
            ids = {each.tool_call_id for each in answers}
            repeats = AIMessage("", tool_calls=[call for call in message.tool_calls if call["id"] in ids])
            result[result.index(message)] = _without_calls(message, ids)
            answered += [repeats, *answers]
        return replace(response, result=[*answered, *result])


def _is_repeatable(tool: object) -> TypeGuard[BaseTool]:
    if not isinstance(tool, BaseTool):
        return False
    return _REPEATABLE in (tool.tags or ()) or bool((tool.metadata or {}).get(_REPEATABLE))


def _past_calls(messages: Sequence[BaseMessage]) -> Iterator[MadeCall]:
    """Yield the calls of messages that have a result."""
    results = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    for message in messages:
        for call in message.tool_calls if isinstance(message, AIMessage) else ():
            result = results.get(call["id"] or "")
            if result is not None:
                is_ours = result.additional_kwargs.get("lc_source") == _MARK
                yield MadeCall(*called_tool(call), None if is_ours else _text_of(result))


def _text_of(result: ToolMessage) -> str:
    """Return the content of a result. The rejection of a call names the call's own identifier."""
    text = str(result.content)
    return text.replace(result.tool_call_id, "") if result.status == "error" else text


def _answers(message: AIMessage, have_results: Container[str | None], repeated: RepeatedCalls) -> Iterator[ToolMessage]:
    """Yield the results of calls that do not run."""
    for call, answer in zip(message.tool_calls, repeated.answers, strict=True):
        if answer is not None and call["id"] not in have_results:
            logger.warning("%s", answer)
            yield made_result(answer, call, source=_MARK)


def _last_message(call: RequestedCall, repeated: RepeatedCalls) -> AIMessage:
    """Return the message that says why a run ends."""
    logger.warning("%s", repeated.reason)
    ending = {"name": call.name, "arguments": dict(call.arguments), "count": repeated.count}
    return AIMessage(repeated.reason, response_metadata={"stop_reason": _MARK, _MARK: ending})


def _without_calls(message: AIMessage, ids: Container[str | None]) -> AIMessage:
    """Return a message without some of its calls, also without their blocks in its content."""
    content = message.content
    if is_list(content):
        content = [block for block in content if not (is_object(block) and block.get("id") in ids)]
    calls = [call for call in message.tool_calls if call["id"] not in ids]
    return message.model_copy(update={"tool_calls": calls, "content": content})
