"""What a row should not exceed: a multiple of what others needed for it in the same run, or an absolute value. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias

FLOOR, OURS, BEFORE = "floor", "ours", "before"
NATIVE_FLOOR, THREADS = "native floor", "two bare threads"
BEST_PEER = "best peer"
"""Stands for the peer that needed least."""

_NOT_PEERS = {FLOOR, OURS, BEFORE, NATIVE_FLOOR, THREADS}

Values: TypeAlias = Mapping[str, float]
"""What each role needed for a row."""


def peers(values: Values) -> dict[str, float]:
    """Return what other packages needed, the best first."""
    others = ((who, value) for who, value in values.items() if who not in _NOT_PEERS)
    return dict(sorted(others, key=lambda peer: peer[1]))


@dataclass(frozen=True, slots=True)
class Multiple:
    """A multiple of what another role needed for the row.

    Attributes:
        factor: How many times that is allowed.
        of: The role, or `BEST_PEER`.
        tolerance: What may be added, for values that are ratios themselves.
    """

    factor: float
    of: str = FLOOR
    tolerance: float = 0.0

    def limit(self, values: Values) -> float | None:
        """Return the highest value that reaches the target; `None` if the other role was not measured."""
        base = min(peers(values).values(), default=None) if self.of == BEST_PEER else values.get(self.of)
        return None if base is None else self.factor * base + self.tolerance

    def __str__(self) -> str:
        return self.of if self.factor == 1 else f"{self.factor:g} × {self.of}"


@dataclass(frozen=True, slots=True)
class Absolute:
    """A value in the unit of the row.

    Attributes:
        value: The value, on the machine where the target was set.
        there: What others needed on that machine, by role. The value is scaled by the median of what they need now over
            what they needed there. Without any, it holds as it is.
    """

    value: float
    there: Values = field(default_factory=dict[str, float])

    def limit(self, values: Values) -> float | None:
        """Return the highest value that reaches the target; `None` if nothing that it is scaled by was measured."""
        if not self.there:
            return self.value
        ratios = [values[who] / needed for who, needed in self.there.items() if who in values]
        return self.value * median(ratios) if ratios else None

    def __str__(self) -> str:
        return f"{self.value:g}, scaled" if self.there else f"{self.value:g}"


Target: TypeAlias = Multiple | Absolute
