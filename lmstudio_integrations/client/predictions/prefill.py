"""The prefill of a prompt before the first question, so that the server has it in its prompt cache.

`language_model.py` sends it as any other prediction, so that it has the same bytes as the beginning of a question.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, cast

from lmstudio_integrations.client.files.images import PendingHistory
from lmstudio_integrations.client.predictions.requests import (
    CALLBACKS,
    History,
    PredictionParameters,
    encode,
    with_tools,
)
from lmstudio_integrations.client.support.arguments import list_of, text_of
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.functions import ToolInput, parse_tools

Prefix: TypeAlias = History | PendingHistory
"""The messages before the first question; a string is the system prompt."""

_OF_THE_RESPONSE = CALLBACKS - {"on_prompt_processing_progress"}

_QUESTION = WireHistory.of_prompt(".").messages
"""The shortest question, for chat templates that reject a prompt without one. Some omit an empty message."""


def prefix_of(prefix: Prefix | None) -> WireHistory | PendingHistory:
    """Return the messages of a prefix, in wire form; without any, a question, which every template takes.

    Raises:
        LMStudioValueError: If it is empty, or has another form.
    """
    if isinstance(prefix, str):
        content = [{"type": "text", "text": text_of(prefix, "the system prompt")}]
        return WireHistory([{"role": "system", "content": content}])
    if isinstance(prefix, PendingHistory):
        return prefix
    wire = WireHistory([]) if prefix is None else encode(prefix)
    return wire if wire.messages else with_question(wire)


def with_question(prefix: WireHistory | PendingHistory) -> WireHistory | PendingHistory:
    """Return a prefix with a question after it."""
    if isinstance(prefix, PendingHistory):
        encode_prefix = prefix.encode

        def encode_all(handles: Sequence[FileHandle]) -> WireHistory:
            return _with_question(encode_prefix(handles))

        return replace(prefix, encode=encode_all)
    return _with_question(prefix)


def _with_question(prefix: WireHistory) -> WireHistory:
    system_first = None if prefix.system_first is None else [*prefix.system_first, *_QUESTION]
    return prefix._replace(messages=[*prefix.messages, *_QUESTION], system_first=system_first)


def prefill_parameters(parameters: PredictionParameters, tools: Iterable[ToolInput] = ()) -> PredictionParameters:
    """Return the parameters of the prediction that processes a prefix: those of a question, but for one token.

    Raises:
        LMStudioValueError: If a setting or a tool is invalid.
    """
    settings, listed = LlmPredictionConfig.parse(parameters.get("config")), list_of(tools, "tools")
    if listed:
        settings = with_tools(settings, parse_tools(listed).values())
    own = cast(
        "PredictionParameters", {name: value for name, value in parameters.items() if name not in _OF_THE_RESPONSE}
    )
    return {
        **own,
        "config": settings.merged(LlmPredictionConfig(max_tokens=1)),
        # What is generated is not used, so nothing is made of it, and no callback gets it.
        "check_response": False,
        "tools_first": False,
        "think_first": False,
        "rescue_tool_calls": False,
        "repair_tool_calls": False,
        "required_tool_fallback": False,
        "stop_on_repetition": False,
    }
