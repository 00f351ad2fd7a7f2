"""Chat templates as functions, and an engine of the emulator whose models have them.

A template is the function that shows one message of the assistant; all other messages look the same in all of them.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lmstudio_integrations.emulator.engines.base import (
    EngineEvent,
    GenerateRequest,
    LoadRequest,
    Progress,
    template_failed,
)
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, ScriptedModel
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import Tool
from lmstudio_integrations.types.reasoning import Tags

THINK = Tags("<think>", "</think>")


class Said(NamedTuple):
    """A message of the assistant.

    Attributes:
        text: Its texts.
        is_call: Whether it calls a tool.
        is_current: Whether it comes after the last user message.
        is_answer_to_result: Whether it comes after the result of a call, without being one.
        calls: How many tools it calls.
    """

    text: str
    is_call: bool = False
    is_current: bool = False
    is_answer_to_result: bool = False
    calls: int = 0


Template = Callable[[Said], str]


def rendered(template: Template, messages: Sequence[Mapping[str, Any]]) -> str:
    """Return messages in wire form as a prompt."""
    last_user = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)
    prompt, before = "", ""
    for at, message in enumerate(messages):
        role, parts = message["role"], message["content"]
        text = "".join(part.get("text", part.get("content", "")) for part in parts)
        calls = [part["toolCallRequest"] for part in parts if part["type"] == "toolCallRequest"]
        if role == "assistant":
            text = template(Said(text, bool(calls), at > last_user, before == "tool" and not calls, len(calls)))
        shown = "".join(f"<call>{call['name']} {call.get('arguments') or {}}</call>" for call in calls)
        prompt += f"<|{role}|>{text}{shown}<|end|>\n"
        before = role
    return f"{prompt}<|assistant|>"


# Templates ------------------------------------------------------------------------------------------------------------


def split(text: str, tags: Tags = THINK) -> tuple[str, str]:
    """Return the thought of a text and what comes after it, as most templates find them."""
    before, found, after = text.partition(tags.end)
    return (before.rpartition(tags.start)[2].strip(), after.lstrip("\n")) if found else ("", text)


def kept(said: Said, tags: Tags = THINK) -> str:
    """Show the thought as one."""
    thought, text = split(said.text, tags)
    return f"{tags.start}\n{thought}\n{tags.end}\n\n{text}"


def stripped(said: Said, tags: Tags = THINK) -> str:
    """Omit the thought."""
    return split(said.text, tags)[1]


def copied(said: Said, tags: Tags = THINK) -> str:
    """Show the text, of which the thought is a part."""
    return said.text


def after_empty(said: Said, tags: Tags = THINK) -> str:
    """Show an empty thought, and the text."""
    return f"{tags.start}\n\n{tags.end}\n\n{said.text}"


def behind(said: Said, tags: Tags = THINK) -> str:
    """Show the thought behind the text."""
    thought, text = split(said.text, tags)
    return f"{text}{thought}"


def rejected(said: Said, tags: Tags = THINK) -> str:
    """Reject tags.

    Raises:
        EngineError: If there are any.
    """
    if tags.start in said.text or tags.end in said.text:
        raise template_failed("no tags, please")
    return said.text


def channels(said: Said, tags: Tags = THINK) -> str:
    """Show the text beside a call as a thought, and reject tags.

    Raises:
        EngineError: If there are any.
    """
    return f"<|channel|>{'analysis' if said.is_call else 'final'}<|message|>{rejected(said, tags)}"


def lenient_channels(said: Said, tags: Tags = THINK) -> str:
    """Show the text beside a call as a thought."""
    return f"<|channel|>{'analysis' if said.is_call else 'final'}<|message|>{copied(said, tags)}"


# The engine -----------------------------------------------------------------------------------------------------------


class TemplateEngine(ScriptedEngine):
    """Loads scripted models that have templates, by their keys.

    Attributes:
        prompts: What models have read, in order.
        renderings: The messages that were only rendered, in order.
    """

    def __init__(self, **templates: Template) -> None:
        super().__init__()
        self.prompts: list[str] = []
        self.renderings: list[list[dict[str, Any]]] = []
        self._templates = templates

    async def load(self, request: LoadRequest, on_progress: Progress) -> ScriptedModel:
        """Load a model."""
        model = await super().load(request, on_progress)
        model.__class__ = _TemplateModel
        assert isinstance(model, _TemplateModel)
        model.engine, model.template = self, self._templates[request.key]
        return model


class _TemplateModel(ScriptedModel):
    engine: TemplateEngine
    template: Template

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        assert request.history is not None, "these models have conversations"
        self.engine.prompts.append(rendered(self.template, wire(request.history)))
        async for event in super().generate(request):
            yield event

    async def apply_template(self, history: ChatHistory, tools: Sequence[Tool], config: LlmPredictionConfig) -> str:
        messages = wire(history)
        self.engine.renderings.append(messages)
        return rendered(self.template, messages)


def wire(history: ChatHistory) -> list[dict[str, Any]]:
    """Return the messages in wire form."""
    messages: list[dict[str, Any]] = history.to_dict()["messages"]
    return messages


def answers(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the texts of the assistant's messages."""
    return [
        "".join(part.get("text", "") for part in message["content"])
        for message in messages
        if message["role"] == "assistant"
    ]
