"""What fits into the memory of a machine: the result of `plan`, and what was evicted there."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.types.config import ModelKind

Fit = Literal["loaded", "fits", "fits_after_eviction", "too_large"]
"""Whether a planned model fits: it is loaded, fits beside what is loaded, fits in place of that, or not at all."""

Basis = Literal["estimated", "seen"]
"""What a plan rests on: estimates of the server, or a load on that machine that was accepted or refused."""

GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """An instance that is loaded on the machine of a plan.

    Attributes:
        identifier: Its identifier.
        model_key: The key of its model.
        context_length: Its context length, in tokens.
        memory_bytes: What the server estimates that it takes; `None` if it does not say it.
        stays_because: Why no plan evicts it; `None` if one may.
    """

    identifier: str
    model_key: str
    context_length: int
    memory_bytes: int | None = None
    stays_because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """A model of a plan.

    Attributes:
        model_key: Its key.
        kind: Its kind.
        context_length: The context length that it has or would have, in tokens; `None` if the server chooses it.
        slots: How many predictions it runs at once; `None` if only its engine knows it.
        memory_bytes: What the server estimates that it takes; `None` if it does not say it.
        fit: Whether it fits.
        basis: What that rests on.
        evicts: The identifiers of the instances that would have to go, the least recently used first.
        requested_context_length: The one that was asked for, in tokens; `None` if that was left to the server.
        largest_context_length: Of a model that is too large, the longest context length that would fit; `None` if none
            would, or none was found.
    """

    model_key: str
    kind: ModelKind
    context_length: int | None
    slots: int | None
    memory_bytes: int | None
    fit: Fit
    basis: Basis
    evicts: tuple[str, ...] = ()
    requested_context_length: int | None = None
    largest_context_length: int | None = None

    @property
    def context_per_conversation(self) -> int | None:
        """What each conversation has of the shared cache when all slots are full, in tokens."""
        return self.context_length // self.slots if self.context_length is not None and self.slots else None

    @property
    def verdict(self) -> str:
        """Whether it fits, in words."""
        text, requested, smaller = "loaded", self.requested_context_length, self.largest_context_length
        if self.fit != "loaded":
            text = f"{'does not fit' if self.fit == 'too_large' else 'fits'} ({self.basis})"
        if self.evicts:
            text += f" once {', '.join(self.evicts)} {'is' if len(self.evicts) == 1 else 'are'} unloaded"
        if smaller is not None:
            text += f"; {smaller} tokens would"
        return text if requested in {None, self.context_length} else f"{text}; {requested} tokens were requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What fits on one machine, in the order in which the models were named. `str` shows it as a table.

    Attributes:
        host: The address of the server.
        device: The name of the linked device; `None` for the server's own machine.
        capacity_bytes: The memory for models; `None` if the server does not say it.
        models: The planned models.
        loaded: What is loaded there now.
        problems: What the server could not find out of its hardware, with the reasons.
    """

    host: str
    device: str | None
    capacity_bytes: int | None
    models: tuple[PlannedModel, ...]
    loaded: tuple[LoadedModel, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether all models fit at once."""
        return all(model.fit != "too_large" for model in self.models)

    @property
    def evicts(self) -> tuple[str, ...]:
        """The identifiers of all instances that would have to go."""
        return tuple(identifier for model in self.models for identifier in model.evicts)

    @property
    def place(self) -> str:
        """The machine, for people."""
        return self.host if self.device is None else f"{self.host} ({self.device})"

    def __str__(self) -> str:
        header = ("MODEL", "CONTEXT", "SLOTS", "EACH", "MEMORY", "")
        rows = [
            (
                model.model_key,
                "default" if model.context_length is None else str(model.context_length),
                str(model.slots or ""),
                str(model.context_per_conversation or ""),
                _size(model.memory_bytes),
                model.verdict,
            )
            for model in self.models
        ]
        lines = [f"{self.place}: memory for models: {_size(self.capacity_bytes)}"]
        lines += [one_line(f"not known of the hardware: {problem}") for problem in self.problems]
        lines += _table([header, *rows])
        if self.loaded:
            others = [
                (
                    each.identifier,
                    str(each.context_length),
                    _size(each.memory_bytes),
                    "stays: " + each.stays_because if each.stays_because else "may be evicted",
                )
                for each in self.loaded
            ]
            lines += ["", *_table([("LOADED NOW", "CONTEXT", "MEMORY", ""), *others])]
        return "\n".join(lines)


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / GIB:.1f} GiB"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    listed = [tuple(one_line(cell) for cell in row) for row in rows]  # a name of a server cannot begin a row
    widths = [max(len(row[column]) for row in listed) for column in range(len(listed[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in listed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """An instance that `load_policy="fit"` has evicted.

    Attributes:
        identifier: Its identifier.
        model_key: The key of its model.
        device: The identifier of its linked device; `None` for the server's own machine.
        evicted_for: The key of the model that needed its memory.
        at: When, as a Unix time in seconds.
        loaded_again: Whether it was loaded again, because the other model could not be loaded after all.
    """

    identifier: str
    model_key: str
    device: str | None = None
    evicted_for: str
    at: float
    loaded_again: bool = False
