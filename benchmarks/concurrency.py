"""Many connections and many open predictions at once on one emulator: `python -m benchmarks.concurrency`.

Client and server have processes of their own. Every fragment is checked: none may be lost, doubled or out of order.
One client reads nothing while all others are served, and must find everything when it does.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.environment import Process
from benchmarks.programs.native import AUTH, predict
from lmstudio_integrations.emulator import Emulator, ModelEntry

ECHO = ({"then": [{"text": "{last}"}]},)
MODELS = (
    ModelEntry(key="steady", preload=True, slots=1023, tokens_per_second=10, rules=ECHO),
    ModelEntry(key="fast", preload=True, context_length=100_000, max_context_length=100_000, rules=ECHO),
)
"""A model that writes slowly, and one that writes as fast as it can."""

LAZY_WORDS = 20_000


def _text(words: int) -> str:
    return " ".join(f"w{number}" for number in range(words))


def _cpu_seconds(process: Process) -> float:
    """Return the seconds of computing of a process so far (Linux only)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def _open(address: str) -> ClientConnection:
    socket = await connect(f"ws://{address}/llm", compression=None, max_size=None, ping_interval=None)
    await socket.send(AUTH)
    await socket.recv()
    return socket


async def _read(socket: ClientConnection, channels: int) -> tuple[list[str], float, float]:
    """Return the texts on the channels of a socket, and the times of the last beginning and of the first end."""
    texts, begun, ended = [""] * channels, dict[int, float](), list[float]()
    while len(ended) < channels:
        frame = json.loads(await socket.recv())
        message = frame.get("message", {"type": frame["type"]})
        if message["type"] == "fragment":
            begun.setdefault(frame["channelId"], time.perf_counter())
            texts[frame["channelId"]] += message["fragment"]["content"]
        elif message["type"] in {"channelClose", "channelError", "communicationWarning"}:
            ended.append(time.perf_counter())
    return texts, max(begun.values()), min(ended)


async def compare(server: Process, connections: int, each: int, words: int) -> int:
    """Make the predictions and print what became of them; return the status of the process."""
    address = server.read()
    sockets = [await _open(address) for _ in range(connections)]
    lazy = await _open(address)
    lazy.transport.pause_reading()
    await lazy.send(predict("fast", 0, _text(LAZY_WORDS)))
    started, cpu = time.perf_counter(), _cpu_seconds(server)
    for socket in sockets:
        for channel in range(each):
            await socket.send(predict("steady", channel, _text(words)))
    read = await asyncio.gather(*(_read(socket, each) for socket in sockets))
    seconds, cpu = time.perf_counter() - started, _cpu_seconds(server) - cpu
    lazy.transport.resume_reading()
    (lazy_text,), _, _ = await _read(lazy, 1)
    for socket in (*sockets, lazy):
        await socket.close()
    total = connections * each
    lost = sum(text != _text(words) for texts, _, _ in read for text in texts)
    at_once = max(begun for _, begun, _ in read) < min(ended for _, _, ended in read)
    print(f"predictions                 {total} on {connections} connections, {'' if at_once else 'not '}all at once")
    print(f"words                       {total * words} in {seconds:.1f} s")
    print(f"server's computing time     {cpu:.1f} s, {cpu / total / words * 1e6:.0f} µs a word")
    print(f"responses with a gap        {lost}")
    print(f"the slow reader's response  {'complete' if lazy_text == _text(LAZY_WORDS) else 'has a gap'}")
    return int(lost > 0 or lazy_text != _text(LAZY_WORDS) or not at_once)


def main() -> int:
    """Compare, or be the server."""
    if sys.argv[1:] == ["server"]:
        with Emulator(MODELS) as emulator:
            print(emulator.address, flush=True)
            sys.stdin.read()
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--each", type=int, default=2, help="predictions per connection")
    parser.add_argument("--words", type=int, default=50, help="per prediction")
    arguments = parser.parse_args()
    with Process(sys.executable, "benchmarks.concurrency", "server") as server:
        return asyncio.run(compare(server, arguments.connections, arguments.each, arguments.words))


if __name__ == "__main__":
    sys.exit(main())
