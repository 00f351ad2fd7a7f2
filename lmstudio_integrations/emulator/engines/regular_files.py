"""Opens only regular files: a model folder can contain a FIFO, a socket, a device or a dead symbolic link."""

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, without blocking as a FIFO would.

    Raises:
        OSError: If it is not a regular file, or cannot be read.
    """
    non_blocking = getattr(os, "O_NONBLOCK", 0)
    # Path.open takes no opener.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | non_blocking))  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(f"{path} is not a regular file")
