"""Every interface of the package, for minutes, through proxies that misbehave: `python -m benchmarks.soak`.

Each caller makes the server repeat a text that nobody else sends, and compares. The server and its proxies are those of
`soak_proxies.py`, in a process of their own. The result is a block of Markdown for `docs/internals/reliability.md`.
"""

import argparse
import faulthandler
import gc
import random
import statistics
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environment import Process
from benchmarks.soak_proxies import CHAT_MODELS, EMBEDDING_MODELS
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioError, LMStudioTimeoutError, LMStudioUnreachableError
from tests.faults.surfaces import SURFACES, TIMEOUT_NAMES, Kind, Subject, Surface, expected, joined

_SURFACES = [surface for surface in SURFACES if surface.kind != "reranker"]
"""The interfaces whose responses repeat a text."""

CALLERS = 36
"""Threads that make calls; each has one interface, and shares a proxy, hence its sockets, with five others."""

STUCK_AFTER = 60.0
"""Seconds after which a call counts as stuck; its own limits end it far earlier."""

_LIMITS = {
    "connect_timeout": 1.0,
    "load_timeout": 2.0,
    "queue_timeout": 2.0,
    "first_token_timeout": 2.0,
    "idle_timeout": 1.0,
    "timeout": 15.0,
}
TIMEOUTS = {name: seconds for name, seconds in _LIMITS.items() if name in TIMEOUT_NAMES}

GROWTH_ALLOWED = 16 * 1024 * 1024
"""Bytes by which the last quarter of the run may need more than the second; the first warms up."""

_CLOSING = 20.0
"""Seconds in which sockets must have closed once their clients have."""

_RENEWED, _STOPPED = 0.02, 0.05
"""Probabilities that a caller begins with a new client, and that it stops reading early."""


_PAUSE = 0.1
"""Seconds that a caller waits where no server answers, which takes no time to find out."""


class _StopReading(Exception):  # noqa: N818 - no error
    """A caller stops reading."""


class _Parts(list[Any]):
    """What a caller has read; it stops after a number of parts."""

    def __init__(self, most: int | None) -> None:
        super().__init__()
        self._most = most

    def append(self, part: Any) -> None:
        """Read a part."""
        super().append(part)
        if self._most is not None and len(self) >= self._most:
            raise _StopReading


@dataclass(slots=True)
class Tally:
    """What calls have come to."""

    ended: Counter[str] = field(default_factory=Counter[str])
    """How many calls `worked`, were `stopped`, or failed with which error."""
    recoveries: int = 0
    longest: float = 0.0
    raw: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])

    def add(self, other: "Tally") -> None:
        """Add what somebody else's calls have come to."""
        self.ended += other.ended
        self.recoveries += other.recoveries
        self.longest = max(self.longest, other.longest)
        self.raw += other.raw
        self.wrong += other.wrong


class Caller(threading.Thread):
    """Makes one call after the other."""

    def __init__(self, number: int, address: str, seed: int, until: float) -> None:
        super().__init__(name=f"caller-{number}", daemon=True)
        self.surface: Surface = _SURFACES[number % len(_SURFACES)]
        self.tally = Tally()
        self._address = address
        self._dice = random.Random(seed)
        self._until = until
        self._failed = False

    def run(self) -> None:
        """Make calls until the time is over, now and then with a new client."""
        while time.monotonic() < self._until:
            models = CHAT_MODELS if self.surface.kind == "chat" else EMBEDDING_MODELS
            with Subject(self.surface, self._address, self._dice.choice(models), self._dice.randint(0, 1)) as subject:
                while time.monotonic() < self._until and self._dice.random() >= _RENEWED:
                    self._call(subject)

    def _call(self, subject: Subject) -> None:
        text = f"{self.name} {self.tally.ended.total()} alpha beta gamma delta"
        parts = _Parts(self._dice.randint(1, 3) if self._dice.random() < _STOPPED else None)
        began = time.monotonic()
        try:
            subject.call(text, TIMEOUTS, parts)
            ended = "worked"
        except _StopReading:
            ended = "stopped"
        except LMStudioError as error:
            ended = _name(error)
            if isinstance(error, LMStudioUnreachableError):
                time.sleep(_PAUSE)
        except Exception as error:  # noqa: BLE001 - counted
            ended = f"{self.surface}: {error!r}"
            self.tally.raw.append(ended)
        self.tally.longest = max(self.tally.longest, time.monotonic() - began)
        self.tally.ended[ended] += 1
        self.tally.recoveries += self._failed and ended == "worked"
        self._failed = ended not in {"worked", "stopped"}
        if not _is_right(self.surface.kind, parts, text, whole=ended == "worked"):
            self.tally.wrong.append(f"{self.surface}, {ended}: {parts}")


