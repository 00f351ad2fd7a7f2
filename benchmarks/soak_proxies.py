"""The other side of the client's soak, in a process of its own: a server that restarts, behind proxies that misbehave.

`python -m benchmarks.soak_proxies SEED` prints the proxies' addresses, and serves until its input ends.
"""

import asyncio
import contextlib
import random
import sys
import threading
from contextlib import ExitStack
from typing import Any

from websockets.frames import CloseCode

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.testing.actions import (
    DEAD,
    NOISE,
    after,
    before,
    black_hole,
    close,
    corrupt,
    cut,
    delay,
    drip,
    finish,
    fragment,
    frames,
    half_close,
    lose,
    mask,
    replace,
    reset,
    without_content,
)
from lmstudio_integrations.emulator.testing.proxy import Action, ProxiedConnection, Proxy, ProxyThread, forward
from lmstudio_integrations.emulator.testing.wire_items import WireItem
from lmstudio_integrations.errors import LMStudioModelLoadError
from tests.faults.surfaces import DIMENSIONS

PROXIES = 6
CHAT_MODELS, EMBEDDING_MODELS = ("chat-0", "chat-1"), ("vectors-0", "vectors-1")

STEP = 1.0
"""Seconds after which a model is unloaded."""

_REJECT_EVERY, _RESTART_EVERY = 5, 20
"""Steps after which a port rejects connections for one step, and the server restarts without its models."""

_FROZEN = 2.0
"""Seconds after which a frozen host thaws, at the latest."""

_PROBABILITY = 0.01
"""Of a fault, at each point of each conversation."""


async def _freeze(connection: ProxiedConnection, item: WireItem) -> None:
    """Freeze the host for a time; what was on its way arrives when it thaws."""
    connection.proxy.thawed.clear()
    asyncio.get_running_loop().call_later(_FROZEN, connection.proxy.thawed.set)
    await connection.proxy.thawed.wait()
    await forward(connection, item)


_BREAK: tuple[Action, ...] = (
    reset,
    finish,
    cut(reset),
    cut(finish),
    cut(DEAD),
    DEAD,
    black_hole("client"),
    black_hole("server"),
    _freeze,
)
_OF_FRAMES: tuple[Action, ...] = (
    *_BREAK,
    half_close,
    corrupt(0, 0x83),
    mask,
    drip,
    delay(0.05),
    fragment,
    before(frames(*NOISE)),
    close(CloseCode.GOING_AWAY),
    close(CloseCode.INTERNAL_ERROR),
    close(CloseCode.GOING_AWAY, and_hang=True),
    after(reset),
    after(finish),
)
FAULTS: dict[str, tuple[Action, ...]] = {
    "accept": (reset, finish, _freeze),
    "upgrade": (*_BREAK, lose),
    "response head": (*_BREAK, drip, lose),
    "authentication": (*_OF_FRAMES, lose, replace(lambda _: {"success": False, "error": "Not now"})),
    "load middle packet": (*_OF_FRAMES, lose),
    "load last packet": (*_OF_FRAMES, lose, replace(without_content)),
    "request": (*_BREAK, lose),
    "first packet": (*_OF_FRAMES, replace(without_content)),
    "middle packet": (*_OF_FRAMES, replace(without_content)),
    "last packet": (*_OF_FRAMES, replace(without_content)),
    "end": (*_OF_FRAMES, lose),
}
"""The faults at each point, except those that no client can notice: a lost or duplicated fragment."""


class MisbehavingProxy(Proxy):
    """A proxy that injects a fault now and then."""

    def __init__(self, thread: ProxyThread, upstream: str, dice: random.Random) -> None:
        super().__init__(thread, upstream)
        self._dice = dice

    def consume(self, item: WireItem) -> Action | None:
        """Return a fault, or nothing."""
        for point in sorted(item.points & FAULTS.keys()):
            if self._dice.random() < _PROBABILITY:
                return self._dice.choice(FAULTS[point])
        return None


def _models() -> list[dict[str, Any]]:
    echo = [{"then": [{"text": "{last}"}]}]
    return [
        *({"key": key, "rules": echo, "slots": 16, "load_seconds": 0.02} for key in CHAT_MODELS),
        *({"key": key, "kind": "embedding", "embedding_length": DIMENSIONS} for key in EMBEDDING_MODELS),
    ]


class _Host:
    """The server and its proxies."""

    def __init__(self, thread: ProxyThread, dice: random.Random) -> None:
        self._dice = dice
        self._server = Emulator(_models(), auto_evict=False).start()
        seeds = [dice.getrandbits(32) for _ in range(PROXIES)]
        self.proxies = [MisbehavingProxy(thread, self._server.address, random.Random(seed)) for seed in seeds]

    def restart(self) -> None:
        """Put a new server in the place of the old one."""
        old, self._server = self._server, Emulator(_models(), auto_evict=False).start()
        for proxy in self.proxies:
            proxy.upstream = self._server.address
        old.stop()

    def unload(self) -> None:
        """Unload a model, as somebody at the server does."""
        with contextlib.suppress(LMStudioModelLoadError):  # it may have been unloaded meanwhile
            self._server.unload(self._dice.choice([*CHAT_MODELS, *EMBEDDING_MODELS]))

    def reject(self) -> None:
        """Let one port reject connections."""
        self._dice.choice(self.proxies).reject_connections()

    def accept(self) -> None:
        """Let all ports accept connections."""
        for proxy in self.proxies:
            proxy.heal()

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()


def _wait_for_the_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def main() -> None:
    """Serve until the input ends."""
    ended = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(ended,), daemon=True).start()
    with ProxyThread() as thread, ExitStack() as stack:
        host = _Host(thread, random.Random(int(sys.argv[1])))
        stack.callback(host.stop)
        for proxy in host.proxies:
            stack.enter_context(proxy)
        print(*(proxy.address for proxy in host.proxies), flush=True)
        step = 0
        while not ended.wait(STEP):
            step += 1
            host.unload()
            host.accept()
            if step % _REJECT_EVERY == 0:
                host.reject()
            if step % _RESTART_EVERY == 0:
                host.restart()


if __name__ == "__main__":
    main()
