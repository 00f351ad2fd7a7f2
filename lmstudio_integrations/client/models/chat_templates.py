"""The flows about the chat template of a model: what it makes of a conversation, and what it does in general.

The server does not report where a template takes system messages, and whether it takes two calls in one message. So a
small conversation is rendered, once per instance: before the first conversation for which it matters, or, for system
messages, when the adapters load a model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from pydantic import ValidationError

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.queries import count_tokens, look_up
from lmstudio_integrations.client.models.reasoning import Messages, sent_messages, without_thoughts
from lmstudio_integrations.client.models.state import Instance, Specifier
from lmstudio_integrations.client.support.arguments import check_names, flag_of, list_of
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioModelNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.kv_config import stack_of, with_changes
from lmstudio_integrations.protocol.requests import ApplyPromptTemplate, TemplateParameters
from lmstudio_integrations.types.chat import WireHistory, text_part
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import Tool
from lmstudio_integrations.types.models import ChatTemplateInfo, ContextUse
from lmstudio_integrations.types.reasoning import ReasoningOptions

Tools: TypeAlias = Sequence[Tool | Mapping[str, Any]]
TemplateOpts: TypeAlias = Mapping[str, bool]

NO_FLAGS: TemplateParameters = {}
_NO_LAYERS: Mapping[str, Any] = {"layers": []}
_TEMPLATE_FLAGS = {"omit_bos_token": "omitBosToken", "omit_eos_token": "omitEosToken"}

_ONE_TOKEN = WireHistory.of_prompt(".").to_dict()
"""Shows what a template adds to a message; some omit an empty one."""

_TURNS = (("system", "alfa"), ("user", "bravo"), ("assistant", "charlie"), ("system", "delta"), ("user", "echo"))
_LATE_SYSTEM_MESSAGE: Mapping[str, Any] = {
    "messages": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in _TURNS]
}

_CALLS = {"000000001": "bravo", "000000002": "charlie"}
"""The arguments of two calls, by the identifiers of the calls."""

_TWO_CALLS: Messages = [
    {"role": "user", "content": [text_part("alfa")]},
    {
        "role": "assistant",
        "content": [
            {
                "type": "toolCallRequest",
                "toolCallRequest": {"type": "function", "id": id_, "name": "delta", "arguments": {"value": value}},
            }
            for id_, value in _CALLS.items()
        ],
    },
    *(
        {
            "role": "tool",
            "content": [{"type": "toolCallResult", "content": "echo", "toolCallId": id_, "name": "delta"}],
        }
        for id_ in _CALLS
    ),
]


def render(
    operation: Operation,
    specifier: Specifier,
    history: Mapping[str, Any],
    flags: TemplateParameters = NO_FLAGS,
    stack: Mapping[str, Any] = _NO_LAYERS,
) -> Flow[str]:
    """Return a conversation in wire form as the prompt that an instance would get. The model is not loaded for it."""
    parameter = ApplyPromptTemplate(specifier=specifier, history=history, predictionConfigStack=stack, opts=flags)
    return (yield from operation.call("llm", "applyPromptTemplate", parameter, _format, label="Prompt template"))


def _format(result: Any) -> str:
    prompt = result["formatted"]
    if not isinstance(prompt, str):
        raise TypeError(f"expected a string; got {type(prompt).__name__}")
    return prompt


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
    messages: Messages = (yield from arrange(operation, instance, history)).messages
    reasoning, config, flags = settings
    if not (history.has_reasoning or reasoning.keep):
        return (yield from render(operation, instance.specifier, {"messages": messages}, flags, stack_of(config)))
    sent = yield from sent_messages(operation, instance, messages, reasoning, config)
    stack = stack_of(config) if sent.changes is None else with_changes(stack_of(config), sent.changes)
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


def arrange(operation: Operation, instance: Instance, history: WireHistory) -> Flow[WireHistory]:
    """Return a conversation with its system messages and calls where the template takes them.

    Some take a system message only at the front, some show or accept only one call in a message.
    """
    if history.system_first is not None and not (yield from _takes_late_system_messages(operation, instance)):
        history = history._replace(messages=history.system_first)
    replies = [message for message in history.messages if message["role"] == "assistant"]
    has_several = any(len(_calls_of(reply)) > 1 for reply in replies)
    if has_several and not (yield from _takes_parallel_calls(operation, instance)):
        history = history._replace(messages=[*_one_call_each(history.messages)])
    return history._replace(system_first=None)


def _takes_late_system_messages(operation: Operation, instance: Instance) -> Flow[bool]:
    """Whether the template shows a system message after the first turn, and shows it where it is."""
    if instance.takes_late_system_messages is None:

        def takes(prompt: str) -> bool:
            places = [prompt.find(text) for _, text in _TURNS]
            return -1 not in places and places == sorted(places)

        instance.takes_late_system_messages = yield from _shows(operation, instance, _LATE_SYSTEM_MESSAGE, takes)
    return bool(instance.takes_late_system_messages)


def _takes_parallel_calls(operation: Operation, instance: Instance) -> Flow[bool]:
    """Whether the template shows both of two calls in one message, or does not even show them in two."""
    if instance.takes_parallel_calls is None:

        def shows_both(prompt: str) -> bool:
            return all(argument in prompt for argument in _CALLS.values())

        takes = yield from _shows(operation, instance, {"messages": _TWO_CALLS}, shows_both)
        if takes is False:
            apart = {"messages": [*_one_call_each(_TWO_CALLS)]}
            shows = yield from _shows(operation, instance, apart, shows_both)
            takes = None if shows is None else not shows
        instance.takes_parallel_calls = takes
    return instance.takes_parallel_calls is not False


def _shows(
    operation: Operation, instance: Instance, history: Mapping[str, Any], judge: Callable[[str], bool]
) -> Flow[bool | None]:
    """Return what the prompt of a conversation shows of it.

    `False` is also that the template rejects it, `None` that the server did not render, which says nothing about it.
    """
    try:
        return judge((yield from render(operation, instance.specifier, history)))
    except (LMStudioPromptTemplateError, LMStudioUnsupportedError):
        return False
    except LMStudioModelNotFoundError:
        raise
    except LMStudioServerError:  # the next conversation asks again
        return None


def _calls_of(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [part for part in message["content"] if part["type"] == "toolCallRequest"]


def _one_call_each(messages: Messages) -> Iterator[dict[str, Any]]:
    """Yield messages with one call in each, and its result behind it.

    A message stays as it is if the results of its calls do not all follow, each with the identifier of its call.
    """
    at = 0
    while at < len(messages):
        message, calls = messages[at], _calls_of(messages[at])
        end = at + 1
        while end < len(messages) and messages[end]["role"] == "tool":
            end += 1
        results = {part.get("toolCallId"): part for each in messages[at + 1 : end] for part in each["content"]}
        ids = [call["toolCallRequest"].get("id") for call in calls]
        if len(calls) < 2 or len({*ids}) < len(ids) or results.keys() != {*ids}:
            yield {**message}
            at += 1
            continue
        others = [part for part in message["content"] if part["type"] != "toolCallRequest"]
        for call, id_ in zip(calls, ids, strict=True):
            yield {**message, "content": [*others, call]}
            yield {"role": "tool", "content": [results[id_]]}
            others = []
        at = end


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
