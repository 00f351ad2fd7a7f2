"""Plans and loads random sets of models on the emulator: `python -m tools.plan_sweep [--sets N] [--seed N]`.

Half of the servers estimate rightly: there each plan must be exactly right, by a search through all subsets of what may
go. The other half lie in both directions: there no load may be refused that was seen to fit, nothing may be lost, and
nothing may be evicted that must stay.
"""

import argparse
import asyncio
import itertools
import math
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ManualClock
from lmstudio_integrations.types.memory_plans import GIB, PlannedModel

PER_SERVER = 50
"""Sets that are planned on one server, one after the other, so that what was seen counts."""

MODELS = 8
KIB = 1024
HOLD = "hold"

COLUMNS = (
    "sets",
    "loads",
    "loaded before",
    "accepted at first",
    "after eviction",
    "refused and evicted more",
    "refused after eviction, loaded again",
    "refused without eviction",
    "said too large",
    "of these, estimated too high",
    'said "seen"',
    'wrong "seen"',
)


class SweepError(AssertionError):
    """A load was not as it must be."""


@dataclass(eq=False)
class Loaded:
    """An instance as the sweep knows it: what it takes, whether it may go, and when it was used."""

    key: str
    size: int
    may_go: bool
    used: float
    stream: Any = None

    @property
    def is_candidate(self) -> bool:
        """Whether a load may evict it now."""
        return self.may_go and self.stream is None


