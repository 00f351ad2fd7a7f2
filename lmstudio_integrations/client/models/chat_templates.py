"""The flows about the chat template of a model: what it makes of a conversation, and what it does in general.

The server does not report where a template takes system messages, so a small conversation is rendered, once per
instance: before the first conversation for which it matters, or when the adapters load a model.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from pydantic import ValidationError

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.client.models.queries import count_tokens, look_up
from lmstudio_integrations.client.models.reasoning import NO_FLAGS, Messages, render, sent_messages, without_thoughts
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.support.arguments import check_names, flag_of, list_of
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioModelNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.kv_config import stack_of, with_changes
from lmstudio_integrations.protocol.requests import TemplateParameters
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import Tool
from lmstudio_integrations.types.models import ChatTemplateInfo, ContextUse
from lmstudio_integrations.types.reasoning import ReasoningOptions

Tools: TypeAlias = Sequence[Tool | Mapping[str, Any]]
TemplateOpts: TypeAlias = Mapping[str, bool]

_TEMPLATE_FLAGS = {"omit_bos_token": "omitBosToken", "omit_eos_token": "omitEosToken"}

_ONE_TOKEN = WireHistory.of_prompt(".").to_dict()
"""Shows what a template adds to a message; some omit an empty one."""

_TURNS = (("system", "alfa"), ("user", "bravo"), ("assistant", "charlie"), ("system", "delta"), ("user", "echo"))
_LATE_SYSTEM_MESSAGE: Mapping[str, Any] = {
    "messages": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in _TURNS]
}


class PromptSettings(NamedTuple):
    """What changes the prompt of a conversation.

    Attributes:
        reasoning: What is done with earlier thoughts.
        config: The settings of the prediction.
        flags: Those of `template_flags`.
    """

    reasoning: ReasoningOptions
    config: LlmPredictionConfig
    flags: TemplateParameters = NO_FLAGS


def apply_prompt_template(
    operation: Operation,
    instance: Instance,
    history: WireHistory,
    settings: PromptSettings,
) -> Flow[str]:
    """Return a conversation as the prompt that an instance would get.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        history: The conversation.
        settings: What changes the prompt.
    """
    messages: Messages = (yield from place_system_messages(operation, instance, history)).messages
    reasoning, config, flags = settings
    if not (history.has_reasoning or reasoning.keep):
        return (yield from render(operation, instance.specifier, {"messages": messages}, flags, stack_of(config)))
    sent = yield from sent_messages(operation, instance, messages, reasoning, config)
    stack = with_changes(stack_of(config), sent.template)
    try:
        return (yield from render(operation, instance.specifier, {"messages": sent.messages}, flags, stack))
    except LMStudioPromptTemplateError:
        stripped = without_thoughts(messages)
        if sent.messages == stripped:
            raise
        prompt = yield from render(operation, instance.specifier, {"messages": stripped}, flags, stack)
        instance.reasoning.is_rejected = True
        return prompt


def get_context_use(
    operation: Operation, instance: Instance, history: WireHistory, settings: PromptSettings
) -> Flow[ContextUse]:
    """Return how many tokens of the context window a conversation takes."""
    prompt = yield from apply_prompt_template(operation, instance, history, settings)
    (used,) = yield from count_tokens(operation, "llm", instance.specifier, [prompt])
    info = yield from look_up(operation, "llm", instance.specifier)
    return ContextUse(used=used, limit=info.context_length)


def get_chat_template_info(operation: Operation, instance: Instance) -> Flow[ChatTemplateInfo]:
    """Return what the chat template does."""
    try:
        prompt = yield from render(operation, instance.specifier, _ONE_TOKEN)
    except LMStudioPromptTemplateError:  # a model that only continues texts
        return ChatTemplateInfo()
    (tokens,) = yield from count_tokens(operation, "llm", instance.specifier, [prompt])
    return ChatTemplateInfo(tokens - 1, (yield from _takes_late_system_messages(operation, instance)))


def place_system_messages(operation: Operation, instance: Instance, history: WireHistory) -> Flow[WireHistory]:
    """Return a conversation with its system messages where they are, or at the front if the template requires it."""
    if history.system_first is None or (yield from _takes_late_system_messages(operation, instance)):
        return history
    return history._replace(messages=history.system_first, system_first=None)


def _takes_late_system_messages(operation: Operation, instance: Instance) -> Flow[bool]:
    """Whether the template shows a system message after the first turn, and shows it where it is."""
    if instance.takes_late_system_messages is not None:
        return instance.takes_late_system_messages
    try:
        prompt = yield from render(operation, instance.specifier, _LATE_SYSTEM_MESSAGE)
    except (LMStudioPromptTemplateError, LMStudioUnsupportedError):
        takes = False
    except LMStudioModelNotFoundError:
        raise
    except LMStudioServerError:  # it says nothing about the template, so the next conversation asks again
        return False
    else:
        places = [prompt.find(text) for _, text in _TURNS]
        takes = -1 not in places and places == sorted(places)
    instance.takes_late_system_messages = takes
    return takes


def template_flags(opts: TemplateOpts, tools: Tools) -> TemplateParameters:
    """Return options and tools in wire form."""
    if not is_mapping(opts):
        raise LMStudioValueError(f"opts must be a dict of {', '.join(_TEMPLATE_FLAGS)}; got {opts!r}")
    check_names(opts, {*_TEMPLATE_FLAGS, *_TEMPLATE_FLAGS.values()})
    flags: dict[str, Any] = {_TEMPLATE_FLAGS.get(name, name): flag_of(value, name) for name, value in opts.items()}
    definitions = [_tool(tool) for tool in list_of(tools, "tools")]
    return cast("TemplateParameters", flags | ({"toolDefinitions": definitions} if definitions else {}))


def _tool(tool: object) -> dict[str, Any]:
    try:
        return Tool.model_validate(tool).to_dict()
    except ValidationError as error:
        raise LMStudioValueError(f"tools contains an invalid tool definition: {tool!r}") from error
