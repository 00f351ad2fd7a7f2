"""A disk that is full."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def limit_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function after which new files take so many bytes only."""
    real = Path.open

    def limit(size: int) -> None:
        class Limited(io.FileIO):
            def write(self, data: Any) -> int:
                room = size - self.tell()
                if room <= 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return super().write(data[:room])

        def opened(path: Path, mode: str = "r", *arguments: Any, **settings: Any) -> Any:
            return Limited(path, mode) if mode == "xb" else real(path, mode, *arguments, **settings)

        monkeypatch.setattr(Path, "open", opened)

    return limit