@dataclass
class Server:
    """One emulator with random models, a client of it, and another that stands for other programs."""

    draw: random.Random
    emulator: Emulator
    clock: ManualClock
    models: dict[str, dict[str, Any]]
    capacity: int
    honest: bool
    client: lms.AsyncClient
    other: lms.AsyncClient
    counts: Counter[str]
    loaded: dict[str, Loaded] = field(default_factory=dict[str, Loaded])

    def size(self, key: str, context_length: int | None) -> int:
        """Return what a model really takes."""
        model = self.models[key]
        length: int = model["loaded_context_length"] or context_length or model["context_length"]
        size: int = round(model["memory_gib"] * GIB) + length * model["kib_per_token"] * KIB
        return size

    async def use(self, key: str) -> None:
        """Let another program use an instance, at a time of its own."""
        self.clock.advance(1)
        self.loaded[key].used = self.clock.now()
        model = await self.other.llm.model(key, load_policy="require_loaded")
        await model.respond("Hi", config={"max_tokens": 1})

    async def shuffle(self) -> None:
        """Change what is loaded, by whom, and what it is doing."""
        for key, each in [*self.loaded.items()]:
            if each.stream is not None and self.draw.random() < 0.5:
                each.stream.cancel()
                await each.stream.result_or_none()
                each.stream = None
                await self.use(key)
            elif each.stream is None and self.draw.random() < 0.2:
                await self.other.llm.unload(key)
                del self.loaded[key]
        for key in self.draw.sample([*self.models], 2):
            await self._load(key)
        for key, each in self.loaded.items():
            if each.stream is None and self.draw.random() < 0.3:
                await self.use(key)
            elif each.stream is None and self.draw.random() < 0.15:
                each.stream = _Held(await self.other.llm.model(key, load_policy="require_loaded"))
                await each.stream.begin()

    async def _load(self, key: str) -> None:
        size, used = self.size(key, None), sum(each.size for each in self.loaded.values())
        if key in self.loaded or used + size > self.capacity:
            return
        match self.draw.randrange(3):
            case 0:
                await self.client.llm.model(key, load_policy="explicit")
                self.loaded[key] = Loaded(key, size, may_go=True, used=0)
            case 1:
                await self.other.llm.model(key, load_policy="explicit", ttl=1e6)
                self.loaded[key] = Loaded(key, size, may_go=True, used=0)
            case _:
                await self.other.llm.model(key, load_policy="explicit", ttl=math.inf)
                self.loaded[key] = Loaded(key, size, may_go=False, used=0)
        await self.use(key)

    async def plan_and_load(self) -> None:
        """Plan and load one model, and check what happened."""
        others = [key for key in self.models if key not in self.loaded or self.draw.random() < 0.05]
        key = self.draw.choice(others or [*self.models])
        context_length = self.draw.choice([None, None, 1024, 12288])
        config = lms.LlmLoadModelConfig(context_length=context_length)
        (planned,) = (await self.client.plan([(key, config)])).models
        references = self._references()
        first = len(self.emulator.loads)
        expected = self._expected(key, context_length)
        self.counts["sets"] += 1
        self.counts['said "seen"'] += planned.basis == "seen" and planned.fit != "loaded"
        error: lms.LMStudioInsufficientResourcesError | None = None
        try:
            await self.client.llm.model(key, load_policy="fit", config=config, on_config_mismatch="ignore")
        except lms.LMStudioInsufficientResourcesError as raised:
            error = raised
        states = [(load.key, load.state) for load in self.emulator.loads[first:]]
        self._check(planned, key, context_length, states, error, references, expected)
        if error is None:
            for gone in self.loaded.keys() - self._references().keys():
                del self.loaded[gone]
            if key not in self.loaded:
                self.loaded[key] = Loaded(key, self.size(key, context_length), may_go=True, used=0)
            await self.use(key)

    def _references(self) -> dict[str, str | None]:
        return {info.identifier: info.instance_reference for info in self.emulator.loaded()}

    def _expected(self, key: str, context_length: int | None) -> set[str] | None:
        """Return what must go by the true sizes; `None` if the model does not fit."""
        if key in self.loaded:
            return set()
        room = self.capacity - self.size(key, context_length)
        return evictions(room, self.loaded.values())

    def _check(
        self,
        planned: PlannedModel,
        key: str,
        context_length: int | None,
        states: Sequence[tuple[str, str]],
        error: lms.LMStudioInsufficientResourcesError | None,
        before: dict[str, str | None],
        expected: set[str] | None,
    ) -> None:
        after = self._references()
        changed = {name for name, reference in before.items() if after.get(name) != reference}
        refused = sum(state == "failed" for name, state in states if name == key)
        self._count(planned, states, error, refused, changed)
        stays = {name for name, each in self.loaded.items() if not each.is_candidate}
        _require(not changed & stays, f"{changed & stays} had to stay")
        fits = planned.fit != "too_large"
        if planned.basis == "seen" and planned.fit != "loaded":
            is_wrong = bool(refused) if fits else expected is not None
            self.counts['wrong "seen"'] += is_wrong
            _require(not is_wrong, f"{planned.verdict} was wrong for {key}")
        if planned.fit in {"loaded", "fits"} and not refused:
            _require(not changed, f"{changed} went, although nothing had to")
        if error is not None:
            _require(before.keys() == after.keys(), f"{before.keys() ^ after.keys()} were not loaded again")
            _require(error.plan is not None and not error.plan.fits, "the error has no plan")
            _require(fits or not changed, f"{changed} went for a model that was said to be too large")
        if error is not None and not refused:
            self.counts["of these, estimated too high"] += expected is not None
        if self.honest:
            _require(not refused, f"{key} was refused")
            _require(fits == (expected is not None) == (error is None), f"{key} {planned.verdict}; must go: {expected}")
            _require(set(planned.evicts) == changed == (expected or set()), f"{changed} went instead of {expected}")

    def _count(
        self,
        planned: PlannedModel,
        states: Sequence[tuple[str, str]],
        error: lms.LMStudioInsufficientResourcesError | None,
        refused: int,
        changed: set[str],
    ) -> None:
        if planned.fit == "loaded":
            outcome = "loaded before"
        elif error is None:
            outcome = "refused and evicted more" if refused else "after eviction" if changed else "accepted at first"
        elif not refused:
            outcome = "said too large"
        else:
            outcome = "refused after eviction, loaded again" if changed else "refused without eviction"
        self.counts[outcome] += 1
        self.counts["loads"] += len(states)