def _name(error: LMStudioError) -> str:
    """Return the class of an error by its native name, and which timeout expired."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == LMStudioError.__module__)
    return f"{name} ({error.timeout_name})" if isinstance(error, LMStudioTimeoutError) else name


def _is_right(kind: Kind, parts: list[Any], text: str, *, whole: bool) -> bool:
    """Return whether a response is the right one, or the beginning of it."""
    right, got = joined(kind, expected(kind, text)), joined(kind, list(parts))
    return bool(got == right if whole else got == right[: len(got)])


# The process --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds (Linux only)."""

    threads: int
    files: int
    memory: int

    @classmethod
    def now(cls) -> "Sample":
        """Look."""
        status = Path("/proc/self/status").read_text(encoding="ascii")
        memory = int(status.split("VmRSS:")[1].split()[0]) * 1024
        return cls(threading.active_count(), len(list(Path("/proc/self/fd").iterdir())), memory)


def once_idle(before: Sample) -> Sample:
    """Return what the process holds once idle sockets have closed."""
    gc.collect()
    deadline = time.monotonic() + _CLOSING
    while (now := Sample.now()).files > before.files and time.monotonic() < deadline:
        time.sleep(0.5)
    return now


def run(minutes: float, seed: int) -> int:
    """Run the soak and print a block of Markdown; return the status of the process."""
    with Process(sys.executable, "benchmarks.soak_proxies", str(seed)) as process:
        addresses = process.read().split()
        _warm_up()
        before, samples = Sample.now(), list[Sample]()
        until = time.monotonic() + minutes * 60
        callers = [
            Caller(number, addresses[number % len(addresses)], seed + number, until) for number in range(CALLERS)
        ]
        for caller in callers:
            caller.start()
        while (remaining := until - time.monotonic()) > 0:
            time.sleep(min(remaining, 1.0))
            samples.append(Sample.now())
        for caller in callers:
            caller.join(max(until + STUCK_AFTER - time.monotonic(), 0))
        stuck = [caller.name for caller in callers if caller.is_alive()]
        if stuck:
            faulthandler.dump_traceback()
        after = once_idle(before)
    total = Tally()
    for caller in callers:
        total.add(caller.tally)
    return report(minutes, seed, total, stuck, (before, after), [sample.memory for sample in samples])


def _warm_up() -> None:
    """Let everything be loaded that is loaded once."""
    with Emulator([CHAT_MODELS[0], {"key": EMBEDDING_MODELS[0], "kind": "embedding"}]) as server:
        for surface in _SURFACES:
            model = CHAT_MODELS[0] if surface.kind == "chat" else EMBEDDING_MODELS[0]
            with Subject(surface, server.address, model) as subject:
                subject.call("warm up", {}, [])


def report(
    minutes: float, seed: int, total: Tally, stuck: list[str], held: tuple[Sample, Sample], memory: list[int]
) -> int:
    """Print what happened; return 0 if all was well."""
    before, after = held
    quarter = max(len(memory) // 4, 1)
    second, last = (
        statistics.mean(part) / 2**20 for part in (memory[quarter : 2 * quarter] or memory, memory[-quarter:])
    )
    errors = {name: count for name, count in total.ended.items() if name.startswith("LMStudio")}
    rows = {
        "duration": f"{minutes:g} minutes, seed {seed}",
        "callers": f"{CALLERS} threads, {len(SURFACES)} interfaces",
        "calls": f"{total.ended.total():,}",
        "succeeded": f"{total.ended['worked']:,}",
        "cancelled early by the caller": f"{total.ended['stopped']:,}",
        "errors": f"{sum(errors.values()):,}",
        "first success after an error": f"{total.recoveries:,}",
        "exceptions of other packages": len(total.raw),
        "stuck calls": len(stuck),
        "wrong responses": len(total.wrong),
        "longest call": f"{total.longest:.1f} s",
        "threads, before and after": f"{before.threads}, {after.threads}",
        "file descriptors, before and after": f"{before.files}, {after.files}",
        "memory, second and last quarter of the run": f"{second:.1f} MB, {last:.1f} MB",
    }
    print("| | |\n| --- | --- |")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    print("\n| error | calls |\n| --- | --- |")
    for name, count in sorted(errors.items(), key=lambda item: -item[1]):
        print(f"| `{name}` | {count:,} |")
    for finding in (*total.raw[:20], *total.wrong[:20], *stuck):
        print(finding, file=sys.stderr)
    leaked = after.threads > before.threads or after.files > before.files
    return int(bool(total.raw or total.wrong or stuck or leaked) or (last - second) * 2**20 > GROWTH_ALLOWED)


def main() -> int:
    """Run the soak; return the status of the process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    return run(arguments.minutes, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
