"""The memory of this machine, and the memory limit of a worker process."""

import os
import sys
from pathlib import Path

from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.errors import LMStudioValueError

SHARE = 4
"""By default, one part in so many of the machine's memory stays free."""

_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")


def memory_limit(requested: int | None) -> int:
    """Return the limit in bytes, 0 for none: the requested one, else three quarters of the memory.

    Raises:
        LMStudioValueError: If the requested limit is invalid, or this system does not support one.
    """
    if requested is None:
        return 0 if sys.platform != "linux" else memory_of_machine() * (SHARE - 1) // SHARE
    if not (is_count(requested) and requested):
        raise LMStudioValueError(f"worker_memory must be a number of bytes above 0; got {shown(requested)}")
    if sys.platform != "linux":
        raise LMStudioValueError("worker_memory is supported on Linux only; omit it on this system")
    return requested


def memory_of_machine() -> int:
    """Return the memory of this machine, or of the container, in bytes; 0 on Windows, which is not asked."""
    if sys.platform == "win32":
        return 0
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(_CONTROL_GROUP.read_text(encoding="ascii")))
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return whole
