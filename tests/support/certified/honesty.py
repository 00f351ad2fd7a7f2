"""A model that is good at the row `honesty`: its text has nothing that a penalty could keep it from repeating."""

from typing import Any

RULES: tuple[dict[str, Any], ...] = (
    {
        "when": {"last": "A text"},
        "then": [
            {"text": " seven quick wizards quote old physics books while a lazy fox jumps over my brown dog at night"}
        ],
    },
)
