"""The log as a stream (protocol §4.8)."""

import asyncio
from typing import Any

from lmstudio_integrations.emulator.context import Channel, Context


async def stream_logs(context: Context, channel: Channel, _parameter: None) -> None:
    """Send each entry of the log from now on, until the client asks to stop or goes."""

    def listen(entry: dict[str, Any]) -> None:
        channel.send({"type": "log", "log": entry})

    with channel.scope:
        context.state.logs.add(listen)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            context.state.logs.remove(listen)
