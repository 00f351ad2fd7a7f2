"""Where in the user's program a call came from, for warnings."""

import inspect

_PACKAGE = __name__.partition(".")[0]


def user_stacklevel() -> int:
    """Return the `stacklevel` with which a warning of the calling function points to the user's program."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    return level
