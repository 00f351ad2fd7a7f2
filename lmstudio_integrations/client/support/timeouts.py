"""The timeouts of a client and of its calls."""

from collections.abc import Mapping
from typing import Any, TypedDict

from lmstudio_integrations.client.support.arguments import seconds_of
from lmstudio_integrations.protocol.exchange import Timeouts

TIMEOUTS: Timeouts = {
    "connect_timeout": 5.0,
    "load_timeout": 300.0,
    "queue_timeout": 600.0,
    "first_token_timeout": 300.0,
    "idle_timeout": 60.0,
    "timeout": None,
    "keepalive": 20.0,
}
"""The default timeouts in seconds."""


class TimeoutParameters(TypedDict, total=False):
    """How many seconds to wait; `None` waits forever.

    Attributes:
        connect_timeout: For the server to accept a connection or to respond to a ping. The default is 5.
        load_timeout: For progress while a model loads. The default is 300.
        queue_timeout: In the model's queue, until the first packet. Starts again whenever the queue moves, and also
            limits the wait for a model that this one would evict. The default is 600.
        first_token_timeout: For progress while the prompt is processed. The default is 300.
        idle_timeout: For the next packet of a response, or the result of another call. The default is 60.
        timeout: For the whole call. There is no limit by default.
        keepalive: Ping the server after this many seconds of silence. The default is 20; `None` sends no pings. The
            calls of a dead connection fail at once; those of a frozen server end by their timeouts.
    """

    connect_timeout: float | None
    load_timeout: float | None
    queue_timeout: float | None
    first_token_timeout: float | None
    idle_timeout: float | None
    timeout: float | None
    keepalive: float | None


def checked_timeouts(parameters: Mapping[str, Any]) -> Timeouts:
    """Return the timeouts among keyword arguments.

    Raises:
        LMStudioValueError: If a timeout is not positive.
    """
    if TIMEOUTS.keys().isdisjoint(parameters):
        return {}
    return {name: seconds_of(parameters[name], name) for name in TIMEOUTS if name in parameters}
