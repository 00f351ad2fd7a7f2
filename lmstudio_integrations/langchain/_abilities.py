"""What models in LM Studio can do, as langchain-core's `ModelProfile`: for `ChatLMStudio`, and `data/_profiles.py`."""

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.language_models.model_profile import ModelProfile

from lmstudio_integrations._adapters.reasoning_effort import reasoning_profile

ABILITIES = ModelProfile(
    text_inputs=True,
    text_outputs=True,
    image_url_inputs=False,
    audio_inputs=False,
    video_inputs=False,
    pdf_inputs=False,
    tool_choice=True,
    tool_call_streaming=True,
    structured_output=True,
    temperature=True,
    open_weights=True,
)
"""What every model can do, in LM Studio."""

_REPORTED = {"max_input_tokens": "contextLength", "name": "displayName", "reasoning_replay": "reasoningReplay"}
_REPORTED_ABILITIES = {
    "image_inputs": "vision",
    "image_tool_message": "vision",
    "tool_calling": "trainedForToolUse",
    "mid_conversation_system_messages": "takesLateSystemMessages",
}
"""Members of a profile, and those of the model's info, and of `Runtime.template_info`, that they come from."""


def reported_profile(info: Mapping[str, Any]) -> ModelProfile:
    """Return the members of a profile that a model's info in wire form has."""
    reported = {name: info[member] for name, member in _REPORTED.items() if info.get(member)}
    abilities = {name: bool(info[member]) for name, member in _REPORTED_ABILITIES.items() if member in info}
    return cast("ModelProfile", {**reported, **abilities, **reasoning_profile(info)})
