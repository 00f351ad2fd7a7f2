"""A model that is good at the row `structure`: without a rule, a scripted model writes the shortest instance."""

from typing import Any

RULES: tuple[dict[str, Any], ...] = ()
