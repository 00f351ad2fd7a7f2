"""One call of a language model: what it may be given, and what becomes of that.

`generation_settings.py` resolves calls; the adapters of both frameworks make their requests of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from lmstudio_integrations._adapters.runtime import LoadedModelInfo, Runtime
from lmstudio_integrations._adapters.specs import HandleSpec
from lmstudio_integrations._adapters.tool_settings import ToolUse, tool_settings
from lmstudio_integrations.client.api.asynchronous import AsyncLLM
from lmstudio_integrations.client.api.sync import LLM
from lmstudio_integrations.client.predictions.language_model import LanguageModel, Prefix
from lmstudio_integrations.client.predictions.plan import PredictionParameters
from lmstudio_integrations.client.support.arguments import flag_of
from lmstudio_integrations.client.transport.flows import Flow, arun, run
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.confidence import ALTERNATIVES
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.models import ChatTemplateInfo
from lmstudio_integrations.types.results import PredictionEnd
from lmstudio_integrations.types.structured import response_settings

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
        without_tools = ToolUse(names=None if values["preset"] or values["extra"] else {})
        if not request:
            return settings, without_tools
        for name in _SWITCHES & request.keys():
            if request[name] is not None:
                flag_of(request[name], name)
        tools = self.formats.openai_tools(request.get("tools") or ())
        choice = request.get("tool_choice")
        settings |= tool_settings(tools, choice)
        if request.get("include_confidence"):
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


class ResolvedCall(NamedTuple):
    """One call, with all its settings resolved.

    Attributes:
        values: The settings by the names of the adapters' fields.
        runtime: The clients of the adapter.
        handle: The model.
        config: How to generate.
        tool_use: How it uses tools.
        problem: Which of the settings has no effect on the model, if one has none.
        include_confidence: Whether the response is to have the confidence of its fields.
        alternatives: How many other tokens the log-probabilities list; `None` if only the confidence needs them.
    """

    values: Mapping[str, Any]
    runtime: Runtime
    handle: HandleSpec
    config: LlmPredictionConfig
    tool_use: ToolUse
    problem: str | None = None
    include_confidence: bool = False
    alternatives: int | None = 0

    def model(self) -> LLM:
        """Return the model, for threads."""
        return self.runtime.clients.handle(LLM, self.handle)

    def async_model(self) -> AsyncLLM:
        """Return the model, for coroutines."""
        return self.runtime.async_clients.handle(AsyncLLM, self.handle)

    def request_arguments(self) -> PredictionParameters:
        """Return the arguments of the request besides the prompt. What it does not need is left out: it costs time.

        Warns once if a setting has no effect on the model.
        """
        if self.problem is not None:
            self.runtime.warn_once(("reasoning_effort", self.values["model"]), self.problem)
        config, values = self.config, self.values
        arguments: PredictionParameters = {"config": config, "check_context": values["check_context"]}
        if config.raw_tools is not None or config.structured is not None:
            arguments["check_response"] = False  # the frameworks' parsers do that, also for responses that do not fit
        if config.raw_tools is not None:
            arguments["tools_first"] = True
            arguments["rescue_tool_calls"] = values.get("rescue_tool_calls", False)
            arguments["repair_tool_calls"] = values.get("repair_tool_calls", False)
            arguments["required_tool_fallback"] = values.get("required_tool_fallback", False)
        if values["stop_on_repetition"] is not False and values["stop_on_repetition"] is not None:
            arguments["stop_on_repetition"] = values["stop_on_repetition"]
        if values.get("send_reasoning", "auto") != "auto":
            arguments["send_reasoning"] = values["send_reasoning"]
        if values.get("keep_reasoning", False):
            arguments["keep_reasoning"] = values["keep_reasoning"]
        if config.structured is not None and not values.get("think_first", True):
            arguments["think_first"] = False
        if values["preset"] is not None:
            arguments["preset"] = values["preset"]
        if values["on_prompt_progress"] is not None:
            arguments["on_prompt_processing_progress"] = values["on_prompt_progress"]
        return arguments

    def record_info(self, end: PredictionEnd) -> LoadedModelInfo:
        """Record what the end of a prediction reports about the loaded model, see `Runtime.record_info`.

        Warns once if the call offers tools to a model that was not trained for them.
        """
        info = end.model_info
        if self.config.raw_tools and info.get("trainedForToolUse") is False:
            self.runtime.warn_once(
                ("tools", info.get("modelKey")),
                f"{info.get('modelKey')} was not trained for tool use; its calls may be wrong or missing; use a model "
                "whose info has trained_for_tool_use, see Client().llm.list_downloaded()",
            )
        return self.runtime.record_info(self.handle.model, end.host, info, end.load_model_config)

    def load(self, warm: Prefix | None = None, *, keep_warm: bool = False) -> Loaded:
        """Load the model if it is not loaded; return its info in wire form, and what is known of its chat template.

        Args:
            warm: What is processed ahead of the first question, with the tools of this call. Nothing by default.
            keep_warm: Whether each new instance processes it again.
        """
        return run(self._load(self.model().model, warm, keep_warm=keep_warm))

    async def aload(self, warm: Prefix | None = None, *, keep_warm: bool = False) -> Loaded:
        """Do the same as `load` in a coroutine."""
        return await arun(self._load(self.async_model().model, warm, keep_warm=keep_warm))

    def _load(self, model: LanguageModel, warm: Prefix | None, *, keep_warm: bool) -> Flow[Loaded]:
        if flag_of(keep_warm, "keep_warm") and warm is None:
            raise LMStudioValueError("keep_warm=True needs what is to be kept warm; pass warm or tools")
        template = yield from model.get_chat_template_info()
        info = yield from model.get_info(load=True)
        wire = info.to_dict()
        # Of several hosts, it has the smallest context length, which a response of one of them must not replace.
        host = str(model.context.target) if len(self.handle.model.places) == 1 else None
        self.runtime.record_info(self.handle.model, host, wire, {})
        if warm is not None:
            yield from model.prefill(warm, self.request_arguments(), keep_warm=keep_warm)
        return wire, template
