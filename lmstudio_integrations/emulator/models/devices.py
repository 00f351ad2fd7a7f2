"""Machines with a memory, and those that LM Link connects to this one: what loads and fits there, and how they go away.

A leaf: `leaf_of_catalog` in `catalog.py` is its door. See docs/protocol.md#lm-link. Everything here belongs to the
emulator's event loop.
"""

import asyncio
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, field_validator

from lmstudio_integrations._support.suggestions import explain_unknown_name
from lmstudio_integrations.emulator import errors
from lmstudio_integrations.emulator.engines.base import insufficient_resources
from lmstudio_integrations.emulator.models.cancel_scope import CancelScope
from lmstudio_integrations.emulator.models.catalog import Catalog, CatalogTable, Gibibytes, ModelEntry, require_unique
from lmstudio_integrations.emulator.models.device import Device
from lmstudio_integrations.emulator.models.registry import ModelRegistry
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.requests import OnDevice

GIB = 1024**3
_KIB = 1024

OWN_IDENTIFIER = "emulator"
"""What the status of LM Link calls this machine; everywhere else, its identifier is null."""

_RESERVED = {"local", OWN_IDENTIFIER}
"""What no device of the catalog may be called: names of this machine."""


class DeviceEntry(CatalogTable):
    """One device of the catalog, which LM Link connects to this machine."""

    name: Annotated[str, Field(min_length=1, description="What users call it.")]
    identifier: Annotated[str | None, Field(min_length=1, description="What clients send; by default the name.")] = None
    memory_gib: Annotated[Gibibytes | None, Field(description="Its memory for models; by default without a limit.")] = (
        None
    )
    speed: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="How much faster scripted models load and write there.")
    ] = 1.0
    models: Annotated[
        tuple[str, ...] | None,
        Field(
            description="The keys of the models that it has, also of those with `downloaded = false`; by default all "
            "of the catalog."
        ),
    ] = None
    preferred: Annotated[
        bool, Field(description="Whether it is used where a request names no device; at most one device is.")
    ] = False
    connected: Annotated[
        bool,
        Field(description="With `false`, it is known, but away until it is connected."),
    ] = True

    @field_validator("name", "identifier")
    @classmethod
    def _check_reserved(cls, value: str | None) -> str | None:
        if value in _RESERVED:
            raise LMStudioValueError(f"{value!r} stands for this machine; use another name")
        return value

    @property
    def full_identifier(self) -> str:
        """What clients send."""
        return self.identifier or self.name


def check(catalog: Catalog) -> None:
    """Check what the devices of a catalog say of each other, and of its models.

    Raises:
        LMStudioValueError: If it is not valid.
    """
    require_unique("device", (entry.name for entry in catalog.devices))
    require_unique("device identifier", (entry.full_identifier for entry in catalog.devices))
    preferred = [repr(entry.name) for entry in catalog.devices if entry.preferred]
    if len(preferred) > 1:
        raise LMStudioValueError(f"preferred: only one device may be, not {' and '.join(preferred)}")
    keys = [entry.key for entry in catalog.models]
    for device in catalog.devices:
        for key in set(device.models or ()).difference(keys):
            hint = explain_unknown_name(key, keys)
            raise LMStudioValueError(f"the device {device.name!r} has the unknown model {key!r}; {hint}")


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


class MachineWithMemory(Device):
    """A machine whose memory may be limited: this one.

    Args:
        downloaded: The keys of the models that it has.
        capacity_gib: Its memory; without one, everything fits.

    Attributes:
        preferred: Whether it comes first where a request names no device.
        connected: Whether it can be used.
    """

    preferred: bool = False
    connected: bool = True

    def __init__(self, downloaded: Iterable[str], capacity_gib: float | None) -> None:
        super().__init__(downloaded)
        self._capacity = None if capacity_gib is None else capacity_gib * GIB
        self._needs: dict[str, MemoryNeed] = {}

    def reserve_memory(self, identifier: str, entry: ModelEntry, size_bytes: int, context_length: int) -> None:
        """Reserve what an instance needs."""
        need = MemoryNeed.of(entry, size_bytes, context_length)
        used = sum(each.total for each in self._needs.values())
        if self._capacity is not None and used + need.total > self._capacity:
            raise insufficient_resources(need.total / GIB)
        self._needs[identifier] = need

    def release_memory(self, identifier: str) -> None:
        """Release what an instance had, if anything."""
        self._needs.pop(identifier, None)

    def passes_guardrails(self, need: MemoryNeed) -> bool:
        """Return whether a load fits by the estimates, which may be wrong in either direction."""
        estimated = sum(each.estimate().total for each in (need, *self._needs.values()))
        return self._capacity is None or estimated <= self._capacity


