"""The predictions that `respond`, `complete` and `act` request, made from the parameters of a call.

The clients call it; the flows of `run.py` send what it makes. Everything is checked before it is sent.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from lmstudio_integrations.client.files.images import prepare_images
from lmstudio_integrations.client.files.uploads import address_of, with_valid_files
from lmstudio_integrations.client.models.binding import Binding, Specifier
from lmstudio_integrations.client.models.chat_templates import placed
from lmstudio_integrations.client.predictions.logit_bias import with_token_ids
from lmstudio_integrations.client.predictions.required_call import may_call, required_choice
from lmstudio_integrations.client.predictions.run import Callbacks, PredictionRun, Request
from lmstudio_integrations.client.predictions.second_step import SecondStep
from lmstudio_integrations.client.predictions.structured import ResponseFormat, fits, is_requested, with_format
from lmstudio_integrations.client.support.arguments import check_names, optional_text, seconds_of
from lmstudio_integrations.client.transport.dispatcher import NO_TIMEOUTS, Dispatcher
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.endpoints import channel
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.kv_config import layer_of, stack_of
from lmstudio_integrations.protocol.requests import CompleteRawText, Predict
from lmstudio_integrations.types.chat import AssistantMessage, Chat, ChatHistory, WireHistory, WirePrompt
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.config_dicts import LlmPredictionConfigDict
from lmstudio_integrations.types.pending import PendingHistory
from lmstudio_integrations.types.results import LlmPredictionFragment

if TYPE_CHECKING:
    from lmstudio_integrations.client.hosts.pool import HostPool

History: TypeAlias = str | Chat | ChatHistory | WireHistory | Mapping[str, Any]
PredictionSettings: TypeAlias = LlmPredictionConfig | LlmPredictionConfigDict | Mapping[str, Any]

TIMEOUTS: Timeouts = {
    "connect_timeout": 5.0,
    "load_timeout": 300.0,
    "queue_timeout": 600.0,
    "first_token_timeout": 300.0,
    "idle_timeout": 60.0,
    "timeout": None,
    "keepalive": 20.0,
}
"""The default timeouts in seconds."""

_PREDICT, _COMPLETE = channel("llm", "predict"), channel("llm", "completeRawText")

_CALLBACKS = {field.name for field in fields(Callbacks)}
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


class TimeoutParameters(TypedDict, total=False):
    """The timeouts in seconds; `None` switches one off.

    Attributes:
        connect_timeout: Until the server accepts the client, or answers a ping after a silence.
        load_timeout: Between two progress packets while a model loads.
        queue_timeout: From the request to its first packet, for predictions, embeddings and token counts. It restarts
            whenever the queue of the model instance moves.
        first_token_timeout: Between two progress packets while the prompt is processed.
        idle_timeout: Between two packets of a response, and for the response to any other call.
        timeout: For the whole call.
        keepalive: Ping the server after this many seconds of silence. If the connection is dead and a new one can be
            made, it is replaced, and its calls fail immediately. If the server is frozen, calls end by their timeouts.
    """

    connect_timeout: float | None
    load_timeout: float | None
    queue_timeout: float | None
    first_token_timeout: float | None
    idle_timeout: float | None
    timeout: float | None
    keepalive: float | None


class PredictionParameters(TimeoutParameters, total=False):
    """The keyword arguments of `respond`, `complete` and their streams. The async client also accepts async callbacks.

    Attributes:
        response_format: A pydantic class, a JSON schema, or a grammar. `parsed` of the result is then a dict, if
            the response is a JSON object.
        check_response: Whether to check the schema or grammar before it is sent, to parse a structured response, and to
            log that a required tool call is missing (the default). A response that is not a JSON object is no error:
            `parsed` is then its text.
        check_context: Whether to count the prompt again if the server may have cut it, although it must not or did not
            say so: at most two requests more, and none for a prompt that surely fits. If tokens were dropped, `stats`
            has their number and there is an `LMStudioTruncationWarning`. False by default.
        tools_first: Whether a call with tools and a response format makes two predictions, if necessary: one with the
            tools alone and, if the model called none and its response does not fit the format, one with the format
            alone. Nothing is delivered before that is known. False by default: the grammar of the format then keeps
            the model from calling a tool.
        config: Settings of this prediction.
        preset: A preset on the server, by its (fuzzy) identifier; ranks below `config`.
        on_message: Called with the complete assistant message, suitable for `Chat.append`.
        on_first_token: Called once, before the first fragment.
        on_prediction_fragment: Called with each fragment.
        on_prompt_processing_progress: Called with growing values from 0.0 to 1.0 while the prompt is processed.
    """

    response_format: ResponseFormat | None
    check_response: bool
    check_context: bool
    tools_first: bool
    config: PredictionSettings | None
    preset: str | None
    on_message: Callable[[AssistantMessage], Any] | None
    on_first_token: Callable[[], Any] | None
    on_prediction_fragment: Callable[[LlmPredictionFragment], Any] | None
    on_prompt_processing_progress: Callable[[float], Any] | None


def checked_timeouts(parameters: Mapping[str, Any]) -> Timeouts:
    """Return the timeouts among keyword arguments.

    Raises:
        LMStudioValueError: If a timeout is not positive.
    """
    if TIMEOUTS.keys().isdisjoint(parameters):
        return NO_TIMEOUTS
    return {name: seconds_of(parameters[name], name) for name in TIMEOUTS if name in parameters}


def to_chat(history: History) -> Chat:
    """Return a conversation as a new chat, which may grow."""
    return Chat.from_history(history.to_dict() if isinstance(history, ChatHistory | WireHistory) else history)


def to_wire(history: History) -> WireHistory:
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


def respond(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    history: History | PendingHistory,
    parameters: PredictionParameters,
    *,
    hosts: "HostPool | None" = None,
) -> PredictionRun:
    """Prepare the model's next message of a conversation; with `hosts`, on one of several hosts."""
    settings = _settings(dispatcher, parameters)
    run = respond_with(dispatcher, binding, history, settings, parameters, hosts=hosts)
    _set_callbacks(run, settings, parameters)
    return run


