"""Short tracebacks: an error of this package ends where the user called it.

The frames below are flows, waiters and sockets, which say nothing to a user. The variable `LMSTUDIO_DEBUG` keeps them.
"""

import inspect
import os
import sys
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

from lmstudio_integrations._support.environment import DEBUG_VARIABLE
from lmstudio_integrations.errors import LMStudioConnectionLostError, LMStudioError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_PACKAGE = __name__.partition(".")[0]


class short_traceback:  # noqa: N801 - a context manager is named like a function
    """Leave out our frames below the block, and the cause, where the block raises an error of this package."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Begin the block."""

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
            if inspect.isfunction(member) and not name.startswith("_"):
                setattr(cls, name, with_short_traceback(member))


def with_short_traceback(function: FunctionT) -> FunctionT:
    """Decorate a function or a coroutine function: errors of this package that it raises have short tracebacks."""

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
    """Drop the frames of this package and of the standard library below the first one: others may be the user's.

    The cause becomes the context, which is not printed, unless the user's code has raised the error.
    """
    last = error.__traceback__
    raised_here = True
    while last is not None and (frame := last.tb_next) is not None:
        raised_here = _package_of(frame) == _PACKAGE
        if raised_here or _package_of(frame) in sys.stdlib_module_names:
            last.tb_next = frame.tb_next
        else:
            last = frame
    # The text of an error has what its cause says; that of a lost connection does not.
    if raised_here and not isinstance(error, LMStudioConnectionLostError):
        error.__context__ = error.__cause__ or error.__context__
        error.__cause__ = None


def _package_of(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
