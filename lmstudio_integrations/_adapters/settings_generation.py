"""How to generate: `temperature` and the other fields of language models, and the resolution of a call.

A call argument overrides the field, which overrides the preset and the server's defaults. An explicit `None` unsets a
setting; `stop` replaces the field; `prediction_config`, `load_config` and `timeouts` are merged by key. The adapters of
both frameworks inherit this class and resolve each call with `_resolve_call`. `ChatSettings` are those that completion
does not have.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache, partial
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from lmstudio_integrations._adapters.request import CallArguments, CallSettings, options_of, top_logprobs_of
from lmstudio_integrations._adapters.request_effort import is_catalog_key, sent_effort
from lmstudio_integrations._adapters.settings import ModelSettings
from lmstudio_integrations._adapters.settings_checks import (
    ALIASES,
    reject_secrets,
    resolve_aliases,
    with_effect,
)
from lmstudio_integrations._adapters.settings_types import (
    MODEL_NAME,
    NATIVE_NAMES,
    LlmLoadConfig,
    PredictionConfig,
)
from lmstudio_integrations._support.typeguards import is_list, is_mapping, is_object
from lmstudio_integrations.client.predictions.plan import characters_of
from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.types._config_base import Settings, wire_keys
from lmstudio_integrations.types._numbers import LogProbs, OrOff
from lmstudio_integrations.types._prediction_settings import AdapterPredictionSettings, Stop
from lmstudio_integrations.types.config import LlmLoadModelConfig, LlmPredictionConfig, ModelKind
from lmstudio_integrations.types.reasoning import ReasoningEffort, RequestedEffort, SendReasoning
from lmstudio_integrations.types.timeouts import SILENCE_TIMEOUTS

_OVERFLOW = "context_overflow_policy"
_OVERFLOW_KEY = wire_keys(LlmPredictionConfig)[_OVERFLOW].key

MERGED_BY_KEY = frozenset({"prediction_config", "load_config", "timeouts"})
"""Settings whose entries override those of an earlier value one by one."""

_NO_SETTINGS = LlmPredictionConfig()

_CHANGEABLE: tuple[type, ...] = (list, dict, Settings)
"""Types of values that can be changed in place, in a part of them at least."""


def _check_characters(value: object) -> object:
    characters_of(value)
    return value


class GenerationSettings(AdapterPredictionSettings, ModelSettings):
    """How to generate. If a setting is unset, the preset's applies, else the server's default for the model."""

    _kind: ClassVar[ModelKind] = "llm"
    _call: ClassVar[CallArguments]

    load_config: LlmLoadConfig = None

    prediction_config: PredictionConfig = None

    check_context: bool = Field(
        default=True,
        description="Whether to detect that the server has dropped part of the prompt. The metadata then has "
        "`dropped_tokens`, and you get an `LMStudioTruncationWarning` unless the policy allows it, and always if the "
        "server counts a response and sends none of it. The default is `True`. A prompt that may fill half of the "
        "context window costs up to two extra requests.",
    )

    stop_on_repetition: Annotated[bool | int, BeforeValidator(_check_characters)] = Field(
        default=True,
        description="Whether a response that only repeats one block is cancelled. What was received stays, the finish "
        "reason and the stop reason are `repetition`, and the metadata has `repetition_start`, a character. `True` "
        "watches the reasoning and, if the call offers tools, the text and the tool calls. A number watches all of a "
        "response, and is that of the characters for which a block may be repeated. The default is `True`.",
    )

    preset: str | None = Field(
        default=None,
        description="Preset on the server, by its identifier, which may be approximate. Settings here override it. "
        "If unset, the server's defaults apply.",
    )

    stop: Stop = Field(
        default=None,
        description="One or more strings that end the response. The `stop` of a call replaces them. None by default.",
    )

    model_name = MODEL_NAME
    """Another name of `model`."""

    on_prompt_progress: SkipJsonSchema[Callable[[float], Any] | None] = Field(
        default=None,
        exclude=True,
        description="Called with the progress of the prompt processing, from 0.0 to 1.0, in the thread or task that "
        "waits. None by default.",
    )

    def _merged(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings of one call: its arguments over the fields.

        Raises:
            LMStudioValueError: If an argument is unknown or invalid.
        """
        fields = vars(self)
        if not given:
            return fields
        named = self._checked(given)
        return {**fields, **named, **_merged_by_key(fields, named), **dict.fromkeys(_replaced(named))}

    def _checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments of a call that are settings, by the names of the fields, checked and converted.

        Raises:
            LMStudioValueError: If an argument is unknown or invalid.
        """
        kind = type(self)
        effective = with_effect(given, _known_arguments(kind))
        return self._validated(
            resolve_aliases(effective, self._call_names(), kind.__name__, self._call.fields_of_object)
        )

    def _bindable(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments to bind, once they are checked: those that may change a response.

        Raises:
            LMStudioValueError: If an argument is unknown, invalid, or would show a secret in a trace.
        """
        self._reject_secrets(given)
        effective = with_effect(given, _known_arguments(type(self)))
        self._checked({name: effective[name] for name in effective.keys() - self._call.request - self._call.framework})
        return effective

    def _reject_secrets(self, given: Mapping[str, Any]) -> None:
        """Reject call arguments that would show a secret in a trace. Runs before the framework traces them.

        Raises:
            LMStudioValueError: If a token is no `SecretStr`, or another argument holds a secret.
        """
        reject_secrets(given, _known_arguments(type(self)), type(self).__name__)

    @classmethod
    def _call_names(cls) -> Mapping[str, Any]:
        """Return the fields that are call arguments, too."""
        return {name: field for name, field in cls.model_fields.items() if name not in cls._call.fields_of_object}

    def _resolve_call(self, given: Mapping[str, Any]) -> CallSettings:
        """Resolve a call from its arguments, the fields, and what the request asks for.

        A call without settings of its own is resolved once, until a field or the environment changes; an agent makes
        each with the same tools.

        Raises:
            LMStudioValueError: If an argument is unknown or would show a secret in a trace, or a value is invalid.
        """
        call: CallSettings
        if given and not (given.keys() <= self._call.request and _has_plain_tools(given)):
            self._reject_secrets(given)
            call = self._resolve_given(given)
        else:
            fields, all_resolved, names = vars(self), self._runtime.resolved, tuple(given)
            environment = None if fields["host"] else addresses.host_from_environment()
            values: tuple[Any, ...] = (*_call_fields(type(self))(fields), *given.values())
            resolved = all_resolved.get(names)
            if resolved is None or not resolved.is_of(environment, values):
                copies = [deepcopy(value) if isinstance(value, _CHANGEABLE) else value for value in values]
                call = self._resolve_given(given)
                all_resolved[names] = _Resolved(environment, copies, call)
            else:
                call = resolved.call
        # Not a part of what is kept: what is sent for it depends on the loaded model.
        return call if call.values.get("reasoning_effort") is None else _with_effort(call)

    def _resolve_given(self, given: Mapping[str, Any]) -> CallSettings:
        """Return the settings of a call by their native names, what it requests besides, and its model."""
        request = {name: given[name] for name in self._call.request if name in given}
        values = self._merged({name: given[name] for name in given if name not in request} if request else given)
        requested, tool_use = self._call.settings_of(values, request)
        config: LlmPredictionConfig = values["prediction_config"] or _NO_SETTINGS
        native = {native: values[name] for name, native in NATIVE_NAMES.items() if values[name] is not None}
        if not (values["preset"] or _OVERFLOW in config.model_fields_set or _OVERFLOW_KEY in (config.raw or ())):
            native[_OVERFLOW] = "stopAtLimit"
        settings = LlmPredictionConfig.parse({**native, **requested} or None)
        if config is not _NO_SETTINGS:
            settings = config.merged(settings)
        include_confidence, alternatives = bool(request.get("include_confidence")), top_logprobs_of(values)
        return CallSettings(
            values,
            self._runtime,
            *self._resolve_model(values),
            settings,
            options_of(values, settings),
            tool_use,
            include_confidence=include_confidence,
            alternatives=alternatives if include_confidence else alternatives or 0,
        )


