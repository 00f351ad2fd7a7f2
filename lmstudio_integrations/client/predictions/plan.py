"""What a prediction requests, and its callbacks. Everything is checked before it is sent.

The client makes a plan of the keyword arguments of a call, the adapters make one of their settings; `prediction.py`
carries it out. The beginning says which tools a plan offers, and what is wrong with a response without a required call.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from typing import Any, Self, TypeAlias, TypedDict

from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import SAFE_INTEGER, is_object
from lmstudio_integrations.client.concurrency.flows import Flow, call_back
from lmstudio_integrations.client.files.uploads import PendingHistory, upload_images, with_valid_files
from lmstudio_integrations.client.models.chat_templates import NO_FLAGS, PromptSettings, arrange
from lmstudio_integrations.client.models.state import Instance, Specifier
from lmstudio_integrations.client.support.arguments import check_names, checked_string, checked_timeouts, optional_text
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.endpoints import Channel, channel
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.kv_config import collapse, layer_of, stack_of
from lmstudio_integrations.protocol.requests import CompleteRawText, Predict, TemplateParameters
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.chat import AssistantMessage, Chat, ChatHistory, Message, WireHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.config_dicts import LlmPredictionConfigDict, TimeoutParameters
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.functions import ToolFunctionDef
from lmstudio_integrations.types.reasoning import DEFAULT_REASONING, ReasoningOptions, RequestedEffort, SendReasoning
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    PromptProgress,
    ToolCallEvent,
)
from lmstudio_integrations.types.structured import ResponseFormat, is_requested, with_format

logger: logging.Logger = logging.getLogger(__name__)

_TOOLS_KEY = wire_keys(LlmPredictionConfig)["raw_tools"].key


def offered_tools(settings: LlmPredictionConfig) -> list[dict[str, Any]]:
    """Return the definitions of the tools that a prediction offers, in wire form."""
    return (settings.raw_tools or {}).get("tools") or []


def parameters_of(tools: Iterable[Mapping[str, Any]], name: object) -> dict[str, Any] | None:
    """Return the schema of the arguments of a tool; `None` if it is not offered."""
    functions: list[dict[str, Any]] = [each["function"] for each in tools]
    return next((dict(each.get("parameters") or {}) for each in functions if each["name"] == name), None)


def tools_in(parameter: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the definitions of the tools that a request offers, from its parameter."""
    if "predictionConfigStack" not in parameter:  # of a generator
        return parameter.get("tools") or []
    return tools_among(collapse(parameter["predictionConfigStack"]))


