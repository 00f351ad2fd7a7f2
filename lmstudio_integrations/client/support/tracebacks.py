"""Short tracebacks and warnings: of the frames of a call, users see their own.

An error of this package shows the code of others, and at most one frame of this package. Our frames are flows,
mailboxes and sockets, which say nothing to a user; those of the libraries that we call are ours as well. Frames of
others stay, such as those of a callback, and so does a cause that has some. All other exceptions, and every one with
the variable `LMSTUDIO_DEBUG`, keep what Python shows. A warning shows the line of the user's program.
"""

import inspect
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

from lmstudio_integrations._support.environment import DEBUG_VARIABLE
from lmstudio_integrations.errors import LMStudioConnectionLostError, LMStudioError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_PACKAGE = __name__.partition(".")[0]

_LIBRARIES = {*sys.stdlib_module_names, "jsonschema", "pydantic", "referencing", "websockets"}
"""Their frames belong to whoever called them."""


class short_traceback(AbstractContextManager[object, None]):  # noqa: N801 - a context manager is named like a function
    """Leave out our frames below the block, and our causes, of an error of this package."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LMStudioError) and not os.environ.get(DEBUG_VARIABLE):
            _shorten(error)


class ShortTracebacks:
    """A base of classes whose public methods raise errors with short tracebacks.

    Iterators use `short_traceback` themselves, because they raise after the method has returned.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__.partition(".")[0] != _PACKAGE:  # the frames of the user's methods are not ours to drop
            return
        for name, member in list(vars(cls).items()):
            if inspect.isfunction(member) and not name.startswith("_") and not inspect.isgeneratorfunction(member):
                setattr(cls, name, with_short_traceback(member))


def with_short_traceback(function: FunctionT) -> FunctionT:
    """Decorate a function or a coroutine function: what it raises has a short traceback."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with short_traceback():
            return function(*args, **kwargs)

    @wraps(function)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        with short_traceback():
            return await function(*args, **kwargs)

    return acall if inspect.iscoroutinefunction(function) else call  # type: ignore[return-value]


def _shorten(error: LMStudioError) -> None:
    """Drop our frames below the first one, and our causes, unless the code of others has raised the error."""
    frames = _frames(error)
    kept = [frame for index, (frame, is_ours) in enumerate(frames) if index == 0 or not is_ours]
    for frame, following in zip(kept, [*kept[1:], None], strict=True):
        frame.tb_next = following
    raised_here = frames[-1][1]
    if raised_here and not isinstance(error, LMStudioConnectionLostError):  # its text lacks what the cause says
        _hide_our_causes(error)


def _hide_our_causes(error: LMStudioError) -> None:
    """Show the nearest exception before this one that has frames of others. Of ours, only programs know."""
    shown = cause = error.__cause__ or error.__context__
    seen: list[BaseException] = [error]
    while shown is not None and all(is_ours for _, is_ours in _frames(shown)):
        seen.append(shown)
        shown = shown.__cause__ or shown.__context__
        if shown in seen:
            shown = None
    if shown is None or shown is not error.__cause__:
        error.__cause__, error.__context__ = None, shown or cause
        error.__suppress_context__ = shown is None


def _frames(error: BaseException) -> list[tuple[TracebackType, bool]]:
    """Return the frames of an exception's traceback, each with whether it is ours."""
    frames: list[tuple[TracebackType, bool]] = []
    trace, is_ours = error.__traceback__, False
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        is_ours = package == _PACKAGE or (is_ours and package in _LIBRARIES)
        frames.append((trace, is_ours))
        trace = trace.tb_next
    return frames


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
