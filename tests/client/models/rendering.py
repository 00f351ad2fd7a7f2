"""A server that renders conversations with a chat template, and a conversation with thoughts as it gets it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jinja2

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.flows import Flow, run
from lmstudio_integrations.client.models.reasoning import sent_messages
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.protocol.kv_config import collapse
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.reasoning import ReasoningOptions, SendReasoning, Tags
from tests.support import chat_templates, template_functions
from tests.support.template_functions import THINK, Template, answers, rendered

BRACKETS = Tags("[THINK]", "[/THINK]")
GEMMA = Tags("<|channel>thought", "<channel|>")
WHITE = Tags("<think>\n", "\n</think>\n\n")

CONFIG, RENDER = "getBasePredictionConfig", "applyPromptTemplate"

WITHOUT = ["I look.", "It rains.", "Again."]
ALL = ["<think>one</think>I look.", "<think>two</think>It rains.", "<think>three</think>Again."]
"""What the assistant says in the conversation, without its thoughts and with them."""

INFO: dict[str, Any] = {
    "identifier": "m",
    "path": "maker/m",
    "instanceReference": "r1",
    "contextLength": 8,
    "format": "gguf",
}
INFO |= {"displayName": "M", "sizeBytes": 1, "maxContextLength": 8}


@dataclass
class Server:
    """A server that renders conversations with a template; what it lacks is unknown to it.

    Attributes:
        template: The template.
        tags: The tags that it reports.
        source: The text of the template that it reports.
        switches: What the template becomes behind a line, or with a setting.
        key: The key of the model.
        fields: Further fields of its config of predictions.
        render: Renders messages in place of the template.
        takes_templates: Whether the template of a request takes the place of that.
        lacks: Endpoints that it does not know.
        errors: The errors of the next calls.
        calls: The endpoints that were called.
    """

    template: Template = template_functions.kept
    tags: Tags | None = None
    source: str | None = None
    switches: Mapping[str, Template] = field(default_factory=dict[str, Template])
    key: str = "m"
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    render: Callable[[Any], str] | None = None
    takes_templates: bool = False
    lacks: tuple[str, ...] = ()
    errors: list[lms.LMStudioError] = field(default_factory=list[lms.LMStudioError])
    calls: list[str] = field(default_factory=list[str])

    def call(
        self, _namespace: str, endpoint: str, parameter: Mapping[str, Any], read: Callable[[Any], Any], *, label: str
    ) -> Flow[Any]:
        yield from ()
        self.calls.append(endpoint)
        if endpoint in self.lacks:
            raise lms.LMStudioUnsupportedError(f"{label}: unknown endpoint")
        if self.errors:
            raise self.errors.pop(0)
        if endpoint == "getBasePredictionConfig":
            tags = self.tags and {"enabled": True, "startString": self.tags.start, "endString": self.tags.end}
            fields = [{"key": "llm.prediction.reasoning.parsing", "value": tags}] if tags else []
            if self.source is not None:
                fields.append({"key": "llm.prediction.promptTemplate", "value": jinja(self.source)})
            fields += [{"key": key, "value": value} for key, value in self.fields.items()]
            return read({"fields": fields})
        if endpoint == "getModelInfo":
            return read({**INFO, "modelKey": self.key})
        settings = collapse(parameter["predictionConfigStack"])
        template = settings.pop("llm.prediction.promptTemplate", {})
        source = template.get("jinjaPromptTemplate", {}).get("template", "")
        known = [
            template for switch, template in self.switches.items() if source.startswith(switch) or switch in settings
        ]
        render = self.render or partial(rendered, (known or [self.template])[0])
        if source and self.takes_templates:
            render = chat_templates.renderer(source)
        try:
            prompt = render(parameter["history"]["messages"])
        except (EngineError, jinja2.TemplateError) as error:
            raise lms.LMStudioPromptTemplateError(str(error)) from None
        return read({"formatted": prompt})


def jinja(source: str) -> dict[str, Any]:
    return {"type": "jinja", "jinjaPromptTemplate": {"template": source}, "stopStrings": ["<|end|>"]}


def part(text: str, tags: Tags = THINK, *, end: str | None = None) -> dict[str, Any]:
    return {"type": "reasoning", "text": text, "startTag": tags.start, "endTag": tags.end if end is None else end}


def conversation(*thoughts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a conversation with thoughts before a call, an answer, and a call in the current turn."""
    turns = iter(thoughts)

    def said(text: str, call_id: str = "") -> dict[str, Any]:
        call = {"type": "function", "id": call_id, "name": "look", "arguments": {}}
        calls = [{"type": "toolCallRequest", "toolCallRequest": call}] if call_id else []
        return {"role": "assistant", "content": [*filter(None, [next(turns, None)]), text_part(text), *calls]}

    def result(call_id: str) -> dict[str, Any]:
        found = {"type": "toolCallResult", "content": "It rains.", "toolCallId": call_id, "name": "look"}
        return {"role": "tool", "content": [found]}

    user = {"role": "user", "content": [text_part("</think> <think>Well?</think>")]}
    return [user, said("I look.", "1"), result("1"), said("It rains."), user, said("Again.", "2"), result("2")]


THREE = tuple(part(text) for text in ("one", "two", "three"))


def sent(
    server: Server, instance: Instance, messages: Any, mode: SendReasoning = "auto", parsing: Any = None
) -> list[str]:
    """Return the texts of the assistant as they are sent."""
    return answers(sent_by(server, instance, messages, mode, lms.LlmPredictionConfig(reasoning_parsing=parsing)))


def sent_by(
    server: Any,
    instance: Instance,
    messages: Sequence[Mapping[str, Any]],
    mode: SendReasoning = "auto",
    settings: lms.LlmPredictionConfig | None = None,
) -> Sequence[Mapping[str, Any]]:
    """Return messages as they are sent."""
    config = settings or lms.LlmPredictionConfig()
    return run(sent_messages(server, instance, messages, ReasoningOptions(mode), config)).messages
