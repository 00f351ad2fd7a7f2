"""A device that runs models: this machine, or one that LM Link connects to it (docs/protocol.md#lm-link).

Used by `registry.py`, which loads its models. Everything here belongs to the emulator's event loop.
"""

import asyncio
import platform
from collections.abc import Generator
from contextlib import contextmanager

from lmstudio_integrations.emulator.errors import device_disconnected
from lmstudio_integrations.emulator.models.catalog import Catalog, DeviceEntry
from lmstudio_integrations.emulator.models.fair_queue import CancelScope
from lmstudio_integrations.emulator.models.memory import Memory


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
