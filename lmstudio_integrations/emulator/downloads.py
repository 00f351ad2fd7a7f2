"""Downloads of models that are in the catalog with `downloaded = false`.

Bundled weights are fetched into the user's cache, where they stay. A GGUF file is already on this machine and is used
where it is. A scripted model has no weights.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from lmstudio_integrations.emulator import weights
from lmstudio_integrations.emulator.catalog import ModelEntry
from lmstudio_integrations.emulator.engines.errors import without_directories
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.regular_files import open_regular

STEPS = 10
"""Progress reports of the download of a file, besides the first one."""

OnBytes = Callable[[int, int], None]
"""Called with the bytes that are downloaded and the total."""


async def download(entry: ModelEntry, on_bytes: OnBytes, *, offline: bool = False) -> None:
    """Make sure that the weights of an entry can be loaded.

    Args:
        entry: A model of the catalog.
        on_bytes: Called with the progress.
        offline: Never fetch bundled weights.

    Raises:
        WireError: If that fails.
    """
    bundle = weights.BUNDLES.get(entry.weights or "")
    try:
        if not entry.needs_weights or entry.weights is None:
            on_bytes(0, 0)
        elif bundle is not None:
            # The package manager reports no progress.
            on_bytes(0, bundle.metadata.size_bytes)
            await asyncio.to_thread(weights.locate, bundle, offline=offline)
            on_bytes(bundle.metadata.size_bytes, bundle.metadata.size_bytes)
        else:
            size = _readable_size(Path(entry.weights))
            for step in range(STEPS + 1):
                on_bytes(size * step // STEPS, size)
                await asyncio.sleep(0)  # a client may cancel between two steps
    except (OSError, weights.WeightsError) as error:
        cause = without_directories(str(error))
        raise WireError(f'The weights of "{entry.key}" cannot be downloaded', cause=cause) from error


def _readable_size(path: Path) -> int:
    with open_regular(path.expanduser()) as file:
        return os.fstat(file.fileno()).st_size
