"""One call of a language model: what it may be given, and the plan that becomes of that.

`settings_generation.py` resolves the settings of calls; the adapters of both frameworks make their requests of them.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from lmstudio_integrations._adapters.request_model import Calling, Runtime, UsedModel
from lmstudio_integrations._adapters.request_tools import ToolUse, tool_settings
from lmstudio_integrations._support.leaves import door
from lmstudio_integrations.client.concurrency.flows import Flow, arun, run
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox, Mailbox, ThreadMailbox
from lmstudio_integrations.client.files.uploads import PendingHistory
from lmstudio_integrations.client.predictions.language_model import LanguageModel, Prefix
from lmstudio_integrations.client.predictions.plan import Callbacks, Plan, PredictionOptions
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.client.support.arguments import check_callbacks, checked_string, flag_of, optional_text
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.models import ChatTemplateInfo
from lmstudio_integrations.types.reasoning import ReasoningOptions, RequestedEffort
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult
from lmstudio_integrations.types.structured import response_settings

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

Loaded: TypeAlias = tuple[Mapping[str, Any], ChatTemplateInfo]
"""The info of a loaded model in wire form, and what is known of its chat template."""


class RequestFormats(Protocol):
    """A framework's forms of tools and of response formats: its module `_tools`."""

    def openai_tools(self, tools: object) -> list[dict[str, Any]]: ...

    def response_schema(self, response_format: Any) -> dict[str, Any]: ...


CHAT_ARGUMENTS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "response_format", "include_confidence"})
"""What makes part of the request of a chat besides its settings."""

_SWITCHES = {"parallel_tool_calls", "include_confidence"}