class _Held:
    """A prediction that goes on until it is cancelled."""

    def __init__(self, model: lms.AsyncLLM) -> None:
        self._stream = model.respond_stream(HOLD)

    async def begin(self) -> None:
        """Wait until it has begun."""
        await anext(self._stream)

    def cancel(self) -> None:
        """Stop it."""
        self._stream.cancel()

    async def result_or_none(self) -> None:
        """Wait until it has ended."""
        async for _ in self._stream:
            pass


def evictions(room: int, loaded: Iterable[Loaded]) -> set[str] | None:
    """Return what must go so that the rest takes no more than `room`; `None` if that is not enough.

    The least recently used of those that may go, as many as necessary; of these, as few as possible, and rather those
    that were used longer ago.
    """
    stays = sum(each.size for each in loaded if not each.is_candidate)
    candidates = sorted((each for each in loaded if each.is_candidate), key=lambda each: each.used)
    for count in range(len(candidates) + 1):
        if stays + sum(each.size for each in candidates[count:]) <= room:
            break
    else:
        return None
    whole = stays + sum(each.size for each in candidates)
    choices = itertools.product([False, True], repeat=count)  # from the most recently used; spared first
    for goes in choices:
        gone = [each for each, is_gone in zip(reversed(candidates[:count]), goes, strict=True) if is_gone]
        if whole - sum(each.size for each in gone) <= room:
            return {each.key for each in gone}
    raise AssertionError("all of them are enough")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SweepError(message)


def _model(draw: random.Random, key: str, *, honest: bool) -> dict[str, Any]:
    return {
        "key": key,
        "memory_gib": draw.choice([0.5, 1, 1.5, 2, 3, 4, 5, 6, 8]),
        "kib_per_token": draw.choice([0, 16, 64, 256]),
        "context_length": draw.choice([2048, 4096, 8192]),
        "loaded_context_length": draw.choice([None, None, None, 6144]),
        "estimate_factor": 1 if honest else draw.choice([0.2, 0.7, 1, 1, 1.3, 3]),
        "rules": [{"when": {"last": HOLD}, "then": [{"text": "so "}, {"fault": "stall"}]}],
    }


async def _on_one_server(draw: random.Random, sets: int, *, honest: bool, counts: Counter[str]) -> None:
    models = {key: _model(draw, key, honest=honest) for key in (f"m{number}" for number in range(MODELS))}
    capacity, clock = draw.randrange(6, 24), ManualClock()
    with Emulator(catalog={"model": [*models.values()], "memory_gib": capacity}, clock=clock) as emulator:
        other_name = emulator.address.replace("127.0.0.1", "localhost")  # for clients, another server
        async with lms.AsyncClient(emulator.address) as client, lms.AsyncClient(other_name) as other:
            server = Server(draw, emulator, clock, models, capacity * GIB, honest, client, other, counts)
            for _ in range(sets):
                await server.shuffle()
                await server.plan_and_load()


async def sweep(sets: int, seed: int = 0) -> Counter[str]:
    """Plan and load random sets; return how many loads came to what.

    Raises:
        SweepError: If any was not as it must be.
    """
    counts: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lms.LMStudioEvictionWarning)
        for number, begin in enumerate(range(0, sets, PER_SERVER)):
            draw = random.Random(f"{seed} {number}")
            await _on_one_server(draw, min(PER_SERVER, sets - begin), honest=number % 2 == 0, counts=counts)
    return counts


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="others with another number (default: 0)")
    arguments = parser.parse_args()
    began = time.monotonic()
    counts = asyncio.run(sweep(arguments.sets, arguments.seed))
    for column in COLUMNS:
        print(f"{column:40}{counts[column]:7,}")
    print(f"{'seconds':40}{time.monotonic() - began:7.1f}")


if __name__ == "__main__":
    main()
