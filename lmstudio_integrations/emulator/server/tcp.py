"""How the server and the proxy listen and break off: the names of addresses, and the end."""

import asyncio
import contextlib
import errno
import logging
import socket
import struct
from typing import Any

logger: logging.Logger = logging.getLogger(__name__)

_TURNS_OF_ACCEPTING = 4
"""Turns of the event loop between accepting a socket and its handler."""

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of accepting a socket, after which the event loop tries again a second later."""


def netloc(host: str, port: int) -> str:
    """Return host and port as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reset(transport: asyncio.WriteTransport) -> None:
    """Close a connection with RST."""
    raw = transport.get_extra_info("socket")
    if raw is not None and not transport.is_closing():
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def note_exhaustion_once(loop: asyncio.AbstractEventLoop) -> None:
    """Log one line when no socket can be accepted; the event loop would log a traceback hundreds of times a second."""
    is_noted = False

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal is_noted
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES and "socket" in context):
            loop.default_exception_handler(context)
        elif not is_noted:
            is_noted = True
            text = "connections wait until others are closed (%s); allow more of them, for example with ulimit -n"
            logger.warning(text, error.strerror)

    loop.set_exception_handler(handle)


async def stop_accepting(server: asyncio.Server) -> None:
    """Accept no further sockets, and wait until each that was accepted has its handler. Close the server afterwards.

    If the server closed first, those sockets would stay open, and nobody would serve them (python/cpython#109564).
    """
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows, where accepting takes no turns
        for listening in server.sockets:
            loop.remove_reader(listening)
    for _ in range(_TURNS_OF_ACCEPTING):
        await asyncio.sleep(0)
