"""Good at `speed`: stories that go on."""

from typing import Any

RULES: tuple[dict[str, Any], ...] = (
    {"when": {"last": "^Write a long story about these things"}, "then": [{"text": "Once upon a time, " * 20}]},
)
