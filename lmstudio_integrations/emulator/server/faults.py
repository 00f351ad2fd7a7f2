"""What the faults of scripted models do to a connection. A rule decides when: `engines/scripted/playback.py`."""

from lmstudio_integrations.emulator.engines.base import FaultKind
from lmstudio_integrations.emulator.server.sockets import Socket
from lmstudio_integrations.protocol import envelope

TRUNCATED = '{"type":"channelSend",'
"""The beginning of a frame."""

UNKNOWN = '{"type":"unheardOf","info":1}'
"""A packet of a type that does not exist."""


def inject(kind: FaultKind, socket: Socket, channel_id: int) -> None:
    """Break the connection, or send on it what no server sends."""
    match kind:
        case "drop":
            socket.reset()
        case "half_close":
            socket.half_close()
        case "corrupt":
            socket.write([TRUNCATED])
        case "unknown_packet":
            socket.write([envelope.channel_send(channel_id, UNKNOWN)])
