"""An emulator in a process of its own, and a bare asynchronous client for it.

`python -m benchmarks._process CATALOG` prints the address and serves until its input ends.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from lmstudio_integrations.emulator import Emulator

STACK: dict[str, Any] = {"layers": []}
STUCK_AFTER = 60.0
"""Seconds without a frame after which a channel counts as stuck."""


class StuckError(Exception):
    """A frame that must come did not."""


class Server:
    """A running server process."""

    def __init__(self, address: str, process: asyncio.subprocess.Process) -> None:
        self.address = address
        self._process = process

    @property
    def memory(self) -> int:
        """Bytes that the process has in memory (Linux only)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    @property
    def cpu_seconds(self) -> float:
        """Seconds of computing so far (Linux only)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


@asynccontextmanager
async def server(catalog: Path) -> AsyncIterator[Server]:
    """Run a server with a catalog."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks._process",
        str(catalog),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Server((await process.stdout.readline()).decode().strip(), process)
    finally:
        process.stdin.close()
        await process.wait()


class Line:
    """One socket; responses are matched by type and id."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.warnings = 0
        self._ids = count(1)
        self._waiting: dict[tuple[str, int], asyncio.Queue[dict[str, Any] | None]] = {}
        self._reader = asyncio.create_task(self._read())

    async def call(self, endpoint: str, parameter: Any = None) -> dict[str, Any]:
        """Call and return the response."""
        number = next(self._ids)
        queue = self._expect("callId", number)
        await self._send("rpcCall", endpoint, "callId", number, "parameter", parameter)
        return await self._next(queue)

    async def open(self, endpoint: str, parameter: Any = None) -> tuple[int, AsyncIterator[dict[str, Any]]]:
        """Open a channel; return its number and its frames up to the last."""
        number = next(self._ids)
        queue = self._expect("channelId", number)
        await self._send("channelCreate", endpoint, "channelId", number, "creationParameter", parameter)
        return number, self._frames(queue)

    async def cancel(self, number: int) -> None:
        """Cancel a channel."""
        await self.socket.send(json.dumps({"type": "channelSend", "channelId": number, "message": {"type": "cancel"}}))

    async def close(self) -> None:
        """Close the socket."""
        self._reader.cancel()
        await self.socket.close()

    def _expect(self, kind: str, number: int) -> "asyncio.Queue[dict[str, Any] | None]":
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._waiting[kind, number] = queue
        return queue

    async def _send(self, kind: str, endpoint: str, name: str, number: int, member: str, parameter: Any) -> None:
        frame = {"type": kind, "endpoint": endpoint, name: number}
        await self.socket.send(json.dumps(frame if parameter is None else frame | {member: parameter}))

    async def _frames(self, queue: "asyncio.Queue[dict[str, Any] | None]") -> AsyncIterator[dict[str, Any]]:
        while True:
            frame = await self._next(queue)
            yield frame
            if frame["type"] != "channelSend":
                return

    async def _next(self, queue: "asyncio.Queue[dict[str, Any] | None]") -> dict[str, Any]:
        try:
            frame = await asyncio.wait_for(queue.get(), STUCK_AFTER)
        except TimeoutError as error:
            raise StuckError(f"nothing came for {STUCK_AFTER} s") from error
        if frame is None:
            raise ConnectionError("the socket is gone")
        return frame

    async def _read(self) -> None:
        try:
            async for data in self.socket:
                self._sort(data)
        finally:
            for queue in self._waiting.values():
                queue.put_nowait(None)

    def _sort(self, data: str | bytes) -> None:
        try:
            frame = json.loads(data)
        except ValueError:
            return  # a fault that was ordered
        if frame["type"] == "communicationWarning":
            self.warnings += 1
            return
        kind = "callId" if "callId" in frame else "channelId"
        key = kind, frame[kind]
        self._waiting[key].put_nowait(frame)
        if frame["type"] != "channelSend":
            del self._waiting[key]


@asynccontextmanager
async def line(address: str, namespace: str, client: str) -> AsyncIterator[Line]:
    """Open a socket and authenticate."""
    async with connect(f"ws://{address}/{namespace}", compression=None, max_size=None, ping_interval=None) as socket:
        await socket.send(json.dumps({"authVersion": 1, "clientIdentifier": client, "clientPasskey": client}))
        assert json.loads(await socket.recv()) == {"success": True}
        opened = Line(socket)
        try:
            yield opened
        finally:
            await opened.close()


def predict_parameter(model: str, text: str) -> dict[str, Any]:
    """Return what opens a prediction."""
    return {
        "modelSpecifier": {"type": "query", "query": {"identifier": model}},
        "history": {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]},
        "predictionConfigStack": STACK,
    }


def main() -> None:
    """Serve until the input ends."""
    with Emulator(catalog=sys.argv[1]) as emulator:
        print(emulator.address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