def _merged_by_key(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that both have and that are merged by key, merged. Those of `given` override the others."""
    merged = {
        name: {**values[name], **given[name]} if is_mapping(given[name]) else values[name].merged(given[name])
        for name in MERGED_BY_KEY
        if values.get(name) is not None and given.get(name) is not None
    }
    if given.get("timeout") is not None and values.get("timeouts"):
        # It holds in every phase, also in one that had another number before.
        kept = {name: seconds for name, seconds in values["timeouts"].items() if name not in SILENCE_TIMEOUTS}
        merged["timeouts"] = {**kept, **(given.get("timeouts") or {})}
    return merged


def _replaced(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the earlier settings that take precedence over one of these, unless they are given with it."""
    load_config: LlmLoadModelConfig | None = given.get("load_config")
    if load_config is not None and load_config.context_length is not None and "context_length" not in given:
        yield "context_length"


def _has_plain_tools(given: Mapping[str, Any]) -> bool:
    """Whether the tools of a call, if it has any, are dicts, as `bind_tools` makes them: others may not be copied."""
    tools = given.get("tools")
    return tools is None or (is_list(tools) and all(map(is_object, tools)))


class _Resolved(NamedTuple):
    """A call without settings of its own, and the values that it was resolved from."""

    environment: str | None
    values: Sequence[Any]
    """Those of the fields and of the arguments; copies of those that can be changed in place."""

    call: CallSettings

    def is_of(self, environment: str | None, values: Sequence[Any]) -> bool:
        """Whether a call has these values, at any depth, also in their types: 0 is not `False`."""
        if self.environment != environment:
            return False
        for value, earlier in zip(values, self.values, strict=True):
            if value is not earlier and not (
                isinstance(value, _CHANGEABLE) and value == earlier and repr(value) == repr(earlier)
            ):
                return False
        return True


@cache
def _known_arguments(kind: type[GenerationSettings]) -> Collection[str]:
    call = kind._call  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module
    return {*kind._call_names(), *ALIASES, *call.request, *call.framework}  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


@cache
def _call_fields(kind: type[GenerationSettings]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Return what reads the fields that a call depends on."""
    return itemgetter(*kind._call_names())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module


def _with_effort(call: CallSettings) -> CallSettings:
    values = call.values
    effort, model = values["reasoning_effort"], values["model"]
    key: str | None = model
    if not is_catalog_key(key):
        key = call.used.info.get("modelKey", key)
    sent = sent_effort(effort, values["enable_thinking"], key)
    changes: dict[str, Any] = {"raw": sent.fields} if sent.fields else {}
    if sent.enable_thinking is not None:
        changes["enable_thinking"] = sent.enable_thinking
    return call._replace(
        settings=call.settings.merged(LlmPredictionConfig(**changes)),
        effort=RequestedEffort(effort, key, sent.name, partial(call.runtime.warn_once, ("reasoning_effort", model))),
    )


class ChatSettings(GenerationSettings):
    """How to chat: reasoning, tools, images."""

    reasoning_effort: ReasoningEffort | None = Field(
        default=None,
        description="How much the model reasons before it responds, from `none` to `xhigh`. The server gets the "
        "nearest level that the model has. Only models of LM Studio's catalog have levels; for others, only `none` "
        "has an effect. An effort without effect is a warning. If unset, the model's default applies.",
    )

    send_reasoning: SendReasoning = Field(
        default="auto",
        description="Which earlier thoughts go back to the model. `auto` sends those that its chat template takes, "
        "which is measured once per loaded model; `turn` those since the last user message; `always` or `True` all; "
        "`False` none. The default is `auto`.",
    )

    keep_reasoning: bool = Field(
        default=False,
        description="Whether the chat template is made to keep the thoughts of all turns, or, if it reads them only "
        "from a field of their own, gets them there. The default is `False`: what it does by itself. If no way works, "
        "a call raises an error that names what was tried.",
    )

    think_first: bool = Field(
        default=True,
        description="Whether a call that asks for reasoning and a response format may make two predictions, if the "
        "grammar leaves no room for a thought: one for the thought, and one by grammar that continues it. The default "
        "is `True`.",
    )

    rescue_tool_calls: bool = Field(
        default=True,
        description="Whether calls that the server left in the text become tool calls. Only calls of offered tools "
        "count, and those that are cut off become invalid ones. The metadata has their number as `rescued_tool_calls`. "
        "The default is `True`.",
    )

    repair_tool_calls: bool = Field(
        default=True,
        description="Whether tool calls that do not fit the tools are mended: at once where exactly one reading fits, "
        "otherwise by one more prediction, by grammar. A call is held back until it is complete. The metadata has what "
        "was mended, or could not be, as `repaired_tool_calls`. The default is `True`.",
    )

    required_tool_fallback: bool = Field(
        default=True,
        description="Whether a required tool call that the model did not make is requested again, by grammar. The "
        "metadata then has `forced_by_grammar` and the tokens of both predictions. The default is `True`.",
    )

    logprobs: bool | None = Field(
        default=None,
        description="Whether responses contain the log-probabilities of their tokens. Off by default.",
    )

    top_logprobs: OrOff[LogProbs] | None = Field(
        default=None,
        description="How many alternatives to report for each token, with log-probabilities, from 0 to 100. Turns "
        "`logprobs` on. None by default.",
    )

    allow_image_download: bool | Literal["private"] = Field(
        default=False,
        description="Whether this process may download images from http and https URLs. The default is `False`. Each "
        "image may take 20 MB, five redirects and 30 seconds (or `total_timeout`), and must come from a public "
        "address, unless this is `private`; allow that only for messages that you trust.",
    )
