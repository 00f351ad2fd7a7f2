"""The tool loop: predict, run the tools that the model asks for, tell it what came of them, and again.

The loop itself is written once; how tools are run, in threads or as coroutines, is the clients' part.
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
    RoundOptions,
    respond_in_loop,
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
    """What came of `act`: the number of predictions, and how long it all took."""

    rounds: int
    total_time_seconds: float


class ActOptions(RoundOptions, total=False):
    """What `act` takes by name; the timeouts as well, which hold for each round.

    Attributes:
        max_prediction_rounds: How many predictions at most; the last one gets no tools.
        max_parallel_tool_calls: How many tools run at once; `None` for all that were asked for.
        handle_invalid_tool_request: Takes what is wrong with a request, and the request unless it could not be read.
            If the tool raised something, that is the `__cause__` of what is wrong. What it returns is told to the
            model instead of the standard text; what it raises ends `act`.
        config: Settings of the predictions.
        preset: A preset on the server.
        on_message: Takes each assistant message and each message of tool results, suitable for `Chat.append`.
        on_first_token: Takes the round, at its first fragment.
        on_prediction_fragment: Takes each fragment, and the round.
        on_prompt_processing_progress: Takes growing values from 0.0 to 1.0, and the round.
        on_round_start: Takes the round, before its prediction.
        on_round_end: Takes the round, after its tools.
        on_prediction_completed: Takes the result of each prediction, which has the round as its `round_index`.
    """

    max_prediction_rounds: int | None
    max_parallel_tool_calls: int | None
    handle_invalid_tool_request: HandleInvalid | None
    config: PredictionSettings | None
    on_message: Callable[[AssistantMessage | ToolMessage], Any] | None
    on_first_token: Callable[[int], Any] | None
    on_prediction_fragment: Callable[[LlmPredictionFragment, int], Any] | None
    on_prompt_processing_progress: Callable[[float, int], Any] | None
    on_round_start: Callable[[int], Any] | None
    on_round_end: Callable[[int], Any] | None
    on_prediction_completed: Callable[[PredictionRoundResult], Any] | None


@dataclass(slots=True)
class ToolJob:
    """One call of a tool that is to be run.

    Attributes:
        request: What the model asked for.
        tool: The function; `None` if there is nothing to run, because the request is invalid.
        arguments: Its arguments, checked.
        outcome: What the model is told.
        failure: What the function raised; told instead of the outcome.
    """

    request: ToolCallRequest
    tool: ToolFunctionDef | None = None
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    outcome: str = ""
    failure: BaseException | None = None

    def succeed(self, value: Any) -> None:
        """Take what the function returned.

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
        options: ActOptions,
    ) -> None:
        check_names(options, ActOptions.__annotations__)
        self._dispatcher = dispatcher
        self._binding = binding
        self._options = options
        self._chat = to_chat(history)
        self._tools = parse_tools(list_of(tools, "tools"))
        self._settings = _settings(options, self._tools.values())
        self._limit = whole_number(options.get("max_prediction_rounds"), "max_prediction_rounds")
        self.parallel = whole_number(options.get("max_parallel_tool_calls", 1), "max_parallel_tool_calls")
        self._started = time.monotonic()
        self._round = -1
        self._said: AssistantMessage | None = None

    @property
    def result(self) -> ActResult:
        """What came of it so far."""
        return ActResult(self._round + 1, time.monotonic() - self._started)

    def predict(self) -> Flow[list[ToolJob]]:
        """Run the next prediction; return the tools to run, none if this was the last round."""
        self._round += 1
        self._tell("on_round_start", self._round)
        result = yield from self._prediction().to_end()
        self._tell("on_prediction_completed", PredictionRoundResult.of(result, self._round))
        # Apart from the chat, in which it may have become part of what the assistant had said before.
        self._said = Chat().add_assistant_response(result, result.tool_call_requests)
        self._chat.append(self._said)
        if not result.tool_call_requests:
            self._tell("on_message", self._said)
            self._tell("on_round_end", self._round)
            return []
        if self._is_last:
            raise LMStudioPredictionError("Model requested tool use on final prediction round.")
        return [self._job(request) for request in result.tool_call_requests]

    def take(self, jobs: Sequence[ToolJob]) -> None:
        """Tell the model what came of the tools, in the order in which it asked."""
        reply = self._chat.add_tool_results([self._reply(job) for job in jobs])
        self._tell("on_message", self._said)
        self._tell("on_message", reply)
        self._tell("on_round_end", self._round)

    @property
    def _is_last(self) -> bool:
        return self._limit is not None and self._round + 1 >= self._limit

    def _prediction(self) -> PredictionRun:
        number, options = self._round, self._options
        first, fragment = options.get("on_first_token"), options.get("on_prediction_fragment")
        progress = options.get("on_prompt_processing_progress")
        settings = self._settings
        if self._is_last:
            choice = settings.tool_choice and {"type": "generic", "mode": "auto"}  # there is nothing to choose
            settings = settings.merged(LlmPredictionConfig(raw_tools=None, tool_choice=choice))
        prediction = respond_in_loop(self._dispatcher, self._binding, self._chat, settings, options)
        prediction.on_failed_call = self._refuse_unreadable
        prediction.callbacks = Callbacks(
            on_first_token=None if first is None else lambda: first(number),
            on_prediction_fragment=None if fragment is None else lambda piece: fragment(piece, number),
            on_prompt_processing_progress=None if progress is None else lambda done: progress(done, number),
        )
        return prediction

    def _refuse_unreadable(self, error: LMStudioToolCallError) -> None:
        handler = self._options.get("handle_invalid_tool_request")
        if handler is not None:
            handler(error, None)
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
        return ToolJob(request, outcome=self._words_for(LMStudioToolCallError(reason), request))

    def _reply(self, job: ToolJob) -> ToolCallResultPart:
        """Return the answer to a request; a tool that failed may do better next time."""
        told, request = job.outcome, job.request
        if job.failure is not None:
            error = LMStudioPredictionError(f"Unhandled Python exception: {job.failure!r}")
            error.__cause__ = job.failure
            told = json.dumps(self._words_for(error, request), ensure_ascii=False)
        return ToolCallResultPart(content=told, name=request.name, tool_call_id=request.id)

    def _words_for(self, error: LMStudioPredictionError, request: ToolCallRequest) -> str:
        """Return what the model is told of a request that went wrong."""
        handler = self._options.get("handle_invalid_tool_request")
        told = handler(error, request) if handler is not None else None
        if told is None:
            return str(error)
        if not isinstance(told, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise LMStudioValueError(f"handle_invalid_tool_request must return text or None; got {told!r}")
        return told

    def _tell(self, name: str, *arguments: Any) -> None:
        told: Any = self._options.get(name)
        if told is not None:
            told(*arguments)


def _settings(options: ActOptions, tools: Iterable[ToolFunctionDef]) -> LlmPredictionConfig:
    settings = LlmPredictionConfig.parse(options.get("config"))
    if settings.structured is not None:
        raise LMStudioValueError("act() takes no structured output; ask for it in a respond() at the end")
    definitions = [tool.to_tool().to_dict() for tool in tools]
    return settings.merged(LlmPredictionConfig(raw_tools={"type": "toolArray", "tools": definitions}))
