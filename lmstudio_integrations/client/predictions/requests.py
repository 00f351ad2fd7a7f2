"""What `respond`, `complete` and `act` request, made from the parameters of a call.

`language_model.py` makes predictions of these plans. Everything is checked before it is sent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache, partial
from typing import Any, TypeAlias

from lmstudio_integrations.client.files.images import PendingHistory, prepare_images
from lmstudio_integrations.client.files.uploads import with_valid_files
from lmstudio_integrations.client.models.chat_templates import placed
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.delivery import Callbacks
from lmstudio_integrations.client.predictions.forced_call import ForcedCall, forced_settings, with_instruction
from lmstudio_integrations.client.predictions.logit_bias import with_token_ids
from lmstudio_integrations.client.predictions.prediction import Plan, PredictionRequest
from lmstudio_integrations.client.predictions.required_call import may_call, offered_tools, required_choice
from lmstudio_integrations.client.predictions.review import Review
from lmstudio_integrations.client.predictions.second_step import FormatStep, SecondStep
from lmstudio_integrations.client.predictions.text_calls.rescue import Rescue
from lmstudio_integrations.client.predictions.text_calls.tools import OfferedTools
from lmstudio_integrations.client.support.arguments import check_names, optional_text
from lmstudio_integrations.client.support.timeouts import TimeoutParameters, checked_timeouts
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.endpoints import Channel, Namespace, channel
from lmstudio_integrations.protocol.kv_config import layer_of, stack_of
from lmstudio_integrations.protocol.prompt_outline import PromptOutline, outline_of
from lmstudio_integrations.protocol.requests import CompleteRawText, Predict
from lmstudio_integrations.types.chat import AssistantMessage, Chat, ChatHistory, Message, WireHistory, WirePrompt
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.config_dicts import LlmPredictionConfigDict
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.functions import ToolFunctionDef
from lmstudio_integrations.types.results import LlmPredictionFragment
from lmstudio_integrations.types.structured import ResponseFormat, fits, is_requested, with_format

History: TypeAlias = str | Chat | ChatHistory | WireHistory | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
PredictionSettings: TypeAlias = LlmPredictionConfig | LlmPredictionConfigDict

CALLBACKS = frozenset(field.name for field in fields(Callbacks))
"""The keyword arguments that are callbacks."""

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
        required_tool_fallback: Whether a required tool call that the model did not make is requested again, by grammar.
            The default is `False`, which only logs it.
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
    required_tool_fallback: bool
    config: PredictionSettings | None
    preset: str | None
    on_message: Callable[[AssistantMessage], Any] | None
    on_first_token: Callable[[], Any] | None
    on_prediction_fragment: Callable[[LlmPredictionFragment], Any] | None
    on_prompt_processing_progress: Callable[[float], Any] | None


class Conversation:
    """A conversation whose images may be still to be uploaded. The requests of one prediction share it."""

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

    def __init__(self, conversation: Conversation, settings: LlmPredictionConfig) -> None:
        self._conversation = conversation
        self._settings = settings
        self._stack = stack_of(settings)

    def upload(self, operation: Operation) -> Flow[None]:
        """Upload the images."""
        yield from self._conversation.upload(operation)

    def parameter(self, operation: Operation, instance: Instance) -> Flow[Predict]:
        """Return the parameter of the request."""
        history = yield from placed(operation, instance, self._conversation.wire)
        if history.files:
            history = yield from with_valid_files(operation, history)
        stack = yield from with_token_ids(operation, instance, self._settings, self._stack)
        return Predict(modelSpecifier=instance.specifier, history=history.to_dict(), predictionConfigStack=stack)


RequestMaker: TypeAlias = Callable[[Conversation, LlmPredictionConfig], PredictionRequest]
"""Makes the request of the next message, from a conversation and settings."""


class ForcedCallRequest(ChatRequest):
    """Requests a call of one of the tools by grammar.

    Args:
        conversation: The conversation.
        settings: The settings, with the tools.
        text: What the model has responded without a call.
    """

    def __init__(self, conversation: Conversation, settings: LlmPredictionConfig, text: str) -> None:
        self._definitions = offered_tools(settings)
        self._text = text
        super().__init__(conversation, forced_settings(settings, self._definitions))

    def parameter(self, operation: Operation, instance: Instance) -> Flow[Predict]:
        """Return the parameter of the request."""
        parameter = yield from super().parameter(operation, instance)
        messages = with_instruction(parameter["history"]["messages"], self._text, self._definitions)
        return {**parameter, "history": {"messages": messages}}


class CompletionRequest:
    """Requests the continuation of a text."""

    namespace: Namespace = "llm"
    endpoint: Channel = channel("llm", "completeRawText")

    def __init__(self, prompt: str, settings: LlmPredictionConfig) -> None:
        self._prompt = prompt
        self._settings = settings
        self._stack = stack_of(settings)

    def upload(self, operation: Operation) -> Flow[None]:  # noqa: ARG002 - there is nothing to upload
        """Upload nothing."""
        yield from ()

    def parameter(self, operation: Operation, instance: Instance) -> Flow[Mapping[str, Any]]:
        """Return the parameter of the request."""
        stack = yield from with_token_ids(operation, instance, self._settings, self._stack)
        return self._parameter(instance, stack)

    def _parameter(self, instance: Instance, stack: Mapping[str, Any]) -> Mapping[str, Any]:
        return CompleteRawText(modelSpecifier=instance.specifier, rawPrompt=self._prompt, predictionConfigStack=stack)


class LegacyCompletionRequest(CompletionRequest):
    """Requests the continuation of a text from a server without `completeRawText`.

    It is a chat request with [a template that only shows the text](docs/protocol.md#respond-and-complete).
    """

    endpoint: Channel = ChatRequest.endpoint

    def _parameter(self, instance: Instance, stack: Mapping[str, Any]) -> Mapping[str, Any]:
        history = WireHistory.of_prompt(self._prompt).to_dict()
        layers = {"layers": [*stack["layers"], _LEGACY_LAYER]}
        return Predict(modelSpecifier=instance.specifier, history=history, predictionConfigStack=layers)


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


def plan_response(
    history: History | PendingHistory,
    parameters: PredictionParameters,
    *,
    is_async: bool,
    request: RequestMaker = ChatRequest,
) -> Plan:
    """Plan the next message of a conversation, which `request` requests."""
    settings = _settings(parameters, is_async=is_async)
    checks_calls = not parameters.get("check_response", True)
    plan = plan_round(history, settings, parameters, checks_calls=checks_calls, request=request)
    return _with_callbacks(plan, settings, parameters)


def plan_round(
    history: History | PendingHistory,
    settings: LlmPredictionConfig,
    parameters: Mapping[str, Any],
    *,
    checks_calls: bool = False,
    request: RequestMaker = ChatRequest,
) -> Plan:
    """Plan the model's next message with resolved settings, and without callbacks: a round of the tool loop.

    Args:
        history: The conversation.
        settings: The settings.
        parameters: Of the keyword arguments, the preset, the timeouts, those about tools and those that check are read.
        checks_calls: Whether the caller checks the arguments of tool calls, and sends the model what is wrong.
        request: Makes the request.
    """
    given = history if isinstance(history, PendingHistory) else encode(history)
    conversation = Conversation(given)
    tools_first = parameters.get("tools_first", False) and is_requested(settings) and may_call(settings)
    first = settings.merged(LlmPredictionConfig(structured=None)) if tools_first else settings
    plan = Plan(
        [request(conversation, first)],
        "Chat response",
        optional_text(parameters.get("preset"), "preset"),
        checked_timeouts(parameters),
        tuple(given.files),
        cache(partial(_outline, given, settings)),
        check_context=parameters.get("check_context", False),
    )
    plan.review = _review(conversation, settings, parameters, tools_first=tools_first, checks_calls=checks_calls)
    return plan


def _outline(history: WireHistory | PendingHistory, settings: LlmPredictionConfig) -> PromptOutline:
    """Return the outline of a conversation. The names of images that are not uploaded yet stand for their contents."""
    if isinstance(history, PendingHistory):
        names = [str(hash(image)) for image in history.images]
        files = [FileHandle(name=name, identifier="", size_bytes=0, file_type="image") for name in names]
        history = history.encode(files)
    return outline_of(history.messages, offered_tools(settings))


def _review(
    conversation: Conversation,
    settings: LlmPredictionConfig,
    parameters: Mapping[str, Any],
    *,
    tools_first: bool,
    checks_calls: bool,
) -> Review[PredictionRequest] | None:
    """Return what is done with the response; `None` if nothing is."""
    choice = required_choice(settings)
    logged_choice = choice if parameters.get("check_response", True) else None
    if not may_call(settings):
        return None if logged_choice is None else Review(None, None, logged_choice)  # a preset may have tools
    tools = OfferedTools(offered_tools(settings))
    second_step: SecondStep[PredictionRequest] | None = None
    if choice is not None and parameters.get("required_tool_fallback", False):
        second_step = ForcedCall(partial(ForcedCallRequest, conversation, settings), tools)
    elif tools_first:
        without_tools = settings.merged(LlmPredictionConfig(raw_tools=None, tool_choice=None))
        by_format = ChatRequest(conversation, without_tools)
        second_step = FormatStep([by_format], lambda result: fits(settings, result.content))
    rescue = None
    if parameters.get("rescue_tool_calls", False) and (tools_first or not is_requested(settings)):
        # Where a call is forced, a broken one is none.
        is_forced = isinstance(second_step, ForcedCall)
        rescue = Rescue(tools, reports_broken=not is_forced, keeps_misfits=checks_calls and not is_forced)
    return Review(rescue, second_step, logged_choice)


def plan_completion(prompt: str, parameters: PredictionParameters, *, is_async: bool) -> Plan:
    """Plan the continuation of a text."""
    if not isinstance(prompt, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise LMStudioValueError(f"the prompt must be a string; got {prompt!r}")
    if not prompt and not isinstance(prompt, WirePrompt):
        raise LMStudioValueError("the prompt is empty; give the model a text to continue")
    settings = _settings(parameters, is_async=is_async)
    plan = Plan(
        [CompletionRequest(prompt, settings), LegacyCompletionRequest(prompt, settings)],
        "Completion",
        optional_text(parameters.get("preset"), "preset"),
        checked_timeouts(parameters),
        check_context=parameters.get("check_context", False),
    )
    return _with_callbacks(plan, settings, parameters)


def _with_callbacks(plan: Plan, settings: LlmPredictionConfig, parameters: PredictionParameters) -> Plan:
    plan.parse_json = (
        settings.structured is not None and parameters.get("check_response", True) and is_requested(settings)
    )
    if not CALLBACKS.isdisjoint(parameters):
        plan.callbacks = Callbacks(
            parameters.get("on_first_token"),
            parameters.get("on_prediction_fragment"),
            parameters.get("on_message"),
            parameters.get("on_prompt_processing_progress"),
        )
    return plan


def _settings(parameters: PredictionParameters, *, is_async: bool) -> LlmPredictionConfig:
    """Return the settings of a prediction, including the format of its response."""
    check_names(parameters, PredictionParameters.__annotations__, in_config=_SETTINGS, async_callbacks=is_async)
    settings, response_format = LlmPredictionConfig.parse(parameters.get("config")), parameters.get("response_format")
    if response_format is None and settings.structured is None:
        return settings
    return with_format(response_format, settings, check=parameters.get("check_response", True))
