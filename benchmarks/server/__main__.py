"""The scripted server: `python -m benchmarks.server` prints its port and serves until its input ends."""

import asyncio
import contextlib
import os
import sys

from benchmarks.server.connection import Connection
from benchmarks.server.play import Cancellations


async def serve() -> None:
    """Serve until the other end of the standard input goes."""
    loop, cancellations = asyncio.get_running_loop(), Cancellations()
    server = await loop.create_server(lambda: Connection(cancellations), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)  # what is still connected is nobody's concern


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