class LinkedDevice(MachineWithMemory):
    """A machine that LM Link connects to this one."""

    def __init__(self, catalog: Catalog, entry: DeviceEntry) -> None:
        every_key = (model.key for model in catalog.models)
        super().__init__(every_key if entry.models is None else entry.models, entry.memory_gib)
        self.identifier: str | None = entry.full_identifier
        self.name: str | None = entry.name
        self.speed: float = entry.speed
        self.preferred: bool = entry.preferred
        self.connected: bool = entry.connected
        self._loads: set[CancelScope] = set()

    @contextmanager
    def hold_load(self) -> Generator[None]:
        """Hold a load, which ends when the device is disconnected.

        Raises:
            WireError: If it is, or was before.
        """
        scope = CancelScope()
        if not self.connected:
            raise self._disconnected()
        self._loads.add(scope)
        try:
            with scope:
                yield
        finally:
            self._loads.discard(scope)
        if scope.reason is not None:
            raise self._disconnected()

    def disconnect(self) -> None:
        """End all loads in progress, and accept no others."""
        self.connected = False
        for scope in self._loads:
            scope.cancel("disconnected")

    def _disconnected(self) -> errors.WireError:
        return errors.WireError(f'The device "{self.name}" has disconnected')


class LinkedRegistry(ModelRegistry):
    """All models of one server on several machines, or on one whose memory is limited.

    The arguments are those of a `ModelRegistry`.
    """

    def __init__(self, catalog: Catalog, *arguments: Any, **settings: Any) -> None:
        super().__init__(catalog, *arguments, **settings)
        here = MachineWithMemory(self.local.downloaded, catalog.memory_gib)
        self.local: Device = here
        self.linked: list[LinkedDevice] = [LinkedDevice(catalog, entry) for entry in catalog.devices]
        self._machines: list[MachineWithMemory] = [here, *self.linked]

    def devices(self, request: OnDevice) -> Sequence[Device]:
        """Return the devices that a request means, in the order in which they are tried.

        Raises:
            WireError: If it names one that is unknown or not connected.
        """
        connected = [device for device in self._machines if device.connected]
        if "deviceIdentifier" not in request:
            connected.sort(key=lambda device: not device.preferred)
            return connected
        identifier = request["deviceIdentifier"]
        named = [device for device in connected if device.identifier == identifier]
        if identifier is not None and not named:
            raise errors.device_not_found(identifier, {str(each.identifier): each.connected for each in self.linked})
        return named

    def downloaded(self, devices: Iterable[Device] | None = None) -> list[tuple[Device, ModelEntry]]:
        """Return the entries that can be loaded, and where; by default on this machine, then on linked devices."""
        if devices is None:
            devices = [device for device in self._machines if device.connected]
        return super().downloaded(devices)


async def set_connected(registry: ModelRegistry, name: str, *, connected: bool) -> None:
    """Let a linked device come back, or go away: its loads end, and its instances are unloaded.

    Raises:
        LMStudioValueError: If the catalog has no such device.
    """
    linked = registry.linked if isinstance(registry, LinkedRegistry) else []
    device = next((each for each in linked if each.name == name), None)
    if device is None:
        known = ", ".join(repr(each.name) for each in linked) or "none"
        raise LMStudioValueError(f"the catalog has no device {name!r}; it has {known}")
    if connected:
        device.connected = True
    else:
        device.disconnect()
        await asyncio.gather(*(registry.unload(instance) for instance in registry.instances(devices=[device])))