def tools_among(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the definitions of tools among settings by their wire keys."""
    use = settings.get(_TOOLS_KEY)
    return (use.get("tools") or []) if is_object(use) else []


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
    on_tool_call_event: Callable[[ToolCallEvent], Flow[None]] | None = None
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
            elif event.kind == "call" and self.on_tool_call_event is not None:
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
            `dropped_tokens`, and you get an `LMStudioTruncationWarning` unless the policy allows it, and always if the
            server counts a response and sends none of it. The default is `False`. A prompt that may fill half of the
            context window costs up to two extra requests.
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
            `docs/guides/long-conversations.md`.
        send_reasoning: Which thoughts of earlier messages go back to the model: `auto` those that its chat template
            takes; `turn` those since the last user message; `always` (or `True`) all;
            `False` none. The default is `auto`. A prompt that is rejected with them is sent again without. See
            `docs/guides/reasoning.md`.
        keep_reasoning: Whether the chat template is made to keep the thoughts of all turns, where it has a switch for
            it, or gets them in a field of their own, where it reads them only there. An error names what was tried if
            it has neither. The default is `False`: what the template does by itself.
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


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """What is done with a prediction beside sending and reading it. Each middleware reads its own.

    Keyword arguments of the same names say what each means, see `PredictionParameters`; `reasoning` has two of them.
    """

    check_response: bool = True
    check_context: bool = False
    tools_first: bool = False
    rescue_tool_calls: bool = False
    repair_tool_calls: bool = False
    required_tool_fallback: bool = False
    stop_on_repetition: bool | int = False
    think_first: bool = True
    preset: str | None = None
    reasoning: ReasoningOptions = DEFAULT_REASONING

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the options among keyword arguments.

        Raises:
            LMStudioValueError: If one has an invalid value.
        """
        given = {name: parameters[name] for name in cls.__slots__ if name in parameters}
        optional_text(given.get("preset"), "preset")
        characters_of(given.get("stop_on_repetition", False))
        return cls(**given, reasoning=_reasoning(parameters))


def characters_of(value: object) -> int | None:
    """Return for how many characters `stop_on_repetition` lets a block be repeated; `None` for the default rule.

    Raises:
        LMStudioValueError: If it is neither a boolean nor a positive whole number.
    """
    if isinstance(value, bool):
        return None
    if not isinstance(value, int) or not 1 <= value <= SAFE_INTEGER:
        raise LMStudioValueError(
            f"stop_on_repetition must be True, False or a positive whole number of characters; got {shown(value)}"
        )
    return value


NO_OPTIONS = PredictionOptions()
_PREDICT, _COMPLETE = channel("llm", "predict"), channel("llm", "completeRawText")


@dataclass
class Plan:
    """What a prediction requests: the next message of a conversation, or the continuation of a text.

    The client makes it of keyword arguments, the adapters of their settings. Each prediction has its own.

    Attributes:
        settings: Its settings.
        options: What is done with it beside sending and reading it.
        history: The conversation; `None` if a text is continued.
        prompt: The text.
        timeouts: Timeouts that differ from the client's.
        callbacks: What is called with parts of the response.
        parse_json: Whether to parse the response as a JSON object, if it is one.
        keeps_misfits: Whether calls in the text whose arguments do not fit are calls, even if the response is checked:
            a loop of tools answers them.
        effort: How much the model is asked to reason; `None` leaves that to the model.
    """

    settings: LlmPredictionConfig
    options: PredictionOptions = NO_OPTIONS
    history: WireHistory | PendingHistory | None = None
    prompt: str = ""
    timeouts: Timeouts = field(default_factory=dict[str, float | None])
    callbacks: Callbacks | None = None
    parse_json: bool = False
    keeps_misfits: bool = False
    effort: RequestedEffort | None = None
    omits_images: str | None = field(default=None, init=False)
    """Why images that a tool or a model has returned are not sent; `None` sends them."""
    _uploaded: Sequence[FileHandle | str] = field(default=(), init=False)
    """What `upload_images` returned."""
    _uploaded_in: int | None = field(default=None, init=False)
    _sent: tuple[object, WireHistory] | None = field(default=None, init=False)
    """The conversation with them, and for what it was encoded: an attempt, and what was omitted."""

    @property
    def label(self) -> str:
        """What errors call the prediction."""
        return "Completion" if self.history is None else "Chat response"

    @property
    def endpoints(self) -> tuple[Channel, ...]:
        """The ways to request it, best first. If the server does not know one, the next is tried."""
        return (_COMPLETE, _PREDICT) if self.history is None else (_PREDICT,)

    @cached_property
    def files(self) -> tuple[FileHandle, ...]:
        """The uploaded files that it refers to."""
        return () if self.history is None else tuple(self.history.files)

    @property
    def has_files(self) -> bool:
        """Whether its conversation has images or other files, perhaps still to be uploaded."""
        return isinstance(self.history, PendingHistory) or bool(self.files)

    @property
    def has_returned_images(self) -> bool:
        """Whether its conversation has images that a tool or a model has returned."""
        return isinstance(self.history, PendingHistory) and any(each.is_optional for each in self.history.images)

    @property
    def has_reasoning(self) -> bool:
        """Whether its conversation has earlier thoughts."""
        return self.history is not None and self.history.has_reasoning

    @cached_property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The definitions of the tools that the model may call, in wire form."""
        may_call = self.history is not None and (self.settings.tool_choice or {}).get("mode") != "none"
        return offered_tools(self.settings) if may_call else ()

    @property
    def requires_call(self) -> bool:
        """Whether the model must call a tool."""
        return self.history is not None and (self.settings.tool_choice or {}).get("mode") == "required"

    @property
    def forces_call(self) -> bool:
        """Whether a required call that does not come is requested by grammar."""
        return self.requires_call and self.options.required_tool_fallback

    @cached_property
    def _stack(self) -> Mapping[str, Any]:
        """The settings in wire form."""
        return stack_of(self.settings)

    def upload(self, operation: Operation) -> Flow[None]:
        """Upload the images, once for each attempt: the next may run on another host, or after a lost connection."""
        history = self.history
        if isinstance(history, PendingHistory) and self._uploaded_in != operation.attempt:
            self._uploaded = yield from upload_images(operation, history)
            self._uploaded_in = operation.attempt

    def parameter(self, operation: Operation, instance: Instance, endpoint: Channel) -> Flow[Mapping[str, Any]]:
        """Return the parameter of the request to an endpoint."""
        specifier, history = instance.specifier, self.history
        if endpoint is _COMPLETE:
            return CompleteRawText(modelSpecifier=specifier, rawPrompt=self.prompt, predictionConfigStack=self._stack)
        if history is None:
            return chat_request_of_text(specifier, self.prompt, self._stack)
        if isinstance(history, PendingHistory):
            history = self._encoded(history, _NO_VISION if instance.sees_images is False else self.omits_images)
        history = yield from arrange(operation, instance, history)
        if history.files:
            history = yield from with_valid_files(operation, history)
        return Predict(modelSpecifier=specifier, history=history.to_dict(), predictionConfigStack=self._stack)

    def _encoded(self, history: PendingHistory, omitted: str | None) -> WireHistory:
        """Return a conversation with its uploaded images; without those of tools if a reason is given."""
        use = self._uploaded_in, omitted
        if self._sent is None or self._sent[0] != use:
            encode = history.encode if omitted is None else partial(history.without_optional, reason=omitted)
            self._sent = use, encode(self._uploaded)
        return self._sent[1]


_NO_VISION = "the model sees no images"
"""Why images that a tool or a model has returned are not sent to a model without vision. Those of users are errors."""


def chat_request_of_text(specifier: Specifier, text: str, stack: Mapping[str, Any]) -> Predict:
    """Return the parameter of a chat request that continues a text, for a server without `completeRawText`.

    [A template](docs/protocol.md#respond-and-complete) only shows the text.
    """
    history = WireHistory.of_prompt(text).to_dict()
    layers = [*stack["layers"], _LEGACY_LAYER]
    return Predict(modelSpecifier=specifier, history=history, predictionConfigStack={"layers": layers})


def with_tools(settings: LlmPredictionConfig, tools: Iterable[ToolFunctionDef]) -> LlmPredictionConfig:
    """Return settings that offer tools."""
    definitions = [tool.to_tool().to_dict() for tool in tools]
    return settings.merged(LlmPredictionConfig(raw_tools={"type": "toolArray", "tools": definitions}))


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


def plan_of(parameters: PredictionParameters, *, is_async: bool) -> Plan:
    """Plan a prediction, but for what it begins with."""
    plan = Plan(_settings(parameters, is_async=is_async))
    if not parameters:
        return plan
    plan.options, plan.timeouts = PredictionOptions.of(parameters), checked_timeouts(parameters)
    if plan.options.check_response:
        plan.parse_json = plan.settings.structured is not None and is_requested(plan.settings)
    if not CALLBACKS.isdisjoint(parameters):
        plan.callbacks = Callbacks(
            parameters.get("on_first_token"),
            parameters.get("on_prediction_fragment"),
            parameters.get("on_message"),
            parameters.get("on_prompt_processing_progress"),
        )
    return plan


def plan_response(history: History | PendingHistory, parameters: PredictionParameters, *, is_async: bool) -> Plan:
    """Plan the next message of a conversation."""
    plan = plan_of(parameters, is_async=is_async)
    plan.history = history if isinstance(history, PendingHistory) else encode(history)
    return plan


def plan_completion(prompt: str, parameters: PredictionParameters, *, is_async: bool) -> Plan:
    """Plan the continuation of a text."""
    checked_string(prompt, "the prompt")
    if not prompt:
        raise LMStudioValueError("the prompt is empty; give the model a text to continue")
    plan = plan_of(parameters, is_async=is_async)
    plan.prompt = prompt
    return plan


def _reasoning(parameters: Mapping[str, Any]) -> ReasoningOptions:
    return ReasoningOptions.of(parameters.get("send_reasoning", "auto"), parameters.get("keep_reasoning", False))


def prompt_settings(parameters: PromptParameters, flags: TemplateParameters = NO_FLAGS) -> PromptSettings:
    """Return what changes a prompt, with the flags of `template_flags`."""
    check_names(parameters, PromptParameters.__annotations__, in_config=_SETTINGS)
    return PromptSettings(_reasoning(parameters), LlmPredictionConfig.parse(parameters.get("config")), flags)


def _settings(parameters: PredictionParameters, *, is_async: bool) -> LlmPredictionConfig:
    """Return the settings of a prediction, including the format of its response."""
    if not parameters:
        return _NO_SETTINGS
    check_names(parameters, PredictionParameters.__annotations__, in_config=_SETTINGS, async_callbacks=is_async)
    settings, response_format = LlmPredictionConfig.parse(parameters.get("config")), parameters.get("response_format")
    if response_format is None and settings.structured is None:
        return settings
    return with_format(response_format, settings, check=parameters.get("check_response", True))
