"""Mixed load with random faults, for minutes: `python -m benchmarks.soak client --minutes 10`.

`client` soaks the client and the adapters, behind proxies that misbehave: see `soak_client.py`.

`server` soaks the emulator: many bare clients do what clients do, well and badly, against a server in a process of its
own. In the end nothing may be stuck, the server must be idle, and its memory must have stayed flat.
"""

import argparse
import asyncio
import base64
import contextlib
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from benchmarks import soak_client
from benchmarks._process import STACK, Line, Server, StuckError, line, predict_parameter, server

CATALOG = Path(__file__).with_suffix(".toml")
CLIENTS = 24
GROWTH_ALLOWED = 8 * 1024 * 1024
"""Bytes by which the last quarter of the run may need more than the second; the first warms up."""

Deed = Callable[[str, str, random.Random], Awaitable[None]]


async def ends_of(frames: AsyncIterator[dict[str, Any]]) -> tuple[str, str | None]:
    """Return the kind of the last frame of a channel, and of the last packet before it."""
    kind, packet = "", None
    async for frame in frames:
        kind = frame["type"]
        if kind == "channelSend":
            packet = frame["message"]["type"]
    return kind, packet


async def predict(address: str, client: str, dice: random.Random) -> None:
    """Request responses of all kinds, several at once."""
    async with line(address, "llm", client) as me:
        words = ["hello", "tool", "error", "odd"]
        opened = [
            await me.open("predict", predict_parameter("chat", dice.choice(words))) for _ in range(dice.randint(1, 5))
        ]
        for end in await asyncio.gather(*(ends_of(frames) for _, frames in opened)):
            assert end in {("channelClose", "success"), ("channelError", "fragment")}, end


async def cancel(address: str, client: str, dice: random.Random) -> None:
    """Cancel a response somewhere."""
    async with line(address, "llm", client) as me:
        number, frames = await me.open("predict", predict_parameter("chat", dice.choice(["stall", "hello " * 50])))
        for _ in range(dice.randint(0, 3)):
            await anext(frames)
        await me.cancel(number)
        assert (await ends_of(frames))[0] == "channelClose"


async def disconnect(address: str, client: str, dice: random.Random) -> None:
    """Disconnect in the middle of responses, with others still in the queue."""
    async with line(address, "llm", client) as me:
        for _ in range(dice.randint(1, 30)):
            _, frames = await me.open("predict", predict_parameter("chat", "stall"))
        if dice.random() < 0.5:
            me.socket.transport.abort()
        del frames


async def suffer(address: str, client: str, dice: random.Random) -> None:
    """Request a response during which the connection breaks."""
    async with line(address, "llm", client) as me:
        _, frames = await me.open("predict", predict_parameter("chat", dice.choice(["drop", "half", "corrupt"])))
        with contextlib.suppress(ConnectionClosed, ConnectionError):
            await ends_of(frames)


async def load(address: str, client: str, dice: random.Random) -> None:
    """Load just in time or on purpose, use it, unload it, while others evict it."""
    async with line(address, "llm", client) as me:
        if dice.random() < 0.5:
            _, frames = await me.open("getOrLoad", {"identifier": "brief", "loadTtlMs": 50, "loadConfigStack": STACK})
        else:
            _, frames = await me.open("loadModel", {"modelKey": "brief", "ttlMs": 50, "loadConfigStack": STACK})
        assert (await ends_of(frames))[0] == "channelClose"
        await ends_of((await me.open("predict", predict_parameter("brief", "hello")))[1])
        await me.call("unloadModel", {"identifier": "brief"})


async def crash(address: str, client: str, dice: random.Random) -> None:
    """Use a model that crashes."""
    async with line(address, "llm", client) as me:
        await ends_of((await me.open("getOrLoad", {"identifier": "fragile", "loadConfigStack": STACK}))[1])
        assert (await ends_of((await me.open("predict", predict_parameter("fragile", "x")))[1]))[0] in {
            "channelError",
            "channelClose",
        }


async def give_up(address: str, client: str, dice: random.Random) -> None:
    """Stop a load that does not come forward."""
    async with line(address, "llm", client) as me:
        number, frames = await me.open("loadModel", {"modelKey": "stuck", "loadConfigStack": STACK})
        await anext(frames)
        if dice.random() < 0.5:
            await me.cancel(number)
            assert (await ends_of(frames))[0] == "channelError"


