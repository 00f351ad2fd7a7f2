"""A model that is good at the row `reasoning`."""

from typing import Any

LONG_THOUGHT = "Let me think. " * 20

RULES: tuple[dict[str, Any], ...] = (
    {
        "when": {"last": "(A farmer has|Which number is larger|Tom is older|A train leaves)"},
        "then": [{"reasoning": LONG_THOUGHT}, {"text": "9"}],
    },
)
