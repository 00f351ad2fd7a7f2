"""Where the WebSocket frames are in received bytes (RFC 6455, section 5.2). Pure.

`websocket.py` cuts out the messages by itself, because the `websockets` library needs ten calls for each.
"""

import math

MESSAGES = (0x81, 0x82)
"""The first byte of a text or binary message that is one frame, without extensions."""

MASKED = 0x80
"""The bit of the second byte that servers must not set."""

_TWO_BYTES = 126
"""In the second byte: the length of the payload is the two bytes after it; with 127, the eight bytes."""


def frames(data: bytes | bytearray, max_size: float = math.inf) -> tuple[list[tuple[int, int, int]], bool]:
    """Return where the complete frames at the beginning of the data start, where their payloads start, and their ends.

    Args:
        data: Received bytes; a frame begins at the first.
        max_size: The largest payload.

    Returns:
        The frames; and whether the next one has a payload that is larger, complete or not.
    """
    complete: list[tuple[int, int, int]] = []
    start, size = 0, len(data)
    while size - start >= 2:
        second, payload = data[start + 1], start + 2
        length = second & ~MASKED
        if length >= _TWO_BYTES:
            payload += 2 if length == _TWO_BYTES else 8
            length = int.from_bytes(data[start + 2 : payload])  # cut off only if `payload` is beyond the data, too
        if length > max_size:
            return complete, True
        if second >= MASKED:
            payload += 4
        end = payload + length
        if end > size:
            break
        complete.append((start, payload, end))
        start = end
    return complete, False
