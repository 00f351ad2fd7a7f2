"""The timeouts of a client and of its calls. Their names, defaults and meaning: `types/timeouts.py`."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.client.support.arguments import seconds_of
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.types.timeouts import ModelTimeouts

TIMEOUTS: Timeouts = {name: field.default for name, field in ModelTimeouts.model_fields.items()}
"""The default timeouts in seconds."""


def checked_timeouts(parameters: Mapping[str, Any]) -> Timeouts:
    """Return the timeouts among keyword arguments.

    Raises:
        LMStudioValueError: If a timeout is not positive.
    """
    if TIMEOUTS.keys().isdisjoint(parameters):
        return {}
    return {name: seconds_of(parameters[name], name) for name in TIMEOUTS if name in parameters}
