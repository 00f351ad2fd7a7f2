"""How to generate: the fields that the adapters of language models share, and the resolution of a call.

A call argument overrides the field, which overrides the preset and the server's defaults. An explicit `None` unsets a
setting; `stop` replaces the field; `load_config` and `extra` are merged by key. The LangChain and LlamaIndex adapters
inherit these classes and resolve each call with `_resolve_call`.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, cast

from pydantic import Field

from lmstudio_integrations._both_frameworks.connection_settings import ConnectionSettings, LlmLoadConfigField
from lmstudio_integrations._both_frameworks.input_checks import ALIASES, checked, reject_secrets, resolve_aliases
from lmstudio_integrations._both_frameworks.parameters import UNSET, ParameterOnly, StopStrings
from lmstudio_integrations._both_frameworks.reasoning_effort import ReasoningEffort, is_catalog_key, sent_effort
from lmstudio_integrations._both_frameworks.runtime import HandleSpec, LoadedModelInfo, Runtime
from lmstudio_integrations._both_frameworks.schemas import response_settings
from lmstudio_integrations._both_frameworks.tool_settings import ToolUse, tool_settings
from lmstudio_integrations.client.api.asynchronous import AsyncLLM
from lmstudio_integrations.client.api.sync import LLM
from lmstudio_integrations.client.predictions.requests import PredictionParameters
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.errors import LMStudioConfigWarning
from lmstudio_integrations.types._numbers import Fraction, LogProbs, OrOff, TopK
from lmstudio_integrations.types.config import (
    LlmLoadModelConfig,
    LlmPredictionConfig,
    LoadSettings,
    ModelKind,
    SharedPredictionSettings,
)
from lmstudio_integrations.types.models import LlmInstanceInfo
from lmstudio_integrations.types.results import PredictionEnd

_NATIVE_NAMES = {
    **{name: name for name in SharedPredictionSettings.model_fields},
    "context_overflow_policy": "context_overflow_policy",
    "top_k": "top_k_sampling",
    "top_p": "top_p_sampling",
    "min_p": "min_p_sampling",
    "stop": "stop_strings",
    "extra": "raw",
}
"""The fields of `LlmPredictionConfig` by the names of the adapters' fields."""


_OVERFLOW_KEY = "llm.prediction.contextOverflowPolicy"

_CHANGEABLE: tuple[type, ...] = (list, dict, LoadSettings)
"""Types of values that can be changed in place, in a part of them at least."""


def alternatives(values: Mapping[str, Any]) -> int | None:
    """Return for how many alternatives of each token log-probabilities are requested; `None` if for no token."""
    number: int | None = values["top_logprobs"]
    if number is None or number is False:
        return 0 if values["logprobs"] else None
    return number


class RequestFormats(Protocol):
    """A framework's forms of tools and of response formats: its module `_tools`."""

    def openai_tools(self, tools: object) -> list[dict[str, Any]]:
        """Return tools as OpenAI dicts."""
        ...

    def response_schema(self, response_format: Any) -> dict[str, Any]:
        """Return the JSON schema of a response format."""
        ...


