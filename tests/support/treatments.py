"""Scripted models whose chat templates treat earlier thoughts in one way each."""

import re
from collections.abc import Callable, Mapping, Sequence

from lmstudio_integrations.emulator.engines.base import LoadRequest, Progress, template_failed
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, ScriptedModel
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import Tool

_THOUGHT = re.compile(r"<think>\s*(.*?)\s*</think>", re.DOTALL)


def _keep(prompt: str) -> str:
    return _THOUGHT.sub(r"<think>\n\1\n</think>\n\n", prompt)


def _strip(prompt: str) -> str:
    return _THOUGHT.sub("", prompt)


def _keep_current(prompt: str) -> str:
    before, last_user, current = prompt.rpartition("<|user|>")
    return f"{_strip(before)}{last_user}{_keep(current)}"


def _misplace(prompt: str) -> str:
    return prompt.replace("<|assistant|>\n", "<|assistant|>\n<think>\n\n</think>\n\n")


def _reject(prompt: str) -> str:
    if "<think>" in prompt:
        raise template_failed("no tags, please")
    return prompt


TEMPLATES: Mapping[str, Callable[[str], str]] = {
    "kept": _keep,
    "stripped": _strip,
    "copied": lambda prompt: prompt,
    "misplaced": _misplace,
    "rejected": _reject,
    "current": _keep_current,
}
"""What they make of the plain template, by the keys of their models."""

BY_PLACE: Mapping[str, Mapping[str, str]] = {
    **{key: dict.fromkeys(("current_call", "earlier_call", "answer"), key) for key in TEMPLATES if key != "current"},
    "current": {"current_call": "kept", "earlier_call": "stripped", "answer": "stripped"},
}
"""What is found out about them."""


class TreatingEngine(ScriptedEngine):
    """Loads scripted models with these templates."""

    async def load(self, request: LoadRequest, on_progress: Progress) -> ScriptedModel:
        """Load a model."""
        model = await super().load(request, on_progress)
        apply = model.apply_template

        async def treated(history: ChatHistory, tools: Sequence[Tool], config: LlmPredictionConfig) -> str:
            return TEMPLATES[request.key](await apply(history, tools, config))

        model.apply_template = treated  # type: ignore[method-assign]  # pyright: ignore[reportAttributeAccessIssue]
        return model
