"""The status of a model on one of several hosts, and how the hosts differ."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations.types.config import ModelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    """A model on one of several hosts, as this process last knew it.

    Attributes:
        host: The address of the host.
        device: The device of the host that the model is used on; `None` is the host's own machine, or not known.
        identifier: The identifier of the instance; `None` if none is loaded. One of several instances has its own
            before it is loaded.
        available: Whether the host responded when it was last asked or used. If not, calls go to other hosts until it
            responds again.
        error: Why it is not available, or why the model was not loaded there; `None` if nothing failed.
        has_failed: Whether it has failed since a call of this process last got a response there.
        loaded: Whether the model is loaded.
        loading: Whether this process is loading it.
        downloaded: Whether the model is loaded or can be loaded.
        lacks_room: Whether a load under `load_policy="fit"` would evict others there.
        in_flight: The calls of this process that run or wait there.
        parallel: How many calls the host runs at once; `None` if only its engine knows it, which then queues them.
        context_length: The context length of the loaded instance, in tokens, if it is known.
        path: The file of the loaded instance, if it is known.
        quantization: Its quantization, such as `Q4_K_M`, if it is known.
        evictions: What `load_policy="fit"` of this process has evicted on the host, the newest last.
        dimensions: The length of its vectors, once this process has received one; no server reports it.
    """

    host: str
    device: str | None = None
    identifier: str | None = None
    available: bool = True
    error: str | None = None
    has_failed: bool = False
    loaded: bool = False
    loading: bool = False
    downloaded: bool = False
    lacks_room: bool = False
    in_flight: int = 0
    parallel: int | None = 1
    context_length: int | None = None
    path: str | None = None
    quantization: str | None = None
    evictions: "tuple[lms.Eviction, ...]" = ()
    dimensions: int | None = None

    @property
    def has_free_slot(self) -> bool:
        """Whether another call would run at once."""
        return self.parallel is None or self.in_flight < self.parallel


_COMPARED = ("quantization", "path", "context_length")

_SAME_FILE = "load the same file with the same settings everywhere"

SAME_FILE: Mapping[ModelKind, str] = {
    "llm": _SAME_FILE,
    "embedding": f"{_SAME_FILE}, because vectors of different files cannot be compared",
    "decision": _SAME_FILE,
}
"""The remedy if a model is loaded differently on several hosts."""


def differences_of(statuses: Iterable[HostStatus]) -> dict[str, dict[str, Any]]:
    """Return in what the loaded instances of a model differ: the attributes, each with its value by host."""
    statuses = list(statuses)
    places = Counter(each.host for each in statuses)

    def values_of(name: str, known: str) -> dict[str, Any]:
        return {
            each.host
            if places[each.host] == 1
            else f"{each.host} ({', '.join(filter(None, (each.device, each.identifier)))})": getattr(each, name)
            for each in statuses
            if getattr(each, known) is not None
        }

    values = {
        "dimensions": values_of("dimensions", "dimensions"),
        **{name: values_of(name, "path") for name in _COMPARED},
    }
    return {name: by_host for name, by_host in values.items() if len(set(by_host.values())) > 1}


def describe_values(by_host: Mapping[str, Any]) -> str:
    """Return the values of an attribute, each after its host."""
    return ", ".join(f"{host}: {value}" for host, value in by_host.items())