@dataclass(frozen=True)
class CallArguments:
    """What the calls of an adapter accept besides its fields.

    Attributes:
        request: Arguments that make part of the request, such as tools.
        framework: Arguments that only the framework reads.
        fields_of_object: Fields that are no call arguments, because they belong to the object.
        formats: The framework's forms of tools and response formats; `None` if the adapter does not chat.
        fewest_top_logprobs: What is sent where log-probabilities of no alternatives are requested.
    """

    request: frozenset[str] = frozenset()
    framework: frozenset[str] = frozenset()
    fields_of_object: frozenset[str] = frozenset()
    formats: RequestFormats | None = None
    fewest_top_logprobs: int = 0

    def settings_of(self, values: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[dict[str, Any], ToolUse]:
        """Return the native settings for what a call requests besides its settings, and how it uses tools.

        Args:
            values: The settings.
            request: The arguments that make part of the request.

        Raises:
            LMStudioValueError: If the tools, the choice of one or the response format is invalid.
        """
        if self.formats is None:
            return {}, ToolUse()
        number = top_logprobs_of(values)
        settings: dict[str, Any] = {} if number is None else {"log_probs": max(number, self.fewest_top_logprobs)}
        config: LlmPredictionConfig | None = values["prediction_config"]
        may_add_tools = bool(values["preset"] or (config is not None and config.raw))
        without_tools = ToolUse(names=None if may_add_tools else {})
        if not request:
            return settings, without_tools
        for name in _SWITCHES & request.keys():
            if request[name] is not None:
                flag_of(request[name], name)
        tools = self.formats.openai_tools(request.get("tools") or ())
        choice = request.get("tool_choice")
        settings |= tool_settings(tools, choice)
        if request.get("include_confidence"):
            with door("the confidence of fields"):
                from lmstudio_integrations.types.confidence import ALTERNATIVES  # noqa: PLC0415 - a leaf
            settings["log_probs"] = max(number or 0, ALTERNATIVES)
        settings |= response_settings(request.get("response_format"), self.formats.response_schema)
        if not tools:
            return settings, without_tools
        parallel = request.get("parallel_tool_calls") is not False
        return settings, ToolUse.of(tools, settings, parallel=parallel, tool_choice=choice)


def top_logprobs_of(values: Mapping[str, Any]) -> int | None:
    """Return for how many alternatives of each token log-probabilities are requested; `None` if for no token."""
    number: int | None = values.get("top_logprobs")
    if number is None or number is False:
        return 0 if values.get("logprobs") else None
    return number


def with_signature(function: FunctionT) -> FunctionT:
    """Return the function with its signature where `inspect` finds it (PEP 362).

    Both frameworks ask for the signatures of what makes a call in each call. Making them took up to a quarter of the
    caller's CPU time.
    """
    vars(function)["__signature__"] = inspect.signature(function)
    return function


class CallSettings(NamedTuple):
    """The settings of one call, resolved. `prediction` makes its `Plan` of them.

    Attributes:
        values: The settings by the names of the adapters' fields.
        runtime: What the adapter has open.
        used: The model.
        calling: Its timeouts and retries.
        settings: How to generate.
        options: What is done beside sending and reading, such as checks.
        tool_use: How it uses tools.
        effort: How much the model is asked to reason; `None` leaves that to the model.
        include_confidence: Whether the response is to have the confidence of its fields.
        alternatives: How many other tokens the log-probabilities list; `None` if only the confidence needs them.
    """

    values: Mapping[str, Any]
    runtime: Runtime
    used: UsedModel
    calling: Calling
    settings: LlmPredictionConfig
    options: PredictionOptions
    tool_use: ToolUse
    effort: RequestedEffort | None = None
    include_confidence: bool = False
    alternatives: int | None = 0

    def model(self, mailbox_type: type[Mailbox] = ThreadMailbox) -> LanguageModel:
        """Return the model, for threads or for coroutines."""
        model = self.used.model(self.calling, mailbox_type)
        assert isinstance(model, LanguageModel), "the kind of the adapter is that of its model"
        return model

    def prediction(
        self,
        history: WireHistory | PendingHistory | None,
        prompt: str = "",
        mailbox_type: type[Mailbox] = ThreadMailbox,
    ) -> Prediction:
        """Return a prediction, which begins when it is read: of a conversation, or of a text."""
        plan = self._plan(history, prompt, is_async=mailbox_type is LoopMailbox)
        return self.model(mailbox_type).predict(plan)

    def respond(self, history: WireHistory | PendingHistory | None, prompt: str = "") -> PredictionResult:
        """Return the result of a prediction, waiting in this thread."""
        return run(self.prediction(history, prompt).to_end())

    async def arespond(self, history: WireHistory | PendingHistory | None, prompt: str = "") -> PredictionResult:
        """Return the result of a prediction, waiting in this task."""
        return await arun(self.prediction(history, prompt, LoopMailbox).to_end())

    def _plan(
        self, history: WireHistory | PendingHistory | None = None, prompt: str = "", *, is_async: bool = False
    ) -> Plan:
        """Return the plan of a prediction."""
        progress, callbacks = self.values["on_prompt_progress"], None
        if progress is not None:
            check_callbacks(is_async, on_prompt_progress=progress)
            callbacks = Callbacks(on_prompt_processing_progress=progress)
        if history is None:
            checked_string(prompt, "the prompt")
        return Plan(self.settings, self.options, history, prompt, callbacks=callbacks, effort=self.effort)

    def check_model(self, end: PredictionEnd) -> None:
        """Warn once if the call offers tools to a model that was not trained for them."""
        info = end.model_info
        if self.settings.raw_tools and info.get("trainedForToolUse") is False:
            self.runtime.warn_once(
                ("tools", info.get("modelKey")),
                f"{info.get('modelKey')} was not trained for tool use; its calls may be wrong or missing; "
                "`lmsi ls` shows which models were",
            )

    def load(self, warm: Prefix | None = None, *, keep_warm: bool = False) -> Loaded:
        """Load the model if it is not loaded; return its info in wire form, and what is known of its chat template.

        Args:
            warm: What is processed ahead of the first question, with the tools of this call. Nothing by default.
            keep_warm: Whether each new instance processes it again.
        """
        return run(self._load(self.model(), warm, keep_warm=keep_warm))

    async def aload(self, warm: Prefix | None = None, *, keep_warm: bool = False) -> Loaded:
        """Do the same as `load` in a coroutine."""
        return await arun(self._load(self.model(LoopMailbox), warm, keep_warm=keep_warm))

    def _load(self, model: LanguageModel, warm: Prefix | None, *, keep_warm: bool) -> Flow[Loaded]:
        if flag_of(keep_warm, "keep_warm") and warm is None:
            raise LMStudioValueError("keep_warm=True needs what is to be kept warm; pass warm or tools")
        template = yield from model.get_chat_template_info()
        info = yield from model.get_info(load=True)
        wire = info.to_dict()
        if len(self.used.states) > 1:
            self.used.info_of_hosts = wire
        if warm is not None:
            plan = self._plan(is_async=model.context.is_async)
            yield from model.prefill(warm, plan, keep_warm=keep_warm)
        return wire, template


def options_of(values: Mapping[str, Any], settings: LlmPredictionConfig) -> PredictionOptions:
    """Return the options of a prediction.

    Args:
        values: The settings by the names of the adapters' fields.
        settings: How to generate.

    Raises:
        LMStudioValueError: If a setting has an invalid value.
    """
    get, has_tools = values.get, settings.raw_tools is not None
    return PredictionOptions(
        # The frameworks' parsers do that, also for responses that do not fit.
        check_response=not has_tools and settings.structured is None,
        check_context=bool(values["check_context"]),
        tools_first=has_tools,
        rescue_tool_calls=has_tools and bool(get("rescue_tool_calls")),
        repair_tool_calls=has_tools and bool(get("repair_tool_calls")),
        required_tool_fallback=has_tools and bool(get("required_tool_fallback")),
        stop_on_repetition=values["stop_on_repetition"] or False,
        think_first=bool(get("think_first", True)),
        preset=optional_text(values["preset"], "preset"),
        reasoning=ReasoningOptions.of(get("send_reasoning", "auto"), bool(get("keep_reasoning"))),
    )
