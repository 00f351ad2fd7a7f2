"""An emulator in a process of its own, which the tests of Ray start by its path: `python host.py SETTINGS`.

The settings are JSON: `slots`, `hold` (a regular expression), `together`. A prompt that
matches `hold` waits at a gate, until a test opens it or, with `together`, until as many wait as there are slots: if any
slot stayed free, nothing would end.

It prints its address, then a line of JSON for each line of its input, which ends it: `open` opens the gate.
"""

import asyncio
import json
import sys
from typing import Any

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine

GATE = 1000
"""Seconds of the step of a rule that waits at the gate."""


class Gate:
    """Holds up predictions."""

    def __init__(self, slots: int, *, together: bool) -> None:
        self.waiting = 0
        self.is_open = False
        self._slots, self._together = slots, together
        self._round = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Wait at the gate, or for some seconds."""
        if seconds < GATE:
            await asyncio.sleep(seconds)
            return
        self.waiting += 1
        if self._together and self.waiting == self._slots:
            self.release()
        if not self.is_open and (not self._together or self.waiting):
            await self._round.wait()

    def release(self) -> None:
        """Let those pass that wait now."""
        self._round.set()
        self._round = asyncio.Event()
        self.waiting = 0


def models(settings: dict[str, Any]) -> list[ModelEntry]:
    """Return a model of each kind. A structured prompt gets the smallest instance of its schema."""
    rules: list[dict[str, Any]] = [
        {"when": {"last": "^fail"}, "then": [{"error": "It went wrong"}]},
        {"when": {"last": settings.get("hold", "^$")}, "then": [{"wait": GATE}, {"text": "{last}"}]},
        {"when": {"last": "^ferry$"}, "then": [{"relevance": 1}]},
        {"when": {"structured": False}, "then": [{"text": "{last}"}]},
    ]
    chat = ModelEntry(key="chat", slots=settings.get("slots", 4), preload=True, rules=tuple(rules))
    return [chat, ModelEntry(key="vectors", kind="embedding", embedding_length=8, preload=True)]


def main() -> None:
    """Serve until the input ends."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    gate = Gate(settings.get("slots", 4), together=settings.get("together", False))
    engines = {"scripted": ScriptedEngine(gate.sleep)}
    with Emulator(models(settings), engines=engines, tokens=settings.get("tokens", ())) as emulator:
        print(emulator.address, flush=True)
        for line in sys.stdin:
            if line.strip() == "open":
                gate.is_open = True
                emulator._call(_released(gate))
            predictions = emulator.predictions
            state = {
                "waiting": gate.waiting,
                "started": [each.messages[-1]["content"] for each in predictions],
                "embedded": len(emulator.embedded_texts),
            }
            print(json.dumps(state), flush=True)


async def _released(gate: Gate) -> None:
    gate.release()


if __name__ == "__main__":
    main()
