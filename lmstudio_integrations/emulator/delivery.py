"""How a replayed server gets to know whether its responses reach their clients: by the pongs of WebSocket.

The server sends a ping after a response, whose pong says that all before it has arrived. A proxy with faults sends such
a pong once it has forwarded a response, or one that says that it will not. Other servers ignore the pongs, as they have
not asked for them (RFC 6455, section 5.5.3).
"""

import re
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["call", "channel"]

_FORM = re.compile(r"lmsi (lost|arrived) (call|channel) (\d+)")


class Delivery(NamedTuple):
    """Whether a response has arrived.

    Attributes:
        kind: What it is the response to.
        number: The number of that on its connection.
        has_arrived: Whether it has arrived, instead of being lost.
    """

    kind: Kind
    number: int
    has_arrived: bool = True

    def to_bytes(self) -> bytes:
        """Return the content of the pong."""
        return f"lmsi {'arrived' if self.has_arrived else 'lost'} {self.kind} {self.number}".encode()

    @classmethod
    def parse(cls, data: bytes) -> "Delivery | None":
        """Return what a pong says; `None` if it is another one."""
        match = _FORM.fullmatch(data.decode("latin-1"))
        if match is None:
            return None
        kind: Kind = "call" if match[2] == "call" else "channel"
        return cls(kind, int(match[3]), match[1] == "arrived")
