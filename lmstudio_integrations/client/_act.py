"""The tool loop: predict, run the tools that the model calls, send their results, and repeat.

The loop is written once, as flows. The clients run the tools with `_run_tools.py`, in threads or as coroutines.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic_core import to_json

from lmstudio_integrations.client._arguments import check_names, list_of, whole_number
from lmstudio_integrations.client._binding import Binding
from lmstudio_integrations.client._prediction_run import Callbacks, PredictionRun
from lmstudio_integrations.client._requests import (
    History,
    PredictionSettings,
    TimeoutParameters,
    respond_with,
    to_chat,
)
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioPredictionError, LMStudioToolCallError, LMStudioValueError
from lmstudio_integrations.types.chat import AssistantMessage, Chat, ToolMessage
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import ToolFunctionDef, ToolInput, parse_tools
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionRoundResult
from lmstudio_integrations.types.tools import ToolCallRequest, ToolCallResultPart

HandleInvalid: TypeAlias = Callable[[LMStudioPredictionError, ToolCallRequest | None], str | None]


@dataclass(frozen=True, slots=True)
class ActResult:
    """The result of `act`: the number of predictions, and the total time."""

    rounds: int
    total_time_seconds: float


class ActParameters(TimeoutParameters, total=False):
    """The keyword arguments of `act`. The timeouts apply to each round.

    Attributes:
        max_prediction_rounds: Maximum number of rounds; unlimited by default. The last round has no tools.
        max_parallel_tool_calls: How many tools run at once: 1 by default, `None` for all calls of a round.
        handle_invalid_tool_request: Called with the error and the request. If the tool raised an exception, that is the
            error's `__cause__`. A returned string replaces the standard text for the model; an exception ends `act`. If
            it cannot be read, the request is `None`: the returned value is ignored, and `act` raises the error.
        config: Settings of the predictions.
        preset: A preset on the server.
        on_message: Called with each assistant message and each message of tool results, suitable for `Chat.append`.
        on_first_token: Called with the round, at its first fragment.
        on_prediction_fragment: Called with each fragment, and the round.
        on_prompt_processing_progress: Called with growing values from 0.0 to 1.0, and the round.
        on_round_start: Called with the round, before its prediction.
        on_round_end: Called with the round, after its tools.
        on_prediction_completed: Called with the result of each prediction; its `round_index` is the round.
    """

    max_prediction_rounds: int | None
    max_parallel_tool_calls: int | None
    handle_invalid_tool_request: HandleInvalid | None
    config: PredictionSettings | None
    preset: str | None
    on_message: Callable[[AssistantMessage | ToolMessage], Any] | None
    on_first_token: Callable[[int], Any] | None
    on_prediction_fragment: Callable[[LlmPredictionFragment, int], Any] | None
    on_prompt_processing_progress: Callable[[float, int], Any] | None
    on_round_start: Callable[[int], Any] | None
    on_round_end: Callable[[int], Any] | None
    on_prediction_completed: Callable[[PredictionRoundResult], Any] | None


@dataclass(slots=True)
class ToolJob:
    """One tool call to run.

    Attributes:
        request: The model's request.
        tool: The function; `None` if the request is invalid, so there is nothing to run.
        arguments: Its checked arguments.
        outcome: The text for the model.
        failure: The exception of the function, or of writing its result as JSON; replaces the outcome.
    """

    request: ToolCallRequest
    tool: ToolFunctionDef | None = None
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    outcome: str = ""
    failure: BaseException | None = None

    def succeed(self, value: Any) -> None:
        """Record the value that the function returned.

        Raises:
            ValueError: If it cannot be written as JSON.
        """
        self.outcome = to_json(value).decode()


class Act:
    """One run of the loop."""

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        binding: Binding,
        history: History,
        tools: Iterable[ToolInput],
        parameters: ActParameters,
    ) -> None:
        check_names(parameters, ActParameters.__annotations__, in_config=LlmPredictionConfig.model_fields)
        self._dispatcher = dispatcher
        self._binding = binding
        self._parameters = parameters
        self._chat = to_chat(history)
        self._tools = parse_tools(list_of(tools, "tools"))
        self._settings = _settings(parameters, self._tools.values())
        self._limit = whole_number(parameters.get("max_prediction_rounds"), "max_prediction_rounds")
        self.parallel = whole_number(parameters.get("max_parallel_tool_calls", 1), "max_parallel_tool_calls")
        self._started = time.monotonic()
        self._round = -1
        self._message: AssistantMessage | None = None

    @property
    def result(self) -> ActResult:
        """The result so far."""
        return ActResult(self._round + 1, time.monotonic() - self._started)

    def predict(self) -> Flow[list[ToolJob]]:
        """Run the next prediction; return the tools to run, none if this was the last round."""
        self._round += 1
        self._call_back("on_round_start", self._round)
        result = yield from self._prediction().to_end()
        self._call_back("on_prediction_completed", PredictionRoundResult.of(result, self._round))
        # A message of its own: in the chat it may be merged with an earlier message of the assistant.
        self._message = Chat().add_assistant_response(result, result.tool_call_requests)
        self._chat.append(self._message)
        if not result.tool_call_requests:
            self._call_back("on_message", self._message)
            self._call_back("on_round_end", self._round)
            return []
        if self._is_last:
            raise LMStudioPredictionError("Model requested tool use on final prediction round.")
        return [self._job(request) for request in result.tool_call_requests]

    def add_results(self, jobs: Sequence[ToolJob]) -> None:
        """Add the results of the tools to the chat, in the order of the requests."""
        reply = self._chat.add_tool_results([self._reply(job) for job in jobs])
        # Both messages only now, so that the caller's chat never holds tool calls without results.
        self._call_back("on_message", self._message)
        self._call_back("on_message", reply)
        self._call_back("on_round_end", self._round)

    @property
    def _is_last(self) -> bool:
        return self._limit is not None and self._round + 1 >= self._limit

    def _prediction(self) -> PredictionRun:
        number, parameters = self._round, self._parameters
        first, fragment = parameters.get("on_first_token"), parameters.get("on_prediction_fragment")
        progress = parameters.get("on_prompt_processing_progress")
        settings = self._settings
        if self._is_last:
            # Without tools, only "auto" is possible; a choice that was not set stays unset.
            choice = settings.tool_choice and {"type": "generic", "mode": "auto"}
            settings = settings.merged(LlmPredictionConfig(raw_tools=None, tool_choice=choice))
        prediction = respond_with(self._dispatcher, self._binding, self._chat, settings, parameters)
        prediction.on_failed_call = self._reject_unreadable
        prediction.callbacks = Callbacks(
            on_first_token=None if first is None else lambda: first(number),
            on_prediction_fragment=None if fragment is None else lambda each: fragment(each, number),
            on_prompt_processing_progress=None if progress is None else lambda done: progress(done, number),
        )
        return prediction

    def _reject_unreadable(self, error: LMStudioToolCallError) -> None:
        self._call_back("handle_invalid_tool_request", error, None)
        raise error

    def _job(self, request: ToolCallRequest) -> ToolJob:
        tool = self._tools.get(request.name)
        if tool is None:
            return self._invalid(request, f"Cannot find tool with name {request.name}.")
        try:
            return ToolJob(request, tool, tool.check(request.arguments))
        except LMStudioValueError as error:
            return self._invalid(request, str(error))

    def _invalid(self, request: ToolCallRequest, reason: str) -> ToolJob:
        return ToolJob(request, outcome=self._error_text(LMStudioToolCallError(reason), request))

    def _reply(self, job: ToolJob) -> ToolCallResultPart:
        """Return the result for the model."""
        text, request = job.outcome, job.request
        if job.failure is not None:
            error = LMStudioPredictionError(f"Unhandled Python exception: {job.failure!r}")
            error.__cause__ = job.failure
            # As in Python's SDK, this text is JSON, that of an invalid request is not (docs/protocol.md#tool-loop).
            text = json.dumps(self._error_text(error, request), ensure_ascii=False)
        return ToolCallResultPart(content=text, name=request.name, tool_call_id=request.id)

    def _error_text(self, error: LMStudioPredictionError, request: ToolCallRequest) -> str:
        """Return the text for the model about a request that failed."""
        text = self._call_back("handle_invalid_tool_request", error, request)
        if text is None:
            return str(error)
        if not isinstance(text, str):
            raise LMStudioValueError(f"handle_invalid_tool_request must return a string or None; got {text!r}")
        return text

    def _call_back(self, name: str, *arguments: Any) -> Any:
        callback: Any = self._parameters.get(name)
        return None if callback is None else callback(*arguments)


def _settings(parameters: ActParameters, tools: Iterable[ToolFunctionDef]) -> LlmPredictionConfig:
    settings = LlmPredictionConfig.parse(parameters.get("config"))
    if settings.structured is not None:
        raise LMStudioValueError("act() has no structured output; call respond() with a response_format afterwards")
    definitions = [tool.to_tool().to_dict() for tool in tools]
    return settings.merged(LlmPredictionConfig(raw_tools={"type": "toolArray", "tools": definitions}))