class ResolvedCall(NamedTuple):
    """One call, with all its settings resolved.

    Attributes:
        values: The settings by the names of the adapters' fields.
        runtime: The clients of the adapter.
        handle: The model.
        config: How to generate.
        tool_use: How it uses tools.
        problem: Which of the settings has no effect on the model, if one has none.
    """

    values: Mapping[str, Any]
    runtime: Runtime
    handle: HandleSpec
    config: LlmPredictionConfig
    tool_use: ToolUse
    problem: str | None = None

    def model(self) -> LLM:
        """Return the model, for threads."""
        return cast("LLM", self.runtime.model(self.handle))

    def async_model(self) -> AsyncLLM:
        """Return the model, for coroutines."""
        return cast("AsyncLLM", self.runtime.async_model(self.handle))

    def request_arguments(self) -> PredictionParameters:
        """Return the arguments of the request besides the prompt. An unset callback is left out: it costs time.

        Warns once for each model if a setting has no effect on it.
        """
        if self.problem is not None and self.values["model"] not in self.runtime.warned_of_effort:
            self.runtime.warned_of_effort.add(self.values["model"])
            warn_user(self.problem, LMStudioConfigWarning)
        # The frameworks' parsers check responses, also those that do not fit.
        arguments: PredictionParameters = {
            "config": self.config,
            "check_response": False,
            "check_context": self.values["check_context"],
            "tools_first": True,
        }
        if self.values["preset"] is not None:
            arguments["preset"] = self.values["preset"]
        if self.values["on_prompt_progress"] is not None:
            arguments["on_prompt_processing_progress"] = self.values["on_prompt_progress"]
        return arguments

    def record_info(self, end: PredictionEnd, parallel: Callable[[], int | None] = lambda: None) -> LoadedModelInfo:
        """Record what the end of a prediction reports about the loaded model, see `Runtime.record_info`.

        Warns once if the call offers tools to a model that was not trained for them.
        """
        info = end.model_info
        recorded = self.runtime.record_info(self.handle.model, end.host, info, parallel)
        if self.config.raw_tools and not recorded.warned and info.get("trainedForToolUse") is False:
            recorded.warned = True
            warn_user(
                f"{info.get('modelKey')} was not trained for tool use; its calls may be wrong or missing; use a model "
                "whose info has trained_for_tool_use, see Client().llm.list_downloaded()",
                LMStudioConfigWarning,
            )
        return recorded

    def record_loaded(self, model: LLM | AsyncLLM, info: LlmInstanceInfo) -> Mapping[str, Any]:
        """Record the info of the model before its first response; return it in wire form."""
        wire = info.to_dict()
        self.runtime.record_info(self.handle.model, str(model.dispatcher.target), wire, lambda: None)
        return wire


