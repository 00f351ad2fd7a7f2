"""The timeouts and the interval of pings: one row for each, with its name, default, description and error.

The client's keyword arguments and the adapters' `timeouts` follow from the rows; `config_dicts.py` is made of them.
`protocol/exchange.py` decides which one runs.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from lmstudio_integrations.types._numbers import Seconds


@dataclass(frozen=True, slots=True)
class Expiry:
    """What it means that a timeout has expired.

    Attributes:
        cause: What has happened; `{peer}` is the server.
        remedy: What helps. By default, only more time does.
    """

    cause: str = "nothing was received from the server"
    remedy: str = "raise {name}, or set it to None"


class ModelTimeouts(BaseModel):
    """The timeouts of calls. Those of the last two are calls of a model."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True)

    connect_timeout: Annotated[
        Seconds | None,
        Field(
            description="Seconds to wait for the server to accept a connection or to respond to a ping. The default is "
            "5; `None` waits forever."
        ),
        Expiry("{peer} does not respond", "check its address, its port and the firewall, or raise {name}"),
    ] = 5.0
    load_timeout: Annotated[
        Seconds | None,
        Field(
            description="Seconds to wait for progress while the model loads. The default is 300; `None` waits forever."
        ),
        Expiry(),
    ] = 300.0
    idle_timeout: Annotated[
        Seconds | None,
        Field(
            description="Seconds to wait for the next packet of a response, or the result of a call that waits in no "
            "queue. The default is 60; `None` waits forever."
        ),
        Expiry(),
    ] = 60.0
    total_timeout: Annotated[
        Seconds | None,
        Field(description="Seconds that the whole call may take. No limit by default."),
        Expiry("it took too long in total"),
    ] = None
    keepalive: Annotated[
        Seconds | None,
        Field(
            description="Ping the server after this many seconds of silence. The default is 20; `None` sends no pings. "
            "The calls of a dead connection fail at once; those of a frozen server end by their timeouts."
        ),
    ] = 20.0
    queue_timeout: Annotated[
        Seconds | None,
        Field(
            description="Seconds to wait in the model's queue, until the first packet, or until the result of an "
            "embedding or of the tokens of a text. Starts again whenever the queue moves. Under `load_policy='fit'`, a "
            "load does not wait for requests of a model that it would evict: it fails with an "
            "`LMStudioInsufficientResourcesError`, which a retry can help. The default is 600; `None` waits forever."
        ),
        Expiry("the server has not begun to work on it"),
    ] = 600.0
    first_token_timeout: Annotated[
        Seconds | None,
        Field(
            description="Seconds to wait for progress while the prompt is processed. The default is 300; `None` waits "
            "forever."
        ),
        Expiry(remedy="shorten the prompt, raise {name}, or set it to None"),
    ] = 300.0


EXPIRIES = {
    name: replace(item, remedy=item.remedy.format(name=name))
    for name, field in ModelTimeouts.model_fields.items()
    for item in field.metadata
    if isinstance(item, Expiry)
}
"""What it means that a timeout has expired, by its name."""

SILENCE_TIMEOUTS = tuple(name for name in EXPIRIES if name != "total_timeout")
"""The limits of a silence of the server: each phase of a call has one."""
