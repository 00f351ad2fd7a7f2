"""Warnings that show the line of the user's program."""

import inspect
import os
import re
import sysconfig
import warnings
from traceback import walk_stack

_FRAMEWORKS = "langchain langchain_classic langchain_core langgraph langsmith llama_index llama_index_instrumentation"
_CALLERS = {__name__.partition(".")[0], *_FRAMEWORKS.split(), "workflows"}
"""This package, and the packages that call it."""

_PACKAGES = "(site|dist)-packages"
_OF_PYTHON = re.compile(
    "|".join(
        [
            "^<frozen ",
            *(f"^{re.escape(sysconfig.get_path(name) + os.sep)}(?!{_PACKAGES})" for name in ("stdlib", "scripts")),
        ]
    )
)
"""Files of Python itself, and the scripts that start installed programs."""


def warn_user(text: str, category: type[Warning]) -> None:
    """Warn at the line of the user's program that made the call."""
    *_, level = users_place()
    warnings.warn(text, category, stacklevel=level)


def users_place() -> tuple[str, int, int]:
    """Return the file and the line of the user's program that made the call, and its level above who asks.

    That is the innermost one outside of all installed packages. If there is none, because the program is installed, or
    another thread or task makes the call, it is the innermost one outside of the frameworks, or else the outermost.
    """
    # No frame is kept: a frame that refers to itself lives until the garbage is collected.
    stack = [
        (str(frame.f_globals.get("__name__")).partition(".")[0], frame.f_code.co_filename, line)
        for frame, line in walk_stack(inspect.currentframe())
        if not frame.f_code.co_filename.startswith("<frozen importlib._bootstrap")  # `warn` does not count them either
    ]
    others = [
        level
        for level, (package, file, _) in enumerate(stack)
        if package not in _CALLERS and not _OF_PYTHON.search(file)
    ]
    own = (level for level in others if not re.search(rf"[\\/]{_PACKAGES}[\\/]", stack[level][1]))
    level = next(own, others[0] if others else len(stack) - 1)
    return *stack[level][1:], level
