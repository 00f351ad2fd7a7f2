"""Warnings that show the line of the user's program."""

import inspect
import warnings

_FRAMEWORKS = (
    "langchain langchain_classic langchain_core langgraph langsmith llama_index llama_index_instrumentation workflows"
)
_RUNNERS = "asyncio concurrent contextlib contextvars threading"
_SKIPPED = {__name__.partition(".")[0], *_FRAMEWORKS.split(), *_RUNNERS.split()}
"""This package, the packages that call it, and those that run their calls."""


def warn_user(text: str, category: type[Warning]) -> None:
    """Warn at the line of the user's program that made the call.

    Where another thread or task makes it, the outermost line is shown.
    """
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_back is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package not in _SKIPPED:
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
