"""What a prediction requests: `requests.py` makes a plan from the parameters of a call. And its callbacks."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, partial
from typing import Any, Protocol, TypeAlias, TypedDict

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.files.uploads import PendingHistory, prepare_images, with_valid_files
from lmstudio_integrations.client.models.chat_templates import PromptSettings, place_system_messages
from lmstudio_integrations.client.models.reasoning import NO_FLAGS
from lmstudio_integrations.client.models.state import Instance, Specifier
from lmstudio_integrations.client.predictions.repetition import characters_of
from lmstudio_integrations.client.support.arguments import check_names, checked_timeouts, optional_text
from lmstudio_integrations.client.transport.flows import Flow, call_back
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.endpoints import Channel, Namespace, channel
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.kv_config import collapse, layer_of, stack_of
from lmstudio_integrations.protocol.prompt_fingerprint import FingerprintMaker, PromptFingerprint, fingerprint_of
from lmstudio_integrations.protocol.requests import CompleteRawText, Predict, TemplateParameters
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.chat import AssistantMessage, Chat, ChatHistory, Message, WireHistory, WirePrompt
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.config_dicts import LlmPredictionConfigDict, TimeoutParameters
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.functions import ToolFunctionDef
from lmstudio_integrations.types.reasoning import DEFAULT_REASONING, ReasoningOptions, SendReasoning
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    PromptProgress,
)
from lmstudio_integrations.types.structured import ResponseFormat, is_requested, with_format

logger: logging.Logger = logging.getLogger(__name__)

_TOOLS_KEY = wire_keys(LlmPredictionConfig)["raw_tools"].key


def requires_call(settings: LlmPredictionConfig) -> bool:
    """Whether a prediction must call a tool."""
    return (settings.tool_choice or {}).get("mode") == "required"


def offered_tools(settings: LlmPredictionConfig) -> list[dict[str, Any]]:
    """Return the definitions of the tools that a prediction offers, in wire form."""
    return (settings.raw_tools or {}).get("tools") or []


def tools_in(parameter: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the definitions of the tools that a request offers, from its parameter."""
    if "predictionConfigStack" not in parameter:  # of a generator
        return parameter.get("tools") or []
    return tools_among(collapse(parameter["predictionConfigStack"]))


