"""How much memory the process of a model may take."""

import os
import sys
from pathlib import Path

from lmstudio_integrations.errors import LMStudioValueError

SHARE = 4
"""By default, one part in so many of the machine's memory is left to others."""

_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")


def memory_limit(asked: int | None) -> int:
    """Return the limit in bytes, 0 for none: what is asked for, else three quarters of the memory.

    Raises:
        LMStudioValueError: If what is asked for is none, or this system cannot keep a limit.
    """
    if asked is None:
        return 0 if sys.platform != "linux" else memory_of_machine() * (SHARE - 1) // SHARE
    if asked <= 0:
        raise LMStudioValueError(f"worker_memory is a number of bytes above 0, got {asked!r}")
    if sys.platform != "linux":
        raise LMStudioValueError("worker_memory can be kept on Linux only; leave it out on this system")
    return asked


def memory_of_machine() -> int:
    """Return the memory of this machine, or of the container, in bytes."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(_CONTROL_GROUP.read_text(encoding="ascii")))
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return whole
