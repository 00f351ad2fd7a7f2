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
    """The timeouts in seconds; `None` switches one off.

    Attributes:
        connect_timeout: Until the server accepts the client, or answers a ping after a silence.
        load_timeout: Between two progress packets while a model loads.
        queue_timeout: From the request to its first packet, for predictions, embeddings and token counts. It restarts
            whenever the queue of the model instance moves. Also the wait for a model that this one would evict.
        first_token_timeout: Between two progress packets while the prompt is processed.
        idle_timeout: Between two packets of a response, and for the response to any other call.
        timeout: For the whole call.
        keepalive: Ping the server after this many seconds of silence. If the connection is dead and a new one can be
            made, it is replaced, and its calls fail immediately. If the server is frozen, calls end by their timeouts.
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
