"""WebSocket frames and HTTP chunks, as bytes (RFC 6455, RFC 9112): as much of them as a scripted server needs."""

import base64
import hashlib
from collections.abc import Iterator

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


def accept_key(key: str) -> str:
    """Return what proves to a client that its upgrade was understood."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()


def frame(payload: bytes, kind: int = TEXT) -> bytes:
    """Return one whole frame, from server to client."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | kind, length))
    elif length < 1 << 16:
        head = bytes((0x80 | kind, 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | kind, 127)) + length.to_bytes(8, "big")
    return head + payload


def chunk(payload: bytes) -> bytes:
    """Return one chunk of an HTTP body; the empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def received(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Split the received bytes into the client's complete frames: the opcode and the payload of each."""
    while len(buffer) >= 2:
        kind, size, start = buffer[0] & 0x0F, buffer[1] & 0x7F, 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big")
        end = start + 4 + size
        if len(buffer) < end:
            return
        mask, payload = bytes(buffer[start : start + 4]), bytes(buffer[start + 4 : end])
        del buffer[:end]
        yield kind, _unmasked(payload, mask)


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")).to_bytes(size, "big")
