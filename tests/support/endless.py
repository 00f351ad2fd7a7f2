"""The steps of a response that begins and never ends, however slow its reader is."""

from typing import Any

ENDLESS: list[dict[str, Any]] = [{"text": "on and on and on"}, {"fault": "stall"}]
