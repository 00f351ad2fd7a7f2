"""Find the line of the user's program that made a call, for warnings."""

import inspect

_PACKAGE = __name__.partition(".")[0]


def user_stacklevel() -> int:
    """Return the `stacklevel` that makes a warning of the calling function point to the user's program."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    return level
