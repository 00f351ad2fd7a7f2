"""A model that is good at the row `vision`."""

from typing import Any

RULES: tuple[dict[str, Any], ...] = tuple(
    {"when": {"last": rf"Image {number}\.", "image": True}, "then": [{"text": f"{color}."}]}
    for number, color in enumerate(("Red", "Green", "Blue", "Yellow"), 1)
)
