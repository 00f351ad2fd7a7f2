"""A name that other LlamaIndex integrations have for what is three settings here. Pure."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.errors import LMStudioValueError

_SILENCES = ("queue_timeout", "first_token_timeout", "idle_timeout")
"""What `request_timeout` means elsewhere: the longest silence of the server, not the length of a call."""


def with_timeouts(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with our timeouts in the place of `request_timeout`.

    Raises:
        LMStudioValueError: If one of those timeouts is set as well.
    """
    settings = dict(given)
    if "request_timeout" in settings:
        doubled = [name for name in _SILENCES if name in settings]
        if doubled:
            raise LMStudioValueError(f"'request_timeout' is another name of {doubled[0]!r}; give one of them")
        settings |= dict.fromkeys(_SILENCES, settings.pop("request_timeout"))
    return settings
