"""Bring the weights of models that the catalog has, but the server has not yet (protocol §4.7).

Bundled weights are fetched into the user's cache, where they stay. A file is copied, byte by byte, into a folder
that lives as long as the server. A scripted model has nothing to bring.
"""

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from lmstudio_integrations.emulator import weights
from lmstudio_integrations.emulator.catalog import ModelEntry
from lmstudio_integrations.emulator.engines.errors import without_directories
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.regular_files import open_regular

CHUNK = 1 << 20
"""Bytes that are copied between two looks at whether to stop."""

OnBytes = Callable[[int, int], None]
"""Takes the bytes that are here and the bytes that there are."""


class Downloads:
    """Brings weights.

    Args:
        offline: Never fetch bundled weights.
    """

    def __init__(self, *, offline: bool = False) -> None:
        self._offline = offline
        self._folder: Path | None = None
        self._copies: dict[Path, Path] = {}
        self._copying: dict[Path, asyncio.Lock] = {}

    async def fetch(self, entry: ModelEntry, on_bytes: OnBytes) -> str | None:
        """Bring the weights of an entry, and return by which name they are to be loaded.

        Raises:
            RefusedError: If they cannot be had.
        """
        if entry.engine == "scripted" or entry.weights is None:
            on_bytes(0, 0)
            return None
        bundle = weights.BUNDLES.get(entry.weights)
        if bundle is not None:
            await self._fetch(bundle, on_bytes)
            return entry.weights
        try:
            return str(await self._copy_once(Path(entry.weights), on_bytes))
        except OSError as error:
            raise _download_failed(entry.key, error) from error

    def close(self) -> None:
        """Remove the copies."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            self._copies.clear()

    async def _fetch(self, bundle: weights.Bundle, on_bytes: OnBytes) -> None:
        """Have the package manager fetch a bundle; it tells nothing on the way."""
        total = bundle.metadata.size_bytes
        on_bytes(0, total)
        try:
            await asyncio.to_thread(weights.locate, bundle, offline=self._offline)
        except weights.WeightsError as error:
            raise _download_failed(bundle.name, error) from error
        on_bytes(total, total)

    async def _copy_once(self, source: Path, on_bytes: OnBytes) -> Path:
        """Return the copy of a file; however often clients ask for it, there is one, so that the disk does not fill."""
        async with self._copying.setdefault(source, asyncio.Lock()):
            copied = self._copies.get(source)
            if copied is None:
                copied = self._copies[source] = await self._copy(source, on_bytes)
            else:
                size = copied.stat().st_size
                on_bytes(size, size)
            return copied

    async def _copy(self, source: Path, on_bytes: OnBytes) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="lmstudio-emulator-"))
        target = Path(tempfile.mkdtemp(dir=self._folder)) / source.name
        loop, stop = asyncio.get_running_loop(), threading.Event()

        def report(done: int, total: int) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(on_bytes, done, total)

        copying = asyncio.ensure_future(asyncio.to_thread(copy, source, target, report, stop))
        try:
            await asyncio.shield(copying)
        except BaseException:
            stop.set()
            await asyncio.wait([copying])
            shutil.rmtree(target.parent, ignore_errors=True)
            raise
        return target


def _download_failed(name: str, error: Exception) -> WireError:
    cause = without_directories(str(error))
    return WireError(f'The weights of "{name}" cannot be downloaded', cause=cause)


def copy(source: Path, target: Path, report: OnBytes, stop: threading.Event) -> None:
    """Copy a file, unless stopped, and tell after every chunk how far it is.

    Raises:
        OSError: If one is no regular file or cannot be read, or the other cannot be written.
    """
    source = source.expanduser()
    total, done = source.stat().st_size, 0
    with open_regular(source) as reader, target.open("wb") as writer:
        while not stop.is_set() and (chunk := reader.read(CHUNK)):
            writer.write(chunk)
            done += len(chunk)
            report(done, total)
