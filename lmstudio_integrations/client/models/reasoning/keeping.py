"""How a chat template is made to keep the thoughts of all turns: `keep_reasoning`.

Some templates have a switch for it, but no setting of the protocol is passed to a template by its name. There are two
ways: a line before the template that sets the switch, or a custom field of a model of LM Studio's catalog. Which of
them works is seen in the prompt.
"""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.models.queries import look_up
from lmstudio_integrations.client.models.reasoning.replay import replay_of
from lmstudio_integrations.client.models.reasoning.tags import configured_in, tags_of_instance
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioUnsupportedError
from lmstudio_integrations.protocol.kv_config import custom_fields_of
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.reasoning import ReasoningReplay, Tags

_SWITCHES = {
    "preserve_thinking": "true",
    "clear_thinking": "false",
    "keep_past_thinking": "true",
    "truncate_history_thinking": "false",
    "drop_thinking": "false",
}
"""The switches of templates, and the value with which each keeps thoughts, in Jinja."""


def keeping(
    operation: Operation, instance: Instance, template: LlmPredictionConfig, requested: Tags | None
) -> Flow[LlmPredictionConfig]:
    """Return the settings with which the template of an instance keeps thoughts in each place.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        template: The template that the user has set.
        requested: The tags that the user has set.

    Raises:
        LMStudioUnsupportedError: If it keeps them with none; the message says what was tried.
    """
    tags = yield from tags_of_instance(operation, instance, requested)
    if (yield from _is_kept(operation, instance, tags, template)):
        return template
    tried = ["the template as it is"]
    own = template.prompt_template or (yield from configured_in(operation, instance)).template
    source = _source(own)
    switches = {name: value for name, value in _SWITCHES.items() if name in source}
    for name, value in switches.items():
        switched = LlmPredictionConfig(prompt_template=_with_switch(own or {}, source, name, value))
        if (yield from _is_kept(operation, instance, tags, switched)):
            return switched
        tried.append(f"its switch {name}")
    if not switches:
        tried.append(f"a switch in it, but {_why_none(own, source)}")
    model = yield from look_up(operation, "llm", instance.specifier)
    fields = custom_fields_of(model.model_key)
    if fields is not None:
        field = f"{fields}.preserveThinking"
        configured = template.merged(LlmPredictionConfig(raw={field: True}))
        if (yield from _is_kept(operation, instance, tags, configured)):
            return configured
        tried.append(f"the custom field {field}")
    raise LMStudioUnsupportedError(
        f"keep_reasoning=True: the chat template of {instance.identifier!r} does not keep the reasoning of earlier "
        f"turns (tried: {', '.join(tried)}); omit keep_reasoning, load the model with a template that keeps it, "
        "or write it as text with send_reasoning='always'"
    )


def _is_kept(operation: Operation, instance: Instance, tags: Tags, template: LlmPredictionConfig) -> Flow[bool]:
    replay: ReasoningReplay = yield from replay_of(operation, instance, tags, template)
    return replay.keeps_all


def _why_none(template: Mapping[str, Any] | None, source: str) -> str:
    if source:
        return "it has none"
    return "the server does not show it" if template is None else "it is no Jinja template"


def _source(template: Mapping[str, Any] | None) -> str:
    """Return the text of a Jinja template; empty if it is none."""
    jinja = (template or {}).get("jinjaPromptTemplate")
    source = jinja.get("template") if is_object(jinja) else None
    return source if isinstance(source, str) else ""


def _with_switch(template: Mapping[str, Any], source: str, name: str, value: str) -> dict[str, Any]:
    """Return a template behind a line that sets a switch. A line break would become a part of the prompt."""
    switched = f"{{%- set {name} = {value} %}}{source}"
    jinja = {**template["jinjaPromptTemplate"], "template": switched}
    return {**template, "type": "jinja", "jinjaPromptTemplate": jinja}
