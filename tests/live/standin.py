"""A scripted model that stands in for the model of a recording."""

from collections.abc import Sequence
from typing import Any

from lmstudio_integrations.cassettes.cassette import Interaction
from lmstudio_integrations.emulator import ModelEntry
from tools.probe.predicting import COUNT, PATTERN, STORY
from tools.probe.reasoning import THINK

RULES: tuple[dict[str, Any], ...] = (
    {"when": {"last": f"^{PATTERN}"}, "then": [{"text": PATTERN * 20}]},
    {"when": {"last": f"^{COUNT}"}, "then": [{"text": "one\ntwo\nthree"}]},
    {"when": {"last": f"^{STORY}"}, "then": [{"text": "Once upon a time"}, {"fault": "stall"}]},
    {"when": {"last": f"^{THINK}"}, "then": [{"reasoning": "\nA ferry.\n"}, {"text": "\n\nHello."}]},
    {"when": {"last": "^Is water wet"}, "then": [{"text": "yes"}]},
    {
        "when": {"last": "^What is the weather", "tools": ["get_weather"], "structured": False},
        "then": [{"tool": "get_weather", "arguments": {"city": "Oslo"}}],
    },
)
"""What any model is expected to do with the prompts of the probe."""

KEY = "acme/probed"
LOAD_SECONDS = 0.05
"""Enough that a load can be canceled."""


def entry(interactions: Sequence[Interaction] = ()) -> ModelEntry:
    """Return a model that looks like the first one that was loaded in a recording."""
    info = next((info for each in interactions if (info := _loaded(each))), None)
    if info is None:
        return ModelEntry(
            key=KEY, publisher="acme", path="acme/probed-GGUF/probed.gguf", load_seconds=LOAD_SECONDS, rules=RULES
        )
    return ModelEntry(
        key=info["modelKey"],
        publisher=info.get("publisher"),
        path=info["path"],
        vision=info.get("vision"),
        tools=info.get("trainedForToolUse"),
        max_context_length=info["maxContextLength"],
        load_seconds=LOAD_SECONDS,
        rules=RULES,
    )


def _loaded(interaction: Interaction) -> dict[str, Any] | None:
    if interaction.endpoint != "loadModel":
        return None
    return next((packet["info"] for packet in interaction.packets() if packet.get("type") == "success"), None)
