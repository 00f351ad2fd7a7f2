"""A device that runs models: this machine, or one that LM Link connects to it; its memory, and what does not fit there.

See docs/protocol.md#lm-link. Used by `registry.py`, which loads its models. Everything here belongs to
the emulator's event loop.
"""

import asyncio
import platform
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from lmstudio_integrations.emulator.engines.base import insufficient_resources
from lmstudio_integrations.emulator.errors import device_disconnected
from lmstudio_integrations.emulator.models.cancel_scope import CancelScope
from lmstudio_integrations.emulator.models.catalog import Catalog, DeviceEntry, ModelEntry

GIB = 1024**3
_KIB = 1024


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """The bytes that an instance takes, and the factor by which the server's estimate of them is wrong."""

    weights: int
    context: int
    estimate_factor: float = 1.0

    @classmethod
    def of(cls, entry: ModelEntry, size_bytes: int, context_length: int) -> "MemoryNeed":
        """Return what an entry needs, whose weights have a size on disk, with a context of so many tokens."""
        weights = size_bytes if entry.memory_gib is None else round(entry.memory_gib * GIB)
        return cls(weights, round(context_length * entry.kib_per_token * _KIB), entry.estimate_factor)

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.context

    def estimate(self) -> "MemoryNeed":
        """Return what the server says."""
        return MemoryNeed(round(self.weights * self.estimate_factor), round(self.context * self.estimate_factor))


class Memory:
    """The memory of one device; without a capacity, everything fits."""

    def __init__(self, capacity_gib: float | None) -> None:
        self._capacity = None if capacity_gib is None else capacity_gib * GIB
        self._needs: dict[str, MemoryNeed] = {}

    def reserve(self, identifier: str, need: MemoryNeed) -> None:
        """Reserve what an instance needs, from the beginning of its load until `release`.

        Raises:
            EngineError: If it does not fit.
        """
        used = sum(each.total for each in self._needs.values())
        if self._capacity is not None and used + need.total > self._capacity:
            raise insufficient_resources(need.total / GIB)
        self._needs[identifier] = need

    def release(self, identifier: str) -> None:
        """Release what an instance had, if anything."""
        self._needs.pop(identifier, None)

    def passes_guardrails(self, need: MemoryNeed) -> bool:
        """Return whether a load fits by the estimates, which may be wrong in either direction."""
        estimated = sum(each.estimate().total for each in (need, *self._needs.values()))
        return self._capacity is None or estimated <= self._capacity


class Device:
    """The models that a device has, and what its loads share.

    Attributes:
        identifier: Its identifier on the wire; `None` for this machine.
        name: Its name in the catalog.
        speed: How fast it is, as a factor.
        preferred: Whether it comes first where a request names no device.
        connected: Whether it can be used.
        downloaded: The keys of the models that it has.
        memory: Its memory.
        reserved: The identifiers of loads in progress.
        jit_lock: Held by a just-in-time load that evicts others.
    """

    def __init__(self, catalog: Catalog, entry: DeviceEntry | None = None) -> None:
        if entry is None:
            self.downloaded: set[str] = {model.key for model in catalog.models if model.downloaded}
        else:
            self.downloaded = {
                model.key for model in catalog.models if entry.models is None or model.key in entry.models
            }
        self.identifier: str | None = None if entry is None else entry.full_identifier
        self.name: str = platform.node() if entry is None else entry.name
        self.speed: float = 1.0 if entry is None else entry.speed
        self.preferred: bool = entry is not None and entry.preferred
        self.connected: bool = entry is None or entry.connected
        self.memory: Memory = Memory((entry or catalog).memory_gib)
        self.reserved: set[str] = set()
        self.jit_lock: asyncio.Lock = asyncio.Lock()
        self._loads: set[CancelScope] = set()

    @contextmanager
    def hold_load(self) -> Generator[None]:
        """Hold a load, which ends when the device is disconnected.

        Raises:
            WireError: If it is, or was before.
        """
        scope = CancelScope()
        if not self.connected:
            raise device_disconnected(self.name)
        self._loads.add(scope)
        try:
            with scope:
                yield
        finally:
            self._loads.discard(scope)
        if scope.reason is not None:
            raise device_disconnected(self.name)

    def disconnect(self) -> None:
        """End all loads in progress, and accept no others."""
        self.connected = False
        for scope in self._loads:
            scope.cancel("disconnected")