def tools_among(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the definitions of tools among settings by their wire keys."""
    use = settings.get(_TOOLS_KEY)
    return (use.get("tools") or []) if is_object(use) else []


def may_call(settings: LlmPredictionConfig) -> bool:
    return bool(offered_tools(settings)) and (settings.tool_choice or {}).get("mode") != "none"


def lacks_call(result: PredictionResult) -> bool:
    """Whether the model responded without even beginning a tool call, and was not stopped by the caller."""
    return not result.tool_calls and result.end.stats.get("stopReason") != "userStopped"


def missing_call(choice: str) -> str:
    """Return what is wrong with a response without a call, and the remedy."""
    return (
        f"a tool call was required, and the model responded without one (tool_choice={choice!r}); use a model that was "
        "trained for tools, or tool_choice='auto'"
    )


def log_missing_call(end: PredictionEnd, choice: str) -> None:
    """Log that a response has no call."""
    logger.warning("%r: %s", end.model_info.get("modelKey"), missing_call(choice))


@dataclass(slots=True)
class Callbacks:
    """The callbacks of a prediction. The waiting thread or coroutine calls them, and the coroutine awaits async ones.

    Attributes:
        on_first_token: Called once, before the first fragment.
        on_prediction_fragment: Called with each fragment.
        on_message: Called with the assistant message, once it is known to be valid.
        on_prompt_processing_progress: Called with growing values that begin with 0.0 and end with 1.0.
        on_tool_call_event: A flow, run for each event of a tool call.
        were_called: Whether one of them was called.
    """

    on_first_token: Callable[[], Any] | None = None
    on_prediction_fragment: Callable[[LlmPredictionFragment], Any] | None = None
    on_message: Callable[[AssistantMessage], Any] | None = None
    on_prompt_processing_progress: Callable[[float], Any] | None = None
    on_tool_call_event: Callable[[PredictionEvent], Flow[None]] | None = None
    were_called: bool = field(default=False, init=False)
    _last_progress: float = field(default=-1.0, init=False)
    _is_first: bool = field(default=True, init=False)

    def show(self, batch: list[PredictionEvent]) -> Flow[None]:
        """Call the callbacks with events."""
        for event in batch:
            if type(event) is LlmPredictionFragment:
                if self._is_first:
                    self._is_first = False
                    yield from self._show_progress(1.0)
                    yield from self._call("on_first_token")
                yield from self._call("on_prediction_fragment", event)
            elif type(event) is PromptProgress:
                yield from self._show_progress(event.progress)
            elif self.on_tool_call_event is not None and type(event) is not PredictionEnd:
                self.were_called = True
                yield from self.on_tool_call_event(event)

    def show_message(self, result: PredictionResult) -> Flow[None]:
        """Call the callback with the whole message."""
        if self.on_message is not None:
            message = Chat().add_assistant_response(result, result.tool_call_requests)
            yield from self._call("on_message", message)

    def _show_progress(self, progress: float) -> Flow[None]:
        if self.on_prompt_processing_progress is None or progress <= self._last_progress:
            return
        is_first, self._last_progress = self._last_progress < 0, progress
        if is_first and progress > 0:
            yield from self._call("on_prompt_processing_progress", 0.0)
        yield from self._call("on_prompt_processing_progress", progress)

    def _call(self, name: str, *arguments: Any) -> Flow[None]:
        callback = getattr(self, name)
        if callback is not None:
            self.were_called = True
            yield from call_back(name, callback, *arguments)


class PredictionRequest(Protocol):
    """One way to request a prediction. If the server does not know the endpoint, the next way is tried."""

    namespace: Namespace
    endpoint: Channel

    def upload(self, operation: Operation) -> Flow[None]:
        """Upload what the request refers to. It is run once for each operation."""
        ...

    def parameter(self, operation: Operation, instance: Instance) -> Flow[Mapping[str, Any]]:
        """Return the parameter of the request."""
        ...


@dataclass(slots=True)
class Plan:
    """What a prediction requests. Each prediction has its own.

    Attributes:
        requests: The ways to request it, best first.
        label: What errors call it.
        settings: Its settings.
        options: The keyword arguments of the call; each middleware reads its own.
        preset: A preset on the server, by its (fuzzy) identifier.
        timeouts: Timeouts that differ from the client's.
        files: The uploaded files that it refers to.
        has_files: Whether its conversation has images or other files, perhaps still to be uploaded.
        has_reasoning: Whether its conversation has earlier thoughts.
        reasoning: What is done with them.
        fingerprint: Returns the fingerprint of its conversation; `None` if it has none.
        callbacks: What is called with parts of the response.
        parse_json: Whether to parse the response as a JSON object, if it is one.
        keeps_misfits: Whether calls in the text whose arguments do not fit are calls: the caller checks them.
        tools: The definitions of the tools that the model may call, in wire form.
        requires_call: Whether it must call one.
    """

    requests: Sequence[PredictionRequest]
    label: str
    settings: LlmPredictionConfig
    options: Mapping[str, Any]
    preset: str | None = None
    timeouts: Timeouts = field(default_factory=dict[str, float | None])
    files: tuple[FileHandle, ...] = ()
    has_files: bool = False
    has_reasoning: bool = False
    reasoning: ReasoningOptions = DEFAULT_REASONING
    fingerprint: FingerprintMaker | None = None
    callbacks: Callbacks | None = None
    parse_json: bool = False
    keeps_misfits: bool = False
    tools: Sequence[Mapping[str, Any]] = ()
    requires_call: bool = False

    @property
    def forces_call(self) -> bool:
        """Whether a required call that does not come is requested by grammar."""
        return self.requires_call and self.options.get("required_tool_fallback", False)


History: TypeAlias = str | Chat | ChatHistory | WireHistory | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
PredictionSettings: TypeAlias = LlmPredictionConfig | LlmPredictionConfigDict

CALLBACKS = frozenset(field.name for field in fields(Callbacks) if field.init)
"""The keyword arguments that are callbacks."""

_NO_SETTINGS = LlmPredictionConfig()
_SETTINGS = frozenset(LlmPredictionConfig.model_fields)

_COMPLETION_TEMPLATE: dict[str, Any] = {
    "type": "jinja",
    "stopStrings": [],
    "jinjaPromptTemplate": {
        "template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        "bosToken": "",
        "eosToken": "",
        "inputConfig": {"messagesConfig": {"contentConfig": {"type": "string"}}, "useTools": False},
    },
}


_LEGACY_LAYER = layer_of("completeModeFormatting", {"llm.prediction.promptTemplate": _COMPLETION_TEMPLATE})
"""Makes servers without `completeRawText` continue a text."""


class PredictionParameters(TimeoutParameters, total=False):
    """The keyword arguments of `respond`, `complete` and their streams. The async client also accepts async callbacks.

    Attributes:
        response_format: The format of the response: a pydantic class, a JSON schema, or a grammar. If the response is a
            JSON object, `parsed` of the result is a dict.
        check_response: Whether to check the schema or grammar before it is sent, to parse a structured response, to
            log that a required tool call is missing, and to check the arguments of calls that were left in the text.
            The default is `True`. A response that is not a JSON object is no error; `parsed` is then its text.
        check_context: Whether to detect that the server has dropped part of the prompt. `stats` then has
            `dropped_tokens`, and you get an `LMStudioTruncationWarning` unless the policy allows it. The default is
            `False`. A prompt that may fill half of the context window costs up to two extra requests.
        tools_first: Whether a call with tools and a response format may make two predictions: one with the tools alone
            and, if the model called none and its response does not fit, one with the format alone. Nothing is
            delivered before that is known. The default is `False`, where the format's grammar keeps the model from
            calling a tool.
        rescue_tool_calls: Whether calls that the server left in the text become tool calls. Those that are cut off, or
            do not fit the tool's schema, become failed ones; without `check_response`, the latter are calls like those
            that the server sends. The default is `False`; see `docs/guides/tools-with-small-models.md`.
        repair_tool_calls: Whether tool calls that do not fit the tools are mended: at once where exactly one reading
            fits, otherwise by one more prediction, by grammar. A call is held back until it is complete. The default is
            `False`; see `docs/guides/tools-with-small-models.md`.
        required_tool_fallback: Whether a required tool call that the model did not make is requested again, by grammar.
            The default is `False`, which only logs it.
        stop_on_repetition: Whether a response that only repeats one block is cancelled. What was delivered stays, the
            stop reason is `repetition`, and `stats` has `repetition_start`. `True` watches the reasoning and, if the
            request offers tools, the text and the tool calls. A number watches all of a response, and is that of the
            characters for which a block may be repeated. The default is `False`; see
            `docs/guides/agents-that-run-long.md`.
        send_reasoning: Which thoughts of earlier messages go back to the model: `auto` those that its chat template
            takes; `turn` those since the last user message; `always` (or `True`) all;
            `False` none. The default is `auto`. A prompt that is rejected with them is sent again without. See
            `docs/guides/reasoning.md`.
        keep_reasoning: Whether the chat template is made to keep the thoughts of all turns, where it has a switch for
            it. An error names what was tried if it has none. The default is `False`: what the template does by itself.
        think_first: Whether a call that asks for reasoning and a response format may make two predictions, on an
            instance whose grammar leaves no room for a thought: one without the format, for the thought, and one by
            grammar that continues it. The default is `True`. See `docs/guides/reasoning.md`.
        config: Settings of this prediction.
        preset: Preset on the server, by its identifier, which may be approximate. `config` overrides it.
        on_message: Called with the complete assistant message, which `Chat.append` takes.
        on_first_token: Called once, before the first fragment.
        on_prediction_fragment: Called with each fragment.
        on_prompt_processing_progress: Called with the progress of the prompt processing, from 0.0 to 1.0.
    """

    response_format: ResponseFormat | None
    check_response: bool
    check_context: bool
    tools_first: bool
    rescue_tool_calls: bool
    repair_tool_calls: bool
    required_tool_fallback: bool
    stop_on_repetition: bool | int
    send_reasoning: SendReasoning
    keep_reasoning: bool
    think_first: bool
    config: PredictionSettings | None
    preset: str | None
    on_message: Callable[[AssistantMessage], Any] | None
    on_first_token: Callable[[], Any] | None
    on_prediction_fragment: Callable[[LlmPredictionFragment], Any] | None
    on_prompt_processing_progress: Callable[[float], Any] | None


class PromptParameters(TypedDict, total=False):
    """The keyword arguments that change the prompt of a conversation; see `PredictionParameters`.

    Attributes:
        send_reasoning: Which thoughts of earlier messages are in it. The default is `auto`.
        keep_reasoning: Whether the chat template is made to keep those of all turns. The default is `False`.
        config: Settings of the prediction, such as `enable_thinking` and `prompt_template`.
    """

    send_reasoning: SendReasoning
    keep_reasoning: bool
    config: PredictionSettings | None


class UploadedHistory:
    """A conversation with its images, which are uploaded on request. The requests of one prediction share it."""

    def __init__(self, history: WireHistory | PendingHistory) -> None:
        self._pending = history if isinstance(history, PendingHistory) else None
        self._uploaded_in: Operation | None = None
        self.wire: WireHistory = WireHistory([]) if isinstance(history, PendingHistory) else history
        """The conversation, once its images are uploaded."""

    def upload(self, operation: Operation) -> Flow[None]:
        """Upload the images, once for each operation: the next may run on another host, or after a lost connection."""
        pending = self._pending
        if pending is not None and self._uploaded_in is not operation:
            allowed = pending.allow_private_hosts
            handles = yield from prepare_images(operation, pending.images, allow_private_hosts=allowed)
            self._uploaded_in, self.wire = operation, pending.encode(handles)


class ChatRequest:
    """Requests the next message of a conversation."""

    namespace: Namespace = "llm"
    endpoint: Channel = channel("llm", "predict")

    def __init__(self, history: UploadedHistory, settings: LlmPredictionConfig) -> None:
        self._history = history
        self._stack = stack_of(settings)

    def upload(self, operation: Operation) -> Flow[None]:
        """Upload the images."""
        yield from self._history.upload(operation)

    def parameter(self, operation: Operation, instance: Instance) -> Flow[Predict]:
        """Return the parameter of the request."""
        history = self._history.wire
        if history.system_first is not None:
            history = yield from place_system_messages(operation, instance, history)
        if history.files:
            history = yield from with_valid_files(operation, history)
        return Predict(modelSpecifier=instance.specifier, history=history.to_dict(), predictionConfigStack=self._stack)


class CompletionRequest:
    """Requests the continuation of a text."""

    namespace: Namespace = "llm"
    endpoint: Channel = channel("llm", "completeRawText")

    def __init__(self, prompt: str, settings: LlmPredictionConfig) -> None:
        self._prompt = prompt
        self._stack = stack_of(settings)

    def upload(self, operation: Operation) -> Flow[None]:  # noqa: ARG002 - there is nothing to upload
        """Upload nothing."""
        yield from ()

    def parameter(self, operation: Operation, instance: Instance) -> Flow[Mapping[str, Any]]:  # noqa: ARG002
        """Return the parameter of the request."""
        yield from ()
        return self._parameter(instance.specifier)

    def _parameter(self, specifier: Specifier) -> Mapping[str, Any]:
        return CompleteRawText(modelSpecifier=specifier, rawPrompt=self._prompt, predictionConfigStack=self._stack)


class LegacyCompletionRequest(CompletionRequest):
    """Requests the continuation of a text from a server without `completeRawText`.

    It is a chat request with [a template that only shows the text](docs/protocol.md#respond-and-complete).
    """

    endpoint: Channel = ChatRequest.endpoint

    def _parameter(self, specifier: Specifier) -> Mapping[str, Any]:
        return chat_request_of_text(specifier, self._prompt, self._stack)


def chat_request_of_text(specifier: Specifier, text: str, stack: Mapping[str, Any]) -> Predict:
    """Return the parameter of a chat request that continues a text: a template only shows it."""
    history = WireHistory.of_prompt(text).to_dict()
    layers = [*stack["layers"], _LEGACY_LAYER]
    return Predict(modelSpecifier=specifier, history=history, predictionConfigStack={"layers": layers})


def with_tools(settings: LlmPredictionConfig, tools: Iterable[ToolFunctionDef]) -> LlmPredictionConfig:
    """Return settings that offer tools."""
    definitions = [tool.to_tool().to_dict() for tool in tools]
    return settings.merged(LlmPredictionConfig(raw_tools={"type": "toolArray", "tools": definitions}))


def to_chat(history: History) -> Chat:
    """Return a conversation as a new chat, which may grow."""
    return Chat.from_history(history.to_dict() if isinstance(history, ChatHistory | WireHistory) else history)


def encode(history: History) -> WireHistory:
    """Return a conversation in wire form. A `WireHistory` comes from an adapter, and is sent even if it is empty.

    Raises:
        LMStudioValueError: If it is empty, or has another form.
    """
    if isinstance(history, WireHistory):
        return history
    if isinstance(history, str):
        wire, is_empty = WireHistory.of_prompt(history), not history.strip()
    else:
        if not isinstance(history, ChatHistory):
            history = (history if isinstance(history, Chat) else Chat.from_history(history)).to_history()
        wire = WireHistory.of(history)
        parts = (part for message in wire.messages for part in message["content"])
        is_empty = all(part["type"] == "text" and not part["text"].strip() for part in parts)
    if is_empty:
        raise LMStudioValueError("the prompt is empty; say something to the model")
    return wire


def plan_response(history: History | PendingHistory, parameters: PredictionParameters, *, is_async: bool) -> Plan:
    """Plan the next message of a conversation."""
    settings = _settings(parameters, is_async=is_async)
    keeps_misfits = not parameters.get("check_response", True)
    plan = plan_round(history, settings, parameters, keeps_misfits=keeps_misfits)
    if parameters:
        _add_reading(plan, parameters)
    return plan


def plan_round(
    history: History | PendingHistory,
    settings: LlmPredictionConfig,
    parameters: Mapping[str, Any],
    *,
    keeps_misfits: bool = False,
) -> Plan:
    """Plan the model's next message with resolved settings, and without callbacks: a round of the tool loop.

    Args:
        history: The conversation.
        settings: The settings.
        parameters: The keyword arguments of the call.
        keeps_misfits: Whether calls in the text whose arguments do not fit are calls: the caller checks them.
    """
    encoded = history if isinstance(history, PendingHistory) else encode(history)
    plan = Plan([ChatRequest(UploadedHistory(encoded), settings)], "Chat response", settings, parameters)
    plan.files, plan.has_reasoning = tuple(encoded.files), encoded.has_reasoning
    plan.has_files = bool(encoded.files) or isinstance(encoded, PendingHistory)
    plan.fingerprint = cache(partial(_fingerprint, encoded, settings))
    if not parameters:
        return plan
    _add_options(plan)
    if settings.raw_tools is not None and may_call(settings):
        plan.tools, plan.keeps_misfits = offered_tools(settings), keeps_misfits
    plan.requires_call = settings.tool_choice is not None and requires_call(settings)
    return plan


def _fingerprint(history: WireHistory | PendingHistory, settings: LlmPredictionConfig) -> PromptFingerprint:
    """Return the fingerprint of a conversation. Names of images that are not uploaded yet stand for their contents."""
    if isinstance(history, PendingHistory):
        names = [str(hash(image)) for image in history.images]
        files = [FileHandle(name=name, identifier="", size_bytes=0, file_type="image") for name in names]
        history = history.encode(files)
    return fingerprint_of(history.messages, offered_tools(settings))


def plan_completion(prompt: str, parameters: PredictionParameters, *, is_async: bool) -> Plan:
    """Plan the continuation of a text."""
    if not isinstance(prompt, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise LMStudioValueError(f"the prompt must be a string; got {prompt!r}")
    if not prompt and not isinstance(prompt, WirePrompt):
        raise LMStudioValueError("the prompt is empty; give the model a text to continue")
    settings = _settings(parameters, is_async=is_async)
    requests = [CompletionRequest(prompt, settings), LegacyCompletionRequest(prompt, settings)]
    plan = Plan(requests, "Completion", settings, parameters)
    if parameters:
        _add_options(plan)
        _add_reading(plan, parameters)
    return plan


def _add_options(plan: Plan) -> None:
    plan.preset = optional_text(plan.options.get("preset"), "preset")
    plan.timeouts = checked_timeouts(plan.options)
    characters_of(plan.options.get("stop_on_repetition", False))
    plan.reasoning = _reasoning(plan.options)


def _reasoning(parameters: Mapping[str, Any]) -> ReasoningOptions:
    return ReasoningOptions.of(parameters.get("send_reasoning", "auto"), parameters.get("keep_reasoning", False))


def prompt_settings(parameters: PromptParameters, flags: TemplateParameters = NO_FLAGS) -> PromptSettings:
    """Return what changes a prompt, with the flags of `template_flags`."""
    check_names(parameters, PromptParameters.__annotations__, in_config=_SETTINGS)
    return PromptSettings(_reasoning(parameters), LlmPredictionConfig.parse(parameters.get("config")), flags)


def _add_reading(plan: Plan, parameters: PredictionParameters) -> None:
    """Add how the caller gets the response: parsed, and by callbacks. The tool loop has callbacks of its own."""
    is_checked = plan.settings.structured is not None and parameters.get("check_response", True)
    plan.parse_json = is_checked and is_requested(plan.settings)
    if not CALLBACKS.isdisjoint(parameters):
        plan.callbacks = Callbacks(
            parameters.get("on_first_token"),
            parameters.get("on_prediction_fragment"),
            parameters.get("on_message"),
            parameters.get("on_prompt_processing_progress"),
        )


def _settings(parameters: PredictionParameters, *, is_async: bool) -> LlmPredictionConfig:
    """Return the settings of a prediction, including the format of its response."""
    if not parameters:
        return _NO_SETTINGS
    check_names(parameters, PredictionParameters.__annotations__, in_config=_SETTINGS, async_callbacks=is_async)
    settings, response_format = LlmPredictionConfig.parse(parameters.get("config")), parameters.get("response_format")
    if response_format is None and settings.structured is None:
        return settings
    return with_format(response_format, settings, check=parameters.get("check_response", True))