async def embed(address: str, client: str, dice: random.Random) -> None:
    """Request many vectors at once."""
    async with line(address, "embedding", client) as me:
        specifier = {"type": "query", "query": {"identifier": "vectors"}}
        parameter = {"modelSpecifier": specifier, "inputString": "some words " * dice.randint(1, 50)}
        responses = await asyncio.gather(*(me.call("embedString", parameter) for _ in range(20)))
        assert all(len(response["result"]["embedding"]) == 768 for response in responses)


async def upload(address: str, client: str, dice: random.Random) -> None:
    """Upload files and forget them."""
    async with line(address, "files", client) as me:
        content = base64.b64encode(dice.randbytes(200_000)).decode()
        for _ in range(3):
            await me.call("uploadFileBase64", {"name": "a.png", "contentBase64": content})


async def talk_nonsense(address: str, client: str, dice: random.Random) -> None:
    """Send frames that make no sense."""
    async with line(address, "llm", client) as me:
        for _ in range(20):
            await me.socket.send(dice.choice(["{", "[]", '{"type":"rpcCall"}', '{"type":"channelSend","channelId":9}']))
        await me.socket.send('{"type":"rpcCall","endpoint":"noSuchEndpoint","callId":99}')
        assert (await me.call("listLoaded"))["type"] == "rpcResult"


DEEDS: dict[Deed, int] = {
    predict: 10,
    cancel: 5,
    disconnect: 3,
    suffer: 3,
    load: 4,
    crash: 2,
    give_up: 2,
    embed: 3,
    upload: 2,
    talk_nonsense: 1,
}
"""What clients do, and how often in proportion."""


async def live(address: str, name: str, dice: random.Random, until: float, done: Counter[str]) -> None:
    """Do one thing after the other."""
    while time.monotonic() < until:
        (deed,) = dice.choices(list(DEEDS), list(DEEDS.values()))
        await deed(address, f"guest:{name}:{dice.getrandbits(32)}", dice)
        done[deed.__name__] += 1


async def watch(process: Server, until: float) -> list[int]:
    """Return the server's memory over time."""
    samples: list[int] = []
    while time.monotonic() < until:
        samples.append(process.memory)
        await asyncio.sleep(1)
    return samples


async def is_idle(me: Line) -> bool:
    """Return whether the server has nothing to do."""
    specifier = {"type": "query", "query": {"identifier": "chat"}}
    response = await me.call("getInstanceProcessingState", {"specifier": specifier, "throwIfNotFound": True})
    return bool(response["result"] == {"status": "idle", "queued": 0})


def main() -> int:
    """Run the soak; return the status of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["client", "server"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    if arguments.side == "client":
        return soak_client.run(arguments.minutes, arguments.seed)
    return asyncio.run(soak_server(arguments.minutes, arguments.seed))


async def soak_server(minutes: float, seed: int) -> int:
    """Soak the emulator; return the status of the process."""
    done: Counter[str] = Counter()
    async with server(CATALOG) as process:
        until = time.monotonic() + minutes * 60
        lives = [
            live(process.address, str(number), random.Random(seed + number), until, done) for number in range(CLIENTS)
        ]
        watching = asyncio.create_task(watch(process, until))
        failures = [result for result in await asyncio.gather(*lives, return_exceptions=True) if result is not None]
        memory = await watching
        async with line(process.address, "llm", "guest:last") as me:
            idle = await is_idle(me)
    return report(seed, done, failures, memory, idle=idle)


def report(seed: int, done: Counter[str], failures: list[BaseException], memory: list[int], *, idle: bool) -> int:
    """Print what happened; return 0 if all was well."""
    quarter = max(len(memory) // 4, 1)
    before, after = statistics.mean(memory[quarter : 2 * quarter] or memory), statistics.mean(memory[-quarter:])
    stuck = sum(isinstance(failure, StuckError) for failure in failures)
    for name, count in sorted(done.items()):
        print(f"{name:14} {count}")
    for failure in failures:
        print(f"failed         {failure!r}")
    print(f"seed           {seed}")
    print(f"stuck          {stuck}")
    print(f"idle at end    {'yes' if idle else 'no'}")
    print(f"memory         {before / 2**20:.1f} MB in the second quarter, {after / 2**20:.1f} MB in the last")
    return int(bool(failures) or not idle or after - before > GROWTH_ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
