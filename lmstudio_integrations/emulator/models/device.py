"""The machine whose models a server has. Its memory always fits, and no other machine is linked to it.

Used by `registry.py`. `devices.py`, a leaf, has machines with a memory, and those that LM Link connects to this one.
Everything here belongs to the emulator's event loop.
"""

import asyncio
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from lmstudio_integrations.emulator.models.catalog import ModelEntry


class Device:
    """The models that a machine has, and what its loads share.

    Args:
        downloaded: The keys of the models that it has.

    Attributes:
        identifier: Its identifier on the wire; `None` for this machine.
        name: Its name in the catalog; `None` for this machine.
        speed: How fast it is, as a factor.
        downloaded: The keys of the models that it has.
        reserved: The identifiers of loads in progress.
        jit_lock: Held by a just-in-time load that evicts others.
    """

    identifier: str | None = None
    name: str | None = None
    speed: float = 1.0

    def __init__(self, downloaded: Iterable[str]) -> None:
        self.downloaded: set[str] = set(downloaded)
        self.reserved: set[str] = set()
        self.jit_lock: asyncio.Lock = asyncio.Lock()

    def hold_load(self) -> AbstractContextManager[None]:
        """Hold a load, which ends when the device is disconnected. This machine never is."""
        return nullcontext()

    def reserve_memory(self, identifier: str, entry: ModelEntry, size_bytes: int, context_length: int) -> None:
        """Reserve what an instance needs, from the beginning of its load until `release_memory`. Here everything fits.

        Raises:
            EngineError: If it does not fit.
        """

    def release_memory(self, identifier: str) -> None:
        """Release what an instance had, if anything."""
