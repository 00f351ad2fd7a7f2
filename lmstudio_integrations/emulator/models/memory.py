"""The memory of a device: what a load needs, what is in use, and what a server estimates.

Used by `device.py`; the needs are those of the catalog.
"""

from dataclasses import dataclass

from lmstudio_integrations.emulator.engines.errors import insufficient_resources
from lmstudio_integrations.emulator.models.catalog import ModelEntry

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
            raise insufficient_resources(
                f"Under the current settings, this model requires approximately {_gib(need.total)} of memory; "
                f"{_gib(used)} of {_gib(self._capacity)} are in use."
            )
        self._needs[identifier] = need

    def release(self, identifier: str) -> None:
        """Release what an instance had, if anything."""
        self._needs.pop(identifier, None)

    def passes_guardrails(self, need: MemoryNeed) -> bool:
        """Return whether a load fits by the estimates, which may be wrong in either direction."""
        estimated = sum(each.estimate().total for each in (need, *self._needs.values()))
        return self._capacity is None or estimated <= self._capacity


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"
