"""The tool loop: predict, run the tools that the model calls, send their results, and repeat.

The loop is written once, as a flow. The clients run the tools with `tool_loop/runners.py`, in threads or as tasks.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, cast

from lmstudio_integrations._support.secrets import redact_members
from lmstudio_integrations._support.text import shown
from lmstudio_integrations.client.concurrency.flows import Flow, call_back
from lmstudio_integrations.client.predictions.plan import (
    Callbacks,
    History,
    Plan,
    PredictionOptions,
    PredictionSettings,
    encode,
    with_tools,
)
from lmstudio_integrations.client.predictions.prediction import PredictingModel
from lmstudio_integrations.client.predictions.tool_loop.repeated_calls import (
    GuardToolCallController,
    MadeCall,
    RequestedCall,
    find_repeated,
)
from lmstudio_integrations.client.predictions.tool_loop.runners import (
    REQUEST_CALLBACKS,
    ToolCallReports,
    ToolJob,
    error_of,
)
from lmstudio_integrations.client.support.arguments import check_names, checked_timeouts, list_of, whole_number
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioPluginToolError,
    LMStudioPredictionError,
    LMStudioToolCallError,
    LMStudioValueError,
)
from lmstudio_integrations.types.chat import AssistantMessage, Chat, ChatHistory, ToolMessage, WireHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.config_dicts import TimeoutParameters
from lmstudio_integrations.types.functions import (
    ToolCallContext,
    ToolCallRequest,
    ToolCallResultPart,
    ToolFunctionDef,
    ToolInput,
    parse_tools,
)
from lmstudio_integrations.types.reasoning import SendReasoning
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionResult,
    PredictionRoundResult,
    ToolCallEnd,
    ToolCallStart,
)

logger: logging.Logger = logging.getLogger(__name__)

HandleInvalid: TypeAlias = Callable[
    [LMStudioPredictionError, ToolCallRequest | None], str | Awaitable[str | None] | None
]


@dataclass(frozen=True, slots=True)
class ActResult:
    """The result of `act`.

    Attributes:
        rounds: The number of predictions.
        total_time_seconds: The total time, with that of the tools.
        stop_reason: `repeated_tool_call` if `act` ended because the model repeated a call; see
            `max_repeated_tool_calls`. `repetition` if the last response was stopped; see `stop_on_repetition`.
            Otherwise `None`: the model responded without a call, or a call is left to the program.
    """

    rounds: int
    total_time_seconds: float
    stop_reason: str | None = None


class ActParameters(TimeoutParameters, total=False):
    """The keyword arguments of `act`. The timeouts apply to each round. `AsyncLLM.act` also accepts async callbacks.

    The callbacks about tool calls get the round, and the number of the call, which is unique within an `act`.

    Attributes:
        max_prediction_rounds: The maximum number of rounds. There is no limit by default. The last round has no tools.
        max_parallel_tool_calls: How many tools run at once. The default is 1; `None` runs all calls of a round at once.
        max_repeated_tool_calls: The number of the same call that is answered with a sentence in place of its tool. The
            default is 3, so that a tool runs twice with the same arguments and result; at least 2; `None` runs every
            call. Only what is new in between, such as an edit between two tests, starts the count again. At twice the
            number, if the model makes no other call, `act` ends after that round. Tools that are `repeatable` are left
            alone. Invalid calls of any tool count.
        handle_invalid_tool_request: Called with the error and the request when a tool call fails. A returned string
            replaces the standard text for the model; an exception ends `act`. If the tool raised an exception, that is
            the error's `__cause__`. If the request cannot be read, it is `None`: the returned value is ignored, and
            `act` raises the error.
        check_context: Whether to detect dropped parts of a prompt; see `PredictionParameters`.
        rescue_tool_calls: Whether calls that the server left in the text are made. The default is `True`; see
            `PredictionParameters`.
        repair_tool_calls: Whether calls that do not fit the tools are mended. The default is `True`; see
            `PredictionParameters`.
        required_tool_fallback: Whether a required call that the model did not make is requested again, by grammar. By
            default, only until the model has called a tool.
        stop_on_repetition: Whether a response that only repeats itself is cancelled; see `PredictionParameters`. The
            default is `True`.
        send_reasoning: Which earlier thoughts go back to the model; see `PredictionParameters`.
        keep_reasoning: Whether the chat template is made to keep those of all turns; see `PredictionParameters`.
        config: Settings of the predictions.
        preset: A preset on the server.
        on_message: Called with each assistant message and each message of tool results; `Chat.append` takes them.
        on_first_token: Called with the round, at its first fragment.
        on_prediction_fragment: Called with each fragment, and the round.
        on_prompt_processing_progress: Called with the progress of the prompt, from 0.0 to 1.0, and the round.
        on_round_start: Called with the round, before its prediction.
        on_round_end: Called with the round, after its tools.
        on_prediction_completed: Called with the result of each prediction; its `round_index` is the round.
        on_tool_call_request_start: Called with round, call and `ToolCallStart` when the model begins a call. Each call
            then ends or fails, once.
        on_tool_call_request_name_received: Called with round, call and the name of the tool.
        on_tool_call_request_argument_fragment: Called with round, call and a fragment of the arguments, as the model
            writes them; together, they need not be JSON.
        on_tool_call_request_end: Called with round, call and `ToolCallEnd`: the call is complete and valid.
        on_tool_call_request_failure: Called with round, call and an `LMStudioToolCallError` if the call cannot be read,
            is incomplete, names no tool, or has arguments that do not fit.
        guard_tool_call: Called with round, call and a `GuardToolCallController`, right before the tool runs. It allows
            the call, changes its arguments, or denies it. An exception ends `act`. It is not called for a call that
            was made too often.
        on_tool_call_request_finalized: Called with round, call and `ToolCallEnd`, after `guard_tool_call`.
        on_tool_call_result: Called with round, call and the result for the model: first for calls that are invalid or
            were made too often, then for the others, in the order in which the tools end.
    """

    max_prediction_rounds: int | None
    max_parallel_tool_calls: int | None
    max_repeated_tool_calls: int | None
    handle_invalid_tool_request: HandleInvalid | None
    check_context: bool
    rescue_tool_calls: bool
    repair_tool_calls: bool
    required_tool_fallback: bool
    stop_on_repetition: bool | int
    send_reasoning: SendReasoning
    keep_reasoning: bool
    config: PredictionSettings | None
    preset: str | None
    on_message: Callable[[AssistantMessage | ToolMessage], Any] | None
    on_first_token: Callable[[int], Any] | None
    on_prediction_fragment: Callable[[LlmPredictionFragment, int], Any] | None
    on_prompt_processing_progress: Callable[[float, int], Any] | None
    on_round_start: Callable[[int], Any] | None
    on_round_end: Callable[[int], Any] | None
    on_prediction_completed: Callable[[PredictionRoundResult], Any] | None
    on_tool_call_request_start: Callable[[int, int, ToolCallStart], Any] | None
    on_tool_call_request_name_received: Callable[[int, int, str], Any] | None
    on_tool_call_request_argument_fragment: Callable[[int, int, str], Any] | None
    on_tool_call_request_end: Callable[[int, int, ToolCallEnd], Any] | None
    on_tool_call_request_failure: Callable[[int, int, LMStudioToolCallError], Any] | None
    guard_tool_call: Callable[[int, int, GuardToolCallController], Any] | None
    on_tool_call_request_finalized: Callable[[int, int, ToolCallEnd], Any] | None
    on_tool_call_result: Callable[[int, int, ToolCallResultPart], Any] | None


class ToolRunner(Protocol):
    """Runs tools. It is a step of a flow, in which a caller waits for the tools that have ended, at least one."""

    @property
    def mailbox(self) -> Any:
        """How the caller waits."""
        ...

    def start(self, job: ToolJob) -> None: ...


class Act:
    """One run of the loop."""

    def __init__(
        self,
        model: PredictingModel,
        history: History,
        tools: Iterable[ToolInput],
        parameters: ActParameters,
    ) -> None:
        known, settings = ActParameters.__annotations__, LlmPredictionConfig.model_fields
        check_names(parameters, known, in_config=settings, async_callbacks=model.context.is_async)
        self._model = model
        self._parameters = parameters
        self._chat = Chat.from_history(history.to_dict() if isinstance(history, ChatHistory | WireHistory) else history)
        self._tools = parse_tools(list_of(tools, "tools"))
        self._settings = _settings(parameters, self._tools.values())
        self._limit = whole_number(parameters.get("max_prediction_rounds"), "max_prediction_rounds")
        self._parallel = whole_number(parameters.get("max_parallel_tool_calls", 1), "max_parallel_tool_calls")
        self._most = whole_number(parameters.get("max_repeated_tool_calls", 3), "max_repeated_tool_calls", least=2)
        self._started = time.monotonic()
        self._round = 0
        self._calls = 0
        """The number of calls in earlier rounds."""
        self._made: list[MadeCall] = []
        """Those of them that have a result."""
        self._stop_reason: str | None = None
        self._cancelled = threading.Event()

    def to_end(self, tools: ToolRunner) -> Flow[ActResult]:
        """Run all rounds."""
        try:
            while (yield from self._has_more_after_round(tools)):
                self._round += 1
        except BaseException:
            self._cancelled.set()
            raise
        return ActResult(self._round + 1, time.monotonic() - self._started, self._stop_reason)

    def _has_more_after_round(self, tools: ToolRunner) -> Flow[bool]:
        """Run the next prediction and its tools; return whether another round follows."""
        yield from self._call_back("on_round_start", self._round)
        result = yield from self._predict()
        calls = enumerate(result.tool_calls, self._calls)
        jobs = [self._job(call_id, record.end) for call_id, record in calls if record.end is not None]
        if not jobs and result.end.stop_reason == "repetition":
            self._stop_reason = "repetition"
        self._calls += len(result.tool_calls)
        if jobs and self._is_last:
            raise LMStudioPredictionError("Model requested tool use on final prediction round.")
        requested = [_requested_call(job) for job in jobs]  # before a guard changes their arguments
        self._answer_repeated(jobs, requested)
        yield from self._run_tools(jobs, tools)
        for job, call in zip(jobs, requested, strict=True):
            if job.reply is not None:
                self._made.append(MadeCall(call.name, call.arguments, None if job.answer else job.reply.content))
        # A message of its own: in the chat it may be merged with an earlier message of the assistant.
        message = Chat().add_assistant_response(result, [job.call.to_request() for job in jobs])
        self._chat.append(message)
        replies = [job.reply for job in jobs if job.reply is not None]
        reply = self._chat.add_tool_results(replies) if replies else None
        # Both messages only now, so that the caller's chat never holds tool calls without results.
        yield from self._call_back("on_message", message)
        if reply is not None:
            yield from self._call_back("on_message", reply)
        yield from self._call_back("on_round_end", self._round)
        return bool(jobs) and len(replies) == len(jobs) and self._stop_reason is None

    @property
    def _is_last(self) -> bool:
        return self._limit is not None and self._round + 1 >= self._limit

    def _predict(self) -> Flow[PredictionResult]:
        """Run a prediction of which every tool call can be read."""
        number, parameters = self._round, self._parameters
        first, fragment = parameters.get("on_first_token"), parameters.get("on_prediction_fragment")
        progress = parameters.get("on_prompt_processing_progress")
        reports = ToolCallReports(self._call_back_in_round, lambda call: self._job(0, call).problem, self._calls)
        plan = self._plan()
        plan.callbacks = Callbacks(
            on_first_token=None if first is None else lambda: first(number),
            on_prediction_fragment=None if fragment is None else lambda each: fragment(each, number),
            on_prompt_processing_progress=None if progress is None else lambda done: progress(done, number),
            on_tool_call_event=None if REQUEST_CALLBACKS.isdisjoint(parameters) else reports.report,
        )
        try:
            result = yield from self._model.predict(plan).to_end()
        except LMStudioError as error:
            yield from reports.fail(f"Generation failed: {error}")
            raise
        stop_reason = result.end.stop_reason
        yield from reports.fail(f"the call was cut off ({stop_reason})")
        for record in result.tool_calls:
            # A server also reports a call as failed if the response is cancelled in the middle of it.
            if record.end is None and (record.failure is None or stop_reason == "repetition"):
                name = self._model.state.name
                logger.warning("%r: a call of the tool %r was cut off (%s)", name, record.name, stop_reason)
            elif record.failure is not None:
                unreadable = error_of(record.failure)
                yield from self._call_back("handle_invalid_tool_request", unreadable, None)
                raise unreadable
        yield from self._call_back("on_prediction_completed", PredictionRoundResult.of(result, number))
        return result

    def _plan(self) -> Plan:
        settings = self._settings
        if self._is_last:
            # Without tools, only "auto" is possible; a choice that was not set stays unset.
            choice = settings.tool_choice and {"type": "generic", "mode": "auto"}
            settings = settings.merged(LlmPredictionConfig(raw_tools=None, tool_choice=choice))
        # A choice that requires a call holds for every round. Forcing each of them would be a loop without an end.
        helps = {
            "rescue_tool_calls": True,
            "repair_tool_calls": True,
            "required_tool_fallback": not self._calls,
            "stop_on_repetition": True,
        }
        parameters = {**helps, **self._parameters}
        return Plan(
            settings,
            PredictionOptions.of(parameters),
            history=encode(self._chat),
            timeouts=checked_timeouts(parameters),
            keeps_misfits=True,
        )

    def _job(self, call_id: int, call: ToolCallEnd) -> ToolJob:
        tool = self._tools.get(call.name)
        job = ToolJob(call_id, call, tool, runs_alone=self._parallel == 1)
        if tool is None:
            job.problem = LMStudioToolCallError(
                f"Cannot find tool with name {call.name}.", raw_content=call.raw_content
            )
            return job
        try:
            job.arguments = tool.check(call.arguments)
        except LMStudioValueError as error:
            job.problem = LMStudioToolCallError(str(error), raw_content=call.raw_content)
        context = ToolCallContext(tool.name, call_id, self._cancelled)
        job.arguments |= dict.fromkeys(tool.context_parameters, context)
        return job

    def _answer_repeated(self, jobs: Sequence[ToolJob], requested: Sequence[RequestedCall]) -> None:
        """Decide which calls of a round are answered because they were made too often, and whether `act` ends."""
        if self._most is None:
            return
        repeated = find_repeated(self._made, requested, most=self._most)
        for job, answer in zip(jobs, repeated.answers, strict=True):
            job.answer = answer
            if answer is not None:
                logger.warning("%r: %s", self._model.state.name, answer)
        if repeated.ending is not None:
            self._stop_reason = "repeated_tool_call"
            logger.warning("%r: %s", self._model.state.name, repeated.reason)

    def _run_tools(self, jobs: Sequence[ToolJob], tools: ToolRunner) -> Flow[None]:
        """Run the tools of a round, at most `max_parallel_tool_calls` at once. The callbacks run between them."""
        for job in jobs:
            if job.problem is not None or job.answer is not None:
                yield from self._reply(job)
        waiting, running = deque(job for job in jobs if job.reply is None), 0
        while waiting or running:
            while waiting and running < (self._parallel or len(jobs)):
                job = waiting.popleft()
                if not (yield from self._is_allowed(job)):
                    continue
                yield from self._call_back_in_round("on_tool_call_request_finalized", job.call_id, job.call)
                if job.runs:
                    tools.start(job)
                    running += 1
            if running:
                ended: list[ToolJob] = yield tools
                for job in ended:
                    running -= 1
                    yield from self._reply(job)

    def _is_allowed(self, job: ToolJob) -> Flow[bool]:
        """Let the program decide a call; a denied one has the reason as its result."""
        if self._parameters.get("guard_tool_call") is None:
            return True
        assert job.tool is not None, "only valid calls run"
        controller = GuardToolCallController(job.call.to_request(), job.tool)
        yield from self._call_back_in_round("guard_tool_call", job.call_id, controller)
        parameters, reason = controller.decision()
        if parameters is not None:
            changed = self._job(job.call_id, replace(job.call, arguments=dict(parameters)))
            job.call, job.arguments = changed.call, changed.arguments
        if reason is None:
            return True
        job.outcome = json.dumps({"error": reason}, ensure_ascii=False)
        yield from self._reply(job)
        return False

    def _reply(self, job: ToolJob) -> Flow[None]:
        text = job.outcome
        if job.answer is not None:
            text = job.answer
        elif job.problem is not None:
            text = yield from self._error_text(job.problem, job)
        elif job.failure is not None:
            assert job.tool is not None, "only valid calls run"
            if isinstance(job.failure, job.tool.raised_errors):
                raise job.failure
            failed_itself = isinstance(job.failure, LMStudioPluginToolError)
            unhandled = redact_members(shown(job.failure))  # it may have secrets, or be megabytes
            what = str(job.failure) if failed_itself else f"Unhandled Python exception: {unhandled}"
            error = LMStudioPredictionError(what)
            error.__cause__ = job.failure
            # As in Python's SDK, this text is JSON, that of an invalid request is not (docs/protocol.md#tool-loop).
            text = json.dumps((yield from self._error_text(error, job)), ensure_ascii=False)
        job.reply = ToolCallResultPart(content=text, name=job.call.name, tool_call_id=job.call.id)
        yield from self._call_back_in_round("on_tool_call_result", job.call_id, job.reply)

    def _error_text(self, error: LMStudioPredictionError, job: ToolJob) -> Flow[str]:
        """Return the text for the model about a request that failed."""
        text = yield from self._call_back("handle_invalid_tool_request", error, job.call.to_request())
        if text is None:
            return str(error)
        if not isinstance(text, str):
            raise LMStudioValueError(f"handle_invalid_tool_request must return a string or None; got {text!r}")
        return text

    def _call_back_in_round(self, name: str, *arguments: Any) -> Flow[Any]:
        return (yield from self._call_back(name, self._round, *arguments))

    def _call_back(self, name: str, *arguments: Any) -> Flow[Any]:
        return (yield from call_back(name, cast("Any", self._parameters.get(name)), *arguments))


def _requested_call(job: ToolJob) -> RequestedCall:
    # Whether a call that is left to the program repeats, only the program knows. It does not get an invalid one.
    tool = job.tool if job.problem is None else None
    is_repeatable = tool is not None and (tool.repeatable or tool.implementation is None)
    return RequestedCall(job.call.name, job.call.arguments or {}, is_repeatable)


def _settings(parameters: ActParameters, tools: Iterable[ToolFunctionDef]) -> LlmPredictionConfig:
    settings = LlmPredictionConfig.parse(parameters.get("config"))
    if settings.structured is not None:
        raise LMStudioValueError("act() has no structured output; call respond() with a response_format afterwards")
    return with_tools(settings, tools)