def respond_with(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    history: History | PendingHistory,
    settings: LlmPredictionConfig,
    parameters: Mapping[str, Any],
    *,
    hosts: "HostPool | None" = None,
) -> PredictionRun:
    """Prepare the model's next message with resolved settings, and without callbacks: a round of the tool loop.

    Of the keyword arguments, this reads the preset, the timeouts, `tools_first` and those that check.
    """
    pending = history if isinstance(history, PendingHistory) else None
    wire = WireHistory([]) if isinstance(history, PendingHistory) else to_wire(history)
    files = wire.files if pending is None else pending.files
    tools_first = parameters.get("tools_first", False) and is_requested(settings) and may_call(settings)
    first = settings.merged(LlmPredictionConfig(structured=None)) if tools_first else settings
    first_stack = stack_of(first)

    def upload(dispatcher: "Dispatcher[Any]", pending: PendingHistory) -> "Flow[None]":
        nonlocal wire
        handles = yield from prepare_images(dispatcher, pending.images, allow_private_hosts=pending.allow_private_hosts)
        wire = pending.to_wire(handles)

    # Annotations of inner functions are evaluated with each call; as strings, they cost nothing.
    def make(
        dispatcher: "Dispatcher[Any]", binding: Binding, specifier: Specifier, stack: "Mapping[str, Any]" = first_stack
    ) -> "Flow[Predict]":
        current = yield from placed(dispatcher, binding, specifier, wire)
        if current.files:
            current = yield from with_valid_files(dispatcher, current)
        return Predict(modelSpecifier=specifier, history=current.to_dict(), predictionConfigStack=stack)

    run = PredictionRun(
        dispatcher,
        binding,
        [Request(_PREDICT, with_token_ids(make, settings))],
        operation="Chat response",
        preset=optional_text(parameters.get("preset"), "preset"),
        timeouts=checked_timeouts(parameters),
        upload=None if pending is None else partial(upload, pending=pending),
        route=None if hosts is None else hosts.route(address_of(files)),
    )
    run.required_choice = required_choice(settings) if parameters.get("check_response", True) else None
    run.check_context = parameters.get("check_context", False)
    if tools_first:
        without_tools = settings.merged(LlmPredictionConfig(raw_tools=None, tool_choice=None))
        make_by_format = partial(make, stack=stack_of(without_tools))
        by_format = [Request(_PREDICT, with_token_ids(make_by_format, settings))]
        run.second_step = SecondStep(by_format, lambda result: fits(settings, result.content))
    return run


def complete(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    prompt: str,
    parameters: PredictionParameters,
    *,
    hosts: "HostPool | None" = None,
) -> PredictionRun:
    """Prepare the continuation of a text; with `hosts`, on one of several hosts.

    Servers without `completeRawText` get a chat request with [a template that only shows the
    text](docs/protocol.md#respond-and-complete).
    """
    if not isinstance(prompt, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise LMStudioValueError(f"the prompt must be a string; got {prompt!r}")
    if not prompt and not isinstance(prompt, WirePrompt):
        raise LMStudioValueError("the prompt is empty; give the model a text to continue")
    settings = _settings(dispatcher, parameters)
    stack = stack_of(settings)

    def make(_: "Dispatcher[Any]", _binding: Binding, specifier: Specifier) -> "Flow[CompleteRawText]":
        yield from ()
        return CompleteRawText(modelSpecifier=specifier, rawPrompt=prompt, predictionConfigStack=stack)

    def make_legacy(_: "Dispatcher[Any]", _binding: Binding, specifier: Specifier) -> "Flow[Predict]":
        yield from ()
        history = WireHistory.of_prompt(prompt).to_dict()
        layers = {"layers": [*stack["layers"], _LEGACY_LAYER]}
        return Predict(modelSpecifier=specifier, history=history, predictionConfigStack=layers)

    run = PredictionRun(
        dispatcher,
        binding,
        [
            Request(_COMPLETE, with_token_ids(make, settings)),
            Request(_PREDICT, with_token_ids(make_legacy, settings)),
        ],
        operation="Completion",
        preset=optional_text(parameters.get("preset"), "preset"),
        timeouts=checked_timeouts(parameters),
        route=None if hosts is None else hosts.route(),
    )
    run.check_context = parameters.get("check_context", False)
    _set_callbacks(run, settings, parameters)
    return run


def _set_callbacks(run: PredictionRun, settings: LlmPredictionConfig, parameters: PredictionParameters) -> None:
    run.parse_json = (
        settings.structured is not None and parameters.get("check_response", True) and is_requested(settings)
    )
    if not _CALLBACKS.isdisjoint(parameters):
        run.callbacks = Callbacks(
            parameters.get("on_first_token"),
            parameters.get("on_prediction_fragment"),
            parameters.get("on_message"),
            parameters.get("on_prompt_processing_progress"),
        )


def _settings(dispatcher: Dispatcher[Any], parameters: PredictionParameters) -> LlmPredictionConfig:
    """Return the settings of a prediction, including the format of its response."""
    known = PredictionParameters.__annotations__
    check_names(parameters, known, in_config=_SETTINGS, async_callbacks=dispatcher.is_async)
    settings, response_format = LlmPredictionConfig.parse(parameters.get("config")), parameters.get("response_format")
    if response_format is None and settings.structured is None:
        return settings
    return with_format(response_format, settings, check=parameters.get("check_response", True))
