"""Asks a model of LM Studio to write calls of `call_tool` again that do not fit the tools that they name."""

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from langchain.agents.middleware import ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall
from langchain_core.messages.ai import add_usage
from langgraph.errors import GraphBubbleUp

from lmstudio_integrations.client.predictions.call_repair.asking import WrongCall, calls_of, response_schema, sentence
from lmstudio_integrations.langchain.chat_models import ChatLMStudio
from lmstudio_integrations.langchain.middleware.invalid_tool_calls import CALL_TOOL
from lmstudio_integrations.types.config import switched_off

logger: logging.Logger = logging.getLogger(__name__)

_Request: TypeAlias = ModelRequest[Any]
_Response: TypeAlias = ModelResponse[Any]

_HIDDEN = "nostream"
"""The tag by which LangGraph leaves a model out of its stream of tokens."""

_REPAIRED = "repaired_tool_calls"


class CallRepair(NamedTuple):
    """The request, and what is made of its response.

    Attributes:
        request: The request, which the model can answer only with calls of the tools.
        first: The response with the calls that do not fit.
        wrong: These calls, by their identifiers.
    """

    request: _Request
    first: _Response
    wrong: Mapping[str | None, WrongCall]

    @classmethod
    def of(cls, request: _Request, response: _Response, wrong: Mapping[str | None, WrongCall]) -> "CallRepair | None":
        """Return the request that follows on another one; `None` if there is nothing to ask, or it is not wanted."""
        model = request.model
        if not (wrong and isinstance(model, ChatLMStudio) and model.repair_tool_calls):
            return None
        attempt = response.result[-1].text.strip() or "\n".join(each.text for each in wrong.values())
        instruction = sentence([*wrong.values()], with_tools=True)
        response_format = {"type": "json_schema", "json_schema": {"schema": response_schema([*wrong.values()])}}
        asking = request.override(
            model=model.model_copy(update={"tags": [*(model.tags or ()), _HIDDEN]}),
            messages=[*request.messages, AIMessage(attempt), HumanMessage(instruction)],
            tools=[],
            tool_choice=None,
            response_format=None,
            model_settings={
                **request.model_settings,
                "response_format": response_format,
                "enable_thinking": False,
                **switched_off("penalty"),
            },
        )
        return cls(asking, response, wrong)

    @contextmanager
    def keeping_the_first(self) -> Generator[None]:
        """Log an error of the request: the first response stays."""
        try:
            yield
        except GraphBubbleUp:  # a middleware that is called by the request interrupts the graph
            raise
        except Exception as error:  # noqa: BLE001 - the model reads what is wrong with its calls, whatever it is
            logger.warning("the request to mend a call failed: %s", error)

    def mended(self, response: _Response) -> _Response:
        """Return the first response with the calls that the second one has in their place."""
        answer = response.result[-1]
        calls = dict(zip(self.wrong, calls_of(answer.text, [*self.wrong.values()]), strict=True))

        def change(message: BaseMessage) -> BaseMessage:
            if not isinstance(message, AIMessage) or not any(calls.get(call["id"]) for call in message.tool_calls):
                return message
            changed, repaired = list[ToolCall](), list[dict[str, Any]]()
            for call in message.tool_calls:
                new = calls.get(call["id"])
                args = call["args"] if new is None else {"name": new.tool.name, "arguments": new.arguments}
                changed.append(ToolCall(name=call["name"], args=args, id=call["id"], type="tool_call"))
                if new is not None:
                    repaired.append({"sent": self.wrong[call["id"]].text, "replaced_by": args})
            logger.warning("mended %s of %s", len(repaired), CALL_TOOL)
            metadata = message.response_metadata
            return message.model_copy(
                update={
                    "tool_calls": changed,
                    "response_metadata": {**metadata, _REPAIRED: [*metadata.get(_REPAIRED, ()), *repaired]},
                    "usage_metadata": add_usage(message.usage_metadata, getattr(answer, "usage_metadata", None)),
                }
            )

        return replace(self.first, result=[change(message) for message in self.first.result])
