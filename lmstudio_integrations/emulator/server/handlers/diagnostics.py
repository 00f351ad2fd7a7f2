"""The log as a stream (docs/protocol.md#diagnostics-endpoints)."""

import asyncio
from typing import Any

from lmstudio_integrations.emulator.server.context import Context, OpenChannel


async def stream_logs(context: Context, channel: OpenChannel, _parameter: None) -> None:
    """Send each new entry of the log, until the client cancels or disconnects."""

    def send(entry: dict[str, Any]) -> None:
        channel.send({"type": "log", "log": entry})

    with channel.scope:
        context.state.log_listeners.append(send)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            context.state.log_listeners.remove(send)