class GenerationSettings(SharedPredictionSettings, ConnectionSettings):
    """How to generate. An unset setting is left to the preset, else to the server's default for the model."""

    _kind: ClassVar[ModelKind] = "llm"
    _load_config_type: ClassVar[type[LoadSettings]] = LlmLoadModelConfig
    _not_in_call: ClassVar[frozenset[str]] = frozenset()
    """Fields that are no call arguments."""
    _request_arguments: ClassVar[frozenset[str]] = frozenset()
    """Call arguments that are no fields and make part of the request, such as tools."""
    _framework_arguments: ClassVar[frozenset[str]] = frozenset()
    """Call arguments that only the framework reads."""

    load_config: LlmLoadConfigField = Field(
        default=None,
        description="How to load the model, if a call of this object loads it: `LlmLoadModelConfig` or a dict of its "
        "fields; `raw` takes further settings by their full wire keys. Unset: the server's defaults for the model.",
    )

    context_overflow_policy: Literal["auto", "stopAtLimit", "truncateMiddle", "rollingWindow"] | None = Field(
        default="auto",
        description="What happens when the context window is full. `stopAtLimit` drops nothing: a prompt that does not "
        "fit is an error, and a response that reaches the end has the finish reason `length`. `truncateMiddle` drops "
        "the middle of the conversation, `rollingWindow` its beginning. `None` leaves it to the server and to what is "
        "set in LM Studio. Default: `auto`, which is `None` beside a `preset`, and else `stopAtLimit`.",
    )

    check_context: bool = Field(
        default=True,
        description="Whether to count a prompt again if the server may have cut it, which some versions do in spite of "
        "the policy. Default: `True`. At most two requests more for a prompt that may fill more than half of the "
        "context window. If tokens were dropped, their number is in the response's metadata as `dropped_tokens`, with "
        "an `LMStudioTruncationWarning` unless the policy is one that drops.",
    )

    preset: str | None = Field(
        default=None,
        description="Preset on the server, by its (fuzzy) identifier. Every setting here overrides it. Unset: none, "
        "and the server applies its defaults for the model.",
    )

    top_k: TopK | None = Field(
        default=None,
        description="Sample from the `top_k` most likely tokens, -1 to 500. LM Studio's default is 40.",
    )
    top_p: OrOff[Fraction] | None = Field(
        default=None,
        description="Sample from the most likely tokens that sum up to this probability, 0 to 1. `False`: off. "
        "LM Studio's default is 0.95.",
    )
    min_p: OrOff[Fraction] | None = Field(
        default=None,
        description="Drop tokens below this share of the most likely one's probability, 0 to 1. `False`: off. "
        "LM Studio's default is 0.05.",
    )
    if not TYPE_CHECKING:
        stop: list[str] | None = Field(
            default=None,
            description="String or strings that end a response. A call's `stop` replaces them. LM Studio has none by "
            "default.",
        )
    else:
        stop: StopStrings = UNSET
        model_name: ParameterOnly[str | None] = UNSET
    extra: dict[str, Any] | None = Field(
        default=None,
        description="Further prediction settings by their full wire keys. The named settings take precedence. "
        "Unset: none.",
    )

    on_prompt_progress: Callable[[float], Any] | None = Field(
        default=None,
        exclude=True,
        description="Called with growing values from 0.0 to 1.0 while the prompt is processed, in the thread or task "
        "that waits. Unset: progress is not reported.",
    )

    def _merged(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings of one call: its arguments over the fields.

        Raises:
            LMStudioValueError: If an argument is unknown, or one that names the server is invalid.
        """
        fields = vars(self)
        if not given:
            return fields
        named = checked(resolve_aliases(given, self._call_names(), type(self).__name__))
        values = {**fields, **named}
        if named.get("extra") and fields["extra"]:
            values["extra"] = {**fields["extra"], **named["extra"]}
        if named.get("load_config") is not None:
            config = LlmLoadModelConfig.parse(named["load_config"])
            values["load_config"] = LlmLoadModelConfig.parse(self.load_config).merged(config)
            if config.context_length is not None and "context_length" not in named:
                values["context_length"] = None
        return values

    def _reject_secrets(self, given: Mapping[str, Any]) -> None:
        """Reject call arguments that would show a secret in a trace. Runs before the framework traces them.

        Raises:
            LMStudioValueError: If a token is no `SecretStr`, or another argument holds a secret.
        """
        if given:
            known = self._call_names().keys() | ALIASES.keys() | self._request_arguments | self._framework_arguments
            reject_secrets(given, known, type(self).__name__)

    @classmethod
    def _call_names(cls) -> Mapping[str, Any]:
        """Return the fields that are call arguments, too."""
        return {name: field for name, field in cls.model_fields.items() if name not in cls._not_in_call}

    def _resolve_call(self, given: Mapping[str, Any]) -> ResolvedCall:
        """Resolve a call from its arguments, the fields, and what the request asks for.

        A call without arguments is resolved once, until a field or the environment changes.

        Raises:
            LMStudioValueError: If an argument is unknown, or a value is invalid.
        """
        if given:
            return self._resolve_given(given)
        fields, runtime = vars(self), self._runtime
        values = fields["host"] or addresses.host_of(None), *_call_fields(type(self))(fields)
        resolved = runtime.resolved
        if resolved is None or resolved[0] != values:
            kept = tuple([deepcopy(value) if isinstance(value, _CHANGEABLE) else value for value in values])
            resolved = runtime.resolved = kept, self._resolve_given(given)
        call: ResolvedCall = resolved[1]
        return call

    def _resolve_given(self, given: Mapping[str, Any]) -> ResolvedCall:
        request = {name: given[name] for name in self._request_arguments if name in given}
        values = self._merged({name: given[name] for name in given if name not in request} if request else given)
        values = {**values, "context_overflow_policy": _policy(values)}
        settings = {native: values[name] for name, native in _NATIVE_NAMES.items() if values[name] is not None}
        tool_use = self._add_request(settings, values, request)
        config = LlmPredictionConfig.parse(settings or None)
        return ResolvedCall(values, self._runtime, self._resolve_model(values), config, tool_use)

    def _add_request(
        self,
        settings: dict[str, Any],  # noqa: ARG002 - for chat models
        values: Mapping[str, Any],  # noqa: ARG002 - for chat models
        request: Mapping[str, Any],  # noqa: ARG002 - for chat models
    ) -> ToolUse:
        """Add what the request arguments ask for to the native settings."""
        return ToolUse()


def _policy(values: Mapping[str, Any]) -> str | None:
    """Return the policy that is sent; for the default, a preset or a key in `extra` decides."""
    policy: str | None = values["context_overflow_policy"]
    if policy != "auto":
        return policy
    return None if values["preset"] or _OVERFLOW_KEY in (values["extra"] or ()) else "stopAtLimit"


@cache
def _call_fields(kind: type[GenerationSettings]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Return what reads the fields that a call depends on."""
    return itemgetter(*kind._call_names())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module


class ChatSettings(GenerationSettings):
    """How to chat: what a chat model has besides the settings of every language model."""

    _request_arguments: ClassVar[frozenset[str]] = frozenset(
        {"tools", "tool_choice", "parallel_tool_calls", "response_format"}
    )
    _formats: ClassVar[RequestFormats]
    _fewest_alternatives: ClassVar[int] = 0

    reasoning_effort: ReasoningEffort | None = Field(
        default=None,
        description="How much the model reasons before it responds: `none`, `minimal`, `low`, `medium`, `high` or "
        "`xhigh`. It is sent as what the model has: a level of its own, the nearest to this one, or whether it reasons "
        "at all. Unset: the model's default.",
    )

    send_reasoning: bool = Field(
        default=False,
        description="Whether earlier reasoning is sent back to the model, in `<think>` tags. Default: `False`.",
    )

    logprobs: bool | None = Field(
        default=None,
        description="Whether responses contain the log-probabilities of their tokens. Unset: they do not.",
    )

    top_logprobs: OrOff[LogProbs] | None = Field(
        default=None,
        description="For how many alternatives of each token a response contains log-probabilities, 0 to 100. Implies "
        "`logprobs`, unless it is `False`. Unset: none.",
    )

    allow_image_download: bool = Field(
        default=False,
        description="Whether this process may download images with an http or https URL, and upload them. Default: "
        "`False`. At most 20 MB and five redirects each, from public addresses only; within `timeout` if that is set, "
        "else 30 seconds each.",
    )

    allow_private_image_hosts: bool = Field(
        default=False,
        description="Whether those downloads may come from addresses that are not public: this machine, the local "
        "network. Default: `False`. Only for messages that you trust.",
    )

    def _add_request(self, settings: dict[str, Any], values: Mapping[str, Any], request: Mapping[str, Any]) -> ToolUse:
        number = alternatives(values)
        if number is not None:
            settings["log_probs"] = max(number, self._fewest_alternatives)
        without_tools = ToolUse(names=None if values["preset"] or values["extra"] else {})
        if not request:
            return without_tools
        tools = self._formats.openai_tools(request.get("tools") or ())
        choice = request.get("tool_choice")
        settings |= tool_settings(tools, choice)
        settings |= response_settings(request.get("response_format"), self._formats.response_schema)
        if not tools:
            return without_tools
        parallel = request.get("parallel_tool_calls") is not False
        return ToolUse.of(tools, settings, parallel=parallel, tool_choice=choice)

    def _resolve_given(self, given: Mapping[str, Any]) -> ResolvedCall:
        call = super()._resolve_given(given)
        return call if call.values["reasoning_effort"] is None else self._with_effort(call)

    def _with_effort(self, call: ResolvedCall) -> ResolvedCall:
        """Add what is sent for `reasoning_effort`."""
        values = call.values
        key: str | None = values["model"]
        if not is_catalog_key(key):
            reported = call.runtime.model_info(call.handle.model)
            key = key if reported is None else reported.info.get("modelKey", key)
        sent = sent_effort(values["reasoning_effort"], values["enable_thinking"], key)
        changes: dict[str, Any] = {"raw": sent.fields} if sent.fields else {}
        if sent.enable_thinking is not None:
            changes["enable_thinking"] = sent.enable_thinking
        return call._replace(config=call.config.merged(LlmPredictionConfig(**changes)), problem=sent.problem)
