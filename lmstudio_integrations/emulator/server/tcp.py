"""How the server and the proxy listen and break off: the names of addresses, and the end."""

import asyncio
import contextlib
import socket
import struct

_TURNS_OF_ACCEPTING = 4
"""Turns of the event loop between accepting a socket and its handler."""


def netloc(host: str, port: int) -> str:
    """Return host and port as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reset(transport: asyncio.WriteTransport) -> None:
    """Close a connection with RST."""
    raw = transport.get_extra_info("socket")
    if raw is not None and not transport.is_closing():
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


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
