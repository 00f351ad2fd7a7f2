"""Asks the server for a prompt: a conversation as the chat template of an instance shows it."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.client.models.state import Specifier
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.protocol.requests import ApplyPromptTemplate, TemplateParameters

NO_FLAGS: TemplateParameters = {}
_NO_LAYERS: Mapping[str, Any] = {"layers": []}


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
