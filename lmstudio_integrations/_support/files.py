"""Checks the files that users name, before anything opens them."""

import errno
from pathlib import Path


def regular(path: Path) -> Path:
    """Return the path of a file, if it is one or can become one.

    Raises:
        OSError: If it is a pipe or a device, which may never end, or cannot be looked at.
        ValueError: If no file can have that path.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return path
    if not (path.is_file() or path.is_dir()):  # of a folder, the system's own error says more
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return path
