"""`request_timeout`, which other LlamaIndex integrations have in place of three timeouts here. Pure."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.errors import LMStudioValueError

_SILENCE_TIMEOUTS = ("queue_timeout", "first_token_timeout", "idle_timeout")
"""The meaning of `request_timeout` elsewhere: the longest silence of the server, not the duration of a call."""


def with_timeouts(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with our timeouts instead of `request_timeout`.

    Raises:
        LMStudioValueError: If one of those timeouts is set as well.
    """
    settings = dict(given)
    if "request_timeout" in settings:
        doubled = [name for name in _SILENCE_TIMEOUTS if name in settings]
        if doubled:
            raise LMStudioValueError(f"'request_timeout' is another name of {doubled[0]!r}; give one of them")
        settings |= dict.fromkeys(_SILENCE_TIMEOUTS, settings.pop("request_timeout"))
    return settings
